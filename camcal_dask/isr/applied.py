"""Which calibrations a configuration of the ISR applies, how each is switched off, and in which unit it must be."""

from __future__ import annotations

from collections.abc import Iterable

from camcal_dask.config import apply_override
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.tables import needs

IMAGES = tuple(name for name in ("bias", "dark", "flat", "defects") if name in IsrConfig.model_fields)
"""Calibrations that are images; a switch of the configuration has the same name."""
GAINS = "ptc"
"""Table that gains and read noise are from, where they are not the camera model's."""
_OFF = {
    "ptc": "read_noise=empirical",
    "linearizer": "linearity=false",
    "crosstalk": "crosstalk.terms=none",
    "cti": "deferred_charge=false",
    "brighter_fatter": "brighter_fatter=none",
}
"""Setting that switches a table off."""


def is_known(name: str) -> bool:
    """Whether the ISR takes a calibration of this name; one that it does not know is used by its room alone."""
    return name in IMAGES or name in _OFF


def applied_by(config: IsrConfig) -> tuple[str, ...]:
    """Names of the calibrations that are taken: images that are switched on, and tables."""
    return (*(name for name in IMAGES if getattr(config, name)), *needs(config))


def divides_by_flat(config: IsrConfig) -> bool:
    """Whether exposures are divided by a flat: then they must be of its filter."""
    return config.flat


def n_planes(config: IsrConfig) -> int:
    """Planes of the images that are applied: each has an image, a variance and a mask, the defects a mask."""
    return 3 * sum((config.bias, config.dark, config.flat)) + config.defects


def expected_unit(config: IsrConfig, name: str) -> str | None:
    """Unit that an image must have to be applied; None: any."""
    return {"bias": config.units, "dark": f"{config.units}/s", "flat": "1", "defects": "1"}.get(name)


def without(config: IsrConfig, names: Iterable[str]) -> IsrConfig:
    """Return the configuration that does without some calibrations; without a source of gains, with nominal ones."""
    values = config.model_dump()
    for name in names:
        apply_override(values, _OFF.get(name, f"{name}=false"))
        if name == values["gains"]:
            values["gains"] = "nominal"
    return IsrConfig.model_validate(values)


def with_images(config: IsrConfig, names: Iterable[str], *, in_adu: bool) -> IsrConfig:
    """Return the configuration that applies some images, to exposures in their unit.

    In adu there are no quadratic crosstalk and no brighter-fatter correction.
    """
    values = config.model_dump() | {name: True for name in IMAGES if name in set(names)}
    if in_adu:
        values |= {"gains": "none", "brighter_fatter": "none"}
        if config.crosstalk.terms == "quadratic":
            values["crosstalk"] |= {"terms": "linear"}
    elif config.gains == "none":
        values["gains"] = "nominal"
    return IsrConfig.model_validate(values)

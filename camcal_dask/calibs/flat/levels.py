"""Levels of flats and the scales that follow from them (reference/construction.md 3.1, 3.2): pixels never move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import dask
import numpy as np
import xarray as xr
from dask.base import tokenize

from camcal_dask.calibs.flat.illumination import LIT_SIGMA
from camcal_dask.config import Config
from camcal_dask.errors import DataError, PlanError
from camcal_dask.instruments.focal_plane import vignette_planes
from camcal_dask.instruments.geometry import Detector
from camcal_dask.isr.corrected import CorrectedExposures, as_corrected
from camcal_dask.isr.graph import PIXEL_INDEX, objects, unwrap
from camcal_dask.kernels.light.flat_scale import Levels, measure_levels, solve_scales
from camcal_dask.kernels.pixels.masks import NO_DATA, bits
from camcal_dask.schema import AMP_DIMS, STATISTIC_DIMS


class LevelConfig(Config):
    """How the exposures of a flat are brought to one scale."""

    unit: Literal["detector", "amp"] = "detector"
    """What has one throughput in the model: a detector or an amp."""
    reject_mask: tuple[str, ...] = ("DETECTED", "BAD", "NO_DATA")
    """Planes that keep a pixel out of the level."""


class VignetteConfig(Config):
    """Planes of the vignetted region in the final flat."""

    enabled: bool = False
    radius_mm: float = 350.0
    """Beyond: no value, NO_DATA and VIGNETTED."""
    partial_radius_mm: float = 317.0
    """Beyond: PARTLY_VIGNETTED."""


def measure(exposures: CorrectedExposures | xr.Dataset, config: LevelConfig) -> Any:
    """Levels of all exposures of one detector: a delayed list of `Levels`.

    Parameters
    ----------
    exposures : CorrectedExposures
        From ``isr``, or a Dataset of them, of one detector.  The levels of the detector are those of all its amps, the
        levels of amps those of the amps that are selected.
    """
    corrected = as_corrected(exposures)
    if corrected.sizes["detector"] != 1:
        raise PlanError(
            f"levels: {corrected.sizes['detector']} detectors, expected one: select it by sel(detector=[..])"
        )
    blocks, reject = corrected.by_exposure(), bits(config.reject_mask)
    name = f"levels-{tokenize(blocks.name, reject, corrected.amps)}"
    levels = objects(_levels, "ed", blocks, PIXEL_INDEX, reject, None, corrected.amps, None, name=name)
    (levels,) = dask.optimize(levels)
    return dask.delayed(list)(levels.to_delayed()[:, 0].tolist())


def solve(
    levels: Mapping[int, Sequence[Levels]], exposures: Sequence[int], amps: Sequence[str], config: LevelConfig
) -> xr.Dataset:
    """Solve the table of levels of all detectors.

    Returns
    -------
    Dataset
        ``exposure_scale`` (exposure), ``throughput`` and ``residual`` of the model, and the levels
        and pixel counts of every (exposure, detector, amp).

    Raises
    ------
    DataError
        If an exposure has no usable level, or none that is significant, naming it.
    """
    ids = sorted(levels)
    table = [[levels[d][e] for d in ids] for e in range(len(exposures))]
    mean = np.array([[x.mean for x in row] for row in table])
    count = np.array([[x.n for x in row] for row in table])
    amp_mean = np.array([[x.amp_mean for x in row] for row in table])
    amp_count = np.array([[x.amp_n for x in row] for row in table])
    scales = solve_scales(mean, count) if config.unit == "detector" else solve_scales(amp_mean, amp_count)
    if not np.isfinite(scales.exposure_scale).all():
        dark = [e for e, s in zip(exposures, scales.exposure_scale, strict=True) if not np.isfinite(s)]
        raise DataError(f"flat: exposures {dark} have no level above 0; leave them out (-d)")
    _refuse_unlit(levels, exposures)
    unit = ("detector",) if config.unit == "detector" else AMP_DIMS
    return xr.Dataset(
        {
            "exposure_scale": ("exposure", scales.exposure_scale),
            "throughput": (unit, scales.unit_scale),
            "residual": (("exposure", *unit), scales.residual),
            "level": (("exposure", "detector"), mean),
            "n_pixel": (("exposure", "detector"), count),
            "amp_level": (STATISTIC_DIMS, amp_mean),
            "amp_n_pixel": (STATISTIC_DIMS, amp_count),
        },
        {"exposure": list(exposures), "detector": ids, "amp": list(amps)},
    )


def _refuse_unlit(levels: Mapping[int, Sequence[Levels]], exposures: Sequence[int]) -> None:
    """Refuse exposures whose level is within the scatter of the pixels of every amp: nothing can be divided by it."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.array([[x.amp_mean / x.amp_stdev for x in column] for column in levels.values()])
    known = np.where(np.isnan(ratio), -np.inf, ratio).max(axis=(0, 2))
    unlit = [e for e, best in zip(exposures, known, strict=True) if best < LIT_SIGMA]
    if unlit:
        raise DataError(
            f"flat: exposures {unlit} have no light: no amp has a level of {LIT_SIGMA:.0f} times the scatter of its "
            "pixels; leave them out (-d, or select.illumination=one)"
        )


def vignette(arrays: Mapping[str, np.ndarray], detector: Detector, config: VignetteConfig) -> dict[str, np.ndarray]:
    """Set the vignette planes of a combined flat; beyond the field its value is 0."""
    planes = vignette_planes(
        detector, arrays["image"].shape, radius_mm=config.radius_mm, partial_radius_mm=config.partial_radius_mm
    )
    return {
        **arrays,
        "image": np.where(planes & NO_DATA, np.float32(0), arrays["image"]),
        "mask": arrays["mask"] | planes,
    }


def _levels(block: Any, reject: int, amps: tuple[int, ...] | None) -> Levels:
    corrected = unwrap(block)
    found = measure_levels(corrected.image[0, 0], corrected.mask[0, 0], reject)
    if amps is None:
        return found
    chosen = list(amps)
    of_amps = {name: getattr(found, name)[chosen] for name in ("amp_mean", "amp_stdev", "amp_n")}
    return found._replace(**of_amps)

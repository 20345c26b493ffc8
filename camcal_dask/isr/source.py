"""Where raw pixels come from, and the checks of them before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from camcal_dask.errors import ConfigError, DataError, PlanError, nearest
from camcal_dask.instruments import get_instrument
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.memory import reuse_freed_memory
from camcal_dask.isr.raw import RawRows
from camcal_dask.isr.tables import Prepared, Tables, check_detectors, prepare
from camcal_dask.schema import EXPOSURE_DIMS


@dataclass(frozen=True)
class RawSource:
    """Where raw pixels come from: a lazy variable with the dims of `EXPOSURE_DIMS`, and what its axes stand for."""

    pixels: xr.Variable
    exposures: tuple[int, ...]
    detectors: tuple[int, ...]
    instrument: str
    config: IsrConfig
    tables: Mapping[int, Tables]
    dark_scales: tuple[float, ...]
    """Dark time of each exposure over that of the dark; empty without dark."""

    def prepared(self, detector: int) -> Prepared:
        """Tables of the detector at position ``detector``, as the steps want them."""
        number = self.detectors[detector]
        return prepare(get_instrument(self.instrument).detectors[number], self.tables[number], self.config)

    def read(self, exposure: int, detector: int, rows: slice, columns: slice) -> RawRows:
        """Read rows and columns of all amps, at positions (not ids) ``exposure`` and ``detector``."""
        reuse_freed_memory()
        values = np.ascontiguousarray(self.pixels[exposure, detector, :, rows, columns].to_numpy())
        ids = self.exposures[exposure], get_instrument(self.instrument).detectors[self.detectors[detector]]
        return RawRows(values, rows.start, columns.start, *ids)

    def read_all(self, exposure: int, detector: int) -> RawRows:
        """Read whole amps."""
        height, width = self.pixels.shape[-2:]
        return self.read(exposure, detector, slice(0, height), slice(0, width))

    def select(self, exposures: Sequence[int], detectors: Sequence[int]) -> RawSource:
        """Return some exposures and detectors, by position."""
        chosen = tuple(self.detectors[d] for d in detectors)
        return dataclasses.replace(
            self,
            pixels=self.pixels.isel(exposure=_slice(exposures), detector=_slice(detectors)),
            exposures=tuple(self.exposures[e] for e in exposures),
            detectors=chosen,
            tables={d: self.tables[d] for d in chosen},
            dark_scales=tuple(self.dark_scales[e] for e in exposures) if self.dark_scales else (),
        )

    @property
    def trimmed(self) -> tuple[int, int, int]:
        """(amp, y, x) of the result [pixel]."""
        return (self.pixels.shape[2], *get_instrument(self.instrument).trimmed_shape)


def _slice(positions: Sequence[int]) -> slice | list[int]:
    """Positions in a row as a slice, which copies nothing."""
    ordered = list(range(positions[0], positions[0] + len(positions)))
    return slice(ordered[0], ordered[-1] + 1) if list(positions) == ordered else list(positions)


def check_raw(raw: xr.DataArray) -> None:
    """Refuse raws that are not as ``Repo.raws`` returns them."""
    if raw.dims != EXPOSURE_DIMS:
        raise PlanError(f"isr: raw has dims {raw.dims}, expected {EXPOSURE_DIMS}")
    if raw.chunks is not None:
        raise PlanError(
            "isr: raw is already chunked; pass it as Repo.raws returns it, because isr chooses the blocks itself"
        )
    if "instrument" not in raw.attrs:
        raise PlanError("isr: raw has no attribute 'instrument'")
    room = get_instrument(raw.attrs["instrument"]).raw_shape[1:]
    if raw.shape[2:] != room:
        raise PlanError(
            f"isr: raw has amps of (amp, y, x) = {raw.shape[2:]}, {raw.attrs['instrument']} has {room}; "
            "select exposures and detectors only"
        )
    if 0 in raw.shape[:2]:
        raise PlanError(f"isr: nothing selected, raw has {raw.shape[0]} exposures and {raw.shape[1]} detectors")


def check_names(config: IsrConfig, instrument: str) -> None:
    """Refuse settings of amps that the camera does not have."""
    camera = get_instrument(instrument)
    if not (config.bad_amps or config.saturation.saturated_adu or config.saturation.suspect_adu):
        return
    amps = {f"{d.full_name}_{amp.name}" for d in camera.detectors.values() for amp in d.amps}
    levels = {*config.saturation.saturated_adu, *config.saturation.suspect_adu} - {"*", *camera.amp_names}
    for option, names in (("bad_amps", set(config.bad_amps)), ("saturation", levels)):
        for name in sorted(names - amps):
            raise ConfigError(f"isr.{option}: {instrument} has no amp {name!r}{nearest(name, amps)}")


def plane_variables(config: IsrConfig) -> dict[str, tuple[str, ...]]:
    """Variables of the calibrations applied that are images."""
    images = {name: ("image", "variance", "mask") for name in ("bias", "dark", "flat") if getattr(config, name)}
    return images | ({"defects": ("mask",)} if config.defects else {})


def select_planes(raw: xr.DataArray, calibs: Mapping[str, xr.Dataset], config: IsrConfig) -> dict[str, xr.Dataset]:
    """Check the calibrations that are images; return their variables for the detectors of ``raw``.

    All are (detector, amp, y, x):

    - ``bias``, ``dark``: image, variance, mask; ``attrs["units"]`` that of the result; the dark also
      ``attrs["dark_time_s"]``.
    - ``flat``: image, variance, mask; ``attrs["units"]`` "1".
    - ``defects``: mask (or defects) int32, any bit is a defect.
    """
    camera = get_instrument(raw.attrs["instrument"])
    found, want = {}, (raw.sizes["detector"], raw.sizes["amp"], *camera.trimmed_shape)
    for name, variables in plane_variables(config).items():
        calibration = _checked_image(name, calibs, config)
        check_detectors(name, calibration, raw["detector"].values.tolist())
        chosen = calibration[list(variables)].sel(detector=raw["detector"].values)
        shape = chosen[variables[0]].shape
        if shape != want:
            raise ConfigError(f"the {name} has (detector, amp, y, x) = {shape}, expected {want}")
        found[name] = chosen
    return found


def _checked_image(name: str, calibs: Mapping[str, xr.Dataset], config: IsrConfig) -> xr.Dataset:
    if name not in calibs:
        raise ConfigError(
            f"isr.{name} is on, but no {name} was given: pass calibs={{{name!r}: ...}} or set isr.{name}=false"
        )
    calibration = calibs[name]
    if name == "defects":
        return calibration.rename(defects="mask") if "mask" not in calibration else calibration
    units = calibration["image"].attrs.get("units", calibration.attrs.get("units"))
    if name == "flat" and units != "1":
        raise ConfigError(
            f"the flat is in {units}, expected a normalised flat in units of 1; make it again, normalised"
        )
    wanted = f"{config.units}/s" if name == "dark" else config.units
    if name != "flat" and units not in (wanted, config.units):
        raise ConfigError(
            f"the {name} is in {units}, the exposures are corrected to {config.units} (isr.gains={config.gains}); "
            f"use a {name} in {config.units} or isr.gains={'nominal' if units == 'electron' else 'none'}"
        )
    return calibration


def dark_scales(raw: xr.DataArray, calibs: Mapping[str, xr.Dataset], config: IsrConfig) -> tuple[float, ...]:
    """Dark time of each exposure over that of the dark; empty without dark."""
    if not config.dark:
        return ()
    master = _checked_image("dark", calibs, config).attrs.get("dark_time_s")
    if master is None or not master > 0:
        raise ConfigError(
            f"the dark has attrs['dark_time_s'] = {master}, expected a time in seconds > 0; make it again"
        )
    if "dark_time" not in raw.coords:
        raise PlanError("isr: raw has no coordinate 'dark_time', which isr.dark needs")
    times = dict(zip(raw["exposure"].values.tolist(), raw["dark_time"].values.tolist(), strict=True))
    for exposure, time in times.items():
        if not np.isfinite(time):
            raise DataError(
                f"exposure {exposure}: its dark time is {time} s, so the dark cannot be scaled to it; "
                "leave the exposure out (-d) or set isr.dark=false"
            )
    return tuple(time / float(master) for time in times.values())

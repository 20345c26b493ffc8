"""Calibrations that are small tables (gains, crosstalk, linearity, deferred charge): read, checked, prepared.

`select_tables` runs while the graph is built and refuses what does not fit; `prepare` turns the tables
of one detector into what the kernels need, once per worker.  Their variables are (detector, amp) unless said otherwise:

- ``ptc``: gain [electron / adu], noise [electron], turnoff [adu]; overscan_median_level, overscan_median_sigma [adu].
- ``gain_correction``: adjustment [1].
- ``crosstalk``: linear (detector, source, target), optionally quadratic, valid, fit_gain (detector, amp);
  ``attrs["units"]`` adu or electron, of the signal.
- ``linearizer``: type, coefficients (.., coefficient), optionally table (detector, row, column), input_gain,
  input_turnoff; ``attrs["units"]`` adu or electron.
- ``cti``: drift_scale, decay_time, global_cti, trap_kind, trap_size, trap_emission_time,
  trap_coefficients (.., coefficient), optionally input_gain; ``attrs["units"]`` electron.
- ``brighter_fatter``: aN, aS, aE, aW (detector, i, j), or kernel (detector, y, x).
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask.errors import ConfigError
from camcal_dask.instruments.geometry import Amp, Detector
from camcal_dask.isr.config import IsrConfig
from camcal_dask.kernels.charge import brighter_fatter, cti
from camcal_dask.kernels.linearity import correct as linearity
from camcal_dask.kernels.readout import crosstalk

Floats = NDArray[np.float64]


class Need(NamedTuple):
    """A table that a configuration asks for: who asks, its variables, and the units it may have (any if empty)."""

    option: str
    variables: tuple[str, ...]
    units: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Tables:
    """Tables of one detector: values by calibration and variable, without the detector axis; units by calibration."""

    values: Mapping[str, Mapping[str, NDArray[Any]]]
    units: Mapping[str, str]

    def get(self, calibration: str, variable: str) -> NDArray[Any] | None:
        """Return a variable, or None if it was not given."""
        return self.values.get(calibration, {}).get(variable)


NO_TABLES = Tables({}, {})


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the steps of one detector need; arrays (n_amp,) float64 of the detector's own amps.

    ``gain`` [image unit / adu], ``to_electron`` [electron / image unit], ``read_noise`` [electron] (NaN: not
    known), ``saturated``, ``suspect`` [adu] (inf: none), ``bad`` bool: amps that are BAD from the outset.
    """

    gain: Floats
    to_electron: Floats
    read_noise: Floats
    saturated: Floats
    suspect: Floats
    bad: NDArray[np.bool_]
    overscan_level: Floats
    overscan_sigma: Floats
    couplings: crosstalk.Couplings | None
    linearity: linearity.Linearity | None
    deferred_charge: cti.DeferredCharge | None
    shifts: brighter_fatter.BoundaryShifts | None
    kernel: Floats | None
    """Brighter-fatter: boundary shifts (Astier), or the kernel (Coulton)."""

    @property
    def plain(self) -> bool:
        """Whether only overscans and gains act on the pixels."""
        steps = (self.couplings, self.linearity, self.deferred_charge)
        levels = np.isfinite(self.saturated).any() or np.isfinite(self.suspect).any()
        return all(step is None for step in steps) and not (levels or self.bad.any())


def needs(config: IsrConfig) -> dict[str, Need]:
    """Return the tables that a configuration asks for, by name of the calibration."""
    found = _needs_of_gains(config)
    if config.gain_correction:
        found["gain_correction"] = Need("gain_correction", ("adjustment",))
    if config.crosstalk.terms != "none":
        found["crosstalk"] = Need("crosstalk.terms", ("linear",), ("adu", "electron"))
    if config.deferred_charge:
        names = ("drift_scale", "decay_time", "global_cti", "trap_kind", "trap_size", "trap_emission_time")
        found["cti"] = Need("deferred_charge", (*names, "trap_coefficients"), ("electron",))
    if config.brighter_fatter != "none":
        astier = config.brighter_fatter == "astier23"
        found["brighter_fatter"] = Need("brighter_fatter", ("aN", "aS", "aE", "aW") if astier else ("kernel",))
    return found


def _needs_of_gains(config: IsrConfig) -> dict[str, Need]:
    turnoff = "turnoff" in (config.saturation.saturated, config.saturation.suspect)
    by_ptc, by_linearizer = config.gains == "ptc", config.gains == "linearizer"
    ptc = {
        "gain": by_ptc,
        "turnoff": by_ptc and turnoff,
        "noise": config.read_noise == "ptc",
        "overscan_median_level": config.overscan_level_threshold < np.inf,
        "overscan_median_sigma": config.overscan_level_threshold < np.inf,
    }
    linearizer = {
        "input_gain": by_linearizer,
        "input_turnoff": by_linearizer and turnoff,
        "type": config.linearity,
        "coefficients": config.linearity,
    }
    found: dict[str, Need] = {}
    if any(ptc.values()):
        option = "gains=ptc" if by_ptc else "read_noise=ptc" if ptc["noise"] else "overscan_level_threshold"
        found["ptc"] = Need(option, tuple(name for name, wanted in ptc.items() if wanted))
    if any(linearizer.values()):
        option = "linearity" if config.linearity else "gains=linearizer"
        names = tuple(name for name, wanted in linearizer.items() if wanted)
        found["linearizer"] = Need(option, names, ("adu", "electron"))
    return found


_OPTIONAL = {
    "ptc": ("gain", "noise"),
    "linearizer": ("table", "input_gain"),
    "crosstalk": ("quadratic", "valid", "fit_gain"),
    "cti": ("input_gain",),
}


def select_tables(
    calibs: Mapping[str, xr.Dataset], detectors: Sequence[int], config: IsrConfig, option_of: str = "isr"
) -> dict[int, Tables]:
    """Read and check the tables that the configuration asks for.

    Raises
    ------
    ConfigError
        If one is missing, lacks a variable or a detector, or is in an impossible unit.
    """
    wanted = needs(config)
    chosen: dict[str, xr.Dataset] = {}
    for name, need in wanted.items():
        if name not in calibs:
            raise ConfigError(
                f"{option_of}.{need.option} is on, but no {name} was given: pass calibs={{{name!r}: ...}} "
                f"or switch it off"
            )
        table = calibs[name]
        lacking = [v for v in need.variables if v not in table]
        if lacking:
            raise ConfigError(
                f"the {name} has no variable {', '.join(lacking)}, which {option_of}.{need.option} needs; "
                f"it has {', '.join(map(str, table.data_vars)) or 'none'}"
            )
        units = table.attrs.get("units")
        if need.units and units not in need.units:
            raise ConfigError(f"the {name} is in {units}, expected attrs['units'] to be {' or '.join(need.units)}")
        check_detectors(name, table, detectors)
        names = [*need.variables, *(v for v in _OPTIONAL.get(name, ()) if v in table and v not in need.variables)]
        chosen[name] = table[names].sel(detector=list(detectors)).load()
    units_of = {name: str(table.attrs.get("units", "")) for name, table in chosen.items()}
    return {
        d: Tables(
            {n: {str(v): t[v].isel(detector=i).to_numpy() for v in t.data_vars} for n, t in chosen.items()}, units_of
        )
        for i, d in enumerate(detectors)
    }


def check_detectors(name: str, calibration: xr.Dataset, detectors: Sequence[int]) -> None:
    """Refuse a calibration that lacks a detector."""
    there = calibration["detector"].values.tolist() if "detector" in calibration.coords else []
    missing = sorted(set(detectors) - set(there))
    if missing:
        names = ", ".join(map(str, missing))
        raise ConfigError(f"the {name} has no detector {names}; leave these out or build it for them")


@functools.lru_cache(maxsize=32)
def _prepare_once(detector: Detector, tables: Tables, settings: bytes) -> Prepared:
    return _prepare(detector, tables, pickle.loads(settings))


def prepare(detector: Detector, tables: Tables, config: IsrConfig) -> Prepared:
    """Return what the kernels need; the last detectors of a process are remembered."""
    return _prepare_once(detector, tables, pickle.dumps(config))  # a configuration with dicts has no hash


def _prepare(detector: Detector, tables: Tables, config: IsrConfig) -> Prepared:
    amps, n = detector.amps, len(detector.amps)
    gain = _gains(detector, tables, config)
    bad = ~(np.isfinite(gain) & (gain > 0))
    bad |= np.array([_names(detector, amp)[0] in config.bad_amps for amp in amps])
    to_electron = np.ones(n) if config.units == "electron" else _electron_per_adu(detector, tables)
    noise = tables.get("ptc", "noise")
    level, sigma = (tables.get("ptc", v) for v in ("overscan_median_level", "overscan_median_sigma"))
    return Prepared(
        gain=gain,
        to_electron=to_electron,
        read_noise=np.full(n, np.nan) if noise is None else _amp(noise, n),
        saturated=_levels(detector, tables, config, "saturated"),
        suspect=_levels(detector, tables, config, "suspect"),
        bad=bad,
        overscan_level=np.full(n, np.nan) if level is None else _amp(level, n),
        overscan_sigma=np.full(n, np.nan) if sigma is None else _amp(sigma, n),
        couplings=_couplings(detector, tables, config, gain, bad) if config.crosstalk.terms != "none" else None,
        linearity=_linearity(detector, tables, config, gain) if config.linearity else None,
        deferred_charge=_deferred_charge(detector, tables, config, n) if config.deferred_charge else None,
        shifts=_shifts(tables) if config.brighter_fatter == "astier23" else None,
        kernel=tables.get("brighter_fatter", "kernel"),
    )


def _amp(values: NDArray[Any], n: int) -> Floats:
    return np.asarray(values, np.float64)[:n]


def _names(detector: Detector, amp: Amp) -> tuple[str, ...]:
    """Names of an amp in settings, the most special first."""
    return f"{detector.full_name}_{amp.name}", amp.name, "*"


def _gains(detector: Detector, tables: Tables, config: IsrConfig) -> Floats:
    """Gain applied to each amp [image unit / adu]."""
    n = len(detector.amps)
    if config.gains == "none":
        return np.ones(n)
    source = {"ptc": ("ptc", "gain"), "linearizer": ("linearizer", "input_gain")}.get(config.gains)
    values = None if source is None else tables.get(*source)
    gain = np.array([a.gain for a in detector.amps]) if values is None else _amp(values, n)
    adjustment = tables.get("gain_correction", "adjustment")
    return gain if adjustment is None else gain * _amp(adjustment, n)


def _electron_per_adu(detector: Detector, tables: Tables, *sources: tuple[str, str]) -> Floats:
    """Gains for a conversion in bootstrap: of the calibration itself, of the ptc, else of the camera model."""
    n = len(detector.amps)
    for source in (*sources, ("ptc", "gain")):
        values = tables.get(*source)
        if values is not None and np.nan_to_num(values[:n]).any():
            return crosstalk.usable_gains(values[:n])
    return np.array([a.gain for a in detector.amps])


def _levels(detector: Detector, tables: Tables, config: IsrConfig, plane: str) -> Floats:
    """Level of a plane per amp [adu], inf where none."""
    settings, n = config.saturation, len(detector.amps)
    source, single = getattr(settings, plane), getattr(settings, f"{plane}_adu")
    levels = np.full(n, np.inf)
    if source == "camera":
        levels = np.array([a.saturation for a in detector.amps])
    elif source == "turnoff":
        calibration, variable = ("ptc", "turnoff") if config.gains == "ptc" else ("linearizer", "input_turnoff")
        levels = _amp(tables.values[calibration][variable], n).copy()
    for amp in detector.amps:
        for name in reversed(_names(detector, amp)):
            levels[amp.index] = single.get(name, levels[amp.index])
    return np.where(np.isnan(levels), np.inf, levels)


def _couplings(
    detector: Detector, tables: Tables, config: IsrConfig, gain: Floats, bad: NDArray[np.bool_]
) -> crosstalk.Couplings:
    """Crosstalk in the unit of the image; ``scale`` is calibration unit per image unit."""
    n = len(detector.amps)
    values = {name: v[:n, :n] for name, v in tables.values["crosstalk"].items() if v.ndim == 2}
    scale = None
    if tables.units["crosstalk"] != config.units:
        if config.units == "adu":
            scale = _electron_per_adu(detector, tables, ("crosstalk", "fit_gain"))
        else:
            scale = 1 / crosstalk.usable_gains(gain)
    quadratic = values.get("quadratic") if config.crosstalk.terms == "quadratic" else None
    return crosstalk.make_couplings(values["linear"], quadratic, valid=values.get("valid"), bad_amps=bad, scale=scale)


def _linearity(detector: Detector, tables: Tables, config: IsrConfig, gain: Floats) -> linearity.Linearity:
    """Linearity in the unit of the image; ``scale`` is image unit per calibration unit."""
    values, n = tables.values["linearizer"], len(detector.amps)
    scale: Floats | None = None
    if tables.units["linearizer"] == "adu" and config.units == "electron":
        scale = gain
    elif tables.units["linearizer"] == "electron" and config.units == "adu":
        scale = 1 / _electron_per_adu(detector, tables, ("linearizer", "input_gain"))
    types = [str(t) if isinstance(t, str) else linearity.TYPES[int(t)] for t in values["type"][:n].tolist()]
    names = [amp.name for amp in detector.amps]
    return linearity.make_linearity(
        types, values["coefficients"][:n], table=values.get("table"), scale=scale, names=names
    )


def _deferred_charge(detector: Detector, tables: Tables, config: IsrConfig, n: int) -> cti.DeferredCharge:
    values = tables.values["cti"]
    columns = (values[name][:n] for name in ("trap_size", "trap_emission_time", "trap_kind", "trap_coefficients"))
    traps = [_trap(*row) for row in zip(*columns, strict=True)]
    gain = None if config.units == "electron" else _electron_per_adu(detector, tables, ("cti", "input_gain"))
    drift, decay, lost = (_amp(values[name], n) for name in ("drift_scale", "decay_time", "global_cti"))
    return cti.make_deferred_charge(drift, decay, lost, traps, gain=gain)


def _trap(size: Any, time: Any, kind: Any, coefficients: NDArray[Any]) -> cti.Trap:
    """One amp's trap; products hold the kind as a number, and pad coefficients with NaN at the end."""
    name = cti.TRAP_KINDS[int(kind)] if np.issubdtype(type(kind), np.integer) else str(kind)
    finite = np.flatnonzero(np.isfinite(coefficients))
    used = coefficients[: finite[-1] + 1] if finite.size else coefficients[:0]
    return cti.Trap(float(size), float(time), name, tuple(float(c) for c in used))  # type: ignore[arg-type]


def _shifts(tables: Tables) -> brighter_fatter.BoundaryShifts:
    values = tables.values["brighter_fatter"]
    return brighter_fatter.BoundaryShifts(*(np.asarray(values[k], np.float64) for k in ("aN", "aS", "aE", "aW")))

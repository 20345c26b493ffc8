"""The flats of one detector as the linearizer wants them, from the table of its PTC."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask.calibs.linearizer.config import LinearityConfig
from camcal_dask.errors import ConfigError, DataError
from camcal_dask.kernels.arrays import BoolArray, FloatArray, IntArray
from camcal_dask.kernels.linearity.fit import Range, find_groups, linear_range
from camcal_dask.kernels.linearity.spline import Ramp


@dataclass(frozen=True, eq=False)
class Flats:
    """Flats of a detector: (flat,) one a pair, or one an exposure (1 and 2 of each pair in turn).

    ``abscissa`` [s or C] after normalisation, ``normalization`` the factor in it, ``group`` (-1 none), ``time`` [d],
    ``temperature``; (amp, flat): ``ordinate`` [adu], ``used`` by the PTC, ``usable`` those that it used or that lie
    above its turnoff; (amp,): ``names``, ``gain``, ``noise`` [electron], ``ptc_turnoff`` [adu], ``bad``.
    """

    detector: int
    exposure: IntArray
    abscissa: FloatArray
    normalization: FloatArray
    group: IntArray
    time: FloatArray
    temperature: FloatArray
    ordinate: FloatArray
    used: BoolArray
    usable: BoolArray
    gain: FloatArray
    noise: FloatArray
    ptc_turnoff: FloatArray
    bad: BoolArray
    names: tuple[str, ...]

    def only(self, good: BoolArray) -> Flats:
        """The same flats, of which only these (amp, flat) can be used."""
        return replace(self, used=self.used & good, usable=self.usable & good)

    def linear(self, amp: int, linear: Range) -> BoolArray:
        """(flat,) usable ones up to the linearity turnoff: what a fit begins with."""
        return np.asarray(self.usable[amp] & (self.ordinate[amp] <= linear.turnoff))

    def ramp(self, amp: int) -> Ramp:
        """One amp for the spline fit."""
        return Ramp(self.abscissa, self.ordinate[amp], self.group, self.temperature, self.time)


def read_flats(ptc: xr.Dataset, detector: int, config: LinearityConfig, normalization: xr.DataArray | None) -> Flats:
    """Take the flats of a detector out of its PTC.

    Parameters
    ----------
    ptc : Dataset
        Solved PTC; dims pair, detector, amp in any order.
    normalization : DataArray, optional
        (exposure,) factors on the abscissa, labelled with exposure ids; exposures it lacks keep theirs.

    Raises
    ------
    ConfigError
        If the PTC lacks an auxiliary value that the settings name.
    DataError
        If there are too few pairs to group by it.
    """
    table = ptc.sel(detector=detector)
    mean, delta = _amps(table, "raw_mean"), _amps(table, "raw_delta")
    used = _amps(table, "used").astype(bool)
    charge = config.abscissa == "photodiode"
    x = _pairs(table, "photo_charge" if charge else "exposure_time")
    first, second = _pairs(table, "exposure_1").astype(np.int64), _pairs(table, "exposure_2").astype(np.int64)
    time, temperature = _centred(table, "mjd"), np.zeros(len(x))
    if config.spline.temperature and config.type == "Spline":
        temperature = _centred(table, f"aux_{config.spline.temperature}")
    gain = _per_amp(table, "gain")
    group = _groups(table, config, np.nanmean(mean * gain[:, None], axis=0), x)
    if config.single_exposures:
        x_delta = _pairs(table, "photo_charge_delta") if charge else np.zeros(len(x))
        x, mean = _single(x, np.nan_to_num(x_delta)), _single(mean, delta)
        used, time, temperature, group = (np.repeat(v, 2, axis=-1) for v in (used, time, temperature, group))
        first = np.stack([first, second], axis=-1).ravel()
    factor = np.ones(len(x)) if normalization is None else _factors(normalization, first)
    turnoff = _per_amp(table, "turnoff")
    there = np.isfinite(mean) & np.isfinite(x) & (x > 0) & (group >= 0)
    if charge:
        there = there & (x >= config.min_photodiode_charge)
    usable = (used | (mean > turnoff[:, None])) & there
    bad = _per_amp(table, "bad").astype(bool) | ~np.isfinite(turnoff)
    return Flats(
        detector, first, x * factor, factor, group, time, temperature, np.nan_to_num(mean), used & there, usable,
        gain, _per_amp(table, "noise"), turnoff, bad, tuple(map(str, table["amp"].values.tolist())),
    )  # fmt: skip


def linear_ranges(flats: Flats, config: LinearityConfig) -> list[Range]:
    """Linear range of every amp."""
    double = config.type == "DoubleSpline"
    return [
        linear_range(
            flats.abscissa,
            flats.ordinate[amp],
            flats.used[amp],
            flats.group,
            min_signal=config.turnoff.min_signal,
            max_residual=config.turnoff.max_residual,
            max_turnoff=config.turnoff.ptc_factor * flats.ptc_turnoff[amp] if double else np.inf,
        )
        for amp in range(len(flats.bad))
    ]


def _single(mean: FloatArray, delta: FloatArray) -> FloatArray:
    """(.., pair) mean and second minus first -> (.., 2 pair), first and second in turn."""
    both = np.stack([mean - delta / 2, mean + delta / 2], axis=-1)
    return both.reshape(*mean.shape[:-1], -1)


def _groups(table: xr.Dataset, config: LinearityConfig, signal: FloatArray, x: FloatArray) -> IntArray:
    """(pair,) groups of illumination."""
    if config.grouping == "none":
        return np.zeros(len(x), np.int64)
    if config.grouping == "auto":
        return find_groups(signal, x)
    values = _variable(table, f"aux_{config.grouping}").values
    if len(values) < config.min_flats_to_group:
        raise DataError(
            f"detector {int(table['detector'])}: {len(values)} flat pairs are too few to group by {config.grouping} "
            f"(linearity.min_flats_to_group={config.min_flats_to_group}); take grouping=auto or none"
        )
    return np.asarray(np.unique(values, return_inverse=True)[1], np.int64)


def _factors(normalization: xr.DataArray, exposure: IntArray) -> FloatArray:
    known = dict(zip(normalization["exposure"].values.tolist(), normalization.values.tolist(), strict=True))
    return np.array([known.get(e, 1.0) for e in exposure.tolist()])


def _centred(table: xr.Dataset, name: str) -> FloatArray:
    """(pair,) values about their median; 0 where not known."""
    values = _pairs(table, name)
    known = np.isfinite(values)
    return np.where(known, values - np.median(values[known]), 0.0) if known.any() else np.zeros(len(values))


def _variable(table: xr.Dataset, name: str) -> xr.DataArray:
    if name not in table.variables:
        auxiliary = sorted(str(v) for v in table.variables if str(v).startswith("aux_"))
        raise ConfigError(f"the PTC has no {name}; its auxiliary values are {', '.join(auxiliary) or 'none'}")
    return table[name]


def _amps(table: xr.Dataset, name: str) -> NDArray[Any]:
    return np.asarray(_variable(table, name).transpose("amp", "pair").values)


def _per_amp(table: xr.Dataset, name: str) -> NDArray[Any]:
    return np.asarray(_variable(table, name).values)


def _pairs(table: xr.Dataset, name: str) -> FloatArray:
    return np.asarray(_variable(table, name).values, np.float64)

"""Departure of a signal from proportionality to light (reference/verification.md 3.16)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from camcal_dask.kernels.arrays import BoolArray, FloatArray

LINEAR_RANGE = (1e3, 9e4)
"""Signals [electron] in which an amp shall be linear to 2 % (CCD-009)."""
TURNOFF_RESIDUAL = 0.05
_LIT = 0.1
"""An amp with less of the light of the others is dead."""
_SAME = 1e-6
"""Relative difference of two signals that are the same but for rounding."""


def ends_early(turnoff: FloatArray, brightest: FloatArray) -> BoolArray:
    """Whether a turnoff is only where the ramp ends, below `LINEAR_RANGE`, and so says nothing of the amp.

    An amp that sees no light, or a tenth of what the others see, has no such excuse.

    Parameters
    ----------
    turnoff : (.., amp) [electron], NaN for an amp without
    brightest : (.., amp) [electron], signal of the brightest flat
    """
    known = np.isfinite(turnoff)
    others = np.nanmedian(np.where(known.any(axis=-1, keepdims=True), turnoff, 0.0), axis=-1, keepdims=True)
    lit = known & (turnoff > LINEAR_RANGE[0]) & (turnoff > _LIT * others)
    return np.asarray(lit & (turnoff >= brightest * (1 - _SAME)) & (turnoff <= LINEAR_RANGE[1]))


class Proportionality(NamedTuple):
    """Largest departure in `LINEAR_RANGE`, rms there, largest signal [electron] within `TURNOFF_RESIDUAL`."""

    worst: float
    rms: float
    turnoff: float


def proportionality(signal: FloatArray, flux: FloatArray) -> Proportionality:
    """Fit a line through the origin to one amp and say how far the signal departs from it.

    Parameters
    ----------
    signal : (point,) [electron]
    flux : (point,), any unit (photodiode charge, exposure time); points that are not positive are left out

    Returns
    -------
    Proportionality
        With N = a F, weights 1 / N: a = sum F / sum(F^2 / N) in range, departure (N - a F) / N.  NaN without three
        points in range.
    """
    good = np.isfinite(signal) & np.isfinite(flux) & (signal > 0) & (flux > 0)
    n, f = signal[good], flux[good]
    inside = (n > LINEAR_RANGE[0]) & (n < LINEAR_RANGE[1])
    if np.count_nonzero(inside) < 3:
        return Proportionality(np.nan, np.nan, np.nan)
    slope = np.sum(f[inside]) / np.sum(f[inside] ** 2 / n[inside])
    departure = np.abs(n - slope * f) / n
    rms = np.sqrt(np.mean(departure[inside] ** 2))
    within = np.max(n, initial=0.0, where=departure < TURNOFF_RESIDUAL)
    return Proportionality(float(departure[inside].max()), float(rms), float(within) if within > 0 else np.nan)

"""Departure of a signal from proportionality to light (reference/verification.md 3.16)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
LINEAR_RANGE = (1e3, 9e4)
"""Signals [electron] in which an amp shall be linear to 2 % (CCD-009)."""
TURNOFF_RESIDUAL = 0.05


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

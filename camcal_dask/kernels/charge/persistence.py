"""Persistence: the decay of darks after a bright flat (reference/verification.md 3.20)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from camcal_dask.kernels.arrays import FloatArray

_TAUS = 200


class Persistence(NamedTuple):
    """Excess of the first dark [u] and time in which it falls to 1/e [s], one of each series."""

    amplitude: FloatArray
    decay_s: FloatArray


def persistence(level: FloatArray, seconds: FloatArray, n_last: int = 3) -> Persistence:
    """Excess of the first dark over the last ones, and how fast it decays.

    Parameters
    ----------
    level : (exposure, series) float64 [u]
        Clipped mean of each dark; NaN is left out of the decay.
    seconds : (exposure,) float64 [s]
        Time of each dark, ascending.
    n_last : int
        Darks whose mean is the level without persistence.

    Returns
    -------
    Persistence
        ``amplitude`` first - mean of the last; ``decay_s`` of the exponential A exp(-t / tau) + c that fits best, NaN
        with fewer than four darks or without excess.  Values of tau from the shortest interval to the whole time.
    """
    amplitude = level[0] - level[-n_last:].mean(axis=0)
    n = len(seconds)
    if n < 4:
        return Persistence(amplitude, np.full(level.shape[1], np.nan))
    time = seconds - seconds[0]
    taus = np.geomspace(0.3 * np.diff(time).min(), 3 * time[-1], _TAUS)
    shapes = np.exp(-time[:, None] / taus)
    weight = np.isfinite(level).astype(np.float64)
    values = np.where(weight > 0, level, 0.0)
    count = weight.sum(axis=0)
    sum_s, sum_ss = shapes.T @ weight, (shapes**2).T @ weight
    sum_v, sum_sv = values.sum(axis=0), shapes.T @ values
    with np.errstate(invalid="ignore", divide="ignore"):
        # least squares in A and c for each tau: the sum of squares falls by covariance^2 / variance
        covariance = sum_sv - sum_s * sum_v / count
        gain = np.where(covariance > 0, covariance**2 / (sum_ss - sum_s**2 / count), -np.inf)
    best = gain.argmax(axis=0)
    known = np.isfinite(gain.max(axis=0)) & (count >= 4)
    return Persistence(amplitude, np.where(known, taus[best], np.nan))

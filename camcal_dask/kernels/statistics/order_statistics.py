"""Quantiles, clipped and unclipped moments of one set of values from one sort (reference/verification.md 0.3-0.5).

The clipped mean is that of :mod:`camcal_dask.kernels.statistics.moments`, with the same selections; sorted values let
its windows be slices.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from camcal_dask.kernels.arrays import FloatArray, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.statistics.moments import IQR_TO_SIGMA, _quantiles


class SortedMoments(NamedTuple):
    """Statistics of one set of values, all from one sort; NaN where undefined.

    ``q`` (k,) quantiles; ``total`` and ``square`` sums of the deviation from the median and of its square over all
    values; ``clip_mean``, ``clip_stdev``, ``n_clipped`` of the clipped family; ``low``, ``high`` extremes.
    """

    q: FloatArray
    median: float
    total: float
    square: float
    clip_mean: float
    clip_stdev: float
    n_clipped: int
    low: float
    high: float


_QUARTILES = np.array([0.25, 0.5, 0.75])


def sorted_moments(values: Pixels, fractions: FloatArray, *, sigma: float = 5.0, iterations: int = 3) -> SortedMoments:
    """Quantiles, clipped and unclipped moments of sorted finite values (reference/verification.md 0.3-0.5).

    In sorted values a clipping window is a slice: the first is summed once, the later ones only
    add and take away what lies between the old and the new ends, and the tails make the sum of all.

    Parameters
    ----------
    values : (n,) float32, ascending
    fractions : (k,) float64 in [0, 1]
    sigma, iterations : half-width of the window in standard deviations, number of selections
    """
    if values.size == 0:
        nan = math.nan
        return SortedMoments(np.full(fractions.size, nan), nan, nan, nan, nan, nan, 0, nan, nan)
    q = _quantiles(values, np.concatenate([fractions, _QUARTILES]))
    q25, median, q75 = q[-3:]
    half = sigma * IQR_TO_SIGMA * (q75 - q25)
    total, square, mean, variance, n = _clip_slices(values, median, half, sigma, iterations)
    return SortedMoments(
        q[:-3],
        float(median),
        total,
        square,
        mean,
        math.sqrt(variance) if variance >= 0 else math.nan,
        values.size - n,
        float(values[0]),
        float(values[-1]),
    )


@compiled
def _first_above(x: Pixels, centre: float, limit: float, inclusive: bool) -> int:
    """Index of the first sorted value with ``value - centre > limit`` (``>=`` if inclusive)."""
    low, high = 0, x.size
    while low < high:
        middle = (low + high) // 2
        d = np.float64(x[middle]) - centre
        if d > limit or (inclusive and d == limit):
            high = middle
        else:
            low = middle + 1
    return low


@compiled
def count_beyond(x: Pixels, centre: float, half: float) -> int:
    """Sorted values farther than ``half`` from ``centre``."""
    return x.size - _first_above(x, centre, half, False) + _first_above(x, centre, -half, True)


@compiled(fastmath={"reassoc", "contract"})
def moment_sums(values: Pixels, shift: float) -> tuple[float, float]:
    """Sums of ``value - shift`` and of its square, float64."""
    total = 0.0
    square = 0.0
    for value in values:
        deviation = value - shift
        total += deviation
        square += deviation * deviation
    return total, square


@compiled
def _between(x: Pixels, start: int, stop: int, shift: float) -> tuple[float, float]:
    """Sums over ``x[start:stop]``, negative if the order is reversed."""
    if start <= stop:
        return moment_sums(x[start:stop], shift)
    total, square = moment_sums(x[stop:start], shift)
    return -total, -square


@compiled
def _clip_slices(
    x: Pixels, median: float, half: float, sigma: float, iterations: int
) -> tuple[float, float, float, float, int]:
    """(total, square) of all, mean and variance of the last selection and its size; sums relative to the median."""
    centre, variance = median, np.nan
    first, last = _first_above(x, centre, -half, True), _first_above(x, centre, half, False)
    s1, s2 = moment_sums(x[first:last], median)
    t1, u1 = moment_sums(x[:first], median)
    t2, u2 = moment_sums(x[last:], median)
    total, square = s1 + t1 + t2, s2 + u1 + u2
    n = last - first
    for k in range(iterations):
        if k > 0:
            a, b = _first_above(x, centre, -half, True), _first_above(x, centre, half, False)
            d1, e1 = _between(x, a, first, median)
            d2, e2 = _between(x, last, b, median)
            s1, s2, first, last = s1 + d1 + d2, s2 + e1 + e2, a, b
            n = last - first
        if n == 0:
            break
        centre = median + s1 / n
        variance = max((s2 - s1 * s1 / n) / (n - 1), 0.0) if n > 1 else np.nan
        half = sigma * math.sqrt(variance) if n > 1 else 0.0
    return total, square, centre, variance, n


@compiled
def merge_sorted(a: Pixels, b: Pixels) -> Pixels:
    """Merge two ascending arrays; fast if ``b`` is short."""
    out = np.empty(a.size + b.size, a.dtype)
    start = 0
    for k in range(b.size):
        low, high = start, a.size
        while low < high:
            middle = (low + high) // 2
            if a[middle] <= b[k]:
                low = middle + 1
            else:
                high = middle
        for i in range(start, low):  # slices would cost three seconds of compilation
            out[i + k] = a[i]
        out[low + k] = b[k]
        start = low
    for i in range(start, a.size):
        out[i + b.size] = a[i]
    return out

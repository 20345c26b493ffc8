"""The clipped mean of very many values without sorting them: the estimator of `camcal_dask.kernels.statistics.moments`.

A histogram finds the few values near each quartile, and only these are sorted; so the first window is exactly that
of `moments.clip_statistics`, at the cost of two reads.  Each selection is one more read, and none if all values
were selected and the next window still holds the smallest and the largest.
"""

from __future__ import annotations

import math

import numpy as np

from camcal_dask.kernels.arrays import FloatArray, IntArray, Number, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.statistics.moments import IQR_TO_SIGMA, ClippedMean, clip_statistics

_BINS = 4096
_SAMPLE = 2048
_BLOCK, _FEW = 512, 32
_QUARTILES = np.array([0.25, 0.5, 0.75])


def clip_many(values: Pixels, *, sigma: float = 3.0, iterations: int = 3) -> ClippedMean:
    """Return the clipped mean of the finite values.

    Parameters
    ----------
    values : float32, any shape, C order; NaN = excluded
    sigma : half-width of the window in standard deviations
    iterations : number of selections

    Notes
    -----
    Sums run in float64 in the order of the values, so that another order may change the last digits.
    """
    flat = values.reshape(-1)
    found = _quartiles(flat)
    if found is None:
        return clip_statistics(flat, sigma=sigma, iterations=iterations)
    quartiles, total = found
    center, half = quartiles[1], sigma * IQR_TO_SIGMA * (quartiles[2] - quartiles[0])
    mean, variance, n = _select(flat, total, center, half, sigma, iterations)
    error = math.sqrt(variance / max(n, 1))
    return ClippedMean(mean, math.sqrt(variance), n, total - n, error, float(quartiles[1]))


def _select(
    flat: Pixels, total: int, center: float, half: float, sigma: float, iterations: int
) -> tuple[float, float, int]:
    """Run the selections: mean, sample variance and number of the last."""
    variance, n = math.nan, 0
    low: Number
    high: Number
    low, high, every = math.inf, -math.inf, False
    for _ in range(iterations):
        if every and center - half <= low and high <= center + half:
            half = sigma * math.sqrt(variance)  # the same selection again
            continue
        n, first, second, low, high = selection_sums(flat, center, half)
        if n == 0:
            break
        every = n == total
        center += first / n
        variance = max((second - first * first / n) / (n - 1), 0.0) if n > 1 else math.nan
        half = sigma * math.sqrt(variance) if n > 1 else 0.0
    return center, variance, n


def _quartiles(flat: Pixels) -> tuple[FloatArray, int] | None:
    """Quartiles of the finite values and how many there are; None if there are too few or too many equal ones."""
    sample = flat[:: max(1, flat.size // _SAMPLE)]
    sample = np.sort(sample[np.isfinite(sample)])
    if sample.size < _SAMPLE // 8:
        return None
    q25, q75 = (float(q) for q in sample[[sample.size // 4, 3 * sample.size // 4]])
    low, scale = np.float32(q25 - (q75 - q25)), np.float32(_BINS / max(3 * (q75 - q25), 1e-30))
    counts = histogram(flat, low, scale)
    total = int(counts.sum())
    at = _QUARTILES * (total - 1)
    ranks = np.minimum(np.floor(at).astype(np.int64)[:, None] + [0, 1], total - 1)
    before = np.concatenate([[0], np.cumsum(counts)])
    bins = np.searchsorted(before, ranks, side="right") - 1
    wanted = np.unique(np.concatenate([np.arange(first, last + 1) for first, last in bins]))
    size = int(counts[wanted].sum())
    if wanted[0] == 0 or wanted[-1] == _BINS - 1 or size > flat.size // 8:
        return None
    near = np.sort(gather(flat, low, scale, (bins + [0, 1]).astype(np.float32), size))
    start = np.concatenate([[0], np.cumsum(counts[wanted])])
    value = near[ranks - before[bins] + start[np.searchsorted(wanted, bins)]].astype(np.float64)
    return value[:, 0] + (at - np.floor(at)) * (value[:, 1] - value[:, 0]), total


@compiled
def histogram(flat: Pixels, low: np.float32, scale: np.float32) -> IntArray:
    """Count the finite values in `_BINS` bins of width 1 / scale from ``low``; the outer ones hold all beyond."""
    counts = np.zeros((4, _BINS + 1), np.int32)  # four, so that equal neighbours need not wait for each other
    last, largest = np.float32(_BINS - 1), np.float32(np.finfo(np.float32).max)
    bins = np.empty(_BLOCK, np.uint32)
    for i in range(0, flat.size, _BLOCK):
        block = flat[i : i + _BLOCK]
        for k in range(block.size):  # vectorised, which the counting cannot be
            position = min(max((block[k] - low) * scale, np.float32(0.0)), last)
            bins[k] = np.int32(position) if abs(block[k]) <= largest else np.int32(_BINS)
        for k in range(block.size):
            counts[k & 3, bins[k]] += 1
    total: IntArray = counts.sum(axis=0)
    return total[:_BINS]


@compiled
def gather(flat: Pixels, low: np.float32, scale: np.float32, ranges: Pixels, size: int) -> Pixels:
    """Collect the ``size`` values in three ranges of bins of `histogram`, float32 (3, 2), outer ones excepted."""
    out = np.empty(size, np.float32)
    n = 0
    for i in range(0, flat.size, _FEW):
        block = flat[i : i + _FEW]
        found = 0
        for k in range(block.size):
            found |= _within((block[k] - low) * scale, ranges)
        for k in range(block.size if found else 0):
            if _within((block[k] - low) * scale, ranges):
                out[n] = block[k]
                n += 1
    return out


@compiled(inline="always")
def _within(position: np.float32, ranges: Pixels) -> bool:
    first: bool = (position >= ranges[0, 0]) & (position < ranges[0, 1])
    second: bool = (position >= ranges[1, 0]) & (position < ranges[1, 1])
    third: bool = (position >= ranges[2, 0]) & (position < ranges[2, 1])
    return first | second | third


@compiled(fastmath={"reassoc", "contract"})
def selection_sums(flat: Pixels, center: float, half: float) -> tuple[int, float, float, np.float32, np.float32]:
    """Number of values within ``center +- half``, sums of their deviations and squares; extremes of all values."""
    n, first, second = 0, 0.0, 0.0
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for i in range(flat.size):
        value = flat[i]
        deviation: float = np.float64(value) - center
        keep = abs(deviation) <= half
        deviation = deviation if keep else 0.0
        n += keep
        first += deviation
        second += deviation * deviation
        low = value if value < low else low
        high = value if value > high else high
    return n, first, second, low, high

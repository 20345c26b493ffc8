"""The clipped mean: the one robust mean of this package (reference/construction.md 0.1, reference/isr.md 0.2).

From the finite, unmasked values X: centre c = median, half-width h = sigma * 0.741301109252802 * IQR
(quartiles by linear interpolation at index f (n - 1)).  Then K times: S = {x in X: |x - c| <= h},
selected from *all* of X each time, c = mean(S), v = sum((x - c)^2) / (|S| - 1), h = sigma * sqrt(v).
Pixels are float32; sums run in float64 relative to the previous centre, in an order that
depends on the values alone, so that chunking cannot change a bit of the result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from camcal_dask.kernels.arrays import FloatArray, Int32Array, Mask, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.statistics.sorting import column_quantile, sort_columns, sorting_network

IQR_TO_SIGMA = 0.741301109252802
"""Standard deviation of a Gaussian in units of its interquartile range."""

STACK_WIDTH = 256
"""Columns handled at a time: (n_exposures, 256) float32 stays in the L2 cache."""
_QUARTILES = np.array([0.25, 0.5, 0.75])


class ClippedMean(NamedTuple):
    """Result of the clipped mean of one set of values.

    ``n`` values were in the last selection, ``n_clipped`` good ones outside it; ``error`` is
    sqrt(stdev^2 / n); ``median`` is that of all good values.  ``mean`` and ``median`` are NaN without
    values, ``stdev`` and ``error`` with fewer than two.
    """

    mean: float
    stdev: float
    n: int
    n_clipped: int
    error: float
    median: float


class StackMean(NamedTuple):
    """Clipped mean over exposures of each of N pixels.

    ``mean``, ``variance`` (of the mean) float32 (N,), NaN where undefined; ``n`` int32 (N,) values in
    the last selection.
    """

    mean: Pixels
    variance: Pixels
    n: Int32Array


def clip_statistics(
    values: Pixels,
    mask: Mask | None = None,
    reject: int = 0,
    *,
    sigma: float = 3.0,
    iterations: int = 3,
) -> ClippedMean:
    """Return the clipped mean of the finite values without a mask bit of ``reject``.

    Parameters
    ----------
    values : float32, any shape
    mask : int32 of the same shape, or None
    reject : OR of mask bits (:mod:`camcal_dask.kernels.pixels.masks`)
    sigma : half-width of the window in standard deviations
    iterations : number of selections K
    """
    x = _sorted_good(values, mask, reject)
    q25, middle, q75 = _quantiles(x, _QUARTILES)
    mean, variance, n = _clip_sorted(x, middle, sigma * IQR_TO_SIGMA * (q75 - q25), sigma, iterations)
    error = float(np.sqrt(variance / max(n, 1)))
    return ClippedMean(mean, float(np.sqrt(variance)), n, x.size - n, error, float(middle))


def percentiles(
    values: Pixels,
    fractions: FloatArray,
    mask: Mask | None = None,
    reject: int = 0,
) -> FloatArray:
    """Return quantiles of the finite, unmasked values by linear interpolation at index f (n - 1).

    Parameters
    ----------
    values : float32, any shape
    fractions : (k,) float64 in [0, 1]
    mask, reject : as in :func:`clip_statistics`

    Returns
    -------
    (k,) float64, NaN if no value is good.
    """
    return _quantiles(_sorted_good(values, mask, reject), np.asarray(fractions, np.float64))


def median(values: Pixels, mask: Mask | None = None, reject: int = 0) -> float:
    """Return the median of the finite, unmasked values; NaN if there are none."""
    x = _good(values, mask, reject)
    if x.size == 0:
        return np.nan
    low, high = (x.size - 1) // 2, x.size // 2
    x.partition(high)
    return 0.5 * (float(x[:high].max() if low < high else x[high]) + float(x[high]))


def clipped_mean_stack(
    stack: Pixels,
    variance: Pixels | None = None,
    *,
    sigma: float = 3.0,
    iterations: int = 3,
) -> StackMean:
    """Return the clipped mean over axis 0, independently for every pixel.

    Parameters
    ----------
    stack : (E, N) float32, C order; rejected values are NaN.
    variance : (E, N) float32 or None
        Variances of the values.  If given, the variance of the mean is sum_S V / |S|^2, otherwise
        that of the surviving sample, v / |S| (NaN for |S| = 1).
    sigma, iterations : as in :func:`clip_statistics`
    """
    if variance is None:
        variance = np.empty((0, stack.shape[1]), np.float32)
    n_pixels = stack.shape[1]
    out = StackMean(np.empty(n_pixels, np.float32), np.empty(n_pixels, np.float32), np.empty(n_pixels, np.int32))
    pairs = sorting_network(stack.shape[0])
    _clip_stack(stack, variance, pairs, sigma, iterations, out.mean, out.variance, out.n)
    return out


HALVES_EVERY = 4
"""Halves are compared on every fourth row: 256 000 pixels say what an amp's million says."""


class Halves(NamedTuple):
    """Comparison of the means of every other exposure, N pixels: ``difference`` (even - odd) and its ``variance``.

    float32 (N,), NaN where a half has no value or both have not three.
    """

    difference: Pixels
    variance: Pixels


def compare_halves(stack: Pixels, amp: tuple[int, int] | None = None, every: int = 1) -> Halves:
    """Compare the plain means of the even and of the odd exposures of each pixel (DMTN-101 5.5).

    Plain means, for the clipped ones of half a stack are too few values to know their own variance.

    Parameters
    ----------
    stack : (E, N) float32, rejected values NaN
    amp : rows and columns of an amp, of which the N pixels are a number; one row by default
    every : of each amp, only one of so many rows is compared, the first included
    """
    height, width = amp or (1, stack.shape[1])
    n = stack.shape[1] // height * -(-height // every)
    out = Halves(np.empty(n, np.float32), np.empty(n, np.float32))
    _compare_halves(stack, height, width, every, out.difference, out.variance)
    return out


@compiled(error_model="numpy")
def _compare_halves(stack: Pixels, height: int, width: int, every: int, difference: Pixels, variance: Pixels) -> None:
    a, to = np.empty((stack.shape[0], STACK_WIDTH), np.float32), 0
    for row in range(stack.shape[1] // width):
        if row % height % every == 0:
            for i0 in range(row * width, (row + 1) * width, STACK_WIDTH):
                m = min(STACK_WIDTH, (row + 1) * width - i0)
                gather(stack, i0, m, a)
                _halves_of_block(a, difference[to : to + m], variance[to : to + m])
                to += m


@compiled(error_model="numpy")
def _halves_of_block(a: Pixels, difference: Pixels, variance: Pixels) -> None:
    mean, count, square = np.zeros((2, STACK_WIDTH)), np.zeros((2, STACK_WIDTH)), np.zeros(STACK_WIDTH)
    for e in range(a.shape[0]):
        row, half = a[e], e % 2
        for i in range(STACK_WIDTH):
            good = row[i] < np.inf
            mean[half, i] += np.float64(row[i]) if good else 0.0
            count[half, i] += 1.0 if good else 0.0
    mean /= count
    for e in range(a.shape[0]):
        row, half = a[e], e % 2
        for i in range(STACK_WIDTH):
            d = np.float64(row[i]) - mean[half, i] if row[i] < np.inf else 0.0
            square[i] += d * d
    for i in range(difference.size):
        known = min(count[0, i], count[1, i]) > 0 and count[0, i] + count[1, i] > 2
        v = square[i] / (count[0, i] + count[1, i] - 2) * (1 / count[0, i] + 1 / count[1, i])
        difference[i] = mean[0, i] - mean[1, i] if known else np.nan
        variance[i] = v if known else np.nan


def compare_amp(halves: Halves, n: float) -> tuple[float, float, float, int]:
    """Return the statistics of an amp for two halves of ``n`` exposures together.

    Returns
    -------
    Clipped mean (5 sigma) and standard deviation of the difference, the standard deviation that the variances
    predict, and the number of pixels.  The median of a sample variance of k degrees of freedom is that of
    chi^2 / k, (1 - 2 / 9k)^3 of the true one.
    """
    clipped = clip_statistics(halves.difference, sigma=5.0)
    k = max(n - 2.0, 1.0)
    expected = np.sqrt(median(halves.variance) / (1 - 2 / (9 * k)) ** 3)
    return clipped.mean, clipped.stdev, float(expected), clipped.n


@compiled
def accept(values: Pixels, mask: Mask, reject: np.int32, planes: Mask) -> int:
    """Prepare one exposure of a stack: what is rejected becomes NaN, the planes of the rest are gathered.

    Parameters
    ----------
    values : (N,) float32, changed in place
    mask : (N,) int32; a value with a bit of ``reject`` is rejected, and so is one that is not finite.
    reject : OR of mask bits
    planes : (N,) int32, ORed in place with the masks of accepted values only

    Returns
    -------
    Number of values accepted.
    """
    n = 0
    for i in range(values.size):
        good = abs(values[i]) < np.inf and (mask[i] & reject) == 0
        planes[i] |= mask[i] if good else np.int32(0)
        values[i] = values[i] if good else np.float32(np.nan)
        n += 1 if good else 0
    return n


def _good(values: Pixels, mask: Mask | None, reject: int) -> Pixels:
    """Copy of the finite, unmasked values, 1-D."""
    good = np.isfinite(values)
    if mask is not None:
        good &= (mask & reject) == 0
    return np.asarray(values, np.float32)[good]


def _sorted_good(values: Pixels, mask: Mask | None, reject: int) -> Pixels:
    """The same in ascending order; numpy's vectorised sort beats any selection of several ranks."""
    x = _good(values, mask, reject)
    x.sort()
    return x


def _quantiles(x: Pixels, fractions: FloatArray) -> FloatArray:
    """Quantiles of sorted values by linear interpolation."""
    if x.size == 0:
        return np.full(fractions.size, np.nan)
    at = fractions * (x.size - 1)
    below = at.astype(np.int64)
    low, high = x[below].astype(np.float64), x[np.minimum(below + 1, x.size - 1)].astype(np.float64)
    return np.asarray(low + (at - below) * (high - low))


@compiled(error_model="numpy")
def _update(centre: float, n: float, s1: float, s2: float) -> tuple[float, float]:
    """New centre and sample variance from count, sum and sum of squares relative to the old centre."""
    variance = (s2 - s1 * s1 / n) / (n - 1)
    variance = 0.0 if variance < 0.0 else variance  # rounding; NaN stays
    return centre + s1 / n, variance if n > 1 else np.nan


@compiled
def _clip_sorted(x: Pixels, centre: float, half: float, sigma: float, iterations: int) -> tuple[float, float, int]:
    """Run the selections on sorted values; the sums are in ascending order, wherever the values came from."""
    variance, n = np.nan, 0
    for _ in range(iterations):
        n, s1, s2 = 0, 0.0, 0.0
        for i in range(x.size):
            d = np.float64(x[i]) - centre
            if abs(d) <= half:
                n += 1
                s1 += d
                s2 += d * d
        if n == 0:
            break
        centre, variance = _update(centre, n, s1, s2)
        half = sigma * np.sqrt(variance) if n > 1 else 0.0
    return centre, variance, n


@compiled(error_model="numpy")
def _clip_stack(
    stack: Pixels,
    variance: Pixels,
    pairs: Int32Array,
    sigma: float,
    iterations: int,
    mean: Pixels,
    var: Pixels,
    count: Int32Array,
) -> None:
    n_exp, n_pix = stack.shape
    a = np.empty((n_exp, STACK_WIDTH), np.float32)
    for i0 in range(0, n_pix, STACK_WIDTH):
        m = min(STACK_WIDTH, n_pix - i0)
        good = gather(stack, i0, m, a)
        sort_columns(a, pairs)
        acc = _start(a, good, sigma)
        window = _select(a, acc, sigma, iterations)
        centre, v, n = acc[0], acc[1], acc[2]
        if variance.shape[0] == n_exp:
            _input_variance(stack, variance, i0, m, window, n, v)
        for i in range(m):
            mean[i0 + i] = centre[i] if n[i] > 0 else np.nan
            count[i0 + i] = np.int32(n[i])
            var[i0 + i] = v[i] / n[i] if n[i] > 0 else np.nan


@compiled
def gather(stack: Pixels, i0: int, m: int, a: Pixels) -> Int32Array:
    """Copy m columns of (n, N) to ``a`` (n, STACK_WIDTH), zeros beyond, +inf for what is not finite.

    Returns the number of finite values of each column, (STACK_WIDTH,) int32.
    """
    good = np.zeros(STACK_WIDTH, np.int32)
    for i in range(m, STACK_WIDTH):
        good[i] = a.shape[0]
        for e in range(a.shape[0]):
            a[e, i] = 0.0
    for e in range(a.shape[0]):
        row, target = stack[e, i0 : i0 + m], a[e]
        for i in range(m):
            finite = abs(row[i]) < np.inf
            target[i] = row[i] if finite else np.float32(np.inf)
            good[i] += np.int32(finite)
    return good


@compiled
def _start(a: Pixels, good: Int32Array, sigma: float) -> FloatArray:
    """Accumulator rows (centre, half-width, n, s1, s2) with the first window: median and scaled IQR."""
    acc = np.zeros((5, STACK_WIDTH))
    column_quantile(a, good, 0.5, acc[0])
    column_quantile(a, good, 0.25, acc[2])
    column_quantile(a, good, 0.75, acc[3])
    for i in range(STACK_WIDTH):
        acc[1, i] = sigma * IQR_TO_SIGMA * (acc[3, i] - acc[2, i])
    return acc


@compiled(error_model="numpy")
def _select(a: Pixels, acc: FloatArray, sigma: float, iterations: int) -> FloatArray:
    """Run the selections; rows of ``acc`` become mean, sample variance and count.

    Returns the window (centre, half-width) of the last selection.  The work array has a shape
    known to the compiler, else the inner loop does not vectorise.
    """
    work, window = np.empty((5, STACK_WIDTH)), np.empty((2, STACK_WIDTH))
    for i in range(STACK_WIDTH):
        work[0, i], work[1, i] = acc[0, i], acc[1, i]
    for _ in range(iterations):
        for i in range(STACK_WIDTH):
            window[0, i], window[1, i] = work[0, i], work[1, i]
            work[2, i], work[3, i], work[4, i] = 0.0, 0.0, 0.0
        for e in range(a.shape[0]):
            row = a[e]
            for i in range(STACK_WIDTH):
                d = np.float64(row[i]) - work[0, i]
                keep = abs(d) <= work[1, i]
                d = d if keep else 0.0
                work[2, i] += 1.0 if keep else 0.0
                work[3, i] += d
                work[4, i] += d * d
        for i in range(STACK_WIDTH):
            work[0, i], acc[1, i] = _update(work[0, i], work[2, i], work[3, i], work[4, i])
            work[1, i] = sigma * np.sqrt(acc[1, i]) if work[2, i] > 1.0 else 0.0
    for i in range(STACK_WIDTH):
        acc[0, i], acc[2, i] = work[0, i], work[2, i]
    return window


@compiled(error_model="numpy")
def _input_variance(
    stack: Pixels, variance: Pixels, i0: int, m: int, window: FloatArray, n: FloatArray, v: FloatArray
) -> None:
    """Replace the sample variance by sum_S V / |S|, so that v / |S| is sum_S V / |S|^2."""
    for i in range(m):
        total = 0.0
        for e in range(stack.shape[0]):
            if abs(np.float64(stack[e, i0 + i]) - window[0, i]) <= window[1, i]:
                total += variance[e, i0 + i]
        v[i] = total / n[i]

"""Covariances of an image with itself at all small lags, with any mask (reference/ptc_linearity.md 4, 14).

For a lag d = (i, j), i along the rows (serial), j across them (parallel), and w = 1 on good pixels, 0 elsewhere,

    N(d) = sum w(p) w(p+d)
    K(d) = sum wD(p) wD(p+d) / N(d) - [sum wD(p) w(p+d) / N(d)] [sum w(p) wD(p+d) / N(d)]

the sums over all p with both p and p+d in the image.  Products and pairs are counted apart.

*Products.*  The image, its mean subtracted and its bad pixels 0, is laid out with zeros between its rows, so that
a lag is one constant distance in memory and no loop has a border.  Twelve lags are summed at a time, from three
copies of the image at one set of distances and four at another: seven loads for twelve multiply-adds, and all sums
stay in vector registers.  A segment of a few rows stays in the first-level cache while all its lags are summed in
float32; the sums of segments add up in float64.

*Pairs.*  N(d) and the sums of members start as if no pixel were bad: those of the whole image less strips at its
edges.  Each run of bad pixels then takes away the difference of two running sums of the row at distance j, so the
cost follows the number of such runs, and any mask will do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from camcal_dask.kernels.arrays import BoolArray, FloatArray, IntArray, Pixels
from camcal_dask.kernels.compiled import compiled

_SEGMENT = 2112
"""Floats summed in float32 before they are added in float64; with 13 rows of 512 pixels they fill the L1 cache."""
_REDUCE = {"reassoc", "contract"}


class Covariance(NamedTuple):
    """Covariances at lags (i, j), i serial, j parallel; at i, j > 0 the plain mean of those at (i, j) and (i, -j).

    ``cov`` (lags, lags) float64 [u^2], population normalisation (1 / N), NaN without pairs; ``n`` (lags, lags) int64,
    pixel pairs, of both signs where both enter.
    """

    cov: FloatArray
    n: IntArray


def lag_covariance(image: Pixels, good: BoolArray, lags: int = 10, *, center: float | None = None) -> Covariance:
    """Return the covariances of the good pixels at lags 0 .. ``lags`` - 1 in both directions.

    Parameters
    ----------
    image : (y, x) float32 [u]; what is not good may be anything, NaN too.
    good : (y, x) bool
    lags : side of the result; the largest lag is one less.
    center : float, optional
        Any value near the mean [u], if it is known: subtracted before the products, so that float32 suffices for them.
        The result does not depend on it, nor on a constant added to the image.
    """
    products, sums = lag_sums(image, good, lags, _mean(image, good) if center is None else center)
    n, first, second = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        each = products / n - (first / n) * (second / n)
    forward, backward = each[:, lags - 1 :].T, each[:, lags - 1 :: -1].T
    cov, count = forward.copy(), n[:, lags - 1 :].T.copy()
    cov[1:, 1:] = (forward[1:, 1:] + backward[1:, 1:]) / 2
    count[1:, 1:] += n[:, lags - 1 :: -1].T[1:, 1:]
    return Covariance(cov, count.astype(np.int64))


def lag_sums(image: Pixels, good: BoolArray, lags: int, center: float) -> tuple[FloatArray, FloatArray]:
    """Sums over pixel pairs at every lag of the half plane, of deviations from ``center``.

    Returns
    -------
    products : (lags, 2 lags - 1) float64 [u^2], index [j, i + lags - 1]: sum of the products.
    sums : (3, lags, 2 lags - 1) float64: pairs, sum of their first members, of their second members [u].
    """
    height, width = image.shape
    stride = -(-(width + lags - 1) // 8) * 8
    rows = max(1, _SEGMENT // stride)
    segments = -(-height // rows)
    top = _rows_above(lags)
    padded = np.empty((top + segments * rows + 2, stride), np.float32)
    padded[:top], padded[top + height :] = 0, 0
    sums, square = _lay_out(image, good, np.float32(center), lags, padded[top : top + height])
    products = _products(padded.reshape(-1), top * stride, stride, segments, rows * stride, lags)
    products[0, lags - 1] = square
    return products, sums


def _rows_above(lags: int) -> int:
    """Rows of zeros before the image: lags are summed in threes, and the first row looks a few pixels back."""
    return -(-(lags - 1) // 3) * 3 + 1


@compiled(fastmath=_REDUCE)
def _mean(image: Pixels, good: BoolArray) -> float:
    total, count = 0.0, 0
    for y in range(image.shape[0]):
        row, flags = image[y], good[y]
        for x in range(row.size):
            total += np.float64(row[x]) if flags[x] else 0.0
            count += flags[x]
    return total / max(count, 1)


@compiled
def _lay_out(image: Pixels, good: BoolArray, center: np.float32, lags: int, padded: Pixels) -> tuple[FloatArray, float]:
    """Write deviations of good pixels into ``padded`` (rows, stride), with zeros beyond the image.

    Returns ``sums`` of `lag_sums`, and the sum of the squared deviations in float64: of all lags, lag 0 alone must be
    known better than the photon statistics, as its distance from the sample variance tells the number of pixels.
    """
    height, width = image.shape
    reach = lags - 1
    sums, middle = np.zeros((3, lags, 2 * reach + 1)), np.zeros((2, 2 * reach + 1))
    strips = np.empty((2, 2 * reach + 1))
    runs = np.zeros((2, lags, width + 1 + 2 * reach))
    edges, n_edge = np.empty((lags, width + 2), np.int64), np.zeros(lags, np.int64)
    n_bad, bad_from, bad_to = _find_bad(good)
    n_before = np.zeros(height + 1, np.int64)
    n_before[1:] = np.cumsum(n_bad)
    square = 0.0
    for y in range(height):
        here = y % lags
        if n_bad[y]:
            total, row_square = _deviations(image[y], good[y], center, padded[y])
        else:
            total, row_square = _all_deviations(image[y], center, padded[y])
        square += row_square
        _strips(good[y], padded[y], width - n_bad[y], total, strips)
        if reach <= y < height - reach:
            middle += strips
        else:
            _add_border(strips, y, height, sums)
        n_edge[here] = _bad_runs(good[y], edges[here]) if n_bad[y] else 0
        low, high = max(y - reach, 0), min(y + lags, height)
        if n_before[high] > n_before[low]:
            start, stop = bad_from[low:high].min(), bad_to[low:high].max()
            _running_sums(good[y], padded[y], reach, start, stop + 2 * reach + 1, runs[0, here], runs[1, here])
            _take_bad(y, lags, edges, n_edge, runs, sums)
    for j in range(lags):
        sums[:2, j] += middle
        sums[2, j] += middle[1]
        for k in range(2):  # the first members were counted as seen from the second
            sums[k, j] = sums[k, j, ::-1].copy()
    return sums, square


@compiled
def _find_bad(good: BoolArray) -> tuple[IntArray, IntArray, IntArray]:
    """Number of bad pixels of each row, the first of them and the one after the last; (width, 0) if there is none."""
    height, width = good.shape
    n, start, stop = np.zeros(height, np.int64), np.full(height, width), np.zeros(height, np.int64)
    for y in range(height):
        row, count = good[y], 0
        for x in range(width):
            count += row[x]
        n[y] = width - count
        for x in range(width if n[y] else 0):
            if not row[x]:
                start[y], stop[y] = min(start[y], x), x + 1
    return n, start, stop


@compiled(fastmath=_REDUCE)
def _deviations(row: Pixels, good: BoolArray, center: np.float32, out: Pixels) -> tuple[float, float]:
    """Deviations from the center, 0 where not good or beyond the row; returns their sum and that of their squares."""
    total, square = 0.0, 0.0
    for x in range(row.size):
        deviation = np.float64(row[x]) - np.float64(center) if good[x] else 0.0
        out[x] = np.float32(deviation)
        total += deviation
        square += deviation * deviation
    out[row.size :] = 0
    return total, square


@compiled(fastmath=_REDUCE)
def _all_deviations(row: Pixels, center: np.float32, out: Pixels) -> tuple[float, float]:
    """As `_deviations`, of a row without bad pixels: most rows, in a third of the time."""
    total, square = 0.0, 0.0
    for x in range(row.size):
        deviation = np.float64(row[x]) - np.float64(center)
        out[x] = np.float32(deviation)
        total += deviation
        square += deviation * deviation
    out[row.size :] = 0
    return total, square


@compiled
def _strips(good: BoolArray, values: Pixels, count: int, total: float, out: FloatArray) -> None:
    """Pairs and sum of one row without the columns that have no partner at each distance, (2, 2 reach + 1)."""
    reach, width = out.shape[1] // 2, good.size
    out[0, reach], out[1, reach] = count, total
    left_n, left, right_n, right = 0, 0.0, 0, 0.0
    for s in range(1, reach + 1):
        if s <= width:
            left_n += good[s - 1]
            left += values[s - 1]
            right_n += good[width - s]
            right += values[width - s]
        out[0, reach - s], out[1, reach - s] = count - right_n, total - right
        out[0, reach + s], out[1, reach + s] = count - left_n, total - left


@compiled
def _add_border(strips: FloatArray, y: int, height: int, sums: FloatArray) -> None:
    """Add a row near an end of the image, which has a partner at some distances only."""
    for j in range(sums.shape[1]):
        if y < height - j:
            sums[:2, j] += strips
        if y >= j:
            sums[2, j] += strips[1]


@compiled
def _bad_runs(good: BoolArray, edges: IntArray) -> int:
    """Starts and ends of the runs of bad pixels; returns how many of both."""
    n, before = 0, True
    for x in range(good.size):
        if good[x] != before:
            edges[n], before = x, good[x]
            n += 1
    if not before:
        edges[n] = good.size
        n += 1
    return n


@compiled
def _running_sums(
    good: BoolArray, values: Pixels, reach: int, start: int, stop: int, run_w: FloatArray, run_z: FloatArray
) -> None:
    """Number and sum of good pixels before positions ``start`` .. ``stop`` - 1, from there on; 0 is ``reach`` ahead."""
    w, z = 0.0, 0.0
    for k in range(start, stop):
        run_w[k], run_z[k] = w, z
        x = k - reach
        if x >= 0 and x < good.size:
            w += good[x]
            z += np.float64(values[x])


@compiled
def _take_bad(y: int, lags: int, edges: IntArray, n_edge: IntArray, runs: FloatArray, sums: FloatArray) -> None:
    """Take away the pairs of row ``y`` and those above it of which one member is bad."""
    here = y % lags
    for j in range(min(lags, y + 1)):
        other = (y - j) % lags
        for e in range(0, n_edge[here], 2):  # the second member
            start, end = edges[here, e], edges[here, e + 1]
            _take(sums[0, j], runs[0, other], start, end)
            _take(sums[1, j], runs[1, other], start, end)
        for e in range(0, n_edge[other], 2):  # the first member
            _take(sums[2, j], runs[1, here], edges[other, e], edges[other, e + 1])


@compiled
def _take(total: FloatArray, run: FloatArray, start: int, end: int) -> None:
    """Subtract the sum over a run of pixels, shifted to all distances."""
    low, high = run[start : start + total.size], run[end : end + total.size]
    for k in range(total.size):
        total[k] -= high[k] - low[k]


@compiled
def _products(flat: Pixels, start: int, stride: int, segments: int, size: int, lags: int) -> FloatArray:
    """Sums of products at every lag, (lags, 2 lags - 1) float64; ``flat`` as laid out by `lag_sums`."""
    reach = lags - 1
    same_row = np.zeros((-(-lags // 12) * 3, 4))
    others = np.zeros((-(-reach // 3) * 3, -(-(2 * reach + 1) // 4) * 4))
    for s in range(segments):
        at = start + s * size
        for k in range(0, same_row.shape[0], 3):
            _twelve(flat, at, 4, at + 4 * k, size, same_row[k : k + 3])
        for j in range(0, others.shape[0], 3):
            for i in range(0, others.shape[1], 4):
                _twelve(flat, at - (j + 1) * stride, stride, at + i - reach, size, others[j : j + 3, i : i + 4])
    out = np.empty((lags, 2 * reach + 1))
    for i in range(lags):
        out[0, reach + i] = out[0, reach - i] = same_row[i // 4, i % 4]
    out[1:] = others[:reach, : 2 * reach + 1]
    return out


@compiled(fastmath=_REDUCE)
def _twelve(flat: Pixels, a: int, back: int, b: int, size: int, out: FloatArray) -> None:
    """Add to out[k, i] the sum over ``size`` floats of those from ``a - k back`` times those from ``b + i``."""
    p, q, r = flat[a : a + size], flat[a - back : a - back + size], flat[a - 2 * back : a - 2 * back + size]
    s, t, u, v = flat[b : b + size], flat[b + 1 : b + 1 + size], flat[b + 2 : b + 2 + size], flat[b + 3 : b + 3 + size]
    zero = np.float32(0.0)
    ps, pt, pu, pv = zero, zero, zero, zero
    qs, qt, qu, qv = zero, zero, zero, zero
    rs, rt, ru, rv = zero, zero, zero, zero
    for x in range(size):  # by column: in any other order the compiler runs out of the 16 vector registers
        ps += p[x] * s[x]
        qs += q[x] * s[x]
        rs += r[x] * s[x]
        pt += p[x] * t[x]
        qt += q[x] * t[x]
        rt += r[x] * t[x]
        pu += p[x] * u[x]
        qu += q[x] * u[x]
        ru += r[x] * u[x]
        pv += p[x] * v[x]
        qv += q[x] * v[x]
        rv += r[x] * v[x]
    out[0, 0] += ps
    out[0, 1] += pt
    out[0, 2] += pu
    out[0, 3] += pv
    out[1, 0] += qs
    out[1, 1] += qt
    out[1, 2] += qu
    out[1, 3] += qv
    out[2, 0] += rs
    out[2, 1] += rt
    out[2, 2] += ru
    out[2, 3] += rv

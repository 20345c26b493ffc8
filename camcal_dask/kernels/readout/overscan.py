"""Overscan of one amp: one level per line of the strip, with outlier rejection (reference/isr.md 2.2).

A strip is an array (K, N): K pixels across the short axis, position 0 next to the data, for N
lines; serial overscan: lines are rows, parallel overscan: lines are columns.  Masks are int32
planes of :mod:`camcal_dask.kernels.pixels.masks`; pixels with BAD or SAT, and those that are not
finite, are rejected.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from camcal_dask.kernels.arrays import BoolArray, FloatArray, Int32Array, Mask, Pixels, WordArray
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.pixels.masks import BAD, SAT
from camcal_dask.kernels.pixels.masks import FILL as FILL
from camcal_dask.kernels.readout.overscan_curves import SCALARS, smooth_levels, strip_level
from camcal_dask.kernels.simulator.random import uniform_row
from camcal_dask.kernels.statistics.moments import STACK_WIDTH, clip_statistics, gather, median
from camcal_dask.kernels.statistics.sorting import column_quantile, sort_columns, sorting_network

REJECT = BAD | SAT
_EDGE = 5  # columns at each end that the smoothing test leaves alone; also neighbours used to fill a gap


class LineFit(NamedTuple):
    """Level of every line: ``vector`` float32 (N,) [unit of the strip]; ``bad`` (N,) lines excluded as a whole."""

    vector: Pixels
    bad: BoolArray


@compiled
def correct_pixels(  # noqa: PLR0913 - one pass over the pixels needs them all
    raw: Int32Array,
    origin: tuple[int, int],
    region: tuple[int, int, int, int],
    serial: Pixels,
    gain: np.float32,
    parallel: Pixels,
    dither: tuple[bool, float],
    address: WordArray,
    key: WordArray,
    out: Pixels,
) -> int:
    """Turn raw pixels of one amp into ``((raw + dither) - serial[y]) * gain - parallel[x]``, in float32.

    Parameters
    ----------
    raw : (h, w) int32 [adu]; its pixel [0, 0] stands at row, column ``origin`` of the amp.
    region : y0, y1, x0, x1 in amp coordinates, inside ``raw``.
    serial : float32 [adu], level of every row of the amp (indexed by y).
    gain : float32 [unit of the result / adu]
    parallel : (x1 - x0,) float32 [unit of the result]
    dither : whether to dither, and its lower end [adu]
    address : (3,) uint64 (y, amp, detector); the first word is overwritten.
    key : (2,) uint64, words of the exposure id.
    out : float32, its corner of (y1 - y0, x1 - x0) pixels is written; NaN where the raw pixel never was.

    Returns
    -------
    Number of pixels written that are not finite.
    """
    y0, y1, x0, x1 = region
    n, n_missing = x1 - x0, 0
    noise = np.zeros(n, np.float32)
    for y in range(y0, y1):
        if dither[0]:
            address[0] = np.uint64(y)
            uniform_row(noise, x0, address, key, dither[1])
        line, target, level = raw[y - origin[0], x0 - origin[1] : x1 - origin[1]], out[y - y0], serial[y]
        for i in range(n):
            value = ((np.float32(line[i]) + noise[i]) - level) * gain - parallel[i]
            value = value if line[i] != FILL else np.float32(np.nan)
            target[i] = value
            n_missing += 0 if abs(value) < np.inf else 1
    return n_missing


def fit_lines(
    strip: Pixels,
    mask: Mask,
    *,
    skip_leading: int,
    skip_trailing: int,
    max_deviation: float,
    two_sided: bool,
    sigma: float = 3.0,
    grow: int = 0,
    smoothing: int = 0,
    smoothing_threshold: float = 0.0,
    use_mean: bool = False,
    curve: tuple[str, int] | None = None,
) -> LineFit | None:
    """Fit the level of every line; steps 2-7 of reference/isr.md 2.2.  Non-finite pixels count as masked throughout.

    Parameters
    ----------
    strip : (K, N) float32
    mask : (K, N) int32, BAD is added in place: pixels beyond ``max_deviation``, and whole bad lines.
    skip_leading, skip_trailing : positions left out next to the data and at the far end [pixel]
    max_deviation : allowed distance from the median of the strip; one-sided (positive) unless ``two_sided``.
    sigma : a pixel further than this many robust sigma from the median of its line is rejected.
    grow : bad lines also spoil this many neighbours.
    smoothing : width of the median filter along the lines, 0 = no smoothing test.
    smoothing_threshold : a line this much above the filtered lines is bad.
    use_mean : mean of the survivors instead of their median.
    curve : kind and order of one level or a smooth curve for all lines, see
        `camcal_dask.kernels.readout.overscan_curves`; None keeps a level per line.

    Returns
    -------
    LineFit, or None if no pixel of the strip can be used.
    """
    used = slice(skip_leading, strip.shape[0] - skip_trailing)
    pixels, flags = strip[used], mask[used]
    far = _flag_far(pixels, flags, max_deviation, two_sided)
    if far is None:
        return None
    bad: BoolArray = np.asarray(far.all(axis=0))
    if smoothing:
        bad |= _stands_out(pixels, smoothing, smoothing_threshold)
    bad = _grow_lines(bad, grow)
    mask[:, bad] |= BAD
    vector = _levels(pixels, flags, sigma, use_mean, curve)
    return None if vector is None else LineFit(vector, bad)


def _flag_far(pixels: Pixels, flags: Mask, max_deviation: float, two_sided: bool) -> BoolArray | None:
    """Set BAD on pixels too far from the median of the strip and return them; None if there is no median."""
    level = median(pixels, flags, REJECT)
    if np.isnan(level):
        return None
    with np.errstate(invalid="ignore"):
        deviation = pixels.astype(np.float64) - level
        far = (np.abs(deviation) if two_sided else deviation) > max_deviation
    flags |= np.where(far, np.int32(BAD), np.int32(0))
    return np.asarray(far)


def _levels(pixels: Pixels, flags: Mask, sigma: float, use_mean: bool, curve: tuple[str, int] | None) -> Pixels | None:
    """Level of every line, or of the curve through them; None without a usable pixel."""
    if curve is not None and curve[0] in SCALARS:
        one = strip_level(pixels, flags, REJECT, curve[0])
        return None if np.isnan(one) else np.full(pixels.shape[1], one, np.float32)
    levels = _line_levels(pixels, flags, sigma, use_mean or curve is not None)
    filled = fill_gaps(levels)
    if filled is not None and curve is not None:
        filled = smooth_levels(filled, np.isfinite(levels).astype(np.float64), *curve)
    return None if filled is None else filled.astype(np.float32)


def fill_gaps(vector: FloatArray) -> FloatArray | None:
    """Fill runs of non-finite values from their neighbours (step 7); None if nothing is finite.

    A gap [start, stop) takes the median of the 5 values before it (if start > 5) and the 5 after
    it (if stop < n - 5); earlier fills serve later gaps.  A gap with neither takes the median of all.
    """
    out = vector.copy()
    finite = np.isfinite(vector)
    if finite.all():
        return out
    if not finite.any():
        return None
    default = np.median(vector[finite])
    edges = np.flatnonzero(np.diff(np.concatenate(([True], finite, [True])).astype(np.int8)))
    for start, stop in edges.reshape(-1, 2):
        before = out[start - _EDGE : start] if start > _EDGE else out[:0]
        after = out[stop : stop + _EDGE] if stop < out.size - _EDGE else out[:0]
        near = sorted(v for v in (*before, *after) if np.isfinite(v))  # np.median of ten values takes 30 us
        out[start:stop] = (near[(len(near) - 1) // 2] + near[len(near) // 2]) / 2 if near else default
    return out


def mask_saturated(strip: Pixels, mask: Mask, level: float, radius: int) -> None:
    """Set SAT in place on pixels >= ``level`` and on all within Manhattan distance ``radius`` of one."""
    hot = strip >= level  # False for NaN
    if not hot.any():
        return
    for _ in range(radius):
        wide = hot.copy()
        wide[1:] |= hot[:-1]
        wide[:-1] |= hot[1:]
        wide[:, 1:] |= hot[:, :-1]
        wide[:, :-1] |= hot[:, 1:]
        hot = wide
    mask |= np.where(hot, np.int32(SAT), np.int32(0))


def describe(values: Pixels, mask: Mask | None = None) -> tuple[float, float, float]:
    """Return mean, median and 3-sigma clipped standard deviation of the finite pixels without BAD or SAT."""
    good = np.isfinite(values)
    if mask is not None:
        good &= (mask & REJECT) == 0
    mean = float(values.sum(dtype=np.float64, where=good) / good.sum()) if good.any() else np.nan
    clipped = clip_statistics(values, mask, REJECT)
    return mean, clipped.median, clipped.stdev


def _stands_out(pixels: Pixels, width: int, threshold: float) -> BoolArray:
    """Lines whose plain median is ``threshold`` above a running median (step 3), the ends excepted."""
    _, _, (_, line, _) = _sorted_lines(pixels)
    line = np.where(np.isfinite(line), line, 0.0)
    padded = np.pad(line, width // 2)
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)
    bad = line - smooth >= threshold
    bad[:_EDGE] = bad[-_EDGE:] = False
    return np.asarray(bad)


def _grow_lines(bad: BoolArray, radius: int) -> BoolArray:
    out = bad.copy()
    for shift in range(1, radius + 1):
        out[shift:] |= bad[:-shift]
        out[:-shift] |= bad[shift:]
    return out


def _line_levels(pixels: Pixels, flags: Mask, sigma: float, use_mean: bool) -> FloatArray:
    """Median or mean of the survivors of every line (steps 5 and 6), NaN without any.

    Survivors are finite, not masked and within ``sigma`` robust sigma of the line's median.  The line's
    sigma is 0.74 IQR of all its pixels; where it exceeds twice the median over lines it is replaced
    by that median.
    """
    ordered, count, (q25, centre, q75) = _sorted_lines(pixels)
    spread = 0.74 * (q75 - q25)
    typical = np.median(spread[count > 0])
    spread = np.where(spread > 2 * typical, typical, spread)
    masked: BoolArray = np.asarray((flags & REJECT).any(axis=0))
    out = np.empty(pixels.shape[1])
    _survivors(pixels, flags, masked, ordered, count, centre, sigma * spread, use_mean, out)
    return out


def _sorted_lines(
    pixels: Pixels,
) -> tuple[Pixels, Int32Array, FloatArray]:
    """Finite pixels of every line in ascending order, +inf behind them; how many; quartiles (3, N)."""
    n_line = pixels.shape[1]
    ordered, count, quartiles = np.empty_like(pixels), np.empty(n_line, np.int32), np.empty((3, n_line))
    _sort_lines(pixels, sorting_network(pixels.shape[0]), ordered, count, quartiles)
    return ordered, count, quartiles


@compiled
def _sort_lines(pixels: Pixels, pairs: Int32Array, ordered: Pixels, count: Int32Array, quartiles: FloatArray) -> None:
    n_pixel, n_line = pixels.shape
    block = np.empty((n_pixel, STACK_WIDTH), np.float32)
    quantile = np.empty(STACK_WIDTH)
    for i0 in range(0, n_line, STACK_WIDTH):
        m = min(STACK_WIDTH, n_line - i0)
        good = gather(pixels, i0, m, block)
        sort_columns(block, pairs)
        for k in range(n_pixel):
            for i in range(m):
                ordered[k, i0 + i] = block[k, i]
        for q in range(3):
            column_quantile(block, good, 0.25 * (q + 1), quantile)
            for i in range(m):
                quartiles[q, i0 + i] = quantile[i]
                count[i0 + i] = good[i]


@compiled(error_model="numpy")
def _survivors(
    pixels: Pixels,
    flags: Mask,
    masked: BoolArray,
    ordered: Pixels,
    count: Int32Array,
    centre: FloatArray,
    limit: FloatArray,
    use_mean: bool,
    out: FloatArray,
) -> None:
    """Level of every line; without masked pixels the survivors are a range of the sorted ones."""
    values = np.empty(pixels.shape[0])
    for i in range(out.size):
        n = 0
        if masked[i]:
            for k in range(pixels.shape[0]):
                v = np.float64(pixels[k, i])
                if abs(v) < np.inf and not (flags[k, i] & REJECT) and not abs(v - centre[i]) > limit[i]:
                    j = n
                    while j > 0 and values[j - 1] > v:
                        values[j] = values[j - 1]
                        j -= 1
                    values[j] = v
                    n += 1
        else:
            for k in range(count[i]):
                v = np.float64(ordered[k, i])
                if not abs(v - centre[i]) > limit[i]:
                    values[n] = v
                    n += 1
        if n == 0:
            out[i] = np.nan
        elif use_mean:
            out[i] = values[:n].sum() / n
        else:
            out[i] = 0.5 * (values[(n - 1) // 2] + values[n // 2])

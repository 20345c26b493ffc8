"""Statistics of one amp or one detector of one exposure (reference/verification.md 0.2-0.5, 1.13).

Pixels arrive as float32 in readout coordinates; sums are float64.  A *good* pixel is finite and
has no selected mask bit.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from camcal_dask.kernels.arrays import AnyArray, BoolArray, FloatArray, Int32Array, IntArray, Mask, Pixels
from camcal_dask.kernels.compiled import compiled

N_PLANES = 15

SHIFT_HALF_WIDTH = 30
SHIFT_SIGMA = 3.0
SHIFT_CUTOFF = 1.0 / 15.0
"""Cut-off of the high-pass filter, in units of the Nyquist frequency: 1/30 cycles per row."""


@compiled
def select_good(
    image: Pixels, mask: Mask, bad_bits: int, height: int, width: int
) -> tuple[Pixels, Pixels, int, IntArray]:
    """Collect the good pixels of one amp and count the masked ones.

    Parameters
    ----------
    image, mask : (y, x) float32, int32
        One amp; only rows below ``height`` and columns below ``width`` [pixel] belong to it.
    bad_bits : int
        Planes that exclude a pixel.

    Returns
    -------
    values : (n_good,) float32, in raster order.
    excluded : (n,) float32, finite values of the masked pixels, in raster order.
    n_masked : int, pixels with any of ``bad_bits``.
    planes : (N_PLANES,) int64, pixels with each plane.
    """
    values = np.empty(height * width, np.float32)
    excluded = np.empty(height * width, np.float32)
    planes = np.zeros(N_PLANES, np.int64)
    largest = np.float32(np.finfo(np.float32).max)
    n_good, n_excluded, n_masked = 0, 0, 0
    for y in range(height):
        bits = np.int32(0)
        finite = 0
        for x in range(width):  # vectorised: most rows are clean and are copied whole
            bits |= mask[y, x]
            finite += abs(image[y, x]) <= largest
        if bits == 0 and finite == width:
            for x in range(width):
                values[n_good + x] = image[y, x]
            n_good += width
            continue
        for x in range(width):
            bits = mask[y, x]
            for plane in range(N_PLANES if bits else 0):
                planes[plane] += (bits >> plane) & 1
            n_masked += (bits & bad_bits) != 0
            if not abs(image[y, x]) <= largest:
                continue
            if bits & bad_bits:
                excluded[n_excluded] = image[y, x]
                n_excluded += 1
            else:
                values[n_good] = image[y, x]
                n_good += 1
    return values[:n_good], excluded[:n_excluded], n_masked, planes


@compiled(error_model="numpy")
def project(
    image: Pixels, mask: Mask, bad_bits: int, height: int, width: int, low: float, high: float, side: int
) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
    """Means of rows, columns and square bins over the good pixels inside a window of values.

    Parameters
    ----------
    image, mask : (y, x) float32, int32
        One amp.
    bad_bits, height, width : int
        As in `select_good`.
    low, high : float
        Pixels outside (cosmic rays, hot pixels) are left out.
    side : int
        Bin side [pixel]; the last bin of a row or column takes the remainder.

    Returns
    -------
    rows (height,), columns (width,), bins (height // side, width // side) : float64, NaN where empty.
    bin_count : int64, pixels that are in each bin.
    """
    rows = np.empty(height)
    n_y, n_x = max(height // side, 1), max(width // side, 1)
    columns, column_count = np.zeros(width), np.zeros(width, np.int32)
    bins, bin_count = np.zeros((n_y, n_x)), np.zeros((n_y, n_x), np.int64)
    sums, counts = np.empty(width), np.empty(width, np.int32)
    for v in range(n_y):
        for x in range(width):
            sums[x], counts[x] = 0.0, 0
        for y in range(v * side, height if v == n_y - 1 else (v + 1) * side):
            rows[y] = _add_row(image[y], mask[y], bad_bits, np.float32(low), np.float32(high), sums, counts)
        for x in range(width):
            u = min(x // side, n_x - 1)
            bins[v, u] += sums[x]
            bin_count[v, u] += counts[x]
            columns[x] += sums[x]
            column_count[x] += counts[x]
    for x in range(width):
        columns[x] /= column_count[x]
    for v in range(n_y):
        for u in range(n_x):
            bins[v, u] /= bin_count[v, u]
    return rows, columns, bins, bin_count


@compiled(fastmath={"reassoc", "contract"})
def _add_row(
    image: Pixels, mask: Mask, bad_bits: int, low: np.float32, high: np.float32, sums: FloatArray, counts: Int32Array
) -> float:
    """Add one row to the column sums; return its mean."""
    total = 0.0
    count = 0
    for x in range(sums.size):
        good = (image[x] >= low) & (image[x] <= high) & ((mask[x] & bad_bits) == 0)
        value = np.float64(image[x]) if good else 0.0
        sums[x] += value
        counts[x] += good
        total += value
        count += good
    return total / count if count else np.nan


@compiled
def box_mean(image: Pixels, mask: Mask, bad_bits: int, height: int, width: int) -> float:
    """Mean of the good pixels of ``[:height, :width]``; NaN if there is none."""
    total = 0.0
    count = 0
    for y in range(height):
        for x in range(width):
            value = np.float64(image[y, x])
            if np.isfinite(value) and not mask[y, x] & bad_bits:
                total += value
                count += 1
    return total / count if count else np.nan


@compiled(fastmath={"reassoc", "contract"})
def _add_products(row: Pixels, products: FloatArray) -> None:
    for a in range(row.shape[0]):
        for b in range(a + 1):
            total = np.float32(0.0)
            for x in range(row.shape[1]):
                total += row[a, x] * row[b, x]
            products[a, b] += total


def amp_correlation(
    image: Pixels,
    mask: Mask,
    bad_bits: int,
    center: FloatArray,
    half_width: FloatArray,
    live: BoolArray,
) -> FloatArray:
    """Pearson correlation of the amps of a detector, pixels paired in readout order.

    Parameters
    ----------
    image, mask : (amp, y, x) float32, int32
        Readout coordinates, so pixels of one index were sampled together.
    bad_bits : int
        Planes that exclude a pixel.
    center, half_width : (amp,) float64
        A pixel counts only within ``center +- half_width`` in *every* live amp.
    live : (amp,) bool
        Amps to correlate; rows and columns of the others are NaN.

    Returns
    -------
    (amp, amp) float64, 1 on the diagonal.
    """
    products, sums, count = _sum_products(image, mask, bad_bits, center, half_width, live)
    result = np.full(products.shape, np.nan)
    if count < 2:
        return result
    covariance = products - np.outer(sums, sums) / count
    variance = np.diag(covariance)
    usable = live & (variance > 0)
    both = np.ix_(usable, usable)
    lower = covariance[both] / np.sqrt(np.outer(variance[usable], variance[usable]))
    result[both] = np.tril(lower) + np.tril(lower, -1).T
    return result


@compiled
def _sum_products(
    image: Pixels, mask: Mask, bad_bits: int, center: FloatArray, half_width: FloatArray, live: BoolArray
) -> tuple[FloatArray, FloatArray, int]:
    """Sums of products (lower half) and values about ``center`` over the pixels that count in all live amps."""
    n_amp, height, width = image.shape
    row = np.zeros((n_amp, width), np.float32)
    good = np.empty(width, np.bool_)
    products, sums = np.zeros((n_amp, n_amp)), np.zeros(n_amp)
    count = 0
    for y in range(height):
        for x in range(width):
            good[x] = True
        for a in range(n_amp):
            if not live[a]:
                continue
            middle, limit = np.float32(center[a]), np.float32(half_width[a])
            for x in range(width):
                value = image[a, y, x] - middle
                row[a, x] = value
                good[x] &= (abs(value) <= limit) & ((mask[a, y, x] & bad_bits) == 0)
        for x in range(width):
            count += good[x]
        for a in range(n_amp):
            if not live[a]:
                continue
            total = np.float32(0.0)
            for x in range(width):
                value = row[a, x] if good[x] else np.float32(0.0)
                row[a, x] = value
                total += value
            sums[a] += total
        _add_products(row, products)
    return products, sums, count


@functools.cache
def highpass_sections(cutoff: float, order: int = 5) -> FloatArray:
    """Butterworth high-pass filter as second-order sections, by the bilinear transform.

    Parameters
    ----------
    cutoff : float
        Half-power frequency in units of the Nyquist frequency.
    order : int
        Odd.

    Returns
    -------
    (order // 2 + 1, 5) float64: b0, b1, b2, a1, a2 of each section (a0 = 1); the last is of first order.
    """
    w = math.tan(0.5 * math.pi * cutoff)
    sections = np.zeros((order // 2 + 1, 5))
    for k in range(order // 2):
        damping = 2.0 * math.cos(math.pi * (k + 1) / order)  # 1/Q of the k-th pole pair
        a0 = 1.0 + damping * w + w * w
        sections[k] = np.array([1.0, -2.0, 1.0, 2.0 * w * w - 2.0, 1.0 - damping * w + w * w]) / a0
    sections[-1] = np.array([1.0, -1.0, 0.0, w - 1.0, 0.0]) / (1.0 + w)
    return sections


@compiled
def _filter(values: FloatArray, sections: FloatArray) -> None:
    """Run the sections over ``values`` in place, starting in the steady state of the first value."""
    for k in range(sections.shape[0]):
        b0, b1, b2, a1, a2 = sections[k]
        start = values[0] if k == 0 else 0.0  # later sections follow a high-pass: their steady input is zero
        s1, s2 = -b0 * start, b2 * start
        for i in range(values.size):
            x = values[i]
            y = b0 * x + s1
            s1 = b1 * x - a1 * y + s2
            s2 = b2 * x - a2 * y
            values[i] = y


@compiled
def zero_phase(values: FloatArray, sections: FloatArray, pad: int) -> FloatArray:
    """Filter forwards and backwards (amplitude response squared, no phase), ends extended oddly by ``pad``."""
    # scipy.signal.sosfiltfilt takes 1.2 ms for 2048 rows, this 0.08 ms, and every amp of every bias needs it.
    n = values.size
    pad = min(pad, n - 1)
    long = np.empty(n + 2 * pad)
    for i in range(n):
        long[pad + i] = values[i]
    for i in range(pad):
        long[pad - 1 - i] = 2 * values[0] - values[i + 1]
        long[pad + n + i] = 2 * values[n - 1] - values[n - 2 - i]
    for _ in range(2):
        _filter(long, sections)
        for i in range(long.size // 2):
            long[i], long[long.size - 1 - i] = long[long.size - 1 - i], long[i]
    return long[pad : pad + n]


@compiled
def _slope(values: FloatArray) -> float:
    middle = 0.5 * (values.size - 1)
    above = 0.0
    below = 0.0
    for i in range(values.size):
        above += (i - middle) * values[i]
        below += (i - middle) ** 2
    return above / below


@compiled
def _step_response(rows: FloatArray, half: int) -> FloatArray:
    """Triangle-weighted mean after minus before each row: a clean step of height h peaks at h in its first row."""
    n = rows.size
    response = np.empty(n)
    norm = half * (half - 1) / 2
    for y in range(n):
        total = 0.0
        for j in range(1, half):
            weight = half - j
            total += weight * (rows[min(y + j - 1, n - 1)] - rows[max(y - j, 0)])
        response[y] = total / norm
    return response


@compiled
def _shifts(rows: FloatArray, noise: float, half: int, sigma: float) -> tuple[IntArray, FloatArray]:
    response = _step_response(rows, half)
    n = rows.size - half // 2  # nearer to the end a step rests on too few rows
    found_row, found_size = np.empty(n, np.int64), np.empty(n)
    count = 0
    y = half
    while y < n:
        if not abs(response[y]) > sigma * noise:
            y += 1
            continue
        peak = y
        while y < n and abs(response[y]) > sigma * noise:
            peak = y if abs(response[y]) > abs(response[peak]) else peak
            y += 1
        sign = 1.0 if response[peak] > 0 else -1.0
        before = sign * 2.0 * _slope(rows[peak - half : peak]) * half
        after = sign * 2.0 * _slope(rows[peak : peak + half]) * half
        if before < abs(response[peak]) and after < abs(response[peak]):
            found_row[count], found_size[count] = peak, response[peak]
            count += 1
    return found_row[:count], found_size[:count]


def bias_shifts(rows: AnyArray) -> tuple[IntArray, FloatArray, float]:
    """Find sudden steps of the bias level in a vector of serial-overscan row levels.

    Parameters
    ----------
    rows : (y,) float
        Level of each row, top of the readout last [u]; NaN ends are cut, NaN gaps interpolated.

    Returns
    -------
    row : (n,) int64, first row after each step.
    size : (n,) float64, height of each step [u], signed.
    noise : float, row-to-row noise [u] = standard deviation of the high-passed rows; NaN if there are too few rows.

    References
    ----------
    reference/verification.md 1.13 (bias shifts).  The response has as many points as there are rows.
    """
    values = np.asarray(rows, np.float64)
    good = np.flatnonzero(np.isfinite(values))
    if good.size < 3 * SHIFT_HALF_WIDTH // 2:
        return np.empty(0, np.int64), np.empty(0), math.nan
    first, last = int(good[0]), int(good[-1]) + 1
    filled = np.interp(np.arange(first, last), good, values[good])
    noise = float(np.std(zero_phase(filled, highpass_sections(SHIFT_CUTOFF), 3 * SHIFT_HALF_WIDTH)))
    row, size = _shifts(filled - filled[0], noise, SHIFT_HALF_WIDTH, SHIFT_SIGMA)
    return row + first, size, noise

"""Cosmic rays in one exposure of one detector (reference/construction.md 2 step 3.

The search runs on the assembled CCD, so that a track crosses amp borders; input and output
stay in readout coordinates (amp, y, x).  Departures from the reference, each because the number
that comes out is better for it:

- the background is subtracted per amp (the caller passes amp medians), not once per detector, so a
  step between amps is no track;
- pixels of the outermost frame are tested too (against mirrored neighbours): a hit there would
  otherwise stay in the statistics of the amp;
- BAD, SAT, INTRP and NO_DATA pixels count as unknown (no test uses them) instead of being
  interpolated first;
- a pixel below 4 sigma is never a seed (it can join a track): a quick reject that lets the search
  touch a few thousand pixels instead of assembling sixteen million.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from camcal_dask.kernels.arrays import BoolArray, ByteArray, FloatArray, IntArray, Mask, Number, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.pixels.masks import BAD, INTRP, NO_DATA, SAT

PSF_SIGMA_PIXEL = 3.0 / 2.3548200450309493
"""Gaussian of 3 pixel FWHM."""
SEED_SIGMA = 4.0
GROW_SIGMA = 3.0
_UNUSABLE = BAD | INTRP | SAT | NO_DATA
_HIT, _KEPT = 1, 2
Frame: TypeAlias = tuple[Pixels, Pixels, Mask, FloatArray, IntArray, IntArray, int, int]
"""(image, variance, mask, background, layout, grid, tall, wide), see `_find`."""


class CosmicRays(NamedTuple):
    """Pixels hit in one detector.

    Attributes
    ----------
    pixel : (n,) int64
        Flat indices into (amp, y, x) of the input, ascending.
    repaired : (n,) float32
        Interpolated values of these pixels, in the unit of the image; NaN where no neighbour is usable.
    n_hit : (amp,) int64
        Hits per amp.
    overflow : (amp,) bool
        "Too many cosmic rays": more than the allowed fraction of the amp. Its hits are not to be trusted.
    """

    pixel: IntArray
    repaired: Pixels
    n_hit: IntArray
    overflow: BoolArray


def find_cosmic_rays(
    image: Pixels,
    variance: Pixels,
    mask: Mask,
    background: FloatArray,
    layout: IntArray,
    *,
    min_sigma: float = 6.0,
    min_sum: float = 150.0,
    cond3_factor: float = 2.0,
    cond3_factor2: float = 0.35,
    growth_passes: int = 6,
    max_fraction: float = 0.0625,
) -> CosmicRays:
    """Find cosmic-ray pixels and interpolate over them (reference/construction.md 2, reference/verification.md 0.9).

    Parameters
    ----------
    image, variance, mask : (amp, y, x) float32, float32, int32
        One exposure of one detector in readout coordinates; units u, u^2, mask planes.
    background : (amp,) float64
        Level to subtract [u]; NaN leaves the amp out.
    layout : (amp, 6) int64
        ``height, width, ix, iy, flip_x, flip_y`` of each amp; height 0 = the amp does not exist.
    min_sigma : float
        Excess over at least one of the four means of opposite neighbours [sigma].
    min_sum : float
        Least sum of a track above the background [u].
    cond3_factor, cond3_factor2 : float
        Sharpness against the point-spread function: cond3_fac and cond3_fac2.
    growth_passes : int
        Passes that add neighbours above 3 sigma.
    max_fraction : float
        Fraction of an amp's pixels above which the search has overflowed (one million per detector upstream).
    """
    psf = np.exp(-0.5 * np.array([1.0, 2.0]) / PSF_SIGMA_PIXEL**2)
    # sharpness of the four means, in the order in which they are tested: NS, WE, SW-NE, NW-SE
    numbers = np.array([min_sigma, min_sum, cond3_factor, *(cond3_factor2 * psf[[0, 0, 1, 1]])])
    tall, wide = max(int(layout[:, 0].max()), 1), max(int(layout[:, 1].max()), 1)
    grid = np.full((layout[:, 3].max() + 1, layout[:, 2].max() + 1), -1)
    there = np.flatnonzero(layout[:, 0] > 0)
    grid[layout[there, 3], layout[there, 2]] = there
    frame = (image, variance, mask, background, layout, grid, tall, wide)
    overflow = np.zeros(len(image), np.bool_)
    seeds = np.sort(_seeds(frame, grid.shape[1] * wide + 2, max_fraction, overflow))
    pixel, repaired = _find(frame, seeds, numbers, growth_passes)
    order = np.argsort(pixel)
    n_hit = np.bincount(pixel // image[0].size, minlength=len(image))
    overflow |= n_hit > max_fraction * layout[:, 0] * layout[:, 1]
    return CosmicRays(pixel[order], repaired[order], n_hit, overflow)


@compiled(error_model="numpy")
def _find(frame: Frame, seeds: IntArray, numbers: FloatArray, passes: int) -> tuple[IntArray, Pixels]:
    """Search, grow and repair; see `find_cosmic_rays`.

    ``frame`` is (image, variance, mask, background, layout, grid, tall, wide): the amps, the amp in each cell of
    the CCD (-1 = none) and the size of a cell.  Positions are ``y * stride + x`` in the assembled CCD with
    a frame of one pixel, which belongs to no amp.
    """
    image, grid, tall, wide = frame[0], frame[5], frame[6], frame[7]
    state = np.zeros((grid.shape[0] * tall + 2, grid.shape[1] * wide + 2), np.uint8)
    hits, n_hit = _scan(frame, state, seeds, numbers)
    tracks, n_kept = _tracks(frame, state, hits[:n_hit], numbers[1])
    tracks, n_kept = _grow(frame, state, tracks, n_kept, numbers, passes)
    pixel = np.empty(n_kept, np.int64)
    repaired = np.empty(n_kept, np.float32)
    for k in range(n_kept):
        y, x = tracks[k] // state.shape[1], tracks[k] % state.shape[1]
        amp, row, column = _site(frame, y, x)
        pixel[k] = (amp * image.shape[1] + row) * image.shape[2] + column
        repaired[k] = _interpolate(frame, state, y, x) + frame[3][amp]
    return pixel, repaired


@compiled(error_model="numpy")
def _site(frame: Frame, y: int, x: int) -> tuple[int, int, int]:
    """(amp, row, column) of a framed CCD position, positions outside reflected; amp -1 where there is none."""
    layout, grid, tall, wide = frame[4], frame[5], frame[6], frame[7]
    last_y, last_x = grid.shape[0] * tall - 1, grid.shape[1] * wide - 1
    y, x = abs(y - 1), abs(x - 1)
    y = 2 * last_y - y if y > last_y else y
    x = 2 * last_x - x if x > last_x else x
    amp, row, column = grid[y // tall, x // wide], y % tall, x % wide
    if amp >= 0:
        row = tall - 1 - row if layout[amp, 5] == 1 else row
        column = wide - 1 - column if layout[amp, 4] == 1 else column
    return amp, row, column


@compiled(error_model="numpy")
def _pixel(frame: Frame, y: int, x: int) -> tuple[np.float32, np.float32, np.int32]:
    """(value above background, variance, mask) of a framed CCD position; NaN for an unusable pixel."""
    amp, row, column = _site(frame, y, x)
    if amp < 0:
        return np.float32(np.nan), np.float32(np.nan), np.int32(0)
    bits = frame[2][amp, row, column]
    value = frame[0][amp, row, column] - np.float32(frame[3][amp])
    return np.float32(np.nan) if bits & _UNUSABLE else value, frame[1][amp, row, column], bits


@compiled(error_model="numpy")
def _mended(frame: Frame, hits: IntArray, mended: Pixels, y: int, x: int, stride: int) -> tuple[np.float32, np.float32]:
    """Value and variance of a pixel, as replaced so far: ``hits`` are the sorted positions of replaced pixels."""
    value, variance, _ = _pixel(frame, y, x)
    position = y * stride + x
    low, high = 0, hits.size
    while low < high:
        middle = (low + high) // 2
        if hits[middle] < position:
            low = middle + 1
        else:
            high = middle
    if low < hits.size and hits[low] == position:
        value = mended[low]
    return value, variance


@compiled(error_model="numpy")
def _seeds(frame: Frame, stride: int, max_fraction: float, overflow: BoolArray) -> IntArray:
    """Framed positions of usable pixels above SEED_SIGMA; an amp with too many overflows and has none."""
    image, variance, _mask, background, layout, _grid, tall, wide = frame
    room = int(max_fraction * tall * wide) + 1
    seeds = np.empty(room * image.shape[0], np.int64)
    n_seed = 0
    square = np.float32(SEED_SIGMA * SEED_SIGMA)
    for amp in range(image.shape[0]):
        first, level = n_seed, np.float32(background[amp])
        flip_x, flip_y = layout[amp, 4] == 1, layout[amp, 5] == 1
        for y in range(layout[amp, 0]):
            above = 0
            for x in range(layout[amp, 1]):  # vectorised: most rows end here
                value = image[amp, y, x] - level
                above += (value > 0) & (value * value > square * variance[amp, y, x])
            if above == 0 or overflow[amp]:
                continue
            if n_seed - first + above > room:
                overflow[amp], n_seed = True, first
                continue
            row = 1 + layout[amp, 3] * tall + (tall - 1 - y if flip_y else y)
            for x in range(layout[amp, 1]):
                value = image[amp, y, x] - level
                if value > 0 and value * value > square * variance[amp, y, x]:
                    column = 1 + layout[amp, 2] * wide + (wide - 1 - x if flip_x else x)
                    seeds[n_seed] = row * stride + column
                    n_seed += 1
    return seeds[:n_seed]


@compiled(error_model="numpy")
def _test(
    frame: Frame,
    hits: IntArray,
    mended: Pixels,
    y: int,
    x: int,
    stride: int,
    numbers: FloatArray,
    min_sigma: float,
    cond3: float,
) -> np.float32:
    """Mean of the opposite neighbours that unmasks the pixel as a hit, or NaN if it is none.

    Tracks grow with ``cond3`` 0; there unusable neighbours count as background.
    """
    values, variances = np.empty(9, np.float32), np.empty(9, np.float32)
    for i in range(9):  # one call: each costs a second of compilation
        values[i], variances[i] = _mended(frame, hits, mended, y + i // 3 - 1, x + i % 3 - 1, stride)
        if cond3 == 0 and i != 4 and np.isnan(values[i]):  # beside a track: a masked pixel must not hide its neighbour
            values[i] = 0.0
    value, sigma = values[4], np.sqrt(variances[4])
    exceeds, found = False, np.float32(np.nan)
    for k in range(numbers.size - 3 if value >= 0 else 0):
        first = (1, 3, 0, 2)[k]
        mean = np.float32(0.5) * (values[first] + values[8 - first])
        error = 0.5 * np.sqrt(variances[first] + variances[8 - first]) if cond3 > 0 else 0.0
        exceeds |= value > mean + min_sigma * sigma
        if np.isnan(found) and numbers[3 + k] * (value - cond3 * sigma) > mean + cond3 * error:
            found = mean
    return found if exceeds else np.float32(np.nan)


@compiled(error_model="numpy")
def _beside_interpolated(frame: Frame, y: int, x: int) -> bool:
    found = False
    for v in range(y - 1, y + 2):
        for u in range(x - 1, x + 2):
            found |= (_pixel(frame, v, u)[2] & INTRP) != 0
    return found


@compiled(error_model="numpy")
def _scan(frame: Frame, state: ByteArray, seeds: IntArray, numbers: FloatArray) -> tuple[IntArray, int]:
    """First pass in raster order: a hit is replaced at once, so that the next pixel sees it mended."""
    stride = state.shape[1]
    hits = np.empty(seeds.size, np.int64)
    mended = np.empty(seeds.size, np.float32)
    n = 0
    for position in seeds:
        y, x = position // stride, position % stride
        mean = _test(frame, hits[:n], mended[:n], y, x, stride, numbers, numbers[0], numbers[2])
        if np.isnan(mean) or _beside_interpolated(frame, y, x):
            continue
        hits[n], mended[n] = position, mean
        n += 1
        state[y, x] = _HIT
    return hits, n


@compiled(error_model="numpy")
def _tracks(frame: Frame, state: ByteArray, hits: IntArray, min_sum: float) -> tuple[IntArray, int]:
    """Merge hits into 8-connected tracks and keep those whose sum reaches ``min_sum``."""
    stride = state.shape[1]
    kept = np.empty(hits.size, np.int64)
    n_kept = 0
    for seed in hits:
        if state[seed // stride, seed % stride] != _HIT:
            continue
        total: Number
        first, last, total = n_kept, n_kept + 1, 0.0
        kept[first] = seed
        state[seed // stride, seed % stride] = 0
        k = first
        while k < last:
            y, x = kept[k] // stride, kept[k] % stride
            total += _pixel(frame, y, x)[0]
            for v in range(y - 1, y + 2):
                for u in range(x - 1, x + 2):
                    if state[v, u] == _HIT:
                        state[v, u] = 0
                        kept[last] = v * stride + u
                        last += 1
            k += 1
        if total >= min_sum:
            n_kept = last
            for k in range(first, last):
                state[kept[k] // stride, kept[k] % stride] = _KEPT
    return kept, n_kept


@compiled(error_model="numpy")
def _grow(
    frame: Frame, state: ByteArray, tracks: IntArray, n_kept: int, numbers: FloatArray, passes: int
) -> tuple[IntArray, int]:
    """Add neighbours of tracks that exceed 3 sigma, pass by pass."""
    stride = state.shape[1]
    no_position, no_value = np.empty(0, np.int64), np.empty(0, np.float32)
    first = 0
    for _ in range(passes):
        last = n_kept
        if last + 8 * (last - first) > tracks.size:
            longer = np.empty(last + 8 * (last - first), np.int64)
            for k in range(last):  # a slice would cost two seconds of compilation
                longer[k] = tracks[k]
            tracks = longer
        for k in range(first, last):
            y, x = tracks[k] // stride, tracks[k] % stride
            for i in range(9):
                v, u = y + i // 3 - 1, x + i % 3 - 1
                inside = 0 < v < state.shape[0] - 1 and 0 < u < stride - 1
                if not inside or state[v, u] == _KEPT:
                    continue
                if not np.isnan(_test(frame, no_position, no_value, v, u, stride, numbers, GROW_SIGMA, 0.0)):
                    state[v, u] = _KEPT
                    tracks[n_kept] = v * stride + u
                    n_kept += 1
        if n_kept == last:
            break
        first = last
    return tracks, n_kept


@compiled(error_model="numpy")
def _reach(frame: Frame, state: ByteArray, y: int, x: int, dy: int, dx: int) -> tuple[int, np.float32]:
    """Distance and value of the nearest usable pixel in one direction; distance 0 if there is none."""
    for distance in range(1, 100):
        v, u = y + distance * dy, x + distance * dx
        if v < 1 or u < 1 or v >= state.shape[0] - 1 or u >= state.shape[1] - 1:
            break
        value = _pixel(frame, v, u)[0]
        if state[v, u] != _KEPT and np.isfinite(value):
            return distance, value
    return 0, np.float32(np.nan)


@compiled(error_model="numpy")
def _interpolate(frame: Frame, state: ByteArray, y: int, x: int) -> Number:
    """Linear interpolation across the shorter of the row and column gaps; NaN if nothing is near."""
    value: Number
    best, value = 1000, np.nan
    for dy, dx in ((0, 1), (1, 0)):
        before, low = _reach(frame, state, y, x, -dy, -dx)
        after, high = _reach(frame, state, y, x, dy, dx)
        if before and after and before + after < best:
            best = before + after
            value = (low * after + high * before) / best
        elif (before or after) and 500 + before + after < best:  # an edge: one side only, the last resort
            best = 500 + before + after
            value = np.float64(low if before else high)
    return value

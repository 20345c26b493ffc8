"""Interpolation over masked pixels, growth of mask planes, fill of bad regions (reference/isr.md 0.4, 2.13-2.15).

All functions act in place on a trimmed CCD image in detector coordinates: ``image``, ``variance``
(y, x) float32, ``mask`` (y, x) int32, C order.  Interpolation runs along rows (x) and crosses amp
boundaries.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from camcal_dask.errors import DataError
from camcal_dask.kernels.arrays import FloatArray, Mask, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.pixels.masks import BAD, INTRP, NO_DATA, SAT, SUSPECT, UNMASKEDNAN
from camcal_dask.kernels.statistics.moments import clip_statistics, median

INTERPOLATED = SAT | BAD | UNMASKEDNAN
"""Planes interpolated in the final image (step 29)."""

UNUSABLE = SAT | BAD | NO_DATA | UNMASKEDNAN
"""Planes replaced in the working copy of the brighter-fatter correction (step 24)."""

SIDE_RUN = 6
"""Longest run at a side of the chip that is extrapolated; beyond it the fallback level takes over [pixel]."""

_FAR = 13  # at this distance exp(-d^2 / 4) < 1e-18: the other side no longer matters
_LONGEST = 2 * _FAR
_SAMPLE = 2_000_000  # pixels that give the fallback level to sigma / 1400


def interpolate(
    image: Pixels,
    variance: Pixels | None,
    mask: Mask,
    planes: int = INTERPOLATED,
    *,
    grow_saturated: int = 1,
    fallback: float | None = None,
    fallback_variance: float = np.inf,
    decimals: int | None = None,
) -> int:
    """Replace flagged pixels by ordinary kriging along rows and set INTRP on them.

    Each maximal run of flagged (or non-finite) pixels in a row is estimated from up to two good
    pixels on each side (a second one that is flagged or off the chip is not used), with the weights
    of :func:`kriging_weights`.  A run longer than 6 pixels at a side of the chip takes the fallback
    level beyond 6 pixels from its good end, and is interpolated between it and the good pixels in
    those 6; a run across the whole row takes the fallback.

    The variance becomes that of the estimate, sum w_k^2 V_k, but never less than the mean variance of
    the pixels used: a pixel without photons of its own must not outweigh a measured one.  Where
    the fallback enters, nothing is known: ``fallback_variance``.  (Upstream blends variances
    linearly, can make them negative, and uses the *image* level as their fallback; reference/isr.md 6.11.)

    Parameters
    ----------
    image, variance : (y, x) float32, changed in place; ``variance`` may be None.
    mask : (y, x) int32, changed in place (SAT grown, INTRP set).
    planes : OR of the mask bits to interpolate.
    grow_saturated : Manhattan radius by which SAT grows first [pixel].
    fallback : level [unit of image]; None takes :func:`fallback_level`, if it is needed at all.
    decimals : round the weights (4 reproduces the reference); None keeps them exact.

    Returns
    -------
    Number of pixels interpolated.
    """
    if grow_saturated:
        grow(mask, SAT, grow_saturated)
    if fallback is None:
        needed = _needs_fallback(image, mask, np.int32(planes))
        fallback = fallback_level(image, mask, planes) if needed else 0.0
    var = np.empty((0, 0), np.float32) if variance is None else variance
    table = _weight_table(decimals)
    return int(_fill_rows(image, var, mask, np.int32(planes), table, np.float64(fallback), fallback_variance))


def working_copy(image: Pixels, mask: Mask, planes: int = UNUSABLE, *, fallback: float | None = None) -> Pixels:
    """Return a copy of the image with unusable pixels interpolated; ``image`` and ``mask`` stay.

    Parameters
    ----------
    image, mask : (y, x) float32, int32
    planes : OR of the mask bits to replace; SAT is grown by 1 first.
    fallback : see :func:`interpolate`.
    """
    copy = image.copy()
    interpolate(copy, None, mask.copy(), planes, fallback=fallback)
    return copy


def fallback_level(image: Pixels, mask: Mask, planes: int = INTERPOLATED) -> float:
    """Return the clipped mean of the image's good pixels, 0 if there are none [unit of image].

    The reference takes all pixels of the CCD, masked ones too.  Here masked pixels are left out, and of a
    large image rows are sampled evenly (2 million pixels): exact to a thousandth of the pixel noise.
    """
    step = max(1, image.size // _SAMPLE)
    level = clip_statistics(image[::step], mask[::step], planes).mean
    return level if np.isfinite(level) else 0.0


def kriging_weights(left: int, right: int, length: int) -> FloatArray:
    """Return the ordinary-kriging weights for a run of flagged pixels.

    Covariance exp(-d^2 / 4), no nugget, weights of sum 1; the good pixels lie at -2, -1 and at
    length, length + 1, the run at 0..length-1 (reference/isr.md 2.14).

    Parameters
    ----------
    left, right : number of good pixels on each side, 0..2
    length : number of pixels of the run

    Returns
    -------
    (length, 4) float64: weights of the pixels at -2, -1, length, length + 1; 0 for absent ones.

    Raises
    ------
    DataError
        If there is no good pixel, or a count is not 0, 1 or 2.
    """
    if not (0 <= left <= 2 and 0 <= right <= 2 and left + right > 0 and length > 0):
        raise DataError(
            f"no kriging weights for {left} good pixels left, {right} right of a run of {length}: "
            "give 0..2 on each side, at least one in all, and a length of 1 or more"
        )
    slots = np.array([0, 1, 2, 3][2 - left : 2 + right])
    at = np.array([-2.0, -1.0, length, length + 1.0])[slots]
    system = np.ones((at.size + 1, at.size + 1))
    system[:-1, :-1] = np.exp(-0.25 * (at[:, None] - at) ** 2)
    system[-1, -1] = 0.0
    to_target = np.ones((at.size + 1, length))
    to_target[:-1] = np.exp(-0.25 * (at[:, None] - np.arange(length)) ** 2)
    weights = np.zeros((length, 4))
    weights[:, slots] = np.linalg.solve(system, to_target)[:-1].T
    return weights


@functools.cache
def _weight_table(decimals: int | None) -> FloatArray:
    """Weights of all runs up to 26 pixels: [good left, good right, length, position, slot] float64."""
    table = np.zeros((3, 3, _LONGEST + 1, _LONGEST, 4))
    for left in range(3):
        for right in range(3):
            for length in range(1, _LONGEST + 1) if left + right else ():
                weights = kriging_weights(left, right, length)
                table[left, right, length, :length] = weights if decimals is None else weights.round(decimals)
    return table


def set_bad_regions(image: Pixels, mask: Mask) -> float:
    """Give pixels that are BAD and not INTRP the median of all finite pixels without BAD (step 28).

    Returns the median used [unit of image], NaN if there was nothing to fill or no good pixel; the
    variance keeps its values.
    """
    todo = (mask & (BAD | INTRP)) == BAD
    if not todo.any():
        return float("nan")
    level = median(image, mask, BAD)
    if np.isfinite(level):
        image[todo] = level
    return level


def mask_edges(mask: Mask, width: int, plane: int = SUSPECT, boxes: Sequence[Sequence[int]] | None = None) -> None:
    """Set ``plane`` on a frame of ``width`` pixels of the CCD, or of each amp (reference/isr.md 2.15).

    Parameters
    ----------
    mask : (y, x) int32, changed in place
    width : frame [pixel]; 0 does nothing.
    boxes : per amp (x0, y0, width, height) in ``mask``; None for the whole CCD.
    """
    if width <= 0:
        return
    for x0, y0, nx, ny in boxes if boxes is not None else [(0, 0, mask.shape[1], mask.shape[0])]:
        amp = mask[y0 : y0 + ny, x0 : x0 + nx]
        for part in (amp[:width], amp[-width:], amp[:, :width], amp[:, -width:]):
            part |= plane


def grow(mask: Mask, planes: int, radius: int = 1) -> None:
    """Grow each of ``planes`` onto itself by the Manhattan diamond |dx| + |dy| <= radius, in place.

    Parameters
    ----------
    mask : (y, x) int32; growth ends at its borders.
    planes : OR of mask bits; each grows separately, all in one pass.
    radius : [pixel]
    """
    for _ in range(radius):
        _grow_once(mask, np.int32(planes))


@compiled
def _grow_once(mask: Mask, planes: np.int32) -> None:
    """OR the planes of the four neighbours (as they were) into every pixel."""
    ny, nx = mask.shape
    above, here = np.zeros(nx, np.int32), np.empty(nx, np.int32)
    for y in range(ny):
        row = mask[y]
        for x in range(nx):
            here[x] = row[x] & planes
        if y + 1 < ny:
            below = mask[y + 1]
            for x in range(nx):
                row[x] |= below[x] & planes
        for x in range(nx):
            row[x] |= above[x]
        for x in range(1, nx):
            row[x] |= here[x - 1]
        for x in range(nx - 1):
            row[x] |= here[x + 1]
        above, here = here, above


@compiled
def _flagged(value: np.float32, bits: np.int32, planes: np.int32) -> bool:
    return (bits & planes) != 0 or not abs(value) < np.inf


@compiled
def _row_is_clean(row: Pixels, flags: Mask, planes: np.int32) -> bool:
    """Whether a row needs nothing; no branches, so that the loop is vectorised."""
    any_bits, finite = np.int32(0), True
    for x in range(row.size):
        any_bits |= flags[x] & planes
        finite &= abs(row[x]) < np.inf
    return finite and any_bits == 0


@compiled
def _needs_fallback(image: Pixels, mask: Mask, planes: np.int32) -> bool:
    """Whether any row has a flagged run longer than SIDE_RUN at a side of the chip."""
    ny, nx = mask.shape
    longest = min(SIDE_RUN, nx - 1)
    for y in range(ny):
        left, right = True, True
        for x in range(longest + 1):
            left &= _flagged(image[y, x], mask[y, x], planes)
            right &= _flagged(image[y, nx - 1 - x], mask[y, nx - 1 - x], planes)
        if left or right:
            return True
    return False


@compiled
def _fill_rows(
    image: Pixels,
    variance: Pixels,
    mask: Mask,
    planes: np.int32,
    table: FloatArray,
    fallback: float,
    fallback_variance: float,
) -> int:
    """Interpolate all runs of all rows; an empty ``variance`` is left out.  Returns the number of pixels."""
    ny, nx = image.shape
    done = 0
    for y in range(ny):
        row, flags = image[y], mask[y]
        if _row_is_clean(row, flags, planes):
            continue
        row_variance = variance[y] if variance.size > 0 else variance.ravel()
        x, good_before = 0, 0
        while x < nx:
            if not _flagged(row[x], flags[x], planes):
                x += 1
                good_before = min(good_before + 1, 2)
                continue
            start = x
            while x < nx and _flagged(row[x], flags[x], planes):
                x += 1
            good_after = 0
            while good_after < 2 and x + good_after < nx:
                if _flagged(row[x + good_after], flags[x + good_after], planes):
                    break
                good_after += 1
            _fill_run(
                row, row_variance, start, x, good_before, good_after, table, np.float32(fallback), fallback_variance
            )
            for k in range(start, x):
                flags[k] |= INTRP
            done += x - start
            good_before = 0
    return done


@compiled
def _fill_run(
    row: Pixels,
    variance: Pixels,
    start: int,
    stop: int,
    left: int,
    right: int,
    table: FloatArray,
    fallback: np.float32,
    fallback_variance: float,
) -> None:
    """Estimate row[start:stop] from ``left`` and ``right`` good pixels beside it."""
    n_variance = variance.size
    values, variances = np.zeros(4), np.zeros(4)
    for k in range(left):
        values[1 - k] = row[start - 1 - k]
        variances[1 - k] = variance[start - 1 - k] if n_variance > 0 else 0.0
    for k in range(right):
        values[2 + k] = row[stop + k]
        variances[2 + k] = variance[stop + k] if n_variance > 0 else 0.0
    if (left == 0 or right == 0) and (stop - start > SIDE_RUN or left + right == 0):
        keep = SIDE_RUN if left + right > 0 else 0
        far0 = start + keep if left > 0 else start
        far1 = stop if left > 0 else stop - keep
        for x in range(far0, far1):
            row[x] = fallback
        for x in range(start, stop if n_variance > 0 else start):
            variance[x] = fallback_variance
        if keep == 0:
            return
        n_variance = 0
        if left > 0:
            stop, right = far0, 2
            values[2:] = fallback
        else:
            start, left = far1, 2
            values[:2] = fallback
    _apply_weights(row, variance, n_variance, start, stop, values, variances, table[left, right])


@compiled
def _apply_weights(
    row: Pixels,
    variance: Pixels,
    n_variance: int,
    start: int,
    stop: int,
    values: FloatArray,
    variances: FloatArray,
    weights: FloatArray,
) -> None:
    n = stop - start
    length = min(n, _LONGEST)
    for p in range(n):
        q = p if p < _FAR else max(_FAR, length - (n - p))
        w = weights[length, min(q, length - 1)]
        value, spread, total, used = 0.0, 0.0, 0.0, 0
        for k in range(4):
            value += w[k] * values[k]
            spread += w[k] * w[k] * variances[k]
            if w[k] != 0.0:
                total += variances[k]
                used += 1
        row[start + p] = value
        if n_variance > 0:
            variance[start + p] = max(spread, total / used)

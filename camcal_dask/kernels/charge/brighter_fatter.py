"""Brighter-fatter corrections: Astier+ 2023, Coulton+ 2018 and its flux-conserving form (reference/isr.md 2.11).

All act on a trimmed CCD image in detector coordinates and in **electrons** (scale by the gains before
and back afterwards if it is in adu).  The light is read from a working copy X, in which saturated, bad,
dark and non-finite pixels are interpolated; the correction is then applied to the *original*, so that
masked pixels keep their own value and the later fill of bad regions still finds them.  (Upstream
overwrites masked pixels with X in its Astier variant and sets INTRP on them.)

Convolutions are true ones, "same", zero outside the chip, by blocked float64 FFTs: 0.5 s for two
19 x 19 kernels on 4004 x 4096 pixels, any kernel shape or symmetry, 1 MB of workspace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camcal_dask.errors import DataError
from camcal_dask.kernels.arrays import BoolArray, FloatArray, Mask, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.pixels.interpolation import UNUSABLE, grow, mask_edges, working_copy
from camcal_dask.kernels.pixels.masks import EDGE
from camcal_dask.kernels.statistics.moments import clipped_mean_stack


class BoundaryShifts(NamedTuple):
    """Shifts of a pixel's four boundaries, outwards, per electron at the origin.

    Each (n, n) float64 [pixel / electron], index [i serial, j parallel] of the shifted pixel;
    negative at [0, 0], where the boundaries move inwards.
    """

    aN: FloatArray  # noqa: N815
    aS: FloatArray  # noqa: N815
    aE: FloatArray  # noqa: N815
    aW: FloatArray  # noqa: N815


class Convergence(NamedTuple):
    """How an iterative correction ended: passes, sum |change| of the last [electron], below the threshold or not."""

    iterations: int
    change: float
    converged: bool


def astier23(
    image: Pixels,
    mask: Mask,
    shifts: BoundaryShifts,
    *,
    planes: int = UNUSABLE,
    fallback: float | None = None,
    grow_radius: int = 2,
) -> None:
    """Undo the boundary shifts of the pixels (Astier & Regnault 2023), one pass, in place.

    With the kernels of :func:`astier_kernels`, dN = kN * X, dE = kE * X,
    qN(y,x) = (X(y,x) + X(y+1,x)) dN(y,x) (0 in the last row), qE likewise along x,
    delta = qN(y,x) - qN(y-1,x) + qE(y,x) - qE(y,x-1):  image -= delta.  The sum over the image is kept.

    Then EDGE on a frame of the full reach, n pixels (upstream: n // 2, too few), and each of ``planes`` grows.

    Parameters
    ----------
    image : (y, x) float32 [electron], changed in place.
    mask : (y, x) int32, changed in place.
    shifts : tables of the detector (and filter).
    planes : mask bits that make a pixel unusable as a source of charge.
    fallback : level for long runs of such pixels, see :func:`interpolation.interpolate`.
    grow_radius : Manhattan growth of ``planes`` afterwards [pixel].
    """
    kernels = astier_kernels(shifts)
    light = working_copy(image, mask, planes, fallback=fallback)
    for y0, x0, height, width, (north, east) in convolved_blocks(light, kernels):
        _move_boundaries(light, north, east, image, y0, x0, height, width)
    _flag(mask, kernels[0].shape[0] // 2 + 1, planes, grow_radius)


def astier_kernels(shifts: BoundaryShifts) -> tuple[FloatArray, FloatArray]:
    """Return the convolution kernels (kN, kE) of the north and east boundaries, (2n-1, 2n-1) float64, index [y, x].

    kN(i, j) = aN(|i|, j) for j > 0, else aS(|i|, |j|); kE(i, j) = aE(i, |j|) for i > 0, else aW(|i|, |j|);
    kN(i, -r) = -kN(i, r), kE(-r, j) = -kE(r, j), r = n - 1; all times 1/4 (half the final charge acts
    on average; the two pixels beside a boundary are averaged).

    Raises
    ------
    DataError
        If the tables are not finite squares of one size.
    """
    tables = [np.asarray(table, np.float64) for table in shifts]
    shapes = {table.shape for table in tables}
    if len(shapes) != 1 or tables[0].ndim != 2 or len(set(tables[0].shape)) != 1:
        raise DataError(f"boundary shifts aN, aS, aE, aW must be squares of one size, not {[t.shape for t in tables]}")
    if not all(np.isfinite(table).all() for table in tables):
        raise DataError("boundary shifts aN, aS, aE, aW contain non-finite values; make the calibration again")
    north, south, east, west = tables
    lags = np.arange(1 - len(north), len(north))
    i, j = np.abs(lags)[:, None], np.abs(lags)[None, :]
    kernel_n = np.where(lags[None, :] > 0, north[i, j], south[i, j])
    kernel_e = np.where(lags[:, None] > 0, east[i, j], west[i, j])
    kernel_n[:, 0] = -kernel_n[:, -1]
    kernel_e[0] = -kernel_e[-1]
    return 0.25 * kernel_n.T.copy(), 0.25 * kernel_e.T.copy()


def coulton18(
    image: Pixels,
    mask: Mask,
    kernel: FloatArray,
    *,
    max_iterations: int = 10,
    threshold: float = 1000.0,
    planes: int = UNUSABLE,
    fallback: float | None = None,
    grow_radius: int = 2,
) -> Convergence:
    """Correct with a scalar kernel K (Coulton et al. 2018), in place; flux is conserved to first order only.

    T_0 = X; T_(k+1) = X + 1/2 [grad T_k . grad P_k + T_k lap P_k], P_k = K * T_k, central differences,
    until sum |T_(k+1) - T_k| < threshold; image += T - X.  The correction acts where P and its
    neighbours know the whole kernel's light, rows and columns r+1 .. N-r-2 (r = half the kernel);
    EDGE is set on the rest, r + 1 pixels.

    Deviations from upstream: its window loses one more row and column at the high sides, its EDGE is one
    pixel narrower than its window; it needs three passes at least, and never reports that it did not converge.

    Parameters
    ----------
    image : (y, x) float32 [electron], changed in place.
    mask : (y, x) int32, changed in place.
    kernel : (2r+1, 2r+1) float64 [1/electron], index [y, x], centre negative.
    max_iterations, threshold : end of the iteration; threshold is summed over the image [electron].
    planes, fallback, grow_radius : as in :func:`astier23`.
    """
    return _iterate(
        image, mask, kernel, False, (max_iterations, threshold), planes=planes, fallback=fallback, radius=grow_radius
    )


def coulton18_flux_conserving(
    image: Pixels,
    mask: Mask,
    kernel: FloatArray,
    *,
    max_iterations: int = 10,
    threshold: float = 1000.0,
    planes: int = UNUSABLE,
    fallback: float | None = None,
    grow_radius: int = 2,
) -> Convergence:
    """Correct with a scalar kernel K by moving charge across pixel boundaries, in place; exact in flux.

    Between neighbours i, i+1 along each axis the charge -1/2 T_donor (P_(i+1) - P_i) moves from i to i+1; the
    donor is i if P rises, else i + 1.  P = K * (T - mean X), so that the chip continues at its mean level
    beyond its borders, across which nothing moves.

    Deviations from upstream, in its documented intent: P is computed anew from each pass's T (its loop keeps
    the first one); the donor's *whole* charge is displaced, not its excess over the image mean, as in
    :func:`coulton18`; pixels next to the low borders take part.  The donor rule displaces more than
    :func:`coulton18`, which takes the charge at the boundary: on a star of sigma 1.8 pixels by a third of a width
    correction of 1.2 %.

    Parameters and result as for :func:`coulton18`.
    """
    return _iterate(
        image, mask, kernel, True, (max_iterations, threshold), planes=planes, fallback=fallback, radius=grow_radius
    )


def detector_kernel(kernels: FloatArray, valid: Sequence[bool] | BoolArray) -> FloatArray:
    """Return the detector's kernel: per element the clipped mean (5 sigma, 3 iterations) over the valid amps.

    Parameters
    ----------
    kernels : (amp, 2r+1, 2r+1) float64 [1/electron]
    valid : (amp,) bool

    Raises
    ------
    DataError
        If no amp is valid.
    """
    good = np.asarray(kernels, np.float64)[np.asarray(valid, bool)]
    if len(good) == 0:
        raise DataError(f"none of the {len(kernels)} amp kernels is valid: no brighter-fatter kernel for the detector")
    scale = np.abs(good).max() or 1.0  # float32 holds 1e-7 of a kernel of order 1e-7 safely only after scaling
    stack = (good / scale).reshape(len(good), -1).astype(np.float32)
    return scale * clipped_mean_stack(stack, sigma=5.0).mean.astype(np.float64).reshape(good.shape[1:])


def convolved_blocks(
    image: NDArray[np.floating], kernels: Sequence[FloatArray], offset: float = 0.0
) -> Iterator[tuple[int, int, int, int, list[FloatArray]]]:
    """Convolve ``image - offset`` with every kernel, block by block (overlap-save, float64).

    Parameters
    ----------
    image : (y, x) float; zero (after the offset) outside.
    kernels : odd squares (2r+1, 2r+1) of one size, index [y, x].
    offset : subtracted first [unit of image].

    Yields
    ------
    y0, x0, height, width : the block of the image.
    planes : one (height + 2, width + 2) float64 a kernel, ``planes[k][1:-1, 1:-1]`` being the
        block itself with one row and column more on every side, C order.
    """
    size = kernels[0].shape[0]
    n = 128
    while n < 4 * size:
        n *= 2
    step, reach = n - size - 1, size // 2
    spectra = [np.fft.rfft2(kernel, s=(n, n)) for kernel in kernels]
    block, spectrum = np.empty((n, n)), np.empty((n, n // 2 + 1), np.complex128)
    product, results = np.empty_like(spectrum), [np.empty((n, n)) for _ in kernels]
    inside = slice(2 * reach, 2 * reach + step + 2)
    for y0 in range(0, image.shape[0], step):
        for x0 in range(0, image.shape[1], step):
            _load_block(image, offset, block, y0 - reach - 1, x0 - reach - 1)
            np.fft.fft(np.fft.rfft(block, axis=1, out=spectrum), axis=0, out=spectrum)
            for transform, result in zip(spectra, results, strict=True):
                np.multiply(spectrum, transform, out=product)
                np.fft.irfft(np.fft.ifft(product, axis=0, out=product), n=n, axis=1, out=result)
            height, width = min(step, image.shape[0] - y0), min(step, image.shape[1] - x0)
            planes = [result[inside, inside][: height + 2, : width + 2].copy() for result in results]
            yield y0, x0, height, width, planes


def _load_block(image: NDArray[np.floating], offset: float, block: FloatArray, y: int, x: int) -> None:
    """Copy the square of the image that starts at (y, x), partly outside, into ``block``; 0 outside."""
    n = len(block)
    low_y, low_x = max(0, -y), max(0, -x)
    high_y, high_x = min(n, image.shape[0] - y), min(n, image.shape[1] - x)
    if low_y or low_x or high_y < n or high_x < n:
        block[:] = 0.0
    part = image[y + low_y : y + high_y, x + low_x : x + high_x]
    np.subtract(part, offset, out=block[low_y:high_y, low_x:high_x], dtype=np.float64)


def _flag(mask: Mask, edge: int, planes: int, radius: int) -> None:
    mask_edges(mask, edge, EDGE)
    grow(mask, planes, radius)


def _iterate(  # noqa: PLR0913
    image: Pixels,
    mask: Mask,
    kernel: FloatArray,
    conserving: bool,
    end: tuple[int, float],
    *,
    planes: int,
    fallback: float | None,
    radius: int,
) -> Convergence:
    kernel = _checked_kernel(kernel)
    reach = kernel.shape[0] // 2
    light = working_copy(image, mask, planes, fallback=fallback)
    offset = float(light.mean(dtype=np.float64)) if conserving else 0.0
    state, change, iterations = light.astype(np.float64), np.inf, 0
    while iterations < end[0] and not change < end[1]:
        following = light.astype(np.float64)
        for y0, x0, height, width, (potential,) in convolved_blocks(state, [kernel], offset):
            if conserving:
                _transfer(state, potential, following, y0, x0, height, width)
            else:
                _diverge(state, potential, following, y0, x0, height, width, reach + 1)
        change = _sum_of_changes(state, following)
        state, iterations = following, iterations + 1
    _add_difference(image, state, light)
    _flag(mask, reach + 1, planes, radius)
    return Convergence(iterations, change, change < end[1])


def _checked_kernel(kernel: FloatArray) -> FloatArray:
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise DataError(f"the brighter-fatter kernel must be an odd square, not {kernel.shape}")
    if not np.isfinite(kernel).all():
        raise DataError("the brighter-fatter kernel contains non-finite values; make the calibration again")
    return kernel


@compiled
def _move_boundaries(
    light: Pixels, north: FloatArray, east: FloatArray, image: Pixels, y0: int, x0: int, height: int, width: int
) -> None:
    """Subtract delta of one block from the image; north, east are dN, dE with a margin of 1."""
    ny, nx = light.shape
    delta = np.empty(width)
    first, last = max(1 - x0, 0), min(nx - 1 - x0, width)
    for y in range(y0, y0 + height):
        here, target = light[y, x0 : x0 + width], image[y, x0 : x0 + width]
        across = east[y - y0 + 1, : width + 1]  # [i] crosses the boundary between x0 + i - 1 and x0 + i
        delta[:] = 0.0
        if y + 1 < ny:
            _exchange(here, light[y + 1, x0 : x0 + width], north[y - y0 + 1, 1 : width + 1], 1.0, delta)
        if y > 0:
            _exchange(here, light[y - 1, x0 : x0 + width], north[y - y0, 1 : width + 1], -1.0, delta)
        _exchange(here[:last], light[y, x0 + 1 : x0 + last + 1], across[1:], 1.0, delta[:last])
        _exchange(here[first:], light[y, x0 + first - 1 : x0 + width - 1], across[first:], -1.0, delta[first:])
        for i in range(width):
            target[i] = np.float32(target[i] - delta[i])


@compiled
def _exchange(here: Pixels, there: Pixels, shift: FloatArray, sign: float, delta: FloatArray) -> None:
    """Add what a boundary's shift moves between two rows of pixels, with sign, to ``delta``."""
    for i in range(here.size):
        delta[i] += sign * (np.float64(here[i]) + np.float64(there[i])) * shift[i]


@compiled
def _diverge(
    state: FloatArray, p: FloatArray, following: FloatArray, y0: int, x0: int, height: int, width: int, edge: int
) -> None:
    """Add 1/2 div(T grad P) to ``following`` with central differences, outside the frame ``edge``."""
    ny, nx = state.shape
    start, stop = max(x0, edge), min(x0 + width, nx - edge)
    n = max(stop - start, 0)
    for y in range(max(y0, edge), min(y0 + height, ny - edge)):
        above, below = state[y + 1, start:stop], state[y - 1, start:stop]
        here, left, right = state[y, start:stop], state[y, start - 1 : stop - 1], state[y, start + 1 : stop + 1]
        b, a = y - y0 + 1, start - x0 + 1
        p_above, p_below, p_here = p[b + 1, a:], p[b - 1, a:], p[b, a - 1 :]
        out = following[y, start:stop]
        for i in range(n):
            gradients = (above[i] - below[i]) * (p_above[i] - p_below[i])
            gradients += (right[i] - left[i]) * (p_here[i + 2] - p_here[i])
            laplacian = p_above[i] + p_below[i] + p_here[i] + p_here[i + 2] - 4.0 * p_here[i + 1]
            out[i] += 0.125 * gradients + 0.5 * here[i] * laplacian


@compiled
def _transfer(
    state: FloatArray, p: FloatArray, following: FloatArray, y0: int, x0: int, height: int, width: int
) -> None:
    """Add to ``following`` what crosses the four boundaries of each pixel of a block."""
    ny, nx = state.shape
    first, last = max(1 - x0, 0), min(nx - 1 - x0, width)
    for y in range(y0, y0 + height):
        here, out, b = state[y, x0 : x0 + width], following[y, x0 : x0 + width], y - y0 + 1
        potential = p[b, 1 : width + 1]
        if y + 1 < ny:
            _receive(here, state[y + 1, x0 : x0 + width], potential, p[b + 1, 1 : width + 1], out)
        if y > 0:
            _receive(here, state[y - 1, x0 : x0 + width], potential, p[b - 1, 1 : width + 1], out)
        _receive(here[:last], state[y, x0 + 1 : x0 + last + 1], potential[:last], p[b, 2 : last + 2], out[:last])
        left = state[y, x0 + first - 1 : x0 + width - 1]
        _receive(here[first:], left, potential[first:], p[b, first:width], out[first:])


@compiled
def _receive(here: FloatArray, there: FloatArray, p_here: FloatArray, p_there: FloatArray, out: FloatArray) -> None:
    """Add the charge that pixels get across one boundary; the donor is the pixel from which P rises."""
    for i in range(here.size):
        rise = p_there[i] - p_here[i]
        donor = here[i] if rise > 0 else there[i]
        out[i] += 0.5 * donor * rise


@compiled
def _sum_of_changes(before: FloatArray, after: FloatArray) -> float:
    total = 0.0
    for y in range(before.shape[0]):
        for x in range(before.shape[1]):
            total += abs(after[y, x] - before[y, x])
    return total


@compiled
def _add_difference(image: Pixels, after: FloatArray, before: Pixels) -> None:
    """Add after - before to the image (float32), pixel by pixel in float64."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            image[y, x] += after[y, x] - before[y, x]

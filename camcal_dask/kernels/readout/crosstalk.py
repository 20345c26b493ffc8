"""Crosstalk between the amps of one detector (reference/isr.md 2.5, coefficients: reference/raw_format.md 4.2).

In readout coordinates the amps line up pixel for pixel, so the correction couples 16 values
at equal (y, x) and nothing else: any slab of rows can be corrected by itself, to the last bit.
Only the CROSSTALK *plane* needs a number of the whole amp first, its :func:`pedestal`.

Matrices are [source, target].  Compared with today's system:

- units are converted in the coefficients (once, float64), never by scaling the image back and forth;
- a coupling of an amp to itself is ignored;
- the bit is set against a threshold per amp, in the unit of the image;
- ``iterations=2`` removes the second-order term that a single pass leaves (reference/isr.md 6.12).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from camcal_dask.errors import DataError
from camcal_dask.kernels.arrays import FloatArray, IntArray, Mask, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.pixels.masks import CROSSTALK

SECOND_PASS_ABOVE = 1e-3
"""Largest coupling for which one pass is enough: it leaves c^2, 1e-6 of the source."""


@dataclass(frozen=True, eq=False)
class Couplings:
    """The couplings in force, in the unit of the image, and packed per target for the kernel.

    ``linear``, ``quadratic``: (source, target) float64, 0 where not in force; unit 1 and 1/unit.
    ``source``, ``packed_linear``, ``packed_quadratic``: (target, k), the ``count[target]`` sources
    of each target in rising order, so that an amp without coupling can never spread its NaN.
    """

    linear: FloatArray
    quadratic: FloatArray
    source: IntArray
    count: IntArray
    packed_linear: Pixels
    packed_quadratic: Pixels

    @property
    def n_amps(self) -> int:
        """Number of amps."""
        return len(self.linear)

    @property
    def iterations(self) -> int:
        """Passes advised: 2 if any coupling exceeds ``SECOND_PASS_ABOVE``, else 1."""
        return 2 if np.abs(self.linear).max(initial=0.0) > SECOND_PASS_ABOVE else 1


def usable_gains(gains: ArrayLike) -> FloatArray:
    """Gains for a unit conversion: non-finite or non-positive ones become the median of the others.

    Parameters
    ----------
    gains : (amp,) [electron / adu]. In bootstrap these are the calibration's own ``fitGains`` if
        any is non-zero, else nominal gains. (Today's system then silently takes 1, which makes
        electron coefficients wrong by the ratio of the two gains.)

    Raises
    ------
    DataError
        If no gain is usable.
    """
    values = np.array(gains, dtype=np.float64)
    good = np.isfinite(values) & (values > 0)
    if not good.any():
        raise DataError(
            f"crosstalk: no usable gain among {values.tolist()}; give nominal gains or build a photon-transfer curve"
        )
    values[~good] = np.median(values[good])
    return values


def make_couplings(
    linear: ArrayLike,
    quadratic: ArrayLike | None = None,
    *,
    valid: ArrayLike | None = None,
    bad_amps: ArrayLike | None = None,
    scale: ArrayLike | None = None,
) -> Couplings:
    """Apply the validity rules and the unit conversion to a crosstalk calibration.

    A coupling is in force where its linear coefficient is finite and not 0, ``valid``, between
    two different amps that are not bad. Elsewhere the quadratic coefficient is dropped too
    (0 means "not measured" in these matrices); a non-finite quadratic one counts as 0.

    Parameters
    ----------
    linear, quadratic : (source, target), c [1] and q [1 / unit of the calibration].
    valid : (source, target) bool.
    bad_amps : (amp,) bool, amps that are neither source nor target.
    scale : (amp,) unit of the calibration per unit of the image: the gain for coefficients in
        electron on an image in adu, 1/gain the other way round; None if the units agree.

    Raises
    ------
    DataError
        If the shapes do not agree.
    """
    c = np.array(linear, dtype=np.float64)
    n = len(c)
    q = np.zeros((n, n)) if quadratic is None else np.array(quadratic, dtype=np.float64)
    allowed = np.ones((n, n), bool) if valid is None else np.array(valid, dtype=bool)
    bad = np.zeros(n, bool) if bad_amps is None else np.array(bad_amps, dtype=bool)
    factor = np.ones(n) if scale is None else np.array(scale, dtype=np.float64)
    for name, array, shape in (
        ("linear", c, (n, n)),
        ("quadratic", q, (n, n)),
        ("valid", allowed, (n, n)),
        ("bad_amps", bad, (n,)),
        ("scale", factor, (n,)),
    ):
        if array.shape != shape:
            raise DataError(f"crosstalk: {name} has shape {array.shape}, {n} amps need {shape} [source, target]")
    force = np.isfinite(c) & (c != 0) & allowed & ~bad[:, None] & ~bad[None, :] & ~np.eye(n, dtype=bool)
    q = np.where(np.isfinite(q), q, 0.0)
    with np.errstate(invalid="ignore"):
        c = np.where(force, c * factor[:, None] / factor[None, :], 0.0)
        q = np.where(force, q * factor[:, None] ** 2 / factor[None, :], 0.0)
    return _pack(c, q)


def _pack(c: FloatArray, q: FloatArray) -> Couplings:
    n = len(c)
    source, count = np.zeros((n, n), np.int64), np.zeros(n, np.int64)
    packed_c, packed_q = np.zeros((n, n), np.float32), np.zeros((n, n), np.float32)
    for target in range(n):
        sources = np.flatnonzero(c[:, target])
        k = count[target] = len(sources)
        source[target, :k] = sources
        packed_c[target, :k] = c[sources, target]
        packed_q[target, :k] = q[sources, target]
    return Couplings(c, q, source, count, packed_c, packed_q)


def subtrahend(image: Pixels, couplings: Couplings) -> Pixels:
    """Crosstalk received: CT_t = sum_s (c[s,t] B_s + q[s,t] B_s^2), same shape and unit as ``image``.

    Parameters
    ----------
    image : (amp, y, x) float32, readout coordinates, overscan subtracted, not yet corrected.
    """
    out = _contiguous_copy(image, couplings)
    _run(out, couplings, 1, True, None)
    return out


def subtract(
    image: Pixels,
    couplings: Couplings,
    *,
    iterations: int = 1,
    out: Pixels | None = None,
    flag: CrosstalkFlag | None = None,
) -> Pixels:
    """Subtract crosstalk from a slab of all amps.

    Parameters
    ----------
    image : (amp, y, x) float32, readout coordinates.
    iterations : 1 takes the sources from the uncorrected image, as today's system does; 2 once
        more from the corrected one (``couplings.iterations`` advises).
    out : (amp, y, x) float32, may be ``image`` itself; None returns a new array.
    flag : set the CROSSTALK plane on the way (no second reading of the image).

    Returns
    -------
    ``out``. NaN of a source reaches its targets at that pixel.
    """
    if out is not None and out.flags.c_contiguous and out.dtype == np.float32:
        _check(image, couplings)
        if out is not image:
            out[...] = image
        _run(out, couplings, iterations, False, flag)
        return out
    work = _contiguous_copy(image, couplings)
    _run(work, couplings, iterations, False, flag)
    if out is None:
        return work
    out[...] = work
    return out


@dataclass(frozen=True, eq=False)
class CrosstalkFlag:
    """What the CROSSTALK plane is set from: |CT - pedestal| in the data region, |CT| elsewhere, >= minimum.

    ``mask``: (amp, y, x) int32, C-contiguous, OR-ed into. ``data``: (rows, columns) of the data
    region inside the slab. ``pedestal``, ``minimum``: (amp,) in the unit of the image (today's
    system: 1 electron, that is 1/gain adu).
    """

    mask: Mask
    pedestal: FloatArray
    minimum: FloatArray
    data: tuple[slice, slice]


def pedestal(image: Pixels, couplings: Couplings, data: tuple[slice, slice], *, row_step: int = 1) -> FloatArray:
    """Median of the subtrahend over the data region of each amp: (amp,), unit of the image.

    Parameters
    ----------
    image : (amp, y, x) float32, whole amps, uncorrected.
    data : (rows, columns) of the data region.
    row_step : take every n-th row: 1 is the exact median and takes a few times as long as the
        correction; 16 moves it by about 0.5% of the pixel scatter of the subtrahend.
    """
    rows, columns = data
    part = np.ascontiguousarray(image[:, rows, columns][:, ::row_step])
    return _medians(subtrahend(part, couplings))


def _medians(values: Pixels) -> FloatArray:
    result = np.full(len(values), np.nan)
    for amp, plane in enumerate(values):
        good = plane.ravel()
        if not np.isfinite(good.sum(dtype=np.float64)):
            good = good[np.isfinite(good)]
        if good.size:
            result[amp] = np.median(good)
    return result


def _check(image: Pixels, couplings: Couplings) -> None:
    if image.ndim != 3 or len(image) != couplings.n_amps:
        raise DataError(
            f"crosstalk: image of shape {image.shape}, matrix of {couplings.n_amps} amps; need (amp, y, x) of as many"
        )


def _contiguous_copy(image: Pixels, couplings: Couplings) -> Pixels:
    _check(image, couplings)
    return np.array(image, dtype=np.float32, order="C")


def _run(image: Pixels, couplings: Couplings, iterations: int, keep: bool, flag: CrosstalkFlag | None) -> None:
    n = couplings.n_amps
    if iterations not in (1, 2):
        raise DataError(f"crosstalk: iterations = {iterations!r}; 1 or 2 are possible")
    if flag is None:
        mask, level, minimum, box = np.zeros((n, 0, 0), np.int32), np.zeros(n), np.zeros(n), (0, 0, 0, 0)
    else:
        mask, level, minimum = flag.mask, flag.pedestal, flag.minimum
        y0, y1, _ = flag.data[0].indices(image.shape[1])
        x0, x1, _ = flag.data[1].indices(image.shape[2])
        box = (y0, y1, x0, x1)
        if mask.shape != image.shape or not mask.flags.c_contiguous:
            raise DataError(f"crosstalk: mask of shape {mask.shape}, image {image.shape}; need equal and C-contiguous")
    _crosstalk(
        image,
        couplings.source,
        couplings.count,
        couplings.packed_linear,
        couplings.packed_quadratic,
        bool(couplings.quadratic.any()),
        iterations,
        keep,
        mask,
        np.asarray(level, np.float32),
        np.asarray(minimum, np.float32),
        box,
    )


@compiled(fastmath={"contract"})
def _accumulate(rows: Pixels, source: IntArray, count: int, c: Pixels, q: Pixels, squares: bool, total: Pixels) -> None:
    """Sum of c b + q b^2 over the sources, in rising order; four sources a sweep save loads of ``total``."""
    n = total.shape[0]
    for x in range(n):
        total[x] = np.float32(0.0)
    k = 0
    if squares:
        for k in range(count):
            b = rows[source[k]]
            c0, q0 = c[k], q[k]
            for x in range(n):
                total[x] += (c0 + q0 * b[x]) * b[x]
        return
    while k + 4 <= count:
        b0, b1, b2, b3 = rows[source[k]], rows[source[k + 1]], rows[source[k + 2]], rows[source[k + 3]]
        c0, c1, c2, c3 = c[k], c[k + 1], c[k + 2], c[k + 3]
        for x in range(n):
            total[x] = (((total[x] + c0 * b0[x]) + c1 * b1[x]) + c2 * b2[x]) + c3 * b3[x]
        k += 4
    while k < count:
        b0 = rows[source[k]]
        c0 = c[k]
        for x in range(n):
            total[x] += c0 * b0[x]
        k += 1


@compiled
def _flag_row(
    bits: Mask, total: Pixels, in_data: bool, level: np.float32, minimum: np.float32, x0: int, x1: int
) -> None:
    bit = np.int32(CROSSTALK)
    for x in range(total.shape[0]):
        p = level if in_data and x0 <= x < x1 else np.float32(0.0)
        bits[x] |= bit if abs(total[x] - p) >= minimum else np.int32(0)


@compiled
def _correct_sources(
    image: Pixels, rows: Pixels, source: IntArray, count: IntArray, c: Pixels, q: Pixels, squares: bool, total: Pixels
) -> None:
    """First correction of the sources: afterwards ``rows`` is corrected and ``image`` as it was."""
    n_amp, n_x = rows.shape
    for a in range(n_amp):
        _accumulate(rows, source[a], count[a], c[a], q[a], squares, total)
        for x in range(n_x):
            image[a, x] -= total[x]
    for a in range(n_amp):
        for x in range(n_x):
            rows[a, x], image[a, x] = image[a, x], rows[a, x]


@compiled
def _crosstalk(
    image: Pixels,
    source: IntArray,
    count: IntArray,
    c: Pixels,
    q: Pixels,
    squares: bool,
    iterations: int,
    keep: bool,
    mask: Mask,
    level: Pixels,
    minimum: Pixels,
    box: tuple[int, int, int, int],
) -> None:
    """Row by row, in place: 16 rows of 576 float32 stay in the first-level cache."""
    n_amp, n_y, n_x = image.shape
    y0, y1, x0, x1 = box
    rows = np.empty((n_amp, n_x), np.float32)
    total = np.empty(n_x, np.float32)
    for y in range(n_y):
        for a in range(n_amp):
            rows[a, :] = image[a, y, :]
        if iterations == 2:
            _correct_sources(image[:, y], rows, source, count, c, q, squares, total)
        for a in range(n_amp):
            _accumulate(rows, source[a], count[a], c[a], q[a], squares, total)
            if mask.shape[1] > 0:
                _flag_row(mask[a, y], total, y0 <= y < y1, level[a], minimum[a], x0, x1)
            for x in range(n_x):
                image[a, y, x] = total[x] if keep else image[a, y, x] - total[x]

"""Forward models of a CCD: photons to charge, charge to signal.  The inverses are ISR's.

All kernels work on one amp (or all amps of a detector) in readout coordinates, float32 electrons.
"""

from __future__ import annotations

import math

import numpy as np

from camcal_dask.kernels.arrays import FloatArray, Pixels
from camcal_dask.kernels.compiled import compiled

EXACT_BELOW = 30.0
"""Mean [electron] below which Poisson numbers come from the exact inverse of the distribution."""


@compiled
def _poisson_small(mean: float, zero_term: float, z: float) -> int:
    """Smallest k whose Poisson(mean) distribution function reaches that of a standard normal at ``z``."""
    wanted = 0.5 * math.erfc(-z * 0.7071067811865476)
    term, total, k = zero_term, zero_term, 0
    while total < wanted and k < 300:
        k += 1
        term *= mean / k
        total += term
    return k


@compiled
def poisson_from_normals(mean: Pixels, z: Pixels) -> None:
    """Poisson numbers from standard normals, one normal each.

    Below :data:`EXACT_BELOW` the inverse of the distribution function; above, its Cornish-Fisher expansion
    to third order with Sheppard's correction, whose mean and variance are right to 1e-5 of the mean.

    Parameters
    ----------
    mean : (y, x) float32 [electron]
        Expectation, >= 0; replaced by the drawn numbers.
    z : (y, x) float32
        Standard normals.
    """
    ny, nx = mean.shape
    last, zero_term = -1.0, 1.0
    for y in range(ny):
        for x in range(nx):
            m = np.float64(mean[y, x])
            t = np.float64(z[y, x])
            if m >= EXACT_BELOW:
                root = math.sqrt(m - 1.0 / 12.0)
                mean[y, x] = math.floor(m + root * t + (t * t - 1) / 6 + (t - t * t * t) / (72 * root) + 0.5)
            elif m > 0:
                if m != last:
                    last, zero_term = m, math.exp(-m)
                mean[y, x] = _poisson_small(m, zero_term, t)
            else:
                mean[y, x] = 0


@compiled(fastmath={"contract"})
def _convolve_row(total: Pixels, taps: Pixels, row: Pixels) -> None:
    """Add to ``total[x]`` the sum over k of ``taps[k] * row[x + n - 1 - k]``, four taps a sweep."""
    n = taps.shape[0]
    whole = n - n % 4
    for k in range(0, whole, 4):
        a, b, c, d = taps[k], taps[k + 1], taps[k + 2], taps[k + 3]
        fa, fb, fc, fd = row[n - 1 - k :], row[n - 2 - k :], row[n - 3 - k :], row[n - 4 - k :]
        for x in range(total.shape[0]):
            total[x] += (a * fa[x] + b * fb[x]) + (c * fc[x] + d * fd[x])
    for k in range(whole, n):
        factor, fa = taps[k], row[n - 1 - k :]
        for x in range(total.shape[0]):
            total[x] += factor * fa[x]


@compiled
def _hand_over(moved: Pixels, light: Pixels, light_beyond: Pixels, gains: Pixels, loses: Pixels) -> None:
    """Give each pixel the light between its boundary's old and new place, and take it from its neighbour."""
    for x in range(light.shape[0]):
        flow = np.float32(0.5) * (light[x] + light_beyond[x]) * moved[x]
        gains[x] += flow
        loses[x] -= flow


@compiled
def area_flow(source: Pixels, light: Pixels, shift_e: Pixels, shift_n: Pixels, out: Pixels) -> None:
    """Charge that changes its pixel because ``source`` has moved the pixel boundaries.

    Boundary (p, p + 1) moves by ``sum_s shift(p - s) source(s)`` of a pixel and hands over that part of the light
    that falls on it, the mean of both pixels.  No charge crosses the edge of the area, so the sum of ``out``
    is zero.

    Parameters
    ----------
    source : (y + 2 r + 1, x + 2 r + 1) float32 [electron]
        Charge, padded by r pixels below and r + 1 above its range on both axes.
    light : (y, x) float32 [electron]
        Light (of the whole exposure) that falls on each pixel.
    shift_e : (2 r, r + 1) float32 [pixel/electron]
        Shift of the high-x boundary of the pixel at serial lag dx - r and parallel lag dy = 0..r (symmetric in dy).
    shift_n : (2 r + 1, r) float32 [pixel/electron]
        Shift of the high-y boundary at serial lag dx - r and parallel lag dy = 0..r-1 (antisymmetric about -1/2).
    out : (y, x) float32 [electron]
        Receives the gain of each pixel.
    """
    ny, nx = light.shape
    r = shift_n.shape[1]
    wide = source.shape[1]
    fold = np.empty(wide, np.float32)
    moved = np.empty(nx, np.float32)
    for y in range(ny):
        out[y, :] = 0
    for y in range(ny):
        moved[:] = 0
        for dy in range(r + 1):
            low, high = source[y + r - dy], source[y + r + dy]
            twin = np.float32(1 if dy else 0)
            for x in range(wide):
                fold[x] = low[x] + twin * high[x]
            _convolve_row(moved, shift_e[:, dy], fold[1:])
        _hand_over(moved, light[y, :-1], light[y, 1:], out[y, :-1], out[y, 1:])
        if y == ny - 1:
            break
        moved[:] = 0
        for dy in range(r):
            low, high = source[y + r - dy], source[y + r + 1 + dy]
            for x in range(wide):
                fold[x] = low[x] - high[x]
            _convolve_row(moved, shift_n[:, dy], fold)
        _hand_over(moved, light[y], light[y + 1], out[y], out[y + 1])


@compiled
def _fill(column: FloatArray, excess: FloatArray, full_well: float, carry: float, upwards: bool) -> float:
    """Move ``excess`` along a column into the room that pixels have; return what leaves at the end."""
    n = column.shape[0]
    for i in range(n):
        y = i if upwards else n - 1 - i
        taken = min(full_well - column[y], carry)
        column[y] += taken
        carry += excess[y] - taken
    return carry


@compiled
def bloom(columns: Pixels, full_well: float) -> FloatArray:
    """Spill what exceeds the full well along the column, half each way.

    The stop between the CCD's halves (highest row) turns charge back; what reaches the serial register is lost.

    Parameters
    ----------
    columns : (x, y) float32 [electron]
        Data area, transposed so that a column is contiguous; changed in place.
    full_well : float [electron]

    Returns
    -------
    (x,) float64 [electron]
        Charge lost to the serial register in each column.
    """
    nx, ny = columns.shape
    lost = np.zeros(nx)
    column = np.empty(ny)
    half = np.empty(ny)
    nothing = np.zeros(ny)
    for x in range(nx):
        over = False
        for y in range(ny):
            column[y] = columns[x, y]
            half[y] = 0.5 * max(column[y] - full_well, 0.0)
            if half[y] > 0:
                over = True
                column[y] = full_well
        if over:
            turned = _fill(column, half, full_well, 0.0, True)
            lost[x] = _fill(column, half, full_well, 0.0, False)
            lost[x] += _fill(column, nothing, full_well, turned, False)
            for y in range(ny):
                columns[x, y] = column[y]
    return lost


@compiled
def serial_cti(frame: Pixels, n_register: int, traps: FloatArray) -> None:
    """Deferred charge of the serial register, forward (Snyder+21; inverse: reference/isr.md 2.7).

    Column n makes ``min(n + 1, n_register)`` transfers and leaves the fraction ``global_cti`` behind in each;
    one trap holds ``min(trap_size, trap_slope * charge)`` and empties with a time constant of ``emission`` pixels;
    the output node adds ``max(drift_scale * signal, previous offset * exp(-1 / drift_decay))``.

    Parameters
    ----------
    frame : (y, x) float32 [electron]
        Whole raw rows, prescan to overscan; changed in place.
    n_register : int
        Pixels of the serial register, prescan + data columns.
    traps : (6,) float64
        global_cti, trap_size [electron], trap_slope, emission [pixel], drift_scale, drift_decay [pixel].
    """
    global_cti, trap_size, trap_slope, emission, drift_scale, drift_decay = traps
    ny, nx = frame.shape
    keep = math.exp(-1.0 / emission) if trap_size > 0 else 0.0
    decay = math.exp(-1.0 / drift_decay) if drift_scale > 0 else 0.0
    for y in range(ny):
        left = 0.0
        trapped = 0.0
        offset = 0.0
        for x in range(nx):
            charge = np.float64(frame[y, x])
            behind = global_cti * min(x + 1, n_register) * charge
            charge += left - behind
            left = behind
            holding = trapped * keep
            charge += trapped - holding
            full = max(min(trap_size, trap_slope * max(charge, 0.0)), holding)
            charge -= full - holding
            trapped = full
            offset = max(drift_scale * max(charge, 0.0), offset * decay)
            frame[y, x] = charge + offset


@compiled
def add_crosstalk(signal: Pixels, linear: Pixels, quadratic: Pixels) -> None:
    """Add to each amp ``sum_s c[s, t] B_s + q[s, t] B_s^2`` of all others at equal readout position.

    Parameters
    ----------
    signal : (amp, y, x) float32 [electron]
        Changed in place; B is the signal before.
    linear, quadratic : (source, target) float32 [1, 1/electron]
    """
    n_amp, ny, nx = signal.shape
    before = np.empty((n_amp, nx), np.float32)
    for y in range(ny):
        for s in range(n_amp):
            for x in range(nx):
                before[s, x] = signal[s, y, x]
        for t in range(n_amp):
            row = signal[t, y]
            for s in range(n_amp):
                c, q = linear[s, t], quadratic[s, t]
                if c != 0 or q != 0:
                    for x in range(nx):
                        row[x] += (c + q * before[s, x]) * before[s, x]


def pad_edges(image: Pixels, r: int) -> Pixels:
    """Repeat edge pixels: r below, r + 1 above on both axes, as :func:`area_flow` wants its source."""
    return np.pad(image, ((r, r + 1), (r, r + 1)), mode="edge")

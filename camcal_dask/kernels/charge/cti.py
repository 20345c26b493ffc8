"""Deferred charge of the serial register (reference/isr.md 2.7 after Snyder et al. 2021).

Works on full raw rows in readout order, prescan to overscan; rows are independent, so any slab
can be corrected by itself.  Three effects per amp: a local offset (an amplifier that remembers
its recent maximum), one serial trap, and the global CTI, which enters only as the factor
(1 - b) of the trap's exchange (the mean transfer loss itself is not undone, as today).

Both memories are windowed maxima of geometrically decaying terms, over 15 and 6 pixels.  A
running maximum m(n) = max(s(n), r m(n-1)) is *not* the same: it never forgets, and differs as
soon as its largest term is older than the window.  A window is exact by doubling, because a
maximum may count a term twice: with M_k(n) the maximum over the last k terms,
M_a+b(n) = max(M_a(n), r^b M_a(n-b)) for b <= a, so 1, 2, 4, 8, 15 needs four steps and 1, 2, 4, 6
three, each free of any dependence along the row and therefore vectorised.

Where we differ from today's system: a NaN pixel stays NaN but does not spread to the 15 pixels
behind it; parameters or gains that are not finite make the amp NaN *and* are reported
(:attr:`DeferredCharge.problems`); the prescan is zeroed in the parallel-overscan rows too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from camcal_dask.errors import DataError, nearest
from camcal_dask.kernels.arrays import BoolArray, Integer, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.linearity.pieces import Pieces, evaluate_pieces, linear_pieces

OFFSET_WINDOW, TRAP_WINDOW = 15, 6
"""Pixels that the local offset and the trap remember."""

TRAP_KINDS = ("none", "linear", "logistic", "spline")
"""Kinds of traps; products hold the position."""
_KINDS = {kind: code for code, kind in enumerate(TRAP_KINDS)}
_NO_TABLE = linear_pieces(np.zeros(1), np.zeros(1))


@dataclass(frozen=True)
class Trap:
    """A serial trap [electron, pixel], as in the second table of a CTI file.

    ``kind`` and ``coefficients``: captured charge of a packet of s electrons is
    ``linear`` (k): min(size, k s); ``logistic`` (f0, k): size / (1 + exp(-k (s - f0)));
    ``spline`` (x_1..x_n, y_1..y_n): straight lines between the knots, constant outside
    (NaN knots, the padding of the file, are dropped); ``none``: no trap.
    """

    size: float = 0.0
    emission_time: float = 1.0
    kind: Literal["none", "linear", "logistic", "spline"] = "none"
    coefficients: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class DeferredCharge:
    """A detector's deferred charge, ready for :func:`correct`; and why amps failed (index -> reason).

    ``offset``: (amp, 2) drift scale (0: off) and e^(-1/tau). ``trap``: (amp, 6) kind, size, r = e^(-1/tau_e),
    two coefficients, 1 - b. ``tables``: (amp,) of the capture tables. ``gain``: (amp,) electron per image unit.
    """

    offset: Pixels
    trap: Pixels
    tables: tuple[Pieces, ...]
    gain: Pixels
    problems: Mapping[int, str]

    @property
    def failed(self) -> BoolArray:
        """(amp,) True where the amp cannot be corrected and comes out NaN."""
        return np.array([i in self.problems for i in range(len(self.gain))])


def make_deferred_charge(
    drift_scale: ArrayLike,
    decay_time: ArrayLike,
    global_cti: ArrayLike,
    traps: Sequence[Trap],
    *,
    gain: ArrayLike | None = None,
) -> DeferredCharge:
    """Prepare the correction of a detector.

    Parameters
    ----------
    drift_scale : (amp,) A of the local offset [1]; <= 0 switches it off.
    decay_time : (amp,) tau of the local offset [pixel].
    global_cti : (amp,) b [1].
    traps : (amp,) one trap each.
    gain : (amp,) [electron / adu] for an image in adu (bootstrap: the calibration's inputGain);
        None for an image in electron.

    Raises
    ------
    DataError
        Arrays of different length, an unknown kind of trap, table knots that do not rise.
    """
    a, tau, b = (np.asarray(v, dtype=np.float64) for v in (drift_scale, decay_time, global_cti))
    n = len(traps)
    g = np.ones(n) if gain is None else np.asarray(gain, dtype=np.float64)
    if not all(v.shape == (n,) for v in (a, tau, b, g)):
        raise DataError(f"deferred charge: {n} traps but {a.shape}, {tau.shape}, {b.shape}, {g.shape} parameters")
    offset, trap = np.zeros((n, 2), np.float32), np.zeros((n, 6), np.float32)
    tables, problems = [], {}
    for i in range(n):
        fault = _fault(traps[i], a[i], tau[i], b[i], g[i])
        tables.append(_NO_TABLE if fault else _table(i, traps[i]))
        if fault:
            problems[i] = fault
            continue
        offset[i] = (a[i], np.exp(-1.0 / tau[i])) if a[i] > 0 else (0.0, 0.0)
        trap[i] = _trap_numbers(traps[i], b[i])
    return DeferredCharge(offset, trap, tuple(tables), g.astype(np.float32), problems)


def _fault(trap: Trap, a: float, tau: float, b: float, gain: float) -> str:
    """Why an amp cannot be corrected; empty if it can."""
    if trap.kind not in _KINDS:
        raise DataError(f"deferred charge: unknown kind of trap {trap.kind!r}{nearest(trap.kind, _KINDS)}")
    if not (np.isfinite(gain) and gain > 0):
        return f"gain {gain} is not usable"
    if not (np.isfinite(a) and np.isfinite(b)):
        return f"drift scale {a} or global CTI {b} is not finite"
    if a > 0 and not tau > 0:
        return f"decay time {tau} of the local offset is not usable"
    if trap.kind == "none":
        return ""
    if not (np.isfinite(trap.size) and trap.emission_time > 0):
        return f"trap of size {trap.size}, emission time {trap.emission_time}"
    need = {"linear": 1, "logistic": 2, "spline": 2}[trap.kind]
    finite = int(np.isfinite(trap.coefficients).sum())
    return "" if finite >= need else f"{trap.kind} trap has {finite} finite coefficients, needs {need}"


def _trap_numbers(trap: Trap, b: float) -> tuple[float, ...]:
    kind = _KINDS[trap.kind] if trap.size > 0 else 0
    c = (0.0, 0.0) if trap.kind in ("none", "spline") else (*trap.coefficients, 0.0)[:2]
    if trap.kind == "spline" and not np.nan_to_num(trap.coefficients[len(trap.coefficients) // 2 :]).any():
        kind = 0  # the null trap of E2V: a table of zeros
    return (kind, trap.size, np.exp(-1.0 / trap.emission_time), *c, 1.0 - b)


def _table(index: int, trap: Trap) -> Pieces:
    if trap.kind != "spline":
        return _NO_TABLE
    values = np.asarray(trap.coefficients, dtype=np.float64)
    x, y = np.split(values[: len(values) // 2 * 2], 2)
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if not x.size or not (np.diff(x) >= 0).all():
        raise DataError(
            f"deferred charge: amp {index}: knots {x.tolist()} are not in rising order; make the cti calibration again"
        )
    # Two exposures of equal signal give a knot twice: their mean (a piece needs a length).
    knots, start = np.unique(x, return_index=True)
    return linear_pieces(knots, np.add.reduceat(y, start) / np.diff(np.append(start, x.size)))


def correct(
    image: Pixels,
    calibration: DeferredCharge,
    data: tuple[slice, slice],
    out: Pixels | None = None,
) -> Pixels:
    """Correct a slab of all amps.

    Parameters
    ----------
    image : (amp, y, x) float32, full raw rows in readout coordinates, overscan subtracted,
        linearised; electron, or adu if ``calibration`` has gains.
    data : (rows, columns) of the data region inside the slab. Columns before it are the prescan
        and become 0 (their pedestal was never subtracted); in the rows after it, the parallel
        overscan, the data columns become 0.
    out : as ``image``, may be ``image`` itself; each of its amps C-contiguous. None returns a new array.

    Returns
    -------
    ``out``; amps in ``calibration.failed`` are NaN.
    """
    n = len(calibration.gain)
    if image.ndim != 3 or len(image) != n:
        raise DataError(f"deferred charge: image of shape {image.shape}, calibration of {n} amps")
    if out is None:
        out = np.array(image, dtype=np.float32, order="C")
    elif out is not image:
        out[...] = image
    y1 = data[0].indices(image.shape[1])[1]
    x0, x1, _ = data[1].indices(image.shape[2])
    out[:, :, :x0] = 0.0
    out[:, y1:, x0:x1] = 0.0
    for amp in range(n):
        if amp in calibration.problems:
            out[amp] = np.nan
        else:
            _correct(
                out[amp],
                calibration.gain[amp],
                calibration.offset[amp],
                calibration.trap[amp],
                calibration.tables[amp],
            )
    return out


@compiled
def _shifted_max(m: Pixels, n: int, shift: int, weight: np.float32, result: Pixels) -> None:
    """result(n) = max(m(n), weight m(n - shift)); no term before the start of the row."""
    for x in range(shift):
        result[x] = m[x]
    head, here, late = m[: n - shift], m[shift:n], result[shift:n]
    for x in range(n - shift):
        old = weight * head[x]
        late[x] = here[x] if here[x] > old else old


@compiled
def _window15(m: Pixels, r: np.float32, other: Pixels) -> None:
    """Max of m(n-j) r^j, j = 0..14, into ``m``."""
    n = m.shape[0]
    r2 = r * r
    r4 = r2 * r2
    _shifted_max(m, n, 1, r, other)
    _shifted_max(other, n, 2, r2, m)
    _shifted_max(m, n, 4, r4, other)
    _shifted_max(other, n, 7, r4 * r2 * r, m)


@compiled
def _window6(m: Pixels, r: np.float32, other: Pixels, result: Pixels) -> None:
    """Max of m(n-j) r^j, j = 0..5, into ``result``; ``m`` is kept."""
    n = m.shape[0]
    r2 = r * r
    _shifted_max(m, n, 1, r, result)
    _shifted_max(result, n, 2, r2, other)
    _shifted_max(other, n, 2, r2, result)


@compiled
def _capture(s: Pixels, trap: Pixels, table: Pieces, f: Pixels, i: Integer) -> Integer:
    """Captured charge of each packet of a row of s >= 0; returns the table piece to try next."""
    kind, size, k, k2 = trap[0], trap[1], trap[3], trap[4]
    if kind == 1:
        for x in range(s.shape[0]):
            linear = k * s[x]
            f[x] = linear if linear < size else size
    elif kind == 2:
        for x in range(s.shape[0]):
            f[x] = size / (np.float32(1.0) + np.exp(-k2 * (s[x] - k)))
    else:
        i = evaluate_pieces(s, table, f, i)
    return i


@compiled
def _scale(row: Pixels, factor: np.float32) -> None:
    for x in range(row.shape[0]):
        row[x] *= factor


@compiled
def _positive(row: Pixels, result: Pixels) -> None:
    """max(0, row); NaN gives 0."""
    for x in range(row.shape[0]):
        result[x] = row[x] if row[x] > np.float32(0.0) else np.float32(0.0)


@compiled
def _correct(image: Pixels, gain: np.float32, offset: Pixels, trap: Pixels, table: Pieces) -> None:
    n_y, n_x = image.shape
    one, zero = np.float32(1.0), np.float32(0.0)
    a, r_offset = offset[0], offset[1]
    r, exchange = trap[2], trap[5]
    m, other = np.empty(n_x, np.float32), np.empty(n_x, np.float32)
    f, held = np.empty(n_x, np.float32), np.empty(n_x, np.float32)
    per_gain = one / gain
    piece: Integer = 0
    for y in range(n_y):
        row = image[y]
        if gain != one:
            _scale(row, gain)
        if a > zero:
            _positive(row, m)
            _window15(m, r_offset, other)
            for x in range(n_x):
                row[x] -= a * m[x]
        if trap[0] > zero:
            _positive(row, m)
            piece = _capture(m, trap, table, f, piece)
            _window6(f, r, other, held)
            _exchange(row, f, held, r, exchange)
        if gain != one:
            _scale(row, per_gain)


@compiled
def _exchange(row: Pixels, f: Pixels, held: Pixels, r: np.float32, factor: np.float32) -> None:
    """out(n) = s(n) - (1 - b) (R - C), with O(n) = held(n - 1) the charge in the trap as packet n arrives."""
    one, zero = np.float32(1.0), np.float32(0.0)
    first = f[0] if f[0] > zero else zero
    row[0] += factor * first
    before, here, late = held[: row.shape[0] - 1], f[1:], row[1:]
    for x in range(row.shape[0] - 1):
        captured = here[x] - before[x] * r
        captured = captured if captured > zero else zero
        late[x] -= factor * (before[x] * (one - r) - captured)

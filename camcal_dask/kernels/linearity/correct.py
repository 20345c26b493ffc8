"""Linearity correction of all types (reference/isr.md 2.6, reference/ptc_linearity.md 10).

A correction is additive, v' = v + f(v), and known in the unit of its calibration (adu).  Node
tables are turned once per amp into piecewise cubics (:class:`Pieces`) that a vectorised kernel
evaluates; the trap tables of :mod:`camcal_dask.kernels.charge.cti` use the same pieces.

Where we differ from today's system:

- **every** type is converted to the image's unit, v' = v + g f(v/g), not only the two splines;
- the clip margins below the last node (0.1 and 0.01) are adu too, so the result in adu does not
  depend on the gain at all;
- an amp whose coefficients or gain are not finite becomes NaN for every type and is named in
  :attr:`Linearity.problems`, instead of silently NaN (splines), applied (Polynomial) or skipped (gain).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from camcal_dask.errors import DataError, nearest
from camcal_dask.kernels.arrays import BoolArray, FloatArray, IntArray, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.linearity.pieces import Pieces, akima_pieces, subtract_pieces

TYPES = ("DoubleSpline", "Spline", "LookupTable", "Polynomial", "Squared", "Proportional", "None")
"""Linearity types in the spelling of the calibration files; the last two change nothing."""

SPLINE_MARGIN, DOUBLE_SPLINE_MARGIN = 0.1, 0.01
"""How far below its last node [adu] a spline is clipped."""


@dataclass(frozen=True, eq=False)
class AmpLinearity:
    """Correction of one amp in the unit of the image.

    ``pieces`` are subtracted one after the other; ``polynomial`` are c_0, c_1 ... of v + sum c_i v^(i+2);
    ``table`` is one row of the lookup table (image unit) read at int(offset + v / scale).
    """

    kind: Literal["pieces", "polynomial", "table", "nothing", "failed"]
    pieces: tuple[Pieces, ...] = ()
    polynomial: FloatArray = field(default_factory=lambda: np.zeros(0))
    table: Pixels = field(default_factory=lambda: np.zeros(0, np.float32))
    offset: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Linearity:
    """Correction of a detector: one entry per amp, and why amps failed (index -> reason)."""

    amps: tuple[AmpLinearity, ...]
    problems: Mapping[int, str]

    @property
    def failed(self) -> BoolArray:
        """(amp,) True where the amp cannot be linearised and comes out NaN."""
        return np.array([amp.kind == "failed" for amp in self.amps])


def make_linearity(
    types: Sequence[str],
    coefficients: ArrayLike,
    *,
    table: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    names: Sequence[str] = (),
) -> Linearity:
    """Prepare the correction of a detector.

    Parameters
    ----------
    types : (amp,) linearity types, see ``TYPES``.
    coefficients : (amp, m), laid out as in a LINEARIZER file, padded at the end.
    table : (row, column) lookup values [unit of the calibration], for type LookupTable.
    scale : (amp,) unit of the image per unit of the calibration: the gain when the image is in
        electron and the calibration in adu; None if the units agree.
    names : of the amps, for messages; without them amps are called by their position.

    Raises
    ------
    DataError
        An unknown type, coefficients that do not fit their type, nodes that do not rise. (Values
        that are not finite are no error: the amp fails alone.)
    """
    rows = np.asarray(coefficients, dtype=np.float64)
    scales = np.ones(len(types)) if scale is None else np.asarray(scale, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(types) or scales.shape != (len(types),):
        raise DataError(
            f"linearity: {len(types)} types, coefficients {rows.shape}, scale {scales.shape}; one row per amp is needed"
        )
    lookup = None if table is None else np.asarray(table, dtype=np.float64)
    amps, problems = [], {}
    known = names or [str(i) for i in range(len(types))]
    for index, (name, kind, row, g) in enumerate(zip(known, types, rows, scales, strict=True)):
        amp = _prepare(name, kind, row, lookup, float(g))
        if isinstance(amp, str):
            problems[index] = amp
            amp = AmpLinearity("failed")
        amps.append(amp)
    return Linearity(tuple(amps), problems)


def _prepare(name: str, kind: str, row: FloatArray, table: FloatArray | None, scale: float) -> AmpLinearity | str:
    """One amp, or the reason why it fails."""
    if kind not in TYPES:
        raise DataError(f"linearity: amp {name} has unknown type {kind!r}{nearest(kind, TYPES)}")
    if kind in ("Proportional", "None"):
        return AmpLinearity("nothing")
    if not (np.isfinite(scale) and scale > 0):
        return f"gain {scale} is not usable"
    if kind in ("Polynomial", "Squared"):
        c = row[:1] if kind == "Squared" else row
        return _polynomial(c, scale)
    if kind == "LookupTable":
        return _table(name, row, table, scale)
    splines = _double_spline(name, row) if kind == "DoubleSpline" else _spline(row)
    margin = DOUBLE_SPLINE_MARGIN if kind == "DoubleSpline" else SPLINE_MARGIN
    if not all(np.isfinite(x).all() and np.isfinite(y).all() for x, y in splines):
        return f"{kind} has nodes or values that are not finite"
    for x, _ in splines:
        if not (np.diff(x) > 0).all():
            raise DataError(
                f"linearity: amp {name}: nodes {x.tolist()} of {kind} are not in rising order; make the "
                f"linearizer again"
            )
    return AmpLinearity("pieces", tuple(akima_pieces(x * scale, y * scale, margin * scale) for x, y in splines))


def _polynomial(c: FloatArray, scale: float) -> AmpLinearity | str:
    if not np.isfinite(c).all():
        return f"coefficients {c.tolist()} are not finite"
    used = np.trim_zeros(c, "b")
    if not used.size:
        return AmpLinearity("nothing")
    return AmpLinearity("polynomial", polynomial=used / scale ** np.arange(1, used.size + 1))


def _table(name: str, row: FloatArray, table: FloatArray | None, scale: float) -> AmpLinearity | str:
    if not np.isfinite(row[:2]).all():
        return f"row and offset {row[:2].tolist()} are not finite"
    if table is None or not 0 <= int(row[0]) < len(table):
        shape = None if table is None else table.shape
        raise DataError(f"linearity: amp {name} reads row {int(row[0])} of a lookup table of shape {shape}")
    values = table[int(row[0])]
    if not np.isfinite(values).all():
        return f"row {int(row[0])} of the lookup table is not finite"
    return AmpLinearity("table", table=(values * scale).astype(np.float32), offset=float(row[1]), scale=scale)


def _spline(row: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    """Anchored at (0, 0): values shifted to start at 0, a node put in front if the first is not 0."""
    x, y = np.split(row[: len(row) // 2 * 2], 2)
    y = y - y[0]
    if x[0] != 0:
        x, y = np.concatenate([[0.0], x]), np.concatenate([[0.0], y])
    return [(x, y)]


def lengthen_spline(row: FloatArray, length: int) -> FloatArray:
    """Row of a Spline with as many coefficients as the longest of its table; its correction does not change.

    Rows split in the middle into nodes and values, so zeros cannot pad them.  Nodes follow 1 adu apart beyond the last
    one instead, with the first two chords as Akima's spline extends it: all slopes at the old nodes stay as they are.

    Parameters
    ----------
    row : (2 n,) nodes, values.  One without nodes (all zero) stays zero.
    length : even, at least 2 n
    """
    x, y = np.split(row, 2)
    more = length // 2 - len(x)
    if not row.any():
        return np.zeros(length)
    chord = np.diff(y[-3:]) / np.diff(x[-3:]) if len(x) > 2 else np.full(2, (y[-1] - y[0]) / (x[-1] - x[0]))
    bend = chord[-1] - chord[-2]
    chords = np.concatenate([chord[-1] + bend * np.array([1.0, 2.0]), np.zeros(max(more - 2, 0))])[:more]
    return np.concatenate([x, x[-1] + np.arange(1.0, more + 1), y, y[-1] + np.cumsum(chords)])


def _double_spline(name: str, row: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    """Relative, then absolute spline; not anchored; an empty one is left out."""
    if not np.isfinite(row[:2]).all():
        return [(row[:1], row[1:2])]  # reported as not finite by the caller
    n1, n2 = int(row[0]), int(row[1])
    if n1 < 0 or n2 < 0 or 2 + 2 * (n1 + n2) > len(row):
        raise DataError(f"linearity: amp {name}: DoubleSpline of {n1} and {n2} nodes in {len(row)} coefficients")
    parts = []
    for n, start in ((n1, 2), (n2, 2 + 2 * n1)):
        if n:
            parts.append((row[start : start + n], row[start + n : start + 2 * n]))
    return parts


def linearize(image: Pixels, linearity: Linearity, out: Pixels | None = None) -> tuple[Pixels, IntArray]:
    """Correct a slab of all amps.

    Parameters
    ----------
    image : (amp, y, x) float32, any rows; unit as ``scale`` of :func:`make_linearity` implies.
    out : as ``image``, may be ``image`` itself; each of its amps C-contiguous. None returns a new array.

    Returns
    -------
    ``out``, and per amp the pixels that fell outside their lookup table (0 for other types). Amps
    in ``linearity.failed`` are NaN.
    """
    if image.ndim != 3 or len(image) != len(linearity.amps):
        raise DataError(f"linearity: image of shape {image.shape}, calibration of {len(linearity.amps)} amps")
    if out is None:
        out = np.array(image, dtype=np.float32, order="C")
    elif out is not image:
        out[...] = image
    outside = np.zeros(len(image), np.int64)
    for index, amp in enumerate(linearity.amps):
        plane = out[index]
        for pieces in amp.pieces:
            subtract_pieces(plane, pieces)
        if amp.kind == "polynomial":
            _add_polynomial(plane, amp.polynomial)
        elif amp.kind == "table":
            outside[index] = _add_table(plane, amp.table, amp.offset, 1.0 / amp.scale)
        elif amp.kind == "failed":
            plane[...] = np.nan
    return out, outside


def correct_signals(kind: str, row: FloatArray, signals: FloatArray, table: ArrayLike | None = None) -> FloatArray:
    """Correct plain numbers (n,) [adu] by one amp's coefficients as pixels are corrected."""
    image = signals.astype(np.float32).reshape(1, 1, -1)
    return linearize(image, make_linearity([kind], row[None], table=table))[0].ravel().astype(np.float64)


@compiled
def _add_polynomial(image: Pixels, c: FloatArray) -> None:
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            v = np.float64(image[y, x])
            total = 0.0
            for i in range(c.shape[0] - 1, -1, -1):
                total = (total + c[i]) * v
            image[y, x] = v + total * v


@compiled
def _add_table(image: Pixels, table: Pixels, offset: float, to_calibration: float) -> int:
    outside, top = 0, table.shape[0] - 1
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            v = np.float64(image[y, x])
            if not np.isfinite(v):
                continue
            column = np.trunc(offset + v * to_calibration)
            outside += column < 0 or column > top
            image[y, x] += table[int(min(max(column, 0.0), float(top)))]
    return outside

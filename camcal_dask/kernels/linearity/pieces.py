"""Piecewise polynomials: made from nodes, evaluated over an image in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from camcal_dask.kernels.arrays import FloatArray, Int32Array, Integer, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.linearity.akima import akima_slopes

_MAX_BUCKETS = 8192


_RUN = 96


_MAX_BLENDED = 6


class Pieces(NamedTuple):
    """Piecewise cubic, constant outside [low, high], with a table that finds the piece of a value.

    Piece i starts at ``node[i]``: value = c[0,i] + d (c[1,i] + d (c[2,i] + d c[3,i])), d = v - node[i].
    ``first[b]`` is the piece at the low edge of uniform bucket b; the right piece is at most
    2**passes - 1 further, found by bisection without branches (``node`` is padded with inf for it).
    """

    node: Pixels
    c: Pixels
    first: Int32Array
    low: np.float32
    high: np.float32
    per_bucket: np.float32
    passes: int


def akima_pieces(x: FloatArray, y: FloatArray, margin: float = 0.0) -> Pieces:
    """Classic Akima spline through (x, y), constant below x[0] and above x[-1] - margin."""
    if len(x) == 1:
        return make_pieces(x, np.array([[y[0]], [0.0], [0.0], [0.0]]), x[0], x[0])
    h, s = np.diff(x), akima_slopes(x, y)
    chord = np.diff(y) / h
    c = np.stack([y[:-1], s[:-1], (3 * chord - 2 * s[:-1] - s[1:]) / h, (s[:-1] + s[1:] - 2 * chord) / h**2])
    return make_pieces(x[:-1], c, x[0], max(x[0], x[-1] - margin))


def linear_pieces(x: FloatArray, y: FloatArray) -> Pieces:
    """Straight lines between the knots (x, y), constant outside."""
    if len(x) == 1:
        return make_pieces(x, np.array([[y[0]], [0.0], [0.0], [0.0]]), x[0], x[0])
    zero = np.zeros(len(x) - 1)
    return make_pieces(x[:-1], np.stack([y[:-1], np.diff(y) / np.diff(x), zero, zero]), x[0], x[-1])


def make_pieces(start: FloatArray, c: FloatArray, low: float, high: float) -> Pieces:
    """Pieces with their bucket table.

    Parameters
    ----------
    start : (n,) first value of each piece, rising. c : (4, n) coefficients in powers of v - start.
    low, high : values are clipped to this range first.
    """
    node = start.astype(np.float32)
    low, high = float(low), float(high)
    span = max(high - low, float(np.finfo(np.float32).tiny))
    n_buckets = 1
    spacing = float(np.diff(start).min(initial=span))
    if len(start) > 1:
        n_buckets = int(np.clip(np.ceil(2 * span / spacing), 1, _MAX_BUCKETS))
    # The kernel finds the bucket in float32: widen each by more than its rounding.
    slack = 4 * float(np.finfo(np.float32).eps) * max(abs(low), abs(high), span)
    edges = low + span * np.arange(n_buckets + 1) / n_buckets
    first = np.maximum(np.searchsorted(node, edges[:-1] - slack, side="right") - 1, 0)
    last = np.maximum(np.searchsorted(node, edges[1:] + slack, side="right") - 1, 0)
    passes = int((last - first).max()).bit_length()
    padded = np.concatenate([node, np.full(1 << passes, np.inf, np.float32)])
    return Pieces(
        padded,
        np.ascontiguousarray(c, dtype=np.float32),
        first.astype(np.int32),
        np.float32(low),
        np.float32(high),
        np.float32(n_buckets / span),
        passes,
    )


@compiled(inline="always")
def _find(
    t: np.float32, node: Pixels, first: Int32Array, low: np.float32, per_bucket: np.float32, passes: int
) -> np.uint32:
    """Index of the piece of a clipped value: its bucket, then bisection without branches."""
    b = np.int32((t - low) * per_bucket)
    top = np.int32(first.shape[0] - 1)
    i = np.uint32(first[np.uint32(b if b < top else top)])
    for k in range(passes):
        ahead = np.uint32(i + np.uint32(1 << (passes - 1 - k)))
        i = ahead if t >= node[ahead] else i
    return i


@compiled(fastmath={"contract"})
def _piece(
    v: Pixels,
    value: Pixels,
    low: np.float32,
    high: np.float32,
    start: np.float32,
    end: np.float32,
    c0: np.float32,
    c1: np.float32,
    c2: np.float32,
    c3: np.float32,
    only: bool,
) -> np.int32:
    """Evaluate one piece (``only`` where it holds); count the values below it, plus (_RUN + 1) those above."""
    outside = np.int32(0)
    below, above = np.int32(1), np.int32(_RUN + 1)
    for x in range(value.shape[0]):
        t = v[x] if v[x] > low else low
        t = t if t < high else high
        d = t - start
        cubic = c0 + d * (c1 + d * (c2 + d * c3))
        value[x] = value[x] if only & ((t < start) | (t >= end)) else cubic
        outside = np.int32(outside + (below if t < start else np.int32(0)))
        outside = np.int32(outside + (above if t >= end else np.int32(0)))
    return outside


@compiled(fastmath={"contract"})
def _search_each(v: Pixels, value: Pixels, pieces: Pieces) -> None:
    node, c = pieces.node, pieces.c
    for x in range(value.shape[0]):
        t = v[x] if v[x] > pieces.low else pieces.low
        t = t if t < pieces.high else pieces.high
        i = _find(t, node, pieces.first, pieces.low, pieces.per_bucket, pieces.passes)
        d = t - node[i]
        value[x] = c[0, i] + d * (c[1, i] + d * (c[2, i] + d * c[3, i]))


@compiled
def _evaluate_run(v: Pixels, pieces: Pieces, value: Pixels, i: Integer) -> Integer:
    """One run: the piece of its first value, then its neighbours as long as values lie there."""
    node, c = pieces.node, pieces.c
    low, high = pieces.low, pieces.high
    t = v[0] if v[0] > low else low
    t = t if t < high else high
    if t < node[i] or t >= node[i + 1]:
        i = np.int64(_find(t, node, pieces.first, low, pieces.per_bucket, pieces.passes))
    j: Any = i  # numpy's stubs take an index for a mask
    below: Integer = 0
    above: Integer = 0
    while True:
        outside = _piece(v, value, low, high, node[j], node[j + 1], c[0, j], c[1, j], c[2, j], c[3, j], j != i)
        if j >= i:
            above = outside // (_RUN + 1)
        if j <= i:
            below = outside % (_RUN + 1)
        if above > 0 and j >= i:
            j += 1
        elif below > 0:
            j = min(j, i) - 1
        else:
            return i
        if abs(j - i) > _MAX_BLENDED:
            _search_each(v, value, pieces)
            return i


@compiled
def evaluate_pieces(v: Pixels, pieces: Pieces, value: Pixels, i: Integer) -> Integer:
    """Values of ``pieces`` at one row.

    Neighbouring pixels mostly lie in the same piece: a run of 96 pixels is evaluated with one
    piece, which vectorises (a search per pixel does not), and with more only where it must.
    Loops run over slices from 0: a start that might be negative would keep numba from vectorising.

    Parameters
    ----------
    v : (x,) float32; NaN counts as the low end.
    value : (x,) float32, receives the result; not ``v`` itself.
    i : the piece to try first.

    Returns
    -------
    The piece to try first in the next row. (It changes the speed, never the values.)
    """
    n = v.shape[0]
    for x0 in range(0, n, _RUN):
        x1 = min(x0 + _RUN, n)
        i = _evaluate_run(v[x0:x1], pieces, value[x0:x1], i)
    return i


@compiled
def subtract_pieces(image: Pixels, pieces: Pieces) -> None:
    """Subtract piecewise polynomials of an image (y, x) from it, in place."""
    n_y, n_x = image.shape
    value = np.empty(n_x, np.float32)
    i: Integer = 0
    for y in range(n_y):
        row = image[y]
        i = evaluate_pieces(row, pieces, value, i)
        for x in range(n_x):
            row[x] -= value[x]

"""Offsets between neighbouring amps from the steps at their common edges (reference/isr.md 2.16).

On a trimmed CCD image in detector coordinates, (y, x) float32 in any unit.  Amps are boxes
(x0, y0, width, height), (n_amp, 4) int, in the order in which the pedestals come out.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from camcal_dask.kernels.arrays import BoolArray, FloatArray, IntArray, Mask, Pixels
from camcal_dask.kernels.pixels.masks import bits
from camcal_dask.kernels.statistics.moments import clip_statistics
from camcal_dask.kernels.statistics.sorting import column_quantile, sort_columns, sorting_network

Boxes = IntArray

EXCLUDED = bits(
    ("BAD", "SAT", "INTRP", "CR", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "SUSPECT", "NO_DATA", "UNMASKEDNAN")
)
"""Planes whose pixels take no part."""

WINDOW = 512 / 4176
"""Rolling window as a fraction of the length of an edge."""


class AmpOffsets(NamedTuple):
    """Measured offsets.

    ``pedestals`` (n_amp,) float64 [unit of image]: to be subtracted; their mean is 0.  Per interface: ``pairs`` (m, 2)
    int (a, b), a left of or below b; ``offsets`` (m,) float64, level of a minus level of b at the edge, NaN
    without data; ``valid_fraction`` (m,); ``accepted`` (m,) bool; ``lengths`` (m,) int [pixel].
    """

    pedestals: FloatArray
    pairs: IntArray
    lengths: IntArray
    offsets: FloatArray
    valid_fraction: FloatArray
    accepted: BoolArray


def measure_amp_offsets(
    image: Pixels,
    mask: Mask,
    boxes: Boxes,
    *,
    inset: int = 5,
    width: int = 64,
    window: float = WINDOW,
    min_valid: float = 0.5,
    max_offset: float = 10.0,
    planes: int = EXCLUDED,
    drop_rejected: bool = False,
) -> AmpOffsets:
    """Measure the pedestal of each amp from the steps across the edges between amps.

    Along each side with a neighbour the strip of ``width`` pixels, ``inset`` pixels inside, gives its nan-median; the
    difference of the two profiles is smoothed by a rolling mean of ``window`` times its length, and its clipped mean
    is the offset.  It counts as 0 if fewer than ``min_valid`` of the profile is valid or if it exceeds
    ``max_offset``.  The pedestals p minimise sum L_ab (p_a - p_b - o_ab)^2 with zero mean, L being the lengths of
    the interfaces.

    Parameters
    ----------
    image : (y, x) float32; background-subtracted if the scene is not flat.
    mask : (y, x) int32; pixels with any of ``planes``, and non-finite ones, are left out.
    boxes : (n_amp, 4) int
    max_offset : [unit of image]
    drop_rejected : leave interfaces without an accepted offset out, instead of demanding a step of 0 there as the
        reference does (which pulls the amps on both sides of a dead one together).
    """
    pairs, lengths = interfaces(boxes)
    offsets, valid = np.full(len(pairs), np.nan), np.zeros(len(pairs))
    for k, (a, b) in enumerate(pairs):
        profiles = [
            _edge_profile(image, mask, planes, boxes, int(p), int(q), inset, width) for p, q in ((a, b), (b, a))
        ]
        step = profiles[0] - profiles[1]
        valid[k] = np.isfinite(step).mean()
        smooth = rolling_mean(step, int(window * len(step)))
        offsets[k] = clip_statistics(smooth.astype(np.float32)).mean
    accepted = (valid >= min_valid) & (np.abs(np.nan_to_num(offsets, nan=np.inf)) <= max_offset)
    weights = np.where(accepted, lengths, 0) if drop_rejected else lengths
    pedestals = solve_pedestals(len(boxes), pairs, np.where(accepted, offsets, 0.0), weights)
    return AmpOffsets(pedestals, pairs, lengths, offsets, valid, accepted)


def apply_amp_offsets(image: Pixels, pedestals: FloatArray, boxes: Boxes) -> None:
    """Subtract each amp's pedestal from its pixels, in place."""
    for (x0, y0, width, height), pedestal in zip(boxes, pedestals, strict=True):
        image[y0 : y0 + height, x0 : x0 + width] -= np.float32(pedestal)


def interfaces(boxes: Boxes) -> tuple[IntArray, IntArray]:
    """Return the pairs of amps with a common edge, (m, 2) int (left, right) or (lower, upper), and its lengths (m,)."""
    pairs, lengths = [], []
    for a, (xa, ya, wa, ha) in enumerate(boxes):
        for b, (xb, yb, wb, hb) in enumerate(boxes):
            along_x = min(xa + wa, xb + wb) - max(xa, xb)
            along_y = min(ya + ha, yb + hb) - max(ya, yb)
            if (xa + wa == xb and along_y > 0) or (ya + ha == yb and along_x > 0):
                pairs.append((a, b))
                lengths.append(max(along_x, along_y))
    return np.array(pairs, np.int64).reshape(-1, 2), np.array(lengths, np.int64)


def rolling_mean(values: FloatArray, window: int) -> FloatArray:
    """Return the mean of the finite values in a centred window (cut at the ends); NaN where ``values`` is NaN.

    For an even window the extra element lies before the centre, as in ``numpy.convolve(..., "same")``.
    """
    window = max(window, 1)
    good = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(good, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(good)])
    at = np.arange(len(values))
    low, high = np.maximum(at - window // 2, 0), np.minimum(at - window // 2 + window, len(values))
    n = counts[high] - counts[low]
    return np.where(good, (sums[high] - sums[low]) / np.maximum(n, 1), np.nan)


def solve_pedestals(n_amps: int, pairs: IntArray, offsets: FloatArray, weights: IntArray) -> FloatArray:
    """Return the pedestals p (n_amps,) with p_a - p_b = offset as nearly as possible, of minimum norm.

    Solves A p = B, A_ij = -L_ij, A_ii = sum_j L_ij, B_i = sum_j L_ij o_ij.
    """
    matrix, right = np.zeros((n_amps, n_amps)), np.zeros(n_amps)
    for (a, b), offset, weight in zip(pairs, offsets, weights, strict=True):
        matrix[[a, b], [b, a]] -= weight
        matrix[[a, b], [a, b]] += weight
        right[a] += weight * offset
        right[b] -= weight * offset
    return np.asarray(np.linalg.lstsq(matrix, right, rcond=None)[0], np.float64)


def _edge_profile(  # noqa: PLR0913
    image: Pixels, mask: Mask, planes: int, boxes: Boxes, amp: int, other: int, inset: int, width: int
) -> FloatArray:
    """Median level of ``amp`` along its edge with ``other``, (length,) float64."""
    (x0, y0, nx, ny), (ox, oy, onx, ony) = ([int(v) for v in boxes[k]] for k in (amp, other))
    rows, columns = (max(y0, oy), min(y0 + ny, oy + ony)), (max(x0, ox), min(x0 + nx, ox + onx))
    sideways = rows[0] < rows[1]
    if sideways:
        columns = (x0 + nx - inset - width, x0 + nx - inset) if ox > x0 else (x0 + inset, x0 + inset + width)
        columns = (max(columns[0], x0), min(columns[1], x0 + nx))
    else:
        rows = (y0 + ny - inset - width, y0 + ny - inset) if oy > y0 else (y0 + inset, y0 + inset + width)
        rows = (max(rows[0], y0), min(rows[1], y0 + ny))
    part = slice(*rows), slice(*columns)
    strip, flags = image[part], mask[part]
    return _medians(strip.T, flags.T, planes) if sideways else _medians(strip, flags, planes)


def _medians(strip: Pixels, flags: Mask, planes: int) -> FloatArray:
    """Median of the good pixels along axis 0, NaN without any, (n,) float64."""
    good = np.isfinite(strip) & (flags & planes == 0)
    values = np.where(good, strip, np.float32(np.inf))
    values = np.ascontiguousarray(values)
    sort_columns(values, _network(len(values)))
    out = np.empty(values.shape[1])
    column_quantile(values, good.sum(axis=0, dtype=np.int32), 0.5, out)
    return out


_network = functools.cache(sorting_network)

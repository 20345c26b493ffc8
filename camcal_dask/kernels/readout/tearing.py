"""Divisadero tearing: ripples of flats at the boundaries between amps (reference/verification.md 1.13, 3.18)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from camcal_dask.kernels.arrays import FloatArray, Pixels
from camcal_dask.kernels.statistics.moments import clipped_mean_stack, median

ROWS = (10, 210)
"""Rows from the readout edge that are averaged."""
EDGE = 25
"""Columns at each side that the straight line leaves out."""
BOUNDARY = 2
"""Columns at each side of a boundary that are looked at."""


def profile(image: Pixels, rows: tuple[int, int] = ROWS, edge: int = EDGE) -> FloatArray:
    """Profile of one amp of a flat along x, near its readout edge, divided by a straight line.

    Parameters
    ----------
    image : (y, x) float32
        In readout coordinates; masks are ignored, outliers clipped (5 sigma) in every column.
    rows, edge : int
        `ROWS` and `EDGE`; a smaller amp uses what it has, at most an eighth of it as edge.

    Returns
    -------
    (x,) float64, 1 where the flat is straight.
    """
    height, width = image.shape
    start = min(rows[0], height // 8)
    columns = clipped_mean_stack(np.ascontiguousarray(image[start : rows[1]], np.float32), sigma=5.0).mean
    means = columns.astype(np.float64)
    means /= median(columns)
    edge = min(edge, width // 8)
    x = np.arange(width)
    inner = (x >= edge) & (x < width - edge) & np.isfinite(means)
    if np.count_nonzero(inner) < 3:
        return np.full(width, np.nan)
    slope, offset = np.polyfit(x[inner], means[inner], 1)
    return np.asarray(means / (slope * x + offset))


def tearing(profiles: Mapping[tuple[int, int], FloatArray], boundary: int = BOUNDARY) -> dict[tuple[int, int], float]:
    """Largest departure of each amp's boundaries from the straight line.

    Parameters
    ----------
    profiles : mapping of (ix, iy) to (x,)
        Profile of every amp in CCD orientation (x to the right), by its cell in the CCD.
        NaN for an amp without light, which is at no boundary: its neighbours go by their own columns there.
    boundary : int
        Columns at each side of a boundary.

    Returns
    -------
    dict of (ix, iy) to float
        max abs(profile - 1) over the own and the facing columns of the boundaries to the left and to the right; the
        outer edges of the CCD are no boundaries.  NaN for an amp without a neighbour, or without a profile.
    """

    def departure(left: tuple[int, int]) -> float:
        right = (left[0] + 1, left[1])
        if left not in profiles or right not in profiles:
            return float("nan")
        facing = np.concatenate([profiles[left][-boundary:], profiles[right][:boundary]])
        return float(np.nanmax(np.abs(facing - 1))) if np.isfinite(facing).any() else float("nan")

    sides = {cell: (departure((cell[0] - 1, cell[1])), departure(cell)) for cell in profiles}
    known = {cell: bool(np.isfinite(profiles[cell]).any()) for cell in profiles}
    return {cell: float(np.fmax(*both)) if known[cell] else float("nan") for cell, both in sides.items()}

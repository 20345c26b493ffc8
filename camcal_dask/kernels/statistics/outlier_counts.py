"""Counts of bright, dark and vampire defects of one amp of a combined image (reference/verification.md 3.7-3.9)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from camcal_dask.kernels.arrays import AnyArray, BoolArray, FloatArray
from camcal_dask.kernels.statistics.moments import clip_statistics

BRIGHT_PER_S = 5.0
"""A pixel of a combined dark above it is bright [electron/s]."""
BRIGHT_COLUMN, DARK_COLUMN = 20, 100
"""Contiguous bad pixels of a column, more than which are a bad column."""
DARK_FRACTION = 0.8
"""A pixel of a combined flat below this part of the amp's mean is dark."""
VAMPIRE_CELL, VAMPIRE_FACTOR = 64, 1.2
"""Side of the cells of the background [pixel], and the factor above the mean that is a vampire."""


class Counts(NamedTuple):
    """Bad columns, and bad pixels outside of them."""

    columns: int
    pixels: int


def count(bad: BoolArray, run: int) -> Counts:
    """Columns with a run of more than ``run`` contiguous bad pixels, and the bad pixels outside such runs.

    Parameters
    ----------
    bad : (y, x) bool
    run : int
    """
    padded = np.zeros((bad.shape[0] + 2, bad.shape[1]), np.int8)
    padded[1:-1] = bad
    edges = np.diff(padded, axis=0).T  # of each column: +1 where a run begins, -1 after its end
    column, begin = np.nonzero(edges == 1)
    _, end = np.nonzero(edges == -1)
    length = end - begin
    long = length > run
    return Counts(int(np.unique(column[long]).size), int(length[~long].sum()))


def bright(rate: AnyArray, threshold: float = BRIGHT_PER_S, run: int = BRIGHT_COLUMN) -> Counts:
    """Bright defects of one amp of a combined dark (y, x) [electron/s]; NaN is not bright."""
    return count(np.asarray(rate > threshold), run)


def dark(flat: AnyArray, fraction: float = DARK_FRACTION, run: int = DARK_COLUMN) -> Counts:
    """Dark defects of one amp of a combined flat (y, x), without its picture frame; NaN is not dark."""
    mean = clip_statistics(np.asarray(flat, np.float32), sigma=5.0).mean
    return count(np.asarray(flat < fraction * mean), run)


def vampires(flat: AnyArray, cell: int = VAMPIRE_CELL, factor: float = VAMPIRE_FACTOR) -> int:
    """Bright spots of one amp of a combined flat (y, x): touching pixels above ``factor`` times the background.

    The background is the median of cells of ``cell`` pixels, as the eye sees the flat without its spots.
    """
    values = np.asarray(flat, np.float64)
    ratio = values / _background(values, cell)
    mean = clip_statistics(ratio.astype(np.float32), sigma=5.0).mean
    _, n = ndimage.label(ratio > factor * mean, np.ones((3, 3)))
    return int(n)


def _background(values: FloatArray, cell: int) -> FloatArray:
    """Median of each cell, spread over its pixels."""
    out = np.empty_like(values)
    for y in range(0, values.shape[0], cell):
        for x in range(0, values.shape[1], cell):
            box = (slice(y, y + cell), slice(x, x + cell))
            good = values[box][np.isfinite(values[box])]
            out[box] = np.median(good) if good.size else np.nan
    return out

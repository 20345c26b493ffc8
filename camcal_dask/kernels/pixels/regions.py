"""Masks as lists of boxes and back, the form of a defect mask (reference/isr.md 2.18, reference/raw_format.md 4.2).

A box is (x0, y0, width, height), zero-based, as in the observatory's defect tables: columns
x0..x0+width-1 and rows y0..y0+height-1.  The set of pixels is what matters, not the choice of boxes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from camcal_dask.errors import DataError
from camcal_dask.kernels.arrays import BoolArray, Int32Array
from camcal_dask.kernels.compiled import compiled

Boxes = Int32Array


def mask_to_boxes(mask: BoolArray) -> Boxes:
    """Return non-overlapping boxes whose union is exactly the mask.

    Runs down the columns, joined sideways where neighbours begin and end at the same rows: a bad
    column with a few hot pixels attached stays one box, because runs along rows would cut it at each.

    Parameters
    ----------
    mask : (height, width) bool

    Returns
    -------
    (n, 4) int32: x0, y0, width, height, sorted by y0, then x0; (0, 4) for an empty mask.
    """
    work = np.ascontiguousarray(mask, np.bool_)
    boxes: Boxes = _column_boxes(work)
    return boxes[np.lexsort((boxes[:, 0], boxes[:, 1]))]


def boxes_to_mask(boxes: ArrayLike, shape: tuple[int, int]) -> BoolArray:
    """Return the union of boxes; what lies outside the image is cut off.

    Parameters
    ----------
    boxes : (n, 4) x0, y0, width, height, whole numbers of any type, overlaps allowed
        An empty table may have any shape: the observatory writes empty lists with float columns.
    shape : (height, width) [pixel]

    Returns
    -------
    (height, width) bool
    """
    height, width = shape
    mask = np.zeros(shape, np.bool_)
    for x0, y0, w, h in as_boxes(boxes).tolist():
        mask[max(y0, 0) : max(min(y0 + h, height), 0), max(x0, 0) : max(min(x0 + w, width), 0)] = True
    return mask


def as_boxes(boxes: ArrayLike) -> Boxes:
    """Return a table of boxes as (n, 4) int32.

    Raises
    ------
    DataError
        If it has not four columns, or holds fractions, NaN, values beyond 31 bits or negative sizes.
    """
    table = np.asarray(boxes)
    if table.size == 0:
        return np.empty((0, 4), np.int32)
    if table.ndim != 2 or table.shape[1] != 4:
        raise DataError(f"boxes must be a table of x0, y0, width, height; got an array of shape {table.shape}")
    values = table.astype(np.float64)
    wrong = ~(np.abs(values) < 2**31) | (np.rint(values) != values)
    wrong[:, 2:] |= values[:, 2:] < 0
    if wrong.any():
        row = int(np.argmax(wrong.any(axis=1)))
        raise DataError(
            f"box {row}: x0, y0, width, height = {values[row].tolist()}; "
            "correct the table: whole numbers of pixels, sizes not negative"
        )
    return values.astype(np.int32)


@compiled
def _column_boxes(mask: BoolArray) -> Int32Array:
    """Boxes in the order in which their last rows end; one pass along the rows, as the memory lies."""
    height, width = mask.shape
    boxes = np.empty((1024, 4), np.int32)
    n = 0
    start = np.full(width, -1, np.int32)  # first row of the run that is open in each column
    blank = np.zeros(width, np.bool_)
    above = blank
    for y in range(height + 1):
        row = mask[y] if y < height else blank
        previous = -2  # column of the run closed last in this row
        for x in range(width):
            if row[x] == above[x]:
                continue
            if row[x]:
                start[x] = y
                continue
            if previous == x - 1 and boxes[n - 1, 1] == start[x]:
                boxes[n - 1, 2] += 1
            else:
                if n == boxes.shape[0]:
                    boxes = np.concatenate((boxes, np.empty_like(boxes)))
                boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3] = x, start[x], 1, y - start[x]
                n += 1
            previous = x
        above = row
    return boxes[:n].copy()

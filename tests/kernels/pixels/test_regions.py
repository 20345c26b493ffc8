"""Masks to boxes and back: the union is the mask, no overlaps, whatever the mask."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from camcal_dask.errors import DataError
from camcal_dask.kernels.pixels.regions import as_boxes, boxes_to_mask, mask_to_boxes

SHAPES = st.tuples(st.integers(0, 13), st.integers(0, 13))


def paint(boxes, shape):
    """How many boxes cover each pixel, pixel by pixel."""
    count = np.zeros(shape, int)
    for x0, y0, w, h in boxes:
        for y in range(y0, y0 + h):
            for x in range(x0, x0 + w):
                count[y, x] += 1
    return count


@given(arrays(np.bool_, SHAPES))
def test_boxes_cover_the_mask_once(mask):
    boxes = mask_to_boxes(mask)
    np.testing.assert_array_equal(paint(boxes.tolist(), mask.shape), mask.astype(int))
    np.testing.assert_array_equal(boxes_to_mask(boxes, mask.shape), mask)
    assert boxes.dtype == np.int32
    assert (boxes[:, 2:] > 0).all()


@given(arrays(np.bool_, SHAPES))
def test_order_is_by_row_then_column_and_does_not_depend_on_memory_layout(mask):
    boxes = mask_to_boxes(mask)
    keys = [(y0, x0) for x0, y0, _, _ in boxes.tolist()]
    assert keys == sorted(keys)
    np.testing.assert_array_equal(mask_to_boxes(np.asfortranarray(mask)), boxes)


BOX = st.tuples(st.integers(-20, 20), st.integers(-20, 20), st.integers(0, 25), st.integers(0, 25))


@given(st.lists(BOX, max_size=6), st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_boxes_are_clipped_to_the_image(boxes, shape):
    big = paint([(x0 + 20, y0 + 20, w, h) for x0, y0, w, h in boxes], (70, 70)) > 0
    expected = big[20 : 20 + shape[0], 20 : 20 + shape[1]]
    np.testing.assert_array_equal(boxes_to_mask(boxes, shape), expected)


def test_known_masks():
    mask = np.zeros((6, 8), bool)
    mask[:, 3] = True  # a column with a hot pixel attached stays one box
    mask[2, 4] = True
    mask[4:6, 6:8] = True
    assert mask_to_boxes(mask).tolist() == [[3, 0, 1, 6], [4, 2, 1, 1], [6, 4, 2, 2]]
    assert mask_to_boxes(np.ones((3, 5), bool)).tolist() == [[0, 0, 5, 3]]
    frame = np.ones((10, 12), bool)
    frame[2:8, 3:9] = False
    assert mask_to_boxes(frame).tolist() == [[0, 0, 3, 10], [3, 0, 6, 2], [9, 0, 3, 10], [3, 8, 6, 2]]


def test_more_boxes_than_the_first_allocation():
    checkers = np.indices((90, 90)).sum(axis=0) % 2 == 0
    boxes = mask_to_boxes(checkers)
    assert len(boxes) == checkers.sum()
    np.testing.assert_array_equal(boxes_to_mask(boxes, checkers.shape), checkers)


def test_empty_tables_may_have_float_columns():
    assert not boxes_to_mask(np.empty((0, 4)), (4, 5)).any()
    assert not boxes_to_mask([], (4, 5)).any()
    assert boxes_to_mask(np.array([[1.0, 2.0, 1.0, 1.0]]), (4, 5)).sum() == 1


@pytest.mark.parametrize(
    "bad", [[[0, 0, 1]], [[0, 0, -1, 1]], [[0, 0.5, 1, 1]], [[0, np.nan, 1, 1]], [[2**33, 0, 1, 1]]]
)
def test_bad_tables_are_refused(bad):
    with pytest.raises(DataError, match="box"):
        as_boxes(bad)


@pytest.mark.slow
def test_full_size_detector():
    rng = np.random.default_rng(5)
    mask = np.zeros((4004, 4096), bool)
    mask[rng.integers(0, 4004, 5000), rng.integers(0, 4096, 5000)] = True
    mask[:, rng.integers(0, 4096, 30)] = True
    mask[:7] = mask[-7:] = True
    mask[:, :8] = mask[:, -8:] = True
    mask_to_boxes(mask[:10])
    begin = time.process_time()
    boxes = mask_to_boxes(mask)
    np.testing.assert_array_equal(boxes_to_mask(boxes, mask.shape), mask)
    assert time.process_time() - begin < 1.0
    assert (boxes[:, 2].astype(np.int64) * boxes[:, 3]).sum() == mask.sum()
    assert len(boxes) < 6000

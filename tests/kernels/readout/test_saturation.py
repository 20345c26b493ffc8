"""Saturation shapes: footprints against a flood fill, the shapes against painted bleeds."""

import numpy as np
import pytest

from camcal_dask.kernels.pixels.masks import BAD, CR, ITL_DIP, SAT, SUSPECT
from camcal_dask.kernels.readout.saturation import (
    bleed_cores,
    find_footprints,
    mask_e2v_edge_bleed,
    mask_itl_dip,
    mask_itl_edge_bleed,
    mask_itl_saturation_sag,
    widen_saturation_trails,
)

NY, NX, HALF, AMP = 1600, 400, 800, 100
BOXES = np.array([(x, HALF, AMP, HALF) for x in range(0, NX, AMP)] + [(x, 0, AMP, HALF) for x in range(0, NX, AMP)])


def flood(selected):
    """Labels of 8-connected components by flood fill, in raster order of their first pixel."""
    labels, n = np.full(selected.shape, -1), 0
    for y, x in np.argwhere(selected):
        if labels[y, x] >= 0:
            continue
        todo = [(y, x)]
        labels[y, x] = n
        while todo:
            v, u = todo.pop()
            for a in range(max(v - 1, 0), min(v + 2, selected.shape[0])):
                for b in range(max(u - 1, 0), min(u + 2, selected.shape[1])):
                    if selected[a, b] and labels[a, b] < 0:
                        labels[a, b] = n
                        todo.append((a, b))
        n += 1
    return labels, n


def painted(*boxes, ny=NY, nx=NX):
    """A mask with SAT on (x0, y0, width, height) boxes."""
    mask = np.zeros((ny, nx), np.int32)
    for x0, y0, width, height in boxes:
        mask[y0 : y0 + height, x0 : x0 + width] |= SAT
    return mask


def check_against_flood(selected):
    mask = np.where(selected, SAT | CR, CR).astype(np.int32)
    found = find_footprints(mask)
    labels, n = flood(selected)
    assert len(found.area) == n
    painted_back = np.full(selected.shape, -1)
    for label, y, start, stop in found.runs:
        painted_back[y, start:stop] = label
    assert np.array_equal(painted_back, labels)
    for label in range(n):
        y, x = np.nonzero(labels == label)
        assert found.area[label] == len(y)
        assert tuple(found.box[label]) == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)
        assert (found.x[label], found.y[label]) == pytest.approx((x.mean(), y.mean()))
        assert found.runs_of(label)[:, 0].min() == y.min()


@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 0.45, 0.7, 1.0])
def test_footprints_of_noise(density):
    check_against_flood(np.random.default_rng(int(100 * density)).random((40, 57)) < density)


def test_footprints_of_a_spiral_and_diagonals():
    spiral = np.zeros((21, 21), bool)
    for k in range(0, 10, 2):
        spiral[k, k : 21 - k], spiral[k : 21 - k, 20 - k], spiral[20 - k, k : 21 - k] = True, True, True
        spiral[k + 2 : 21 - k, k] = True
        spiral[k + 2, k : k + 3] = True
    check_against_flood(spiral)
    check_against_flood(np.eye(30, dtype=bool) | np.eye(30, dtype=bool)[::-1])


BOTTOM, TOP = slice(0, 350), slice(NY - 350, NY)


@pytest.mark.parametrize(
    ("box", "edges"),
    [
        ((130, 0, 20, 600), [BOTTOM]),
        ((130, NY - 600, 20, 600), [TOP]),  # not handled upstream
        ((130, 0, 20, NY), [BOTTOM, TOP]),
        ((130, 1, 20, 600), []),  # does not touch the edge
        ((130, 0, 10, 600), []),  # too small
        ((110, 0, 80, 1300), []),  # too large
    ],
)
def test_e2v_edge_bleed(box, edges):
    mask = painted(box)
    expected = mask.copy()
    for rows in edges:
        expected[rows, 100:200] |= SAT
    assert mask_e2v_edge_bleed(mask, find_footprints(mask), BOXES) == len(edges)
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("box", [(130, NY - 600, 20, 600), (130, 0, 20, NY)])
def test_e2v_upstream_rule(box):
    mask = painted(box)
    before = mask.copy()
    n = mask_e2v_edge_bleed(mask, find_footprints(mask), BOXES, both_edges=False)
    before[BOTTOM, 100:200] |= SAT if n else 0
    assert n == (box[1] == 0)  # its centroid, truncated, is in row 799 of 0..799
    assert np.array_equal(mask, before)


def dip_case(width=20, height=120, background=100.0):
    mask = painted((200, 500, width, height))
    image = np.full(mask.shape, background, np.float32)
    image[mask != 0] = 2e5
    return image, mask


@pytest.mark.parametrize(
    ("width", "min_width", "fraction", "columns"),
    [
        (20, 10, 0.0025, slice(194, 225)),  # centroid 209.5, 0.75 w = 15: int(194.5)..int(224.5)
        (8, 10, 0.0025, None),
        (20, 10, 0.0020, None),  # 0.002 * 100 * 20 = 4 < sqrt(100) / 2
        (20, 10, 0.0, None),
        (80, 10, 0.0015, slice(202, 278)),  # cut at 50: 239.5 -+ 37.5
    ],
)
def test_itl_dip(width, min_width, fraction, columns):
    image, mask = dip_case(width)
    expected = mask.copy()
    if columns is not None:
        expected[:, columns] |= SUSPECT | ITL_DIP
    footprints = find_footprints(mask)
    n = mask_itl_dip(image, mask, footprints, background_fraction=fraction, min_width=min_width)
    assert n == (0 if columns is None else columns.stop - columns.start)
    assert np.array_equal(mask, expected)


def test_itl_dip_is_undone_when_it_takes_too_much():
    image, mask = dip_case()
    before = mask.copy()
    footprints = find_footprints(mask)
    assert mask_itl_dip(image, mask, footprints, background_fraction=0.01, max_columns=30) == 0
    assert np.array_equal(mask, before)


def flare_case(up, width=20, level=1e5):
    """A bleed at columns 240-259 whose flare at one edge is 60 pixels wide in its widest row."""
    mask = painted((240, 0 if not up else NY - 700, width, 700))
    image = np.full(mask.shape, 500, np.float32)
    image[mask != 0] = 1.5e5
    near = image[::-1] if up else image
    near[:60, 220:280] = level
    image[(mask == 0) & (np.arange(NX) == 5)] = np.nan
    return image, mask


@pytest.mark.parametrize("up", [False, True])
def test_itl_edge_bleed_at_both_edges(up):
    image, mask = flare_case(up)
    expected = mask.copy()
    target = expected[::-1] if up else expected
    for y in range(200):
        half = int((60 * np.exp(-0.02 * y) + 20) / 2)
        target[y, 249 - half : 249 + half] |= SAT  # centroid 249.5 truncated
    assert mask_itl_edge_bleed(image, mask, find_footprints(mask), BOXES, 1.5e5) == 1
    assert np.array_equal(mask, expected)


def test_itl_edge_bleed_compares_with_its_own_amp():
    image, mask = flare_case(up=False, level=8e4)
    image[HALF:] = 79000  # bright background in the *other* half must not hide the flare
    assert mask_itl_edge_bleed(image, mask, find_footprints(mask), BOXES, 1.5e5) >= 1
    image, mask = flare_case(up=False, level=8e4)
    image[:HALF][mask[:HALF] == 0] = 1.49e5  # bright background in its own half does
    before = mask.copy()
    assert mask_itl_edge_bleed(image, mask, find_footprints(mask), BOXES, 1.5e5) == 0
    assert np.array_equal(mask, before)


def test_itl_edge_bleed_is_clipped_at_the_chip():
    mask = painted((0, 0, 20, 700))
    image = np.where(mask != 0, 1.5e5, 500).astype(np.float32)
    mask_itl_edge_bleed(image, mask, find_footprints(mask), BOXES, 1.5e5)
    row = np.flatnonzero(mask[0])
    assert (row.min(), row.max()) == (0, 9 + 20 - 1)
    assert not mask[200:, 25:].any()


def bridge(*columns, height=700, width=20):
    """Bleeds joined by a bar at the top, with a gap between them in the centroid's row."""
    boxes = [(x, 100, width, height) for x in columns]
    return painted(*boxes, (columns[0], 100 + height, columns[-1] - columns[0] + width, 4))


def test_cores():
    one = find_footprints(painted((240, 100, 21, 700)))
    assert bleed_cores(one, 0) == [(250, 21)]
    two = bridge(200, 260)
    two[300:310, 258:290] |= SAT  # widest row of the second part
    two[110:112, 190:230] |= SAT  # wider still, but within 100 rows of its end
    found = find_footprints(two)
    assert bleed_cores(found, 0) == [(200, 20), (260, 32)]
    assert bleed_cores(find_footprints(bridge(150, 220, 290)), 0) == []
    small = find_footprints(bridge(200, 260, height=400))
    assert bleed_cores(small, 0) == []  # each part is below the area of a bleed


def test_sag_takes_whole_columns():
    mask = painted((240, 100, 20, 700), (260, 100, 3, 150), (263, 100, 3, 130))
    before = mask.copy()
    assert mask_itl_saturation_sag(mask, find_footprints(mask)) == 23
    before[:, 240:263] |= SAT  # 150 > 700 / 5, 130 is not
    assert np.array_equal(mask, before)


@pytest.mark.parametrize(("length", "extra"), [(1, 0), (5, 0), (6, 1), (7, 1), (8, 3), (9, 3), (10, 4), (30, 4)])
def test_trails_are_widened(length, extra):
    mask = np.full((3, 60), BAD, np.int32)
    mask[1, 12 : 12 + length] |= SAT
    mask[2, :length] |= SAT  # clipped at the side
    widen_saturation_trails(mask)
    assert list(np.flatnonzero(mask[1] & SAT)) == list(range(12 - extra, 12 + length + extra))
    assert list(np.flatnonzero(mask[2] & SAT)) == list(range(length + extra))
    assert (mask[0] == BAD).all()

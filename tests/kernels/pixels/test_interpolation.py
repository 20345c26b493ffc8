"""Interpolation, mask growth, bad-region fill: against kriging solved pixel by pixel and loops."""

import numpy as np
import pytest

from camcal_dask.errors import DataError
from camcal_dask.kernels.pixels.interpolation import (
    UNUSABLE,
    fallback_level,
    grow,
    interpolate,
    kriging_weights,
    mask_edges,
    set_bad_regions,
    working_copy,
)
from camcal_dask.kernels.pixels.masks import BAD, CR, EDGE, INTRP, NO_DATA, SAT, SUSPECT, UNMASKEDNAN


def kriging(at, values, target):
    """Ordinary kriging by minimising the error variance explicitly: w = argmin w'Cw - 2 w'c, sum w = 1."""
    at, values = np.asarray(at, float), np.asarray(values, float)
    cov, to = np.exp(-((at[:, None] - at) ** 2) / 4), np.exp(-((at - target) ** 2) / 4)
    inverse = np.linalg.inv(cov)
    ones = np.ones(len(at))
    w = inverse @ (to + ones * (1 - ones @ inverse @ to) / (ones @ inverse @ ones))
    return float(w @ values), w


def good_ones(pair, flagged):
    good = [0 <= p < len(flagged) and not flagged[p] for p in pair]
    return list(pair) if all(good) else [pair[0]] if good[0] else []


def expected_row(row, flagged, fallback):
    out, n = row.astype(float), len(row)
    x = 0
    while x < n:
        if not flagged[x]:
            x += 1
            continue
        start = x
        while x < n and flagged[x]:
            x += 1
        left = good_ones((start - 1, start - 2), flagged)
        right = good_ones((x, x + 1), flagged)
        points = {p: row[p] for p in left + right}
        span = range(start, x)
        if not points:
            out[start:x] = fallback
            continue
        if not (left and right) and x - start > 6:
            if left:
                out[start + 6 : x] = fallback
                points |= {start + 6: fallback, start + 7: fallback}
                span = range(start, start + 6)
            else:
                out[start : x - 6] = fallback
                points |= {x - 7: fallback, x - 8: fallback}
                span = range(x - 6, x)
        for p in span:
            out[p] = kriging(list(points), list(points.values()), p)[0]
    return out


@pytest.mark.parametrize(
    ("left", "right", "length", "position", "weights"),
    [
        (0, 2, 1, 0, (0, 0, 1.4288, -0.4288)),
        (2, 2, 1, 0, (-0.2737, 0.7737, 0.7737, -0.2737)),
        (2, 0, 1, 0, (-0.4288, 1.4288, 0, 0)),
        (1, 0, 4, 2, (0, 1, 0, 0)),
        (1, 1, 3, 1, (0, 0.5, 0.5, 0)),
    ],
)
def test_published_weights(left, right, length, position, weights):
    assert kriging_weights(left, right, length)[position] == pytest.approx(weights, abs=5e-5)


@pytest.mark.parametrize("length", [1, 2, 6, 7, 11, 40])
@pytest.mark.parametrize(("left", "right"), [(0, 1), (0, 2), (1, 0), (2, 0), (1, 1), (1, 2), (2, 1), (2, 2)])
def test_weights_sum_to_one_and_mirror(left, right, length):
    weights = kriging_weights(left, right, length)
    assert weights.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    assert weights[::-1, ::-1] == pytest.approx(kriging_weights(right, left, length), abs=1e-12)


@pytest.mark.parametrize(("left", "right", "length"), [(0, 0, 3), (3, 1, 2), (1, 1, 0)])
def test_impossible_weights_are_refused(left, right, length):
    with pytest.raises(DataError, match="good pixels"):
        kriging_weights(left, right, length)


@pytest.mark.parametrize("length", [1, 2, 6, 7, 11, 26, 27, 30])
@pytest.mark.parametrize("place", ["left side", "left + 1", "middle", "right side", "close pair"])
def test_runs_match_kriging(length, place):
    rng = np.random.default_rng(length)
    row = rng.normal(1000, 30, 48).astype(np.float32)
    start = {"left side": 0, "left + 1": 1, "middle": 9, "right side": 48 - length, "close pair": 9}[place]
    flagged = np.zeros(48, bool)
    flagged[start : start + length] = True
    if place == "close pair":
        flagged[[7, start + length + 1]] = True  # one good pixel on each side only
    image, mask = row[None].copy(), np.where(flagged, BAD, 0).astype(np.int32)[None]
    image[mask != 0] = 1e9  # the value under the mask must not matter
    n = interpolate(image, None, mask, fallback=990.0)
    assert n == flagged.sum()
    assert image[0] == pytest.approx(expected_row(row, flagged, 990.0), rel=1e-6)
    assert np.array_equal(mask[0] & INTRP != 0, flagged)


def test_random_masks_match_kriging():
    rng = np.random.default_rng(3)
    image = rng.normal(100, 10, (60, 70)).astype(np.float32)
    flagged = rng.random((60, 70)) < np.linspace(0.05, 0.95, 60)[:, None]
    mask = np.where(flagged, UNMASKEDNAN, 0).astype(np.int32)
    expected = np.array([expected_row(r, f, 5.0) for r, f in zip(image, flagged, strict=True)])
    image[flagged] = np.nan
    interpolate(image, None, mask, fallback=5.0)
    assert image == pytest.approx(expected, rel=2e-6, abs=1e-3)


def test_whole_row_takes_the_clipped_mean_of_the_good_pixels():
    rng = np.random.default_rng(0)
    image = rng.normal(500, 5, (40, 50)).astype(np.float32)
    mask = np.zeros((40, 50), np.int32)
    mask[7] = BAD
    image[7] = 9e4
    interpolate(image, None, mask)
    assert np.unique(image[7]).size == 1
    assert image[7, 0] == pytest.approx(np.delete(image, 7, axis=0).mean(), abs=0.2)
    assert fallback_level(image, np.full_like(mask, BAD)) == 0.0


def test_other_planes_stay_and_saturation_grows_by_one():
    image = np.full((9, 9), 10, np.float32)
    mask = np.zeros((9, 9), np.int32)
    mask[4, 4], mask[0, 0], image[0, 0] = SAT, CR, 99
    interpolate(image, None, mask)
    cross = [(3, 4), (4, 3), (4, 4), (4, 5), (5, 4)]
    assert {tuple(map(int, p)) for p in np.argwhere(mask == SAT | INTRP)} == set(cross)
    assert (mask[0, 0], image[0, 0]) == (CR, 99)
    assert image[4, 4] == pytest.approx(10)


def test_variance_is_that_of_the_estimate_but_not_below_the_neighbours():
    rng = np.random.default_rng(5)
    image = rng.normal(100, 3, (1, 20)).astype(np.float32)
    variance = rng.uniform(1, 9, (1, 20)).astype(np.float32)
    mask = np.zeros((1, 20), np.int32)
    mask[0, [5, 6, 7, 19]] = BAD
    before = variance[0].astype(float)
    interpolate(image, variance, mask)
    at = [3, 4, 8, 9]
    for p in (5, 6, 7):
        w = kriging(at, before[at], p)[1]
        assert variance[0, p] == pytest.approx(max((w**2 * before[at]).sum(), before[at].mean()), rel=1e-6)
    w = np.array([-0.42881, 1.42881])  # extrapolation at the side: noisier than what it came from
    assert variance[0, 19] == pytest.approx((w**2 * before[[17, 18]]).sum(), rel=1e-4)


@pytest.mark.parametrize("columns", [slice(0, 7), slice(13, 20), slice(0, 20)])
def test_variance_where_the_fallback_enters_is_infinite(columns):
    image, variance = np.ones((1, 20), np.float32), np.ones((1, 20), np.float32)
    mask = np.zeros((1, 20), np.int32)
    mask[0, columns] = BAD
    interpolate(image, variance, mask, fallback=1.0)
    assert np.isinf(variance[0, columns]).all()
    assert np.isfinite(np.delete(variance[0], np.r_[columns])).all()


def test_rounded_weights_reproduce_four_decimals():
    image = np.array([[0, 0, 7, 1000, 0]], np.float32)
    mask = np.array([[0, 0, BAD, 0, 0]], np.int32)
    interpolate(image, None, mask, decimals=4)
    assert image[0, 2] == np.float32(773.7)


def test_working_copy_leaves_its_inputs():
    image, mask = np.full((5, 12), 3, np.float32), np.zeros((5, 12), np.int32)
    mask[2, 5], image[2, 5], image[1, 3] = NO_DATA, np.nan, np.inf
    copy = working_copy(image, mask, UNUSABLE)
    assert copy == pytest.approx(3)
    assert np.isnan(image[2, 5])
    assert mask.sum() == NO_DATA


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_growth_is_the_manhattan_diamond(radius):
    rng = np.random.default_rng(radius)
    mask = np.zeros((23, 31), np.int32)
    for plane in (SAT, BAD, CR):
        mask[rng.random(mask.shape) < 0.01] |= plane
    expected = mask.copy()
    for y, x in np.argwhere(mask & (SAT | BAD)):
        for v in range(23):
            for u in range(31):
                if abs(v - y) + abs(u - x) <= radius:
                    expected[v, u] |= mask[y, x] & (SAT | BAD)
    grow(mask, SAT | BAD, radius)
    assert np.array_equal(mask, expected)


def test_bad_regions_take_the_median_of_the_good():
    image = np.arange(20, dtype=np.float32).reshape(4, 5)
    mask = np.zeros((4, 5), np.int32)
    mask[0, 0], mask[1, 1], image[2, 2] = BAD, BAD | INTRP, np.nan
    level = set_bad_regions(image, mask)
    good = [v for v in range(20) if v not in (0, 6, 12)]
    assert level == np.median(good) == image[0, 0]
    assert image[1, 1] == 6
    assert np.isnan(image[2, 2])
    assert np.isnan(set_bad_regions(image, np.zeros_like(mask)))


def test_edges_of_detector_and_amps():
    mask = np.zeros((10, 12), np.int32)
    mask_edges(mask, 2, EDGE)
    assert np.array_equal(mask[2:-2, 2:-2], np.zeros((6, 8)))
    assert (mask == EDGE).sum() == 120 - 48
    mask_edges(mask, 1, SUSPECT, [(0, 0, 6, 10), (6, 0, 6, 10)])
    assert (mask & SUSPECT != 0).sum() == 120 - 2 * 4 * 8
    mask_edges(mask, 0, CR)
    assert not (mask & CR).any()

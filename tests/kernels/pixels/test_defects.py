"""Defects: thresholds by hand, column rules against plain loops, recovery of injected truth at photon statistics."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from camcal_dask.calibs.defects.config import DefectConfig
from camcal_dask.errors import DataError
from camcal_dask.kernels.pixels import defects as kd
from camcal_dask.kernels.pixels.regions import boxes_to_mask, mask_to_boxes

CONFIG = DefectConfig()
ALL_AMPS = 16


def tiles(height, width):
    """Boxes of 2 x 8 amps in HDU order: C10..C17 on top, then C07..C00."""
    top = [(k * width, height, width, height) for k in range(8)]
    return np.array(top + [(k * width, 0, width, height) for k in range(7, -1, -1)], np.int32)


BOXES = tiles(60, 40)
SHAPE = (120, 320)


def noise(mean, stdev, seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(mean, stdev, shape).astype(np.float32)


# --- thresholds -------------------------------------------------------------------------------------------------


def test_bias_threshold_is_inclusive_and_counted_per_amp():
    image = noise(0, 1)
    image[5, 7] = 2000  # amp C00: index 15
    image[70, 45] = 990  # below 1000 by 10 sigma
    image[70, 300] = np.nan
    image[71, 300] = -5000  # cold: not searched
    found = kd.measure_defects(image, BOXES, CONFIG.bias.search("bias"), CONFIG.bias.columns.rules())
    assert np.argwhere(found.bits).tolist() == [[5, 7]]
    assert found.bits[5, 7] == kd.BIAS
    assert found.n_hot.tolist() == [0] * 15 + [1]
    assert not found.n_cold.any()
    flat = np.where(np.indices((60, 40)).sum(axis=0) % 2, 1.0, -1.0)  # mean exactly 0
    image = np.tile(flat, (2, 8)).astype(np.float32)
    image[0, 0] += 2 * 1000
    below = image.copy()
    below[0, 0] = np.nextafter(np.float32(999), np.float32(0))
    search = kd.Search("bias", "VALUE", 999.0)
    image[0, 0] = 999 + np.float32(kd.clip_statistics(image[:60, :40]).mean)
    assert kd.measure_defects(image, BOXES, search, None).bits[0, 0] == kd.BIAS


def test_bias_has_no_stdev_search():
    image = noise(0, 1)
    image[3, 3] = 1e5
    search = kd.Search("bias", "STDEV", 0.0)
    assert not kd.measure_defects(image, BOXES, search, None).bits.any()


def test_dark_threshold_uses_the_gain_of_each_amp():
    image = noise(0.02, 0.01)
    gains = np.linspace(1.0, 2.0, 16)
    for k, (x0, y0, _, _) in enumerate(BOXES):
        image[y0 + 3, x0 + 3] = 0.02 + 3.0 / gains[k] + 0.05  # adu/s
        image[y0 + 9, x0 + 9] = 0.02 + 3.0 / gains[k] - 0.05
    found = kd.measure_defects(image, BOXES, CONFIG.dark.search("dark"), None, gains=gains)
    assert (found.n_hot == 1).all()
    assert all(found.bits[y0 + 3, x0 + 3] == kd.DARK for x0, y0, _, _ in BOXES)
    assert np.count_nonzero(found.bits) == ALL_AMPS


def test_flat_finds_cold_pixels_only():
    image = noise(1.0, 0.005)
    image[10, 10], image[11, 11], image[12, 12] = 0.85, 0.95, 1.5
    found = kd.measure_defects(image, BOXES, CONFIG.flat.search("flat"), None)
    assert np.argwhere(found.bits).tolist() == [[10, 10]]
    assert found.n_cold[15] == 1


def test_stdev_finds_both_in_flats_and_hot_in_darks():
    image = noise(100.0, 1.0)
    image[10, 10], image[11, 11], image[12, 12], image[13, 13] = 94.0, 106.0, 95.5, 104.5
    both = kd.measure_defects(image, BOXES, kd.Search("flat", "STDEV", 0.0), None)
    hot = kd.measure_defects(image, BOXES, kd.Search("dark", "STDEV", 0.0), None)
    assert np.argwhere(both.bits).tolist() == [[10, 10], [11, 11]]
    assert np.argwhere(hot.bits).tolist() == [[11, 11]]


def test_search_border_is_left_out():
    image = noise(0, 1)
    image[0, 5] = image[30, 0] = image[30, 20] = 5000
    search = kd.Search("bias", "VALUE", 1000.0, border_rows=2, border_columns=1)
    assert np.argwhere(kd.measure_defects(image, BOXES, search, None).bits).tolist() == [[30, 20]]


# --- dead amps, missing data -----------------------------------------------------------------------------------


def amp_area(k):
    x0, y0, width, height = BOXES[k]
    return slice(y0, y0 + height), slice(x0, x0 + width)


def test_dead_amps_are_defects_as_a_whole():
    image = noise(1.0, 0.005)
    image[amp_area(2)] = np.nan
    image[amp_area(3)] = 1.0  # filled with a median
    image[amp_area(4)] = noise(0.0, 0.01, 1)[:60, :40]  # no response to light
    image[amp_area(5)] *= 0.5  # faint, but alive
    found = kd.measure_defects(
        image, BOXES, CONFIG.flat.search("flat"), CONFIG.flat.columns.rules(), flatness=CONFIG.flat.flatness("ITL")
    )
    assert np.flatnonzero(found.dead).tolist() == [2, 3, 4]
    of_flat = [np.count_nonzero(found.bits[y0 : y0 + h, x0 : x0 + w] & kd.FLAT) for x0, y0, w, h in BOXES]
    assert of_flat == [0, 0, 2400, 2400, 2400] + [0] * 11
    assert not found.n_cold.any()
    assert not found.n_columns.any()


def test_pixels_without_data_are_no_defects():
    image = noise(1.0, 0.005)
    image[:, :50] = 0.0  # vignetted: amps 0 and 15 as a whole, a part of 1 and 14
    no_data = np.zeros(SHAPE, bool)
    no_data[:, :50] = True
    image[20, 60] = 0.5
    found = kd.measure_defects(
        image, BOXES, CONFIG.flat.search("flat"), None, flatness=CONFIG.flat.flatness("ITL"), no_data=no_data
    )
    assert np.argwhere(found.bits).tolist() == [[20, 60]]
    assert not found.dead.any()
    assert np.isnan(found.mean[[0, 15]]).all()
    np.testing.assert_allclose(found.mean[[1, 14]], 1.0, atol=1e-3)


# --- what flats have besides -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sensor", "option", "rows"), [("E2V", "NEVERMASK", 0), ("E2V", "MASK", 2), ("ITL", "MASK", 2)]
)
def test_midline(sensor, option, rows):
    image = noise(1.0, 0.005)
    image[59:61] = 0.7  # the last row of C0x and the first of C1x are narrower
    config = CONFIG.flat.model_copy(update={"e2v_midline": option})
    found = kd.measure_defects(image, BOXES, config.search("flat"), None, flatness=config.flatness(sensor))
    assert np.count_nonzero(found.bits) == rows * 320
    dead = image.copy()
    dead[amp_area(8)] = np.nan
    found = kd.measure_defects(dead, BOXES, config.search("flat"), None, flatness=config.flatness(sensor))
    assert (found.bits[amp_area(8)] == kd.FLAT).all()  # a dead amp stays one to its last row


def test_midline_is_not_touched_in_other_images():
    image = noise(0, 1)
    image[59, 10] = 5000
    found = kd.measure_defects(image, BOXES, CONFIG.bias.search("bias"), None, flatness=CONFIG.flat.flatness("E2V"))
    assert found.bits[59, 10] == kd.BIAS


def test_vampires_take_their_surroundings():
    image = noise(3.0, 0.01)  # a bootstrap flat has steps of gain: the threshold is relative
    image[40, 100] = 6.0
    image[42, 200] = 5.0
    config = CONFIG.flat.model_copy(update={"vampires": True})
    found = kd.measure_defects(image, BOXES, config.search("flat"), None, flatness=config.flatness("ITL"))
    y, x = np.indices(SHAPE)
    np.testing.assert_array_equal(found.bits == kd.VAMPIRE, (y - 40) ** 2 + (x - 100) ** 2 <= 64)


@given(arrays(np.bool_, (9, 11)), st.integers(0, 4))
def test_growth_is_a_disc(mask, radius):
    y, x = np.indices(mask.shape)
    expected = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        expected |= (y - row) ** 2 + (x - column) ** 2 <= radius**2
    np.testing.assert_array_equal(kd.grow(mask, radius), expected)


def test_gradient_over_an_amp_hides_nothing_and_fakes_nothing():
    y, x = np.indices(SHAPE)
    affine = np.array([[0.1, 0, 290.0], [0, 0.1, 0.0]])
    radius = np.hypot(0.1 * x + 290.0, 0.1 * y)
    light = 1 - 0.25 * ((radius - 290) / 35) ** 2
    image = (light * noise(1.0, 0.003)).astype(np.float32)
    bad = np.random.default_rng(3).choice(SHAPE[0] * SHAPE[1], 200, replace=False)
    image.ravel()[bad] *= 0.88
    image.ravel()[bad[:100]] *= 0.5
    known = np.zeros(SHAPE, bool)
    known.ravel()[bad] = True
    wide = tiles(60, 40)
    plain = kd.measure_defects(image, wide, CONFIG.flat.search("flat"), None)
    found = kd.measure_defects(image, wide, CONFIG.flat.search("flat"), None, gradient=CONFIG.flat.gradient(affine))
    assert kd.compare_defects(found.bits > 0, known)[:2] == (1.0, 1.0)
    assert kd.compare_defects(plain.bits > 0, known).completeness < 1.0


# --- columns ---------------------------------------------------------------------------------------------------


def plain_columns(bad, boxes, rules, saturated):
    """The rules, pixel by pixel."""
    out = bad.copy()
    if saturated is None:
        saturated, rules = np.zeros_like(bad), rules._replace(saturated_count=-1)
    for y, x in np.argwhere(saturated):
        for dx in range(-rules.saturated_dilation, rules.saturated_dilation + 1):
            if 0 <= x + dx < bad.shape[1]:
                out[y, x + dx] = True
    for x in range(bad.shape[1]):
        rows = [y for y in range(bad.shape[0]) if out[y, x]]
        if 0 < rules.blinking_count <= len(rows):
            for a, b in zip(rows, rows[1:], strict=False):
                if b - a < rules.blinking_gap:
                    out[a:b, x] = True
    whole = []
    for x0, y0, w, h in boxes.tolist():
        rows = slice(y0, y0 + h)
        many = [x for x in range(x0, x0 + w) if 0 < rules.fill_count <= out[rows, x].sum()]
        many += [x for x in range(x0, x0 + w) if 0 < rules.saturated_count <= saturated[rows, x].sum()]
        out[rows, many] = True
        whole.append(len(set(many)))
    return out, whole


RULES = st.builds(
    kd.Columns, st.integers(-1, 5), st.integers(1, 6), st.integers(-1, 6), st.integers(0, 2), st.integers(-1, 4)
)


@given(arrays(np.bool_, (16, 24)), RULES, st.none() | arrays(np.bool_, (16, 24)))
def test_columns_are_those_of_the_plain_loops(bad, rules, saturated):
    boxes = tiles(8, 3)
    before = bad.copy()
    filled, n_columns = kd.fill_columns(bad, boxes, rules, saturated)
    expected, counts = plain_columns(bad, boxes, rules, saturated)
    np.testing.assert_array_equal(filled, expected)
    assert n_columns.tolist() == counts
    np.testing.assert_array_equal(bad, before)


def test_a_blinking_column_may_cross_the_middle():
    bad = np.zeros((4000, 16), bool)
    boxes = tiles(2000, 2)
    rows = np.arange(1700, 2300, 12)  # 50 pixels, 29 rows apart at most, in two amps
    bad[rows, 5] = True
    bad[3000, 5] = True  # far away: stays alone
    bad[rows[:-2], 9] = True  # 48: too few
    filled, n_columns = kd.fill_columns(bad, boxes, CONFIG.bias.columns.rules())
    expected = bad.copy()
    expected[rows[0] : rows[-1] + 1, 5] = True
    np.testing.assert_array_equal(filled, expected)
    assert not n_columns.any()


def test_bad_columns_fill_their_amp_only():
    bad = np.zeros((4000, 16), bool)
    bad[500:1500, 3] = True  # 1000 rows of C01
    bad[2500:3499, 3] = True  # 999 rows of C11
    filled, n_columns = kd.fill_columns(bad, tiles(2000, 2), CONFIG.dark.columns.rules())
    assert filled[:2000, 3].all()
    assert filled[2000:, 3].sum() == 999
    assert n_columns.sum() == n_columns[14] == 1


def test_filled_pixels_carry_their_own_bit():
    image = noise(0, 1, shape=(400, 320))
    boxes = tiles(200, 40)
    image[100:300:4, 17] = 3000
    found = kd.measure_defects(image, boxes, CONFIG.bias.search("bias"), CONFIG.bias.columns.rules())
    assert set(np.unique(found.bits[100:297, 17])) == {kd.BIAS, kd.COLUMN}
    assert np.count_nonzero(found.bits == kd.BIAS) == 50
    assert found.n_hot.sum() == 50


# --- merging ---------------------------------------------------------------------------------------------------


def test_merge_keeps_reasons_and_counts_who_found_what():
    a, b, c = (np.zeros((20, 30), np.uint8) for _ in range(3))
    a[10, 10], b[10, 10], b[11, 11], c[12, 12] = kd.BIAS, kd.FLAT, kd.FLAT, kd.FLAT
    manual = boxes_to_mask([[0, 0, 9, 1], [13, 11, 2, 1]], (20, 30))
    merged = kd.merge_defects({"bias": a, "flat r": b, "flat i": c}, edges=kd.edge_frame((20, 30), 7, 8), manual=manual)
    assert merged.bits[10, 10] == kd.BIAS | kd.FLAT
    assert merged.bits[12, 12] == kd.FLAT  # of the other filter: upstream would lose it
    assert merged.bits[0, 0] == kd.EDGE | kd.MANUAL
    assert merged.n_pixels["flat r"] == 2
    assert merged.n_alone == {"bias": 0, "flat r": 1, "flat i": 1, "edge": 600 - 6 * 14 - 9, "manual": 2}
    with pytest.raises(DataError, match="nothing to merge"):
        kd.merge_defects({})


def test_edges_of_small_detectors_leave_nothing():
    assert kd.edge_frame((4004, 4096), 7, 8).sum() == 4004 * 4096 - (4004 - 14) * (4096 - 16)
    assert kd.edge_frame((10, 10), 7, 8).all()
    assert not kd.edge_frame((10, 10), 0, 0).any()


def test_faulty_calls_are_refused():
    image = noise(0, 1)
    with pytest.raises(DataError, match="gains"):
        kd.measure_defects(image, BOXES, CONFIG.dark.search("dark"), None)
    with pytest.raises(DataError, match="15 gains for 16 amps"):
        kd.measure_defects(image, BOXES, CONFIG.dark.search("dark"), None, gains=np.ones(15))
    with pytest.raises(DataError, match="leaves the image"):
        kd.measure_defects(image[:100], BOXES, CONFIG.bias.search("bias"), None)
    with pytest.raises(DataError, match="leaves nothing"):
        kd.measure_defects(image, BOXES, kd.Search("bias", "VALUE", 1.0, border_rows=30), None)


# --- recovery of injected truth --------------------------------------------------------------------------------

N_EXP, DARK_TIME, READ_NOISE, FLAT_LEVEL = 20, 30.0, 6.0, 30_000.0  # exposures, s, electron, electron
RECOVERY = tiles(250, 64)
RECOVERY_SHAPE = (500, 512)


def scattered(rng, n):
    return np.unravel_index(rng.choice(np.prod(RECOVERY_SHAPE), n, replace=False), RECOVERY_SHAPE)


def gain_map(gains):
    image = np.empty(RECOVERY_SHAPE)
    for gain, (x0, y0, w, h) in zip(gains, RECOVERY, strict=True):
        image[y0 : y0 + h, x0 : x0 + w] = gain
    return image


def assert_recovered(found, margin):
    """``margin``: true distance beyond the threshold in standard deviations of the combined image, per pixel.

    Beyond 5 sigma everything is found, short of -5 sigma nothing, and in between the number is binomial.
    """
    assert found[margin > 5].all(), "completeness"
    assert not found[margin < -5].any(), "purity"
    near = np.abs(margin) <= 5
    probability = 0.5 * (1 + np.vectorize(math.erf)(margin[near] / math.sqrt(2)))
    spread = math.sqrt((probability * (1 - probability)).sum() + 0.25)
    assert abs(found[near].sum() - probability.sum()) < 4 * spread


def test_recovery_of_hot_pixels_in_a_dark():
    rng = np.random.default_rng(11)
    gains = rng.uniform(1.3, 1.8, 16)
    rate = np.full(RECOVERY_SHAPE, 0.03)
    rate[scattered(rng, 3000)] += rng.uniform(1, 8, 3000)
    electrons = rng.poisson(rate * DARK_TIME * N_EXP) + rng.normal(0, READ_NOISE * math.sqrt(N_EXP), RECOVERY_SHAPE)
    image = (electrons / (N_EXP * DARK_TIME) / gain_map(gains)).astype(np.float32)
    found = kd.measure_defects(image, RECOVERY, CONFIG.dark.search("dark"), None, gains=gains).bits > 0
    sigma = np.sqrt((rate / DARK_TIME + (READ_NOISE / DARK_TIME) ** 2) / N_EXP)
    assert_recovered(found, (rate - 0.03 - 3.0) / sigma)


def test_recovery_of_cold_pixels_in_a_flat_with_a_gradient():
    rng = np.random.default_rng(12)
    y, x = np.indices(RECOVERY_SHAPE)
    affine = np.array([[0.04, 0, 295.0], [0, 0.04, 50.0]])
    light = 1 - 0.3 * ((np.hypot(0.04 * x + 295.0, 0.04 * y + 50.0) - 299) / 25) ** 2
    gains = rng.uniform(1.3, 1.8, 16)
    throughput = np.ones(RECOVERY_SHAPE)
    throughput[scattered(rng, 3000)] = rng.uniform(0.0, 1.0, 3000)
    electrons = rng.poisson(FLAT_LEVEL * light * throughput * N_EXP) / N_EXP
    electrons += rng.normal(0, READ_NOISE / math.sqrt(N_EXP), RECOVERY_SHAPE)
    image = (electrons / gain_map(gains) / 20_000).astype(np.float32)
    found = kd.measure_defects(
        image,
        RECOVERY,
        CONFIG.flat.search("flat"),
        None,
        gradient=CONFIG.flat.gradient(affine),
        flatness=CONFIG.flat.flatness("ITL"),
    )
    sigma = np.sqrt((throughput / (FLAT_LEVEL * light)) / N_EXP)
    # Four nodes follow the illumination to a few 1e-4.
    assert_recovered(found.bits > 0, (0.9 - throughput) / np.hypot(sigma, 5e-4))


def test_recovery_of_bright_pixels_in_a_bias():
    rng = np.random.default_rng(13)
    truth = np.zeros(RECOVERY_SHAPE)
    truth[scattered(rng, 3000)] = rng.uniform(900, 1100, 3000)
    sigma = 4.0 / math.sqrt(N_EXP)
    image = (truth + rng.normal(2.0, sigma, RECOVERY_SHAPE)).astype(np.float32)
    found = kd.measure_defects(image, RECOVERY, CONFIG.bias.search("bias"), CONFIG.bias.columns.rules()).bits > 0
    assert_recovered(found, (truth - 1000) / sigma)


def test_completeness_and_purity():
    found, known = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    found[0, :4], known[0, 1:] = True, True
    assert kd.compare_defects(found, known) == (0.75, 0.75, 4, 4, 3)
    ignore = np.zeros((4, 5), bool)
    ignore[0, 0] = True
    assert kd.compare_defects(found, known, ignore) == (0.75, 1.0, 4, 3, 3)
    assert math.isnan(kd.compare_defects(found, np.zeros((4, 5), bool)).completeness)


@pytest.mark.slow
def test_full_size_detector():
    rng = np.random.default_rng(14)
    boxes, shape = tiles(2002, 512), (4004, 4096)
    affine = np.array([[0.01, 0, 100.0], [0, 0.01, 40.0]])
    image = rng.standard_normal(shape, np.float32) * np.float32(0.003) + np.float32(1)
    known = np.zeros(shape, bool)
    known[rng.integers(0, 4004, 4000), rng.integers(0, 4096, 4000)] = True
    known[:2002, rng.integers(0, 4096, 20)] = True
    image[known] *= np.float32(0.6)
    settings = {"gradient": CONFIG.flat.gradient(affine), "flatness": CONFIG.flat.flatness("E2V")}
    kd.measure_defects(image[:120, :320], BOXES, CONFIG.flat.search("flat"), CONFIG.flat.columns.rules(), **settings)
    begin = time.process_time()
    found = kd.measure_defects(image, boxes, CONFIG.flat.search("flat"), CONFIG.flat.columns.rules(), **settings)
    merged = kd.merge_defects({"flat": found.bits}, edges=kd.edge_frame(shape, 7, 8))
    table = mask_to_boxes(merged.bits > 0)
    assert time.process_time() - begin < 6.0
    midline = np.zeros(shape, bool)
    midline[2001:2003] = True
    assert kd.compare_defects(found.bits > 0, known, midline)[:2] == (1.0, 1.0)
    np.testing.assert_array_equal(boxes_to_mask(table, shape), merged.bits > 0)

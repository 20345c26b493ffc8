"""Amp offsets: known pedestals come back, the pieces against closed forms."""

import numpy as np
import pytest

from camcal_dask.kernels.pixels.masks import BAD, CR
from camcal_dask.kernels.readout.amp_offset import (
    apply_amp_offsets,
    interfaces,
    measure_amp_offsets,
    rolling_mean,
    solve_pedestals,
)

AW, AH = 120, 200
BOXES = np.array([(AW * k, AH, AW, AH) for k in range(8)] + [(AW * k, 0, AW, AH) for k in range(7, -1, -1)])


def scene(pedestals, noise=3.0, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: 2 * AH, : 8 * AW]
    image = (1000 + rng.normal(0, noise, y.shape)).astype(np.float32)
    apply_amp_offsets(image, -np.asarray(pedestals), BOXES)
    return image, np.zeros(image.shape, np.int32)


def zero_mean(seed=1, scale=3.0):
    values = np.random.default_rng(seed).normal(0, scale / 2, 16)
    return values - values.mean()


def test_interfaces_of_sixteen_amps():
    pairs, lengths = interfaces(BOXES)
    found = {tuple(pair): length for pair, length in zip(pairs.tolist(), lengths.tolist(), strict=True)}
    top, bottom = list(range(8)), list(range(15, 7, -1))  # left to right, HDU order
    expected = {(row[k], row[k + 1]): AH for row in (top, bottom) for k in range(7)}
    expected |= {(bottom[k], top[k]): AW for k in range(8)}
    assert found == expected


@pytest.mark.parametrize("drop", [False, True])
def test_known_pedestals_come_back(drop):
    truth = zero_mean()
    image, mask = scene(truth)
    measured = measure_amp_offsets(image, mask, BOXES, drop_rejected=drop)
    assert measured.accepted.all()
    # a median of 64 pixels has sigma 1.25 * 3 / 8, of which 120 or 200 are averaged: 0.04 a profile
    assert measured.pedestals == pytest.approx(truth, abs=0.2)
    assert measured.pedestals.mean() == pytest.approx(0, abs=1e-12)
    steps = truth[measured.pairs[:, 0]] - truth[measured.pairs[:, 1]]
    assert measured.offsets == pytest.approx(steps, abs=0.25)
    apply_amp_offsets(image, measured.pedestals, BOXES)
    again = measure_amp_offsets(image, mask, BOXES)
    assert np.abs(again.pedestals).max() < 0.01


def test_noiseless_pedestals_are_exact_and_masked_pixels_do_not_matter():
    truth = zero_mean(3)
    image, mask = scene(truth, noise=0.0)
    bad = np.random.default_rng(0).random(image.shape) < 0.2
    mask[bad], image[bad] = BAD, 1e6
    image[::17, ::3] = np.nan
    measured = measure_amp_offsets(image, mask, BOXES)
    assert measured.pedestals == pytest.approx(truth, abs=1e-4)  # float32 of 1000
    assert (measured.valid_fraction > 0.9).all()


def test_rejected_interfaces():
    truth = zero_mean(5)
    image, mask = scene(truth, noise=0.0)
    mask[:, : AW * 8][:AH, 4 * AW : 5 * AW] = CR  # amp index 11 has no good pixels
    zeroed = measure_amp_offsets(image, mask, BOXES)
    touches = (zeroed.pairs == 11).any(axis=1)
    assert np.isnan(zeroed.offsets[touches]).all()
    assert np.array_equal(zeroed.accepted, ~touches)
    dropped = measure_amp_offsets(image, mask, BOXES, drop_rejected=True)
    good = np.arange(16) != 11
    difference = dropped.pedestals[good] - truth[good]
    assert np.ptp(difference) < 1e-3  # the others are right up to the common mean
    assert np.ptp(zeroed.pedestals[good] - truth[good]) > 0.05  # a step of 0 at a dead amp distorts them
    assert dropped.pedestals[11] == pytest.approx(0, abs=1e-9)


def test_offsets_beyond_the_limit_count_as_zero():
    truth = np.zeros(16)
    truth[7] = 40.0
    image, mask = scene(truth, noise=0.0)
    measured = measure_amp_offsets(image, mask, BOXES)
    assert not measured.accepted[(measured.pairs == 7).any(axis=1)].any()
    assert np.abs(measured.pedestals).max() < 1e-3
    assert measure_amp_offsets(image, mask, BOXES, max_offset=50.0).pedestals[7] == pytest.approx(37.5, abs=1e-3)


def test_the_strip_is_inset_and_of_its_width():
    image, mask = scene(np.zeros(16), noise=0.0)
    image[AH:, AW - 69 : AW - 5] = 1004  # the 64 columns of amp 0 (top left) that face amp 1
    image[AH:, AW : AW + 5] = 1e5  # the 5 columns next to the edge play no part
    measured = measure_amp_offsets(image, mask, BOXES)
    k = measured.pairs.tolist().index([0, 1])
    assert measured.offsets[k] == pytest.approx(4, abs=1e-4)


@pytest.mark.parametrize("window", [1, 4, 5, 24, 60])
def test_rolling_mean_is_the_mean_of_what_is_valid(window):
    rng = np.random.default_rng(window)
    values = rng.normal(size=50)
    values[rng.random(50) < 0.3] = np.nan
    expected = np.full(50, np.nan)
    for k in range(50):
        low, high = k - window // 2, k - window // 2 + window
        if np.isfinite(values[k]):
            expected[k] = np.nanmean(values[max(low, 0) : min(high, 50)])
    assert rolling_mean(values, window) == pytest.approx(expected, nan_ok=True)


def test_pedestals_minimise_the_weighted_steps():
    rng = np.random.default_rng(0)
    pairs, lengths = interfaces(BOXES)
    offsets = rng.normal(size=len(pairs))
    solution = solve_pedestals(16, pairs, offsets, lengths)

    def cost(p):
        return (lengths * (p[pairs[:, 0]] - p[pairs[:, 1]] - offsets) ** 2).sum()

    assert solution.mean() == pytest.approx(0, abs=1e-12)
    for _ in range(50):
        assert cost(solution + rng.normal(0, 1e-3, 16)) >= cost(solution)

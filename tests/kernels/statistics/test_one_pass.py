"""Amp statistics against numpy on the same pixels, the shift detector against known steps and the filter's formula."""

import math

import numpy as np
import pytest

from camcal_dask.kernels.pixels.masks import BAD, CR, SAT
from camcal_dask.kernels.statistics import one_pass as statistics


@pytest.fixture
def amp():
    rng = np.random.default_rng(5)
    image = rng.normal(1.0, 5.0, (50, 36)).astype("f4")
    mask = np.zeros((50, 36), np.int32)
    mask[3, :7] = BAD
    mask[10:12, 5] = SAT | CR
    image[20, 20], image[21, 21] = np.nan, np.inf
    return image, mask


def test_select_good_keeps_raster_order_and_counts_planes(amp):
    image, mask = amp
    values, excluded, n_masked, planes = statistics.select_good(image, mask, BAD, 48, 33)
    inside = np.s_[:48, :33]
    good = np.isfinite(image[inside]) & (mask[inside] & BAD == 0)
    np.testing.assert_array_equal(values, image[inside][good])
    np.testing.assert_array_equal(excluded, image[3, :7])
    assert n_masked == 7
    assert list(planes[:4]) == [7, 2, 0, 2]


@pytest.mark.parametrize("side", [7, 9, 64])
def test_project_matches_masked_means(amp, side):
    image, mask = amp
    low, high = -6.0, 9.0
    good = (image >= low) & (image <= high) & (mask & BAD == 0)
    rows, columns, bins, count = statistics.project(image, mask, BAD, 50, 36, low, high, side)
    kept = np.where(good, image.astype("f8"), 0)
    np.testing.assert_allclose(rows, kept.sum(1) / good.sum(1))
    np.testing.assert_allclose(columns, kept.sum(0) / good.sum(0))
    n_y, n_x = max(50 // side, 1), max(36 // side, 1)
    for v in range(n_y):
        for u in range(n_x):
            box = np.s_[
                v * side : None if v == n_y - 1 else (v + 1) * side, u * side : None if u == n_x - 1 else (u + 1) * side
            ]
            assert bins[v, u] == pytest.approx(kept[box].sum() / good[box].sum())


def test_box_mean_ignores_bad_and_infinite_pixels(amp):
    image, mask = amp
    box = np.where((mask & BAD == 0) & np.isfinite(image), image, np.nan)[:25, :22]
    assert statistics.box_mean(image, mask, BAD, 25, 22) == pytest.approx(np.nanmean(box), rel=1e-6)
    assert math.isnan(statistics.box_mean(image, np.full_like(mask, BAD), BAD, 5, 5))


def test_amp_correlation_uses_common_pixels_and_marks_dead_amps():
    rng = np.random.default_rng(7)
    common = rng.normal(size=(40, 30))
    image = np.stack([a * common + rng.normal(size=(40, 30)) for a in (0.0, 1.0, -1.0, 0.5)]).astype("f4")
    mask = np.zeros(image.shape, np.int32)
    mask[1, 5] = BAD
    image[2, 7, 7] = 1000.0
    image[3] = np.nan
    live = np.array([True, True, True, False])
    matrix = statistics.amp_correlation(image, mask, BAD, np.zeros(4), np.full(4, 50.0), live)
    use = (mask[1] == 0) & (abs(image[2]) < 50)
    np.testing.assert_allclose(matrix[:3, :3], np.corrcoef(image[:3, use]), atol=1e-5)
    assert np.isnan(matrix[3]).all()
    assert np.isnan(matrix[:, 3]).all()


@pytest.mark.parametrize("frequency", [0.01, 1 / 30, 0.06, 0.25])
def test_high_pass_has_the_butterworth_response_and_no_phase(frequency):
    y = np.arange(3000)
    wave = np.sin(2 * math.pi * frequency * y)
    sections = statistics.highpass_sections(statistics.SHIFT_CUTOFF)
    out = statistics.zero_phase(wave, sections, 90)[600:-600]
    ratio = math.tan(math.pi * statistics.SHIFT_CUTOFF / 2) / math.tan(math.pi * frequency)
    np.testing.assert_allclose(out, wave[600:-600] / (1 + ratio**10), atol=2e-3)


def test_high_pass_takes_off_a_constant_and_a_line():
    sections = statistics.highpass_sections(statistics.SHIFT_CUTOFF)
    np.testing.assert_allclose(statistics.zero_phase(np.full(500, 25000.0), sections, 90), 0, atol=1e-8)
    np.testing.assert_allclose(statistics.zero_phase(np.arange(500.0), sections, 90), 0, atol=0.05)


@pytest.mark.parametrize("size", [1.0, -1.0])
@pytest.mark.parametrize("seed", range(3))
def test_one_step_is_found_where_it_is(size, seed):
    """Reference, acceptance test (e): row noise 0.15, step at row 800."""
    rows = 25000 + np.random.default_rng(seed).normal(0, 0.15, 2048)
    rows[800:] += size
    row, found, noise = statistics.bias_shifts(rows)
    assert row.size == 1
    assert abs(row[0] - 800) <= 2
    assert found[0] == pytest.approx(size, rel=0.10)
    assert noise == pytest.approx(0.15, rel=0.1)


@pytest.mark.parametrize("kind", ["small step", "ramp", "noise", "steep ramp"])
@pytest.mark.parametrize("seed", range(3))
def test_no_step_is_found_where_there_is_none(kind, seed):
    rows = np.random.default_rng(seed).normal(0, 0.15, 2048)
    y = np.arange(2048)
    rows += {
        "small step": 0.3 * (y >= 800),
        "ramp": 0.005 * y,
        "noise": 0.0,
        "steep ramp": 0.05 * np.clip(y - 800, 0, 200),
    }[kind]
    assert statistics.bias_shifts(rows)[0].size == 0


def test_step_without_noise_has_its_exact_height():
    rows = np.zeros(400)
    rows[200:] = 2.5
    row, size, _ = statistics.bias_shifts(rows)
    assert (list(row), list(size)) == ([200], [2.5])


def test_missing_rows_are_bridged_and_too_few_give_no_noise():
    rows = np.random.default_rng(3).normal(0, 0.15, 600)
    rows[300:] += 2
    rows[[10, 299]] = np.nan
    rows[590:] = np.nan
    row, _, _ = statistics.bias_shifts(rows)
    assert row.size == 1
    assert abs(row[0] - 300) <= 2
    assert math.isnan(statistics.bias_shifts(np.full(100, np.nan))[2])

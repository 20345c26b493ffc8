"""Correlations against numpy and against injected common noise."""

import numpy as np
import pytest

from camcal_dask.kernels.statistics.correlation import correlate, deviations, flat_difference


def test_is_numpys_correlation():
    pixels = np.random.default_rng(0).normal(size=(5, 30, 40)) + np.arange(5)[:, None, None]
    standard = np.stack([deviations(p) for p in pixels])
    expected = np.corrcoef(pixels.reshape(5, -1))
    np.testing.assert_allclose(correlate(standard, standard[:3]), expected[:, :3], atol=1e-5)


@pytest.mark.parametrize("common", [0.0, 0.5, 1.0])
def test_common_noise_of_a_raft(common):
    rng = np.random.default_rng(1)
    shared = rng.normal(0, common, (200, 60))
    amps = np.stack([deviations(rng.normal(0, 5, (200, 60)) + shared) for _ in range(8)])
    found = correlate(amps, amps)
    off = found[~np.eye(8, dtype=bool)]
    assert off.mean() == pytest.approx(common**2 / (25 + common**2), abs=4 / np.sqrt(200 * 60 * 28))


def test_outliers_and_dead_amps():
    rng = np.random.default_rng(2)
    first, second = rng.normal(0, 5, (2, 100, 50))
    first[3, 3] = second[3, 3] = 1e5  # a cosmic ray through both would correlate them perfectly
    found = correlate(*(deviations(p)[None] for p in (first, second)))
    assert abs(found[0, 0]) < 0.06
    assert np.isnan(correlate(deviations(np.ones((4, 4)))[None], deviations(rng.normal(size=(4, 4)))[None])).all()


def test_flat_difference_takes_the_level_and_the_pattern_away():
    rng = np.random.default_rng(3)
    pattern = 1 + 0.1 * rng.normal(size=(100, 100))
    first, second = 10_000 * pattern, 11_000 * pattern
    assert np.abs(flat_difference(first, second)).max() < 1e-8

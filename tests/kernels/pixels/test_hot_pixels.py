"""Hot pixels and columns are told from glow."""

import numpy as np

from camcal_dask.kernels.pixels.hot_pixels import hot_pixels


def dark(noise=0.1):
    return 0.02 + noise * np.random.default_rng(3).standard_normal((50, 36))


def test_hot_pixels_and_columns_are_found_and_nothing_else():
    rate, wanted = dark(), np.zeros((50, 36), bool)
    for place in (np.s_[3, 4], np.s_[3, 5], np.s_[20, 0], np.s_[:, 35], np.s_[10:, 17]):
        rate[place] += 5.0
        wanted[place] = True
    rate[40:, 30] = np.nan
    np.testing.assert_array_equal(hot_pixels(rate), wanted & np.isfinite(rate))


def test_glow_is_not_hot():
    """A light leak over everything, a glow at the corner, a band of charge that was not flushed."""
    y, x = np.mgrid[:50, :36]
    for glow in (10.0, 50 * np.exp(-(x + y) / 15), 20.0 * (y > 30), 8.0 * (x < 14)):
        assert not hot_pixels(dark() + glow).any()


def test_noise_of_a_short_dark_is_not_hot():
    assert not hot_pixels(dark(noise=4.0)).any()
    assert not hot_pixels(np.full((5, 5), np.nan)).any()

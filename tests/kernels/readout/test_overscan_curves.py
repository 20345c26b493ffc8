"""Overscan fits other than a level per line: closed forms, gaps, too few knots."""

import numpy as np
import pytest
from numpy.polynomial import chebyshev, legendre

from camcal_dask.errors import ConfigError
from camcal_dask.kernels.pixels.masks import SAT
from camcal_dask.kernels.readout.overscan import fit_lines
from camcal_dask.kernels.readout.overscan_curves import smooth_levels
from camcal_dask.kernels.statistics.moments import clip_statistics

N = 400
T = 2.0 * np.arange(N) / N - 1.0
SETTINGS = {"skip_leading": 2, "skip_trailing": 1, "max_deviation": 1000.0, "two_sided": True}


def strip_of(levels, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    strip = (levels[None] + rng.normal(0, noise, (20, levels.size))).astype("f4")
    strip[:2], strip[-1] = 500, -500  # skipped
    return strip, np.zeros(strip.shape, "i4")


def fitted(levels, kind, order, noise=0.0, hole=None):
    strip, mask = strip_of(levels, noise)
    if hole is not None:
        strip[:, hole], mask[:, hole] = 300, SAT
    return strip, mask, fit_lines(strip, mask, **SETTINGS, curve=(kind, order)).vector


@pytest.mark.parametrize("kind", ["MEAN", "MEANCLIP", "MEDIAN"])
def test_one_level(kind):
    strip, _, vector = fitted(np.full(N, 100.0), kind, 1, noise=3, hole=slice(10, 20))
    good = np.delete(strip[2:-1], range(10, 20), axis=1)
    expect = {"MEAN": good.mean(dtype="f8"), "MEDIAN": np.median(good), "MEANCLIP": clip_statistics(good).mean}[kind]
    np.testing.assert_allclose(vector, expect, rtol=1e-7)


@pytest.mark.parametrize(
    ("kind", "basis"),
    [("POLY", np.polynomial.polynomial.polyval), ("CHEB", chebyshev.chebval), ("LEG", legendre.legval)],
)
@pytest.mark.parametrize("order", [1, 3])
def test_polynomials_of_their_degree_are_exact(kind, basis, order):
    truth = 100 + basis(T, [0, 5, -3, 2][: order + 1])
    np.testing.assert_allclose(fitted(truth, kind, order)[2], truth, rtol=1e-6)


def test_polynomial_averages_the_noise():
    """Error of a straight line through N levels of noise s: at most 2 s / sqrt(N) each side."""
    truth = 100 + 5 * T
    _, _, vector = fitted(truth, "POLY", 1, noise=4)
    assert np.abs(vector - truth).max() < 5 * 2 * 4 / np.sqrt(17 * N)


@pytest.mark.parametrize("kind", ["NATURAL_SPLINE", "CUBIC_SPLINE", "AKIMA_SPLINE"])
def test_splines(kind):
    line = 100 + 7 * T
    np.testing.assert_allclose(fitted(line, kind, 12)[2], line, rtol=1e-6)
    wave = 100 + 5 * np.sin(4 * T)
    assert np.abs(fitted(wave, kind, 40)[2] - wave)[20:-20].max() < 0.02
    assert np.abs(fitted(wave, kind, 40, hole=slice(100, 130))[2] - wave)[20:-20].max() < 0.3
    np.testing.assert_allclose(fitted(line, kind, 4)[2], line.mean(), rtol=1e-6)  # too few knots


def test_nothing_left_and_unknown():
    strip, mask = strip_of(np.full(N, 1.0))
    mask |= SAT
    assert fit_lines(strip, mask, **SETTINGS, curve=("MEAN", 1)) is None
    with pytest.raises(ConfigError, match="did you mean 'POLY'"):
        smooth_levels(T, T, "POLLY", 1)

"""Robust fits, groups, turnoff and polynomials against numpy, closed forms and toys of the reference."""

import numpy as np
import pytest

from camcal_dask.errors import DataError
from camcal_dask.kernels.linearity import fit as lf


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("kind", lf.TUNING)
def test_weights_fall_from_one_and_are_even(kind):
    r = np.linspace(0, 12, 200)
    w = lf.robust_weights(r, kind)
    assert w[0] == pytest.approx(1)
    assert (np.diff(w) <= 1e-12).all()
    assert (w >= 0).all()
    np.testing.assert_array_equal(w, lf.robust_weights(-r, kind))


def test_weights_by_hand():
    r = np.array([1.0, 5.0])
    np.testing.assert_allclose(lf.robust_weights(r, "cauchy"), 1 / (1 + (r / 2.385) ** 2))
    np.testing.assert_allclose(lf.robust_weights(r, "huber"), [1 / 1, 1.345 / 5])
    np.testing.assert_allclose(lf.robust_weights(r, "bisquare"), [(1 - (1 / 4.685) ** 2) ** 2, 0])
    np.testing.assert_allclose(lf.robust_weights(r, "anderson"), [np.sin(1 / 1.339) / (1 / 1.339), 0])
    np.testing.assert_allclose(lf.robust_weights(r, "welsch"), np.exp(-((r / 2.985) ** 2)))
    with pytest.raises(DataError, match="did you mean 'cauchy'"):
        lf.robust_weights(r, "cauchi")


@pytest.mark.parametrize("kind", lf.TUNING)
def test_robust_fit_recovers_a_line_through_outliers(rng, kind):
    x = np.linspace(1, 100, 200)
    y = 40 + 500 * x
    y += np.sqrt(y) * rng.normal(size=x.size)
    y[::23] += 60 * np.sqrt(y[::23])
    fit = lf.irls_fit(x, y, kind=kind)
    plain = np.polyfit(x, y, 1, w=1 / np.sqrt(y))
    assert abs(fit.parameters[1] - 500) < 1.5
    assert abs(fit(x) - 40 - 500 * x).max() < 0.5 * abs(np.polyval(plain, x) - 40 - 500 * x).max()


def test_fit_without_robustness_is_numpys(rng):
    """Tiny residuals have weight 1: errors and chi2 are those of ordinary least squares."""
    x = np.linspace(0, 10, 50)
    y = 1e6 + 3 * x - 0.5 * x**2 + 1e-3 * rng.normal(size=50)
    fit = lf.irls_fit(x, y, 2)
    expected, covariance = np.polyfit(x, y, 2, cov=True)
    np.testing.assert_allclose(fit.parameters, expected[::-1], rtol=1e-9)
    np.testing.assert_allclose(fit.errors, np.sqrt(np.diag(covariance))[::-1], rtol=1e-6)
    given = lf.irls_fit(x, y, 2, weights=np.linspace(1, 3, 50), kind="box", scale_by_root=False)
    np.testing.assert_allclose(given.parameters[::-1], np.polyfit(x, y, 2, w=np.sqrt(np.linspace(1, 3, 50))), rtol=1e-9)


def test_fit_needs_points():
    with pytest.raises(DataError, match="2 points for a polynomial of order 2"):
        lf.irls_fit(np.arange(2.0), np.arange(2.0), 2)


def test_groups_follow_the_illumination(rng):
    n = 120
    truth = rng.integers(0, 3, n)
    rate = np.array([50.0, 500.0, 5000.0])[truth]
    x = rng.uniform(1, 10, n)
    signal = rate * x * (1 + 0.005 * rng.normal(size=n))
    x[7] = np.nan
    group = lf.find_groups(signal, x)
    assert group[7] == -1
    np.testing.assert_array_equal(np.delete(group, 7), np.delete(truth, 7))


def test_saturated_points_join_the_group_of_the_brightest_below():
    x = np.array([1.0, 2, 3, 4, 5, 6, 7, 8] * 2)
    rate = np.repeat([1000.0, 20000.0], 8)
    signal = np.minimum(rate * x, 1.0e5)  # the bright lamp saturates: its ratio falls by up to 40 %
    group = lf.find_groups(signal, x)
    np.testing.assert_array_equal(group, np.repeat([0, 1], 8))


def test_turnoff_is_the_last_linear_signal():
    x = np.linspace(1, 130, 130)
    y = 1000 * x
    y[100:] = 100e3 + 300 * np.arange(30)  # bends sharply after 100 points
    used = np.arange(130) < 90
    found = lf.linear_range(x, y, used, np.zeros(130, np.int64))
    # 1 % below the line: the point at 101 s reads 100 000 (-1.0 %), the limit is strict
    assert found.turnoff == 100e3
    assert found.max_signal == np.median(y[y > 0.99 * y.max()])
    assert not found.good[102:].any()
    limited = lf.linear_range(x, y, used, np.zeros(130, np.int64), max_turnoff=70.5e3)
    assert limited.turnoff == 70e3


def test_turnoff_drops_a_wild_point_and_uses_groups():
    x = np.tile(np.linspace(1, 100, 50), 2)
    group = np.repeat([0, 1], 50)
    y = np.where(group, 900, 300) * x
    y[60] *= 3
    found = lf.linear_range(x, y, np.ones(100, bool), group)
    assert found.turnoff == y.max() == found.max_signal
    assert not found.good[60]
    assert found.good[55:60].all()


def test_group_that_the_ptc_masks_uses_its_faintest_points():
    x = np.tile(np.linspace(1, 100, 50), 2)
    group = np.repeat([0, 1], 50)
    y = np.where(group, 900, 300) * x
    found = lf.linear_range(x, y, group == 0, group)
    assert found.good[group == 1].all()


def test_no_turnoff_without_points():
    empty = lf.linear_range(np.ones(5), np.full(5, 10.0), np.ones(5, bool), np.full(5, -1))
    assert np.isnan(empty.turnoff)
    assert np.isnan(empty.max_signal)


@pytest.mark.parametrize("k2", [5e-6, 5e-3, 5e-2])
def test_quadratic_toy_of_the_reference(k2):
    """Flux 1000 adu/s with -k2 t^2: c_0 = k2 / flux^2, no c_1, and the row is that parabola, beyond the data too."""
    t = np.arange(1.0, 102)
    found = lf.fit_polynomial(t, 1000 * t - k2 * t**2, np.ones(t.size, bool))
    # the line is fitted below 20 000 adu, where the parabola bends it by k2 * 20 / 1000
    assert found.coefficients[0] == pytest.approx(k2 / 1000**2, rel=1e-6)
    assert abs(found.coefficients[1]) * 1e5 < 1e-6 * found.coefficients[0]
    row = lf.lookup_row(found.fit)
    np.testing.assert_allclose(row, k2 * (np.arange(1 << 18) / 1000) ** 2, rtol=1e-4, atol=1e-5 + 4e-3 * k2)


def test_a_strong_quadratic_is_inverted(rng):
    t = np.linspace(1, 100, 300)
    linear = 700 * t
    y = linear - 4e-8 * linear**2
    y += np.sqrt(y / 9e5) * rng.normal(size=t.size)
    y[50] *= 1.5
    found = lf.fit_polynomial(t, y, np.ones(t.size, bool))
    assert not found.used[50]
    v = y + (found.coefficients[0] + found.coefficients[1] * y) * y**2
    ratio = np.delete(v / linear, 50)
    assert abs(ratio / np.median(ratio) - 1).max() < 1e-4

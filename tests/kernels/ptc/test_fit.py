"""Outliers, turnoff, roll-off and fits of single curves, against rules on paper and scipy's own minimisers."""

import numpy as np
import pytest
from scipy import optimize

from camcal_dask.kernels.ptc.fit import (
    STARTS,
    OutlierRule,
    bootstrap_exp,
    cut_at_decrease,
    cut_at_hole,
    find_turnoff,
    fit_exp,
    fit_polynomial,
    fit_rolloff,
    reaches_full_well,
    reject_outliers,
)
from camcal_dask.kernels.ptc.models import exp_variance, rolloff_variance

TRUE = np.array([-2.2e-6, 1.5, 36.0])
MEAN = np.geomspace(50, 60000, 120)
EXACT = exp_variance(TRUE, MEAN)
ALL = np.ones(len(MEAN), bool)
ERROR = np.sqrt(2 / 926064)


def measured(seed=0, scale=1.0):
    return EXACT * (1 + scale * ERROR * np.random.default_rng(seed).standard_normal(len(EXACT)))


def test_good_points_survive_and_bad_ones_do_not():
    variance = measured()
    variance[[20, 70]] *= [2.0, 0.8]
    variance[40] = np.nan
    good = ALL.copy()
    good[10] = False
    found = reject_outliers(MEAN, variance, good, OutlierRule())
    np.testing.assert_array_equal(np.flatnonzero(~found.used), [10, 20, 40, 70])


def test_the_first_fit_sees_faint_points_only():
    """The rest of the curve is off by 5 %: a fit of all points would reject at both ends."""
    variance = EXACT * np.where(MEAN > 20000, 0.95, 1.0)
    rule = OutlierRule(max_signal=20000, max_gap=1000, in_electron=False, cap_variance=False)
    np.testing.assert_array_equal(reject_outliers(MEAN, variance, ALL, rule).used, MEAN <= 20000)


def test_levels_in_electron_use_the_typical_gain():
    # median(mean / variance) is about 1.5, so 30000 electron are the 20000 adu of the test above.
    variance = EXACT * np.where(MEAN > 20000, 0.95, 1.0)
    rule = OutlierRule(max_signal=30000, max_gap=1500, cap_variance=False)
    scale = np.median(MEAN / variance)
    found = reject_outliers(MEAN, variance, ALL, rule)
    np.testing.assert_array_equal(found.used, 30000 / scale >= MEAN)


def test_wild_variances_stay_out_of_the_first_fit():
    variance = measured()
    variance[[5, 9, 12]] = 1e6
    rule = OutlierRule(max_iterations=1)
    found = reject_outliers(MEAN, variance, ALL, rule)
    np.testing.assert_array_equal(np.flatnonzero(~found.used), [5, 9, 12])
    uncapped = reject_outliers(MEAN, variance, ALL, rule._replace(cap_variance=False))
    assert uncapped is None or uncapped.used.sum() < 100


def test_a_curve_without_outliers_is_left_alone_after_one_pass():
    """Pulls of exactly +3 and -3: the start is the faint part, but the mask to compare with is that of the input.

    A pass more would fit to all points, where these pulls are worth 5 sigma at the bright end.
    """
    mean = np.linspace(1000, 60000, 90)
    exact = exp_variance(TRUE, mean)
    variance = exact + 3 * np.sqrt(exact) * np.where(np.arange(90) % 2, -1, 1)
    good, rule = np.ones(90, bool), OutlierRule()
    found = reject_outliers(mean, variance, good, rule)
    assert found.used.sum() == 90
    one = reject_outliers(mean, variance, good, rule._replace(max_iterations=1))
    np.testing.assert_array_equal(found.parameters, one.parameters)


def passes(variance, good, n):
    """Masks after each of up to ``n`` passes of the rule as the reference words it, without holes."""
    start = STARTS["current"]
    scale = np.nanmedian(MEAN / variance)
    used, masks = good & (scale * MEAN <= 50000) & (scale * variance <= 50000), [good]
    for _ in range(n):
        fit = optimize.least_squares(
            lambda p, x, y: exp_variance(p, x) - y, start.parameters, bounds=(start.lower, start.upper),
            args=(MEAN[used], variance[used]),
        )  # fmt: skip
        used = good & (np.abs(variance - exp_variance(fit.x, MEAN)) < 5 * np.sqrt(variance))
        masks.append(used)
        if np.array_equal(masks[-1], masks[-2]):
            break
    return masks


@pytest.mark.parametrize("spread", [0.5, 2.0, 3.0, 4.0])
def test_the_mask_is_that_of_the_first_pass_that_changes_nothing(spread):
    rng = np.random.default_rng(8)
    good = rng.random(len(MEAN)) > 0.1
    variance = EXACT + spread * np.sqrt(EXACT) * rng.standard_normal(len(MEAN))
    rule = OutlierRule(max_iterations=6, max_gap=np.inf)
    np.testing.assert_array_equal(reject_outliers(MEAN, variance, good, rule).used, passes(variance, good, 6)[-1])


def test_no_iterations_keep_every_good_point():
    variance = measured()
    variance[30] *= 2
    good = ALL.copy()
    good[3] = False
    found = reject_outliers(MEAN, variance, good, OutlierRule(max_iterations=0))
    np.testing.assert_array_equal(found.used, good)


def test_nothing_to_start_with():
    assert reject_outliers(MEAN, EXACT, ~ALL, OutlierRule()) is None
    assert reject_outliers(MEAN, EXACT, ALL, OutlierRule(max_signal=10, in_electron=False)) is None
    assert reject_outliers(MEAN * np.nan, EXACT * np.nan, ~ALL, OutlierRule()) is None


def test_zero_variance_is_no_division():
    variance = measured()
    variance[50] = 0.0
    assert not reject_outliers(MEAN, variance, ALL, OutlierRule()).used[50]


@pytest.mark.parametrize(
    ("used", "gap", "kept"),
    [
        ([1, 1, 0, 1, 1], 15, [1, 1, 0, 0, 0]),
        ([1, 1, 0, 1, 1], 25, [1, 1, 0, 1, 1]),
        ([1, 1, 1, 1, 1], 5, [1, 1, 1, 1, 1]),
        ([0, 0, 1, 1, 1], 5, [0, 0, 1, 1, 1]),
        ([1, 0, 1, 0, 1], 20, [1, 0, 0, 0, 0]),
        ([0, 0, 0, 0, 0], 5, [0, 0, 0, 0, 0]),
    ],
)
def test_a_hole_ends_the_curve(used, gap, kept):
    mask = np.array(used, bool)
    cut_at_hole(np.arange(5) * 10.0, mask, gap)
    np.testing.assert_array_equal(mask, np.array(kept, bool))


def test_two_decreases_end_the_curve_of_old():
    variance = np.array([1.0, 2, 1.5, 1.2, 20, 30, 29, 31, 40, 39, 38, 50])
    good = np.ones(12, bool)
    cut_at_decrease(variance, good, 10.0)
    np.testing.assert_array_equal(np.flatnonzero(good), range(9))
    good = np.ones(12, bool)
    cut_at_decrease(variance, good, 45.0)
    assert good.all()


def test_turnoff_and_its_sampling_error():
    mean = np.array([1.0, 2.0, 4.0, 8.0, 16.0, np.nan])
    assert find_turnoff(mean, np.array([1, 1, 1, 0, 0, 0], bool)) == (4.0, 3.0)
    assert find_turnoff(mean, np.array([1, 1, 0, 1, 1, 0], bool)) == (16.0, 8.0)
    assert find_turnoff(mean[:5], np.array([1, 1, 0, 1, 1], bool)) == (16.0, 8.0)
    assert np.isnan(find_turnoff(mean[:1], np.array([True]))[1])


def test_the_full_well_is_the_lowest_mean_at_which_half_the_variance_is_gone():
    mean = np.array([10.0, 20.0, 27.9, 28.1, 31.0, 32.0, 40.0, np.nan])
    variance = np.array([1.0, 2.0, 3.0, 3.1, 2.0, 1.5, 0.1, np.nan])
    scatter, used = np.ones(8), np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    touches = reaches_full_well(mean, variance, scatter, used, 4.0)
    np.testing.assert_array_equal(touches, [0, 0, 0, 1, 1, 1, 1, 0])
    assert not reaches_full_well(mean[:5], variance[:5], scatter[:5], used[:5], 4.0).any()


@pytest.mark.parametrize("minimiser", ["lmdif", "lmder"])
def test_exponential_fit_is_at_the_minimum(minimiser):
    variance = measured(3)
    weight = 1 / (ERROR * variance)
    fit = fit_exp(MEAN, variance, weight, np.array([-2e-6, 1.4, 30.0]), minimiser=minimiser)
    scale = np.array([1e-6, 1.0, 10.0])
    truth = optimize.least_squares(
        lambda p: weight * (exp_variance(p * scale, MEAN) - variance), TRUE / scale, xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    np.testing.assert_allclose(fit.parameters, truth.x * scale, rtol=2e-5 if minimiser == "lmdif" else 1e-7)
    freedom = len(MEAN) - 3
    np.testing.assert_allclose(fit.chi2, 2 * truth.cost / freedom, rtol=1e-5)
    covariance = np.linalg.inv(truth.jac.T @ truth.jac) * 2 * truth.cost / freedom
    np.testing.assert_allclose(fit.errors, np.sqrt(np.diag(covariance)) * scale, rtol=0.03)


def test_upstreams_minimiser_is_rescued_where_it_is_stuck():
    """From n2 = 1e-17 the numerical derivative by n2 vanishes, and lmdif stays far from the minimum."""
    variance = EXACT * (1 + 8e-3 * np.sin(MEAN / 6000))
    weight = 1 / (ERROR * variance)
    start = np.array([-2.4e-6, 1.47, 1e-17])
    stuck = optimize.leastsq(lambda p: weight * (exp_variance(p, MEAN) - variance), start, epsfcn=1e-4)[0]
    rescued, exact = (fit_exp(MEAN, variance, weight, start, minimiser=m) for m in ("lmdif", "lmder"))
    assert np.sum((weight * (exp_variance(stuck, MEAN) - variance)) ** 2) > 1.1 * exact.chi2 * (len(MEAN) - 3)
    np.testing.assert_allclose(rescued.chi2, exact.chi2, rtol=1e-4)


def test_weights_that_are_not_finite_count_nothing():
    variance, weight = measured(1), 1 / EXACT
    variance[7] *= 3
    weight[7] = np.inf
    fit = fit_exp(MEAN, variance, weight, TRUE, minimiser="lmder")
    np.testing.assert_allclose(fit.parameters, TRUE, rtol=0.02)


def test_three_points_have_no_error():
    fit = fit_exp(MEAN[[0, 60, 119]], EXACT[[0, 60, 119]], np.ones(3), TRUE)
    assert np.isnan(fit.errors).all()
    assert np.isnan(fit.chi2)


def test_bootstrap_has_the_errors_of_the_fit():
    variance = measured(4)
    weight = 1 / (ERROR * EXACT)
    fit = fit_exp(MEAN, variance, weight, TRUE)
    again = bootstrap_exp(MEAN, variance, weight, fit, 100)
    np.testing.assert_allclose(again.errors, fit.errors, rtol=0.4)
    assert (np.abs(again.parameters - fit.parameters) < fit.errors).all()


def test_polynomial():
    p = np.array([20.0, 0.7, -2e-6])
    fit = fit_polynomial(MEAN, np.polynomial.polynomial.polyval(MEAN, p), 1 / EXACT, 2)
    np.testing.assert_allclose(fit.parameters, p, rtol=1e-9)
    noisy = fit_polynomial(MEAN, measured(), 1 / EXACT, 3)
    coefficients, covariance = np.polyfit(MEAN, measured(), 3, w=1 / EXACT, cov=True)
    np.testing.assert_allclose(noisy.parameters, coefficients[::-1], rtol=1e-6)
    np.testing.assert_allclose(noisy.errors, np.sqrt(np.diag(covariance))[::-1], rtol=1e-5)


def rolling(start=48000.0, tau=-1200.0):
    """A curve that loses 0.5 % of its variance after 6 tau, and the points within 5 sqrt(variance) of Eq. 16."""
    mean = np.concatenate([MEAN[MEAN < 40000], np.arange(40000.0, 62000, 250)])
    variance = rolloff_variance(np.array([*TRUE, start, tau]), mean)
    with np.errstate(invalid="ignore"):
        return mean, variance, np.abs(variance - exp_variance(TRUE, mean)) < 5 * np.sqrt(variance)


def test_rolloff_is_found_below_the_turnoff():
    mean, variance, used = rolling()
    good = np.ones(len(mean), bool)
    turnoff = mean[used].max()
    result = fit_rolloff(mean, variance, good, used, TRUE, max_deviation=0.005)
    loss = 1 - variance / exp_variance(TRUE, mean)
    assert result.level == mean[loss <= 0.005].max() < turnoff
    np.testing.assert_array_equal(result.used, mean < result.level)
    beyond = (mean > turnoff) & (mean < turnoff + 5000) & (variance <= variance[used][-1])
    np.testing.assert_array_equal(result.fitted, used | beyond)
    assert beyond.any()
    np.testing.assert_allclose(result.tau, -1200, rtol=0.02)
    assert result.level_error < 100
    assert result.tau_error < 100


def test_without_points_beyond_the_turnoff_there_is_no_rolloff():
    used = MEAN < 40000
    result = fit_rolloff(MEAN, EXACT, ALL, used, TRUE, max_deviation=0.005)
    assert result.level == MEAN[used].max()
    assert np.isnan([result.level_error, result.tau, result.tau_error]).all()
    np.testing.assert_array_equal(result.used, used)
    assert not result.fitted.any()


def test_starts_are_within_their_bounds():
    for start in STARTS.values():
        assert all(a <= b <= c for a, b, c in zip(start.lower, start.parameters, start.upper, strict=True))

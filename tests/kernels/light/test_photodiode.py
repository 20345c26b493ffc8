"""Photodiode integration against the charge of traces made by hand."""

import numpy as np
import pytest

from camcal_dask.kernels.light.photodiode import charge, dark_level, light_sign

TIME = np.arange(0.0, 12.0, 0.1)
LIT = (TIME >= 2.0) & (TIME < 7.0)
LIGHT, DARK = 2e-8, 3e-10
TRUE = LIT.sum() * 0.1 * LIGHT


def trace(sign=1.0):
    return sign * np.where(LIT, LIGHT + DARK, DARK)


def test_trimmed_sum_takes_the_dark_current_off():
    assert charge(TIME, trace(), scale=1.0) == pytest.approx(TRUE, rel=1e-6)
    assert charge(TIME, trace(-1.0)) == pytest.approx(TRUE, rel=1e-6)  # the electrometer's sign


def test_the_baseline_is_a_clipped_mean():
    rng = np.random.default_rng(1)
    noisy = trace() + 1e-12 * rng.standard_normal(TIME.size)
    noisy[5] += 2e-9  # a spike in the dark part: 3 sigma and more, and below the threshold
    spike = 2e-9 * 0.1
    assert charge(TIME, noisy, scale=1.0) == pytest.approx(TRUE + spike, rel=1e-4)


def test_the_baseline_is_clipped_about_the_median_with_the_standard_deviation():
    """Five values on paper: median 1, std 3.6, so 10 stays, where an interquartile window would drop it."""
    assert dark_level(np.array([0.9, 1.0, 1.0, 1.1, 10.0])) == pytest.approx(2.8)


@pytest.mark.parametrize("n", [3, 20, 60, 300])
def test_the_baseline_is_that_of_astropys_clipping(n):
    """Skewed darks, whose every round moves the median: the oracle is astropy's sigma_clip with its defaults."""
    from astropy.stats import sigma_clip

    rng = np.random.default_rng(n)
    for _ in range(50):
        dark = 1e-10 * (1 + 0.05 * rng.standard_normal(n) + 0.1 * rng.exponential(1.0, n) ** 2)
        kept = sigma_clip(dark, sigma=3.0, maxiters=5, masked=False)
        assert dark_level(dark) == pytest.approx(kept.mean(), rel=1e-14)


def test_sixty_dark_samples():
    """The charge to 1e-12, where the interquartile window was off by 1e-4."""
    rng = np.random.default_rng(60)
    time, lit = np.arange(80.0), np.arange(80) >= 60
    current = np.where(lit, LIGHT, DARK * (1 + 0.3 * rng.exponential(1.0, 80)))
    from astropy.stats import sigma_clip

    baseline = sigma_clip(current[~lit], sigma=3.0, maxiters=5, masked=False).mean()
    expected = np.trapezoid(current - baseline, time)
    assert charge(time, current, scale=1.0) == pytest.approx(expected, rel=1e-12)


def test_direct_sum_is_the_trapezoid_and_ignores_the_scale():
    expected = TRUE + DARK * (TIME[-1] - TIME[0])
    assert charge(TIME, trace(), "direct_sum", scale=-1.0) == pytest.approx(expected, rel=1e-6)


def test_mean_is_current_times_exposure_time():
    current = np.full(50, -LIGHT)
    assert charge(TIME[:50], current, "mean", exposure_time=3.0) == pytest.approx(3 * LIGHT)
    assert np.isnan(charge(TIME[:50], current, "mean"))


def test_charge_sum_works_on_charges_of_unequal_intervals():
    rng = np.random.default_rng(2)
    time = np.cumsum(rng.uniform(0.08, 0.12, 120))
    interval = np.diff(time, prepend=time[0] - 0.1)
    lit = (time > 3) & (time < 8)
    charges = np.where(lit, LIGHT + DARK, DARK) * interval
    assert charge(time, charges, "charge_sum", scale=1.0) == pytest.approx((LIGHT * interval[lit]).sum(), rel=1e-9)


@pytest.mark.parametrize("method", ["trimmed_sum", "direct_sum", "charge_sum", "mean"])
def test_what_cannot_be_integrated_is_nan(method):
    assert np.isnan(charge(np.array([1.0]), np.array([1.0]), method))
    assert np.isnan(charge(np.array([0.0, 1.0]), np.array([1.0, np.nan]), method))


def test_a_reading_without_light_has_no_charge():
    assert charge(TIME, np.full(TIME.size, DARK), scale=1.0) == 0.0


def test_light_sign_follows_the_largest_sample():
    assert (light_sign(trace()), light_sign(trace(-1.0)), light_sign(np.array([]))) == (1.0, -1.0, 1.0)

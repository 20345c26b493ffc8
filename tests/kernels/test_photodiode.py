"""Photodiode integration against the charge of traces made by hand."""

import numpy as np
import pytest

from camcal_dask.kernels.photodiode import charge, light_sign

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

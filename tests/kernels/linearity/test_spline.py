"""Spline linearity on ramps of known truth: groups, offset, temperature, drift, outliers, weights."""

from dataclasses import replace

import numpy as np
import pytest

from camcal_dask.errors import DataError
from camcal_dask.kernels.linearity.akima import akima_jacobian, akima_spline
from camcal_dask.kernels.linearity.fit import irls_fit, mad_sigma
from camcal_dask.kernels.linearity.spline import Ramp, SplineTerms, _Model, fit_spline, uniform_nodes

NODES = np.linspace(0, 1.2e5, 10)
VALUES = 2 * np.array([0, -60, -110, -120, -80, -20, 60, 90, 30, -100.0])
SLOPES = np.array([1.0, 0.4, 0.15, 0.05]) * 1e12
TURNOFF = 1e5


def read_signal(linear, offset=0.0):
    """Signal that an amp of this spline reads: y - S(y) - O = linear, by fixed-point iteration."""
    y = linear.copy()
    for _ in range(60):
        y = linear + akima_spline(NODES, VALUES, y) + offset
    return y


def toy(n=340, seed=1, noise=1e-4, temperature=6e-4, drift=0.0, outliers=5):
    """Four lamps, offset 2 adu, relative noise, a temperature coefficient and wild points."""
    rng = np.random.default_rng(seed)
    linear = np.linspace(500, 1.19e5, n)
    group = rng.integers(0, 4, n)
    degrees, days = rng.normal(size=n), rng.permutation(n) / n
    y = read_signal(linear, 2.0) * (1 + noise * rng.normal(size=n)) / (1 + temperature * (degrees - np.median(degrees)))
    y /= 1 + drift * (days - np.median(days))
    wild = rng.choice(n, outliers, replace=False)
    y[wild] *= 1.05
    return Ramp(linear / SLOPES[group], y, group, degrees - np.median(degrees), days - np.median(days)), wild


def test_akima_jacobian_is_the_derivative():
    r = np.linspace(-500, 1.25e5, 400)
    jacobian = akima_jacobian(NODES, VALUES, r)
    for k in range(10):
        step = 1e-2 * np.eye(10)[k]
        numeric = (akima_spline(NODES, VALUES + step, r) - akima_spline(NODES, VALUES - step, r)) / 2e-2
        np.testing.assert_allclose(jacobian[:, k], numeric, atol=1e-6)


def test_model_jacobian_is_the_derivative():
    ramp, _ = toy(100)
    terms = SplineTerms(offset=True, temperature=True, temporal=True, weights=True, weight_start=(1e-4, 1e-3))
    model = _Model(ramp, NODES, 4, terms, TURNOFF, 100.0, SLOPES)
    p = np.concatenate([VALUES[1:], [1.001, 0.999, 1.0, 1.002], [0.02, 1.1e-4, 1e-3, 5e-4, 1e-3]])
    jacobian = model.jacobian(p)
    for i in range(len(p)):
        step = np.zeros(len(p))
        step[i] = 1e-5 * max(abs(p[i]), 1e-3)
        numeric = (model.residual(p + step) - model.residual(p - step)) / (2 * step[i])
        np.testing.assert_allclose(jacobian[:, i], numeric, rtol=2e-4, atol=1e-6 * abs(numeric).max() + 1e-9)


def test_spline_toy_of_the_reference():
    ramp, wild = toy()
    terms = SplineTerms(offset=True, temperature=True)
    fit = fit_spline(ramp, np.ones(340, bool), NODES, TURNOFF, terms)
    assert not fit.used[wild].any()
    assert fit.used.sum() > 330
    relative = fit.slopes / SLOPES
    assert abs(relative / relative.mean() - 1).max() < 6e-4
    assert abs(fit.offset - 2) < 0.6
    assert abs(fit.temperature / 6e-4 - 1) < 0.02
    signal, x = fit.signal(ramp)[fit.used], fit.scaled_abscissa(ramp)[fit.used]
    residual = signal / (irls_fit(x, signal).parameters[1] * x) - 1
    assert abs(residual).max() < 4.5e-4
    assert mad_sigma(residual) < 1.2e-4
    assert abs(akima_spline(fit.nodes, fit.values, np.linspace(0, TURNOFF, 100)).mean()) < 1e-3
    assert fit.values[0] == 0
    assert fit.parameters(terms).tolist() == [*fit.slopes, fit.offset, fit.temperature]  # no weight: none was fitted
    weighted = fit.parameters(replace(terms, weights=True))
    assert weighted.tolist() == [*fit.slopes, fit.offset, 1.0, 0.0, fit.temperature]


def test_offset_without_noise():
    ramp, _ = toy(noise=0, outliers=0, temperature=0)
    fit = fit_spline(ramp, np.ones(340, bool), NODES, TURNOFF, SplineTerms(offset=True))
    assert fit.offset == pytest.approx(2, rel=0.0015)


def test_offset_and_temperature_have_no_bias():
    """Over seeds the offset scatters by 0.06 adu and the coefficient by 1.1 %; their means do not."""
    terms = SplineTerms(offset=True, temperature=True)
    fits = [fit_spline(toy(seed=seed)[0], np.ones(340, bool), NODES, TURNOFF, terms) for seed in range(12)]
    for found, true, scatter in (([f.offset for f in fits], 2, 0.06), ([f.temperature for f in fits], 6e-4, 7e-6)):
        assert np.std(found) < 2 * scatter
        assert abs(np.mean(found) - true) < 3.5 * scatter / np.sqrt(12)


@pytest.mark.parametrize("outer_rounds", [1, 2])
def test_drift_of_the_lamp(outer_rounds):
    ramp, _ = toy(temperature=0, drift=0.01)
    terms = SplineTerms(offset=True, temporal=True)
    fit = fit_spline(ramp, np.ones(340, bool), NODES, TURNOFF, terms, outer_rounds)
    assert abs(fit.temporal / 0.01 - 1) < 0.02
    relative = fit.slopes / SLOPES
    assert abs(relative / relative.mean() - 1).max() < 6e-4


def test_weights_follow_the_noise():
    """Relative noise of 1e-4, and of 3e-3 at 100 adu."""
    rng = np.random.default_rng(9)
    linear = np.geomspace(100, 1.1e5, 2000)
    sigma = np.hypot(1e-4, 3e-2 / np.sqrt(linear))
    y = read_signal(linear) * (1 + sigma * rng.normal(size=2000))
    zero = np.zeros(2000)
    ramp = Ramp(linear, y, zero.astype(int), zero, zero)
    fit = fit_spline(ramp, y > 0, NODES, TURNOFF, SplineTerms(weights=True, weight_start=(2e-4, 1e-2)))
    y = np.array([100, 1e3, 1e4, 1e5])
    found = np.hypot(fit.weight[0], fit.weight[1] / np.sqrt(y))
    np.testing.assert_allclose(found, np.hypot(1e-4, 3e-2 / np.sqrt(y)), rtol=0.15)
    assert 0.8 < fit.chi2 < 1.2


def test_faint_flats_with_photon_noise_stay():
    rng = np.random.default_rng(2)
    linear = np.geomspace(200, 1.1e5, 600)
    y = read_signal(linear) * (1 + np.hypot(1e-5, 3e-3 / np.sqrt(linear)) * rng.normal(size=600))
    zero = np.zeros(600)
    fit = fit_spline(Ramp(linear, y, zero.astype(int), zero, zero), y > 0, NODES, TURNOFF, SplineTerms())
    assert fit.used.mean() > 0.99


def test_a_group_without_flats_has_no_slope_and_nodes_without_flats_stay_tame():
    ramp, _ = toy()
    used = (ramp.group != 2) & ((ramp.ordinate < 4e4) | (ramp.ordinate > 7e4))
    fit = fit_spline(ramp, used, np.linspace(0, 1.2e5, 25), TURNOFF, SplineTerms())
    assert np.isnan(fit.slopes[2])
    assert np.isnan(fit.scaled_abscissa(ramp)[ramp.group == 2]).all()
    assert abs(fit.values).max() < 3000


def test_too_few_flats_are_refused():
    ramp, _ = toy()
    with pytest.raises(DataError, match="3 good flats of 3 distinct levels do not determine"):
        fit_spline(ramp, np.arange(340) < 3, uniform_nodes(ramp.ordinate), TURNOFF, SplineTerms())
    with pytest.raises(DataError, match="no good flat"):
        fit_spline(ramp, np.zeros(340, bool), NODES, TURNOFF, SplineTerms())

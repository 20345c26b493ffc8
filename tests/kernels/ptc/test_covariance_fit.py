"""The covariance fit against a general minimiser on the plain residuals, its errors, and broken data."""

import numpy as np
import pytest
from scipy import optimize

from camcal_dask.kernels.ptc.covariance_fit import fit_covariances, subtract_long_range
from camcal_dask.kernels.ptc.models import LagPlanes, covariances
from tests.calibs.ptc.ptc_curves import means, noisy, truth
from tests.kernels.ptc.test_models import covariances_jacobian

MEAN = means(40)


def plain_fit(mean, covariance, weight, with_b, start):
    """All parameters at once, every datum a residual: what upstream minimises."""
    side = covariance.shape[1]
    size = side**2
    scale = np.concatenate([np.full(size, 1e-7), np.full(size, 1e-12), np.ones(size), [1.0]])
    free = np.ones(3 * size + 1, bool)
    free[size : 2 * size] = with_b

    def planes(p):
        full = np.zeros(len(scale))
        full[free] = p
        a, c, n = (full * scale)[:-1].reshape(3, side, side)
        return LagPlanes(a, c, n, full[-1])

    def residual(p):
        return (weight * (covariances(planes(p), mean) - covariance)).ravel()

    def jacobian(p):
        j = weight[..., None] * covariances_jacobian(planes(p), mean)
        return (j * scale).reshape(-1, len(scale))[:, free]

    begin = np.concatenate([start.a.ravel(), start.c.ravel(), start.noise.ravel(), [start.gain]]) / scale
    result = optimize.least_squares(
        residual, begin[free], jacobian, x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=300
    )
    reduced = 2 * result.cost / (weight.size - free.sum())
    errors = np.sqrt(np.diag(np.linalg.inv(result.jac.T @ result.jac)) * reduced)
    full_errors = np.zeros(len(scale))
    full_errors[free] = errors
    return planes(result.x), full_errors * scale, reduced


@pytest.mark.parametrize("with_b", [True, False])
def test_it_is_the_minimum_of_the_plain_problem(with_b):
    p = truth(side=3)
    covariance, weight = noisy(p, MEAN, np.random.default_rng(0))
    fit = fit_covariances(MEAN, covariance, weight, with_b=with_b)
    planes, errors, chi2 = plain_fit(MEAN, covariance, weight, with_b, p)
    np.testing.assert_allclose(fit.planes.gain, planes.gain, rtol=1e-8)
    np.testing.assert_allclose(fit.planes.a, planes.a, atol=1e-6 * abs(planes.a[0, 0]))
    np.testing.assert_allclose(fit.planes.noise, planes.noise, atol=1e-4)
    np.testing.assert_allclose(fit.chi2, chi2, rtol=1e-8)
    np.testing.assert_allclose(fit.gain_err, errors[-1], rtol=1e-4)
    np.testing.assert_allclose(fit.a_err, errors[:9].reshape(3, 3), rtol=1e-4)
    np.testing.assert_allclose(fit.noise00_err, errors[18], rtol=1e-4)
    assert (fit.planes.c == 0).all() or with_b


def test_higher_orders_are_fitted_too():
    p = truth(side=3)
    covariance = covariances(p, MEAN, 8)
    weight = 1 / (1e-3 * covariance[:, :1, :1] * np.ones((3, 3)))
    fit = fit_covariances(MEAN, covariance, weight, with_b=True, order=8)
    np.testing.assert_allclose(fit.planes.gain, p.gain, rtol=1e-8)
    np.testing.assert_allclose(fit.planes.a, p.a, rtol=1e-6)
    np.testing.assert_allclose(fit.planes.b, p.b, rtol=1e-4)
    published = fit_covariances(MEAN, covariance, weight, with_b=True)
    assert published.planes.a[0, 0] / p.a[0, 0] - 1 > 1e-3


def test_holes_in_the_data_have_no_weight():
    p = truth(side=2)
    covariance, weight = noisy(p, MEAN, np.random.default_rng(1))
    without = weight.copy()
    without[3] = without[7, 1, 1] = 0
    covariance[3] = np.nan
    weight[7, 1, 1] = np.nan
    fit = fit_covariances(MEAN, covariance, weight, with_b=True)
    planes, _, _ = plain_fit(MEAN, np.nan_to_num(covariance), np.nan_to_num(without), True, p)
    np.testing.assert_allclose(fit.planes.gain, planes.gain, rtol=1e-7)


def test_a_lag_larger_than_the_centre_is_no_trap():
    """With |a_12| > |a_00| upstream's model is centred elsewhere; ours returns the truth."""
    p = truth(side=3)
    a = p.a.copy()
    a[1, 2] = 4e-6
    p = p._replace(a=a, c=-1e-6 * a)
    covariance, weight = noisy(p, MEAN / 4, np.random.default_rng(0), scale=0)
    fit = fit_covariances(MEAN / 4, covariance, weight, with_b=True)
    np.testing.assert_allclose(fit.planes.gain, p.gain, rtol=1e-9)
    np.testing.assert_allclose(fit.planes.a, a, atol=1e-11)


def test_too_few_or_no_data():
    covariance, weight = noisy(truth(side=2), MEAN, np.random.default_rng(0))
    assert fit_covariances(MEAN[:3], covariance[:3], weight[:3], with_b=True) is None
    assert fit_covariances(MEAN, covariance, weight * 0, with_b=True) is None
    assert fit_covariances(MEAN, covariance * np.nan, weight, with_b=True) is None


def test_four_pairs_fit_without_errors():
    covariance, weight = noisy(truth(side=1), MEAN, np.random.default_rng(0))
    few = slice(None, None, 10)
    fit = fit_covariances(MEAN[few], covariance[few], weight[few], with_b=True)
    np.testing.assert_allclose(fit.planes.gain, 1.5, rtol=0.1)
    assert np.isnan(fit.chi2)
    assert np.isnan(fit.gain_err)


def test_distant_lags_define_the_surface():
    i, j = np.indices((8, 8))
    near = np.exp(-(i**2 + j**2) / 2.0) * ((i < 4) & (j < 4))
    surface = 2 + 0.5 * i - 0.3 * j + 0.1 * i * j
    covariance = np.stack([100 * near + surface, 50 * near - surface])
    weight = np.ones_like(covariance)
    covariance[0, 6, 6] = np.nan
    weight[0, 7, 7] = np.nan
    out = subtract_long_range(covariance, weight, 4)
    np.testing.assert_allclose(out[1], 50 * near, atol=1e-9)
    np.testing.assert_allclose(np.nan_to_num(out[0]), np.where((i == 6) & (j == 6), 0, 100 * near), atol=1e-9)
    small = covariance[:, :3, :3]
    np.testing.assert_array_equal(subtract_long_range(small, weight[:, :3, :3], 4), small)

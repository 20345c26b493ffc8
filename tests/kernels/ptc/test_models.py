"""The models of the photon transfer curve against series, brute-force convolutions and finite differences."""

import numpy as np
import pytest

from camcal_dask.kernels.ptc.models import (
    EQ_20,
    LagPlanes,
    convolution_matrix,
    covariances,
    exp_variance,
    exp_variance_jacobian,
    padded_side,
    polynomials,
    rolloff_variance,
)
from tests.calibs.ptc.ptc_curves import truth

MEAN = np.geomspace(50, 80000, 7)


@pytest.mark.parametrize("a00", [0.0, -1e-14, -1e-9, -2.4e-6, 3e-7, -1e-4])
def test_variance_is_its_definition(a00):
    g, n2 = 1.5, 36.0
    x = 2 * np.longdouble(a00) * g * MEAN.astype(np.longdouble)
    expected = MEAN / g * (np.expm1(x) / x if a00 else 1) + n2 / g**2
    np.testing.assert_allclose(exp_variance(np.array([a00, g, n2]), MEAN), expected.astype(float), rtol=1e-14)


def test_variance_has_the_series_of_the_reference():
    a, g, n2 = -1e-8, 1.4, 30.0
    series = n2 / g**2 + MEAN / g + a * MEAN**2 + 2 / 3 * a**2 * g * MEAN**3 + a**3 * g**2 * MEAN**4 / 3
    np.testing.assert_allclose(exp_variance(np.array([a, g, n2]), MEAN), series, rtol=1e-11)


@pytest.mark.parametrize("a00", [0.0, -1e-9, -2.4e-6, -5e-8, 1e-6])
def test_variance_derivatives(a00):
    p, step = np.array([a00, 1.5, 36.0]), np.array([1e-9, 1e-5, 1e-2])
    numeric = [
        (exp_variance(p + h, MEAN) - exp_variance(p - h, MEAN)) / (2 * h.sum()) for h in np.diag(step)
    ]  # fmt: skip
    np.testing.assert_allclose(exp_variance_jacobian(p, MEAN), np.stack(numeric, axis=1), rtol=2e-7)


def test_variance_overflows_to_infinity_without_a_warning():
    assert np.isinf(exp_variance(np.array([1.0, 1.0, 0.0]), MEAN[-1:]))


def test_rolloff_is_lost_variance_beyond_its_start():
    p = np.array([-2e-6, 1.5, 36.0, 60000.0, -1200.0])
    loss = exp_variance(p[:3], MEAN) - rolloff_variance(p, MEAN)
    np.testing.assert_array_equal(loss[MEAN <= 60000], 0)
    np.testing.assert_allclose(loss[-1], np.exp(20000 / 1200) - 1, rtol=1e-9)


def mirrored(quarter):
    half = np.concatenate([quarter[:0:-1], quarter])
    return np.concatenate([half[:, :0:-1], half], axis=1)


def brute_convolution(first, second, side):
    """Sum over the whole plane, lag by lag."""
    one, two = mirrored(first), mirrored(second)
    r1, r2 = len(first) - 1, len(second) - 1
    out = np.zeros((side, side))
    for i, j in np.ndindex(side, side):
        for k, m in np.ndindex(one.shape):
            u, v = i - (k - r1) + r2, j - (m - r1) + r2
            if 0 <= u < len(two) and 0 <= v < len(two):
                out[i, j] += one[k, m] * two[u, v]
    return out


@pytest.mark.parametrize(("r1", "r2", "side"), [(3, 3, 3), (4, 2, 6), (1, 3, 2), (1, 1, 1)])
def test_convolution_is_that_of_the_symmetric_plane(r1, r2, side):
    rng = np.random.default_rng(r1)
    first, second = rng.standard_normal((r1, r1)), rng.standard_normal((r2, r2))
    found = (convolution_matrix(first, side, len(second)) @ second.ravel()).reshape(side, side)
    np.testing.assert_allclose(found, brute_convolution(first, second, side), atol=1e-13)


def test_convolution_matrix_spreads_single_lags():
    plane = np.random.default_rng(0).standard_normal((3, 3))
    matrix = convolution_matrix(plane, 3, 3)
    for m in range(9):
        unit = np.eye(9)[m].reshape(3, 3)
        np.testing.assert_allclose(matrix[:, m].reshape(3, 3), brute_convolution(plane, unit, 3), atol=1e-14)


def brute_covariances(p, mean):
    """Eq. 20 as written, with products on a plane wide enough for all of them."""
    side, wide = len(p.a), 4 * len(p.a)
    aa_wide = brute_convolution(p.a, p.a, wide)
    aa, aaa, ac = aa_wide[:side, :side], brute_convolution(aa_wide, p.a, side), brute_convolution(p.a, p.c, side)
    delta = np.zeros_like(p.a)
    delta[0, 0] = 1
    x = (mean * p.gain)[:, None, None]
    bracket = delta + p.a * x + 2 / 3 * (aa + p.c) * x**2 + (aaa / 3 + 5 / 6 * ac) * x**3
    return mean[:, None, None] / p.gain * bracket + p.noise / p.gain**2


def test_covariances_are_equation_20():
    p = truth(side=3)
    expected = brute_covariances(p, MEAN)
    # The reference keeps a.a up to lag 1.5 r only, which costs 1e-6 of C_00 for so short a range.
    np.testing.assert_allclose(covariances(p, MEAN), expected, atol=1e-6 * expected[-1, 0, 0])


@pytest.mark.parametrize("order", [3, 4, 6, 8])
def test_covariances_solve_their_differential_equation(order):
    """dC/dx = delta + 2 (a + c x) . C up to x^order; what is left is of the next power."""
    p = truth(side=3)._replace(gain=1.0, noise=np.zeros((3, 3)))
    wide = padded_side(3)

    def residual(x):
        planes = LagPlanes(*(np.pad(v, [(0, wide - 3)] * 2) for v in (p.a, p.c, p.noise)), 1.0)
        at, step = np.array([x * (1 - 1e-4), x, x * (1 + 1e-4)]), 2e-4 * x
        c = covariances(planes, at, order)
        growth = (c[2] - c[0]) / step
        expected = 2 * brute_convolution(p.a + p.c * x, c[1], wide)
        expected[0, 0] += 1
        return np.abs(growth - expected)[:3, :3].max()

    assert residual(40_000.0) < 3 * 0.4 ** (order + 1) / np.prod(np.arange(1.0, order + 1))
    assert residual(80_000.0) / residual(40_000.0) == pytest.approx(2.0 ** (order + 1), rel=0.3)


def test_a_lag_larger_than_the_centre_shifts_nothing():
    """The centre is lag (0, 0) even where another lag is larger: upstream's argmax would move all products."""
    p = truth(side=3)
    a = p.a.copy()
    a[1, 2] = 4e-6
    trapped = p._replace(a=a, c=np.zeros_like(a))
    padded = padded_side(3)
    aa = brute_convolution(a, a, padded)
    third = 2 / 3 * p.gain * aa[:3, :3]
    np.testing.assert_allclose(polynomials(trapped).coefficients[3].reshape(3, 3), third, rtol=1e-12)
    np.testing.assert_allclose(
        polynomials(trapped).coefficients[4].reshape(3, 3), p.gain**2 / 3 * brute_convolution(aa, a, 3), rtol=1e-12
    )


def test_one_lag_without_b_is_nearly_the_exponential():
    """With a_00 alone Eq. 20 is the series of Eq. 16 up to mu^4."""
    p = LagPlanes(np.array([[-1e-7]]), np.zeros((1, 1)), np.array([[25.0]]), 1.3)
    expected = exp_variance(np.array([-1e-7, 1.3, 25.0]), MEAN)
    np.testing.assert_allclose(covariances(p, MEAN)[:, 0, 0], expected, rtol=1e-8)


def covariances_jacobian(p, mean, order=EQ_20):
    """Derivatives of the covariances (n, r, r, 3 r^2 + 1) by a, c, n (each ravelled) and the gain."""
    parts = polynomials(p, order)
    by_noise = np.zeros((order + 2, p.a.size, p.a.size))
    by_noise[0] = np.eye(p.a.size) / p.gain**2
    stacked = np.concatenate([parts.by_a, parts.by_c, by_noise, parts.by_gain[:, :, None]], axis=2)
    powers = np.vander(mean, order + 2, increasing=True)
    return np.tensordot(powers, stacked, axes=1).reshape(len(mean), *p.a.shape, -1)


@pytest.mark.parametrize("order", [3, 8])
def test_covariance_derivatives(order):
    side = 3
    p = truth(side=side)
    size = side**2
    start = np.concatenate([p.a.ravel(), p.c.ravel(), p.noise.ravel(), [p.gain]])
    step = np.concatenate([np.full(size, 1e-9), np.full(size, 1e-13), np.full(size, 1.0), [1e-5]])

    def at(v):
        a, c, n = v[:-1].reshape(3, side, side)
        return covariances(LagPlanes(a, c, n, v[-1]), MEAN, order)

    numeric = np.stack([(at(start + h) - at(start - h)) / (2 * h.sum()) for h in np.diag(step)], axis=-1)
    exact = covariances_jacobian(p, MEAN, order)
    scale = np.abs(exact).max(axis=(0, 1, 2))
    np.testing.assert_allclose(numeric / scale, exact / scale, atol=1e-8 if order == 3 else 5e-6)


def test_b_is_missing_where_a_is_zero():
    p = truth(side=2)._replace(a=np.array([[-2e-6, 0], [1e-7, 1e-7]]), c=np.full((2, 2), 1e-13))
    np.testing.assert_allclose(p.b, [[-5e-8, np.nan], [1e-6, 1e-6]])

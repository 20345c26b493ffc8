"""The radial spline against scipy's Akima spline and a general minimiser, and against known illuminations."""

from __future__ import annotations

import time

import numpy as np
import pytest

from camcal_dask.kernels.linearity.akima import akima_slopes, akima_spline
from camcal_dask.kernels.statistics.radial import fit_radial_l1, remove_radial

interpolate = pytest.importorskip("scipy.interpolate")
optimize = pytest.importorskip("scipy.optimize")


@pytest.mark.parametrize("seed", range(5))
def test_spline_is_scipys(seed):
    rng = np.random.default_rng(seed)
    nodes = np.sort(rng.uniform(0, 300, 4 + 3 * seed))
    values = rng.normal(1, 0.3, nodes.size)
    r = rng.uniform(nodes[0], nodes[-1], 200)
    np.testing.assert_allclose(akima_spline(nodes, values, r), interpolate.Akima1DInterpolator(nodes, values)(r))
    beyond = akima_spline(nodes, values, np.array([nodes[0] - 5, nodes[-1] + 5]))
    np.testing.assert_allclose(beyond, values[[0, -1]])


def test_straight_lines_stay_straight():
    nodes = np.array([0.0, 1.0, 2.5, 3.0])
    np.testing.assert_allclose(akima_slopes(nodes, 2 - 3 * nodes), -3)
    np.testing.assert_allclose(akima_slopes(nodes[:2], 2 - 3 * nodes[:2]), -3)


@pytest.mark.parametrize("seed", range(4))
def test_minimum_is_that_of_a_general_minimiser(seed):
    rng = np.random.default_rng(10 + seed)
    r = rng.uniform(100, 130, 400)
    nodes = np.linspace(100, 130, 4)
    values = 1 - 2e-5 * (r - 60) ** 2 + rng.standard_t(2, 400) * 0.003
    found = fit_radial_l1(r, values, nodes)

    def cost(p):
        return np.abs(values - interpolate.Akima1DInterpolator(nodes, p)(r)).sum()

    best = min(
        optimize.minimize(
            cost, start, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-8, "fatol": 1e-9}
        ).fun
        for start in (found, 1 - 2e-5 * (nodes - 60) ** 2)
    )
    assert cost(found) <= best * 1.001


def test_a_third_of_the_values_may_be_wrong():
    rng = np.random.default_rng(3)
    r = rng.uniform(0, 20, 3000)
    nodes = np.linspace(0, 20, 4)
    truth = 1 - 1e-4 * r**2
    values = truth + rng.normal(0, 1e-3, 3000)
    wrong = rng.random(3000) < 0.33
    values[wrong] *= rng.choice([0.0, 0.5, 0.9], wrong.sum())
    np.testing.assert_allclose(akima_spline(nodes, fit_radial_l1(r, values, nodes), r), truth, atol=2e-3)


def amp(shape, affine, illumination, seed, noise=0.0):
    y, x = np.indices(shape)
    r = np.hypot(affine[0, 0] * x + affine[0, 2], affine[1, 1] * y + affine[1, 2])
    rng = np.random.default_rng(seed)
    return (illumination(r) * (1 + rng.normal(0, noise, shape))).astype(np.float32), r


@pytest.mark.parametrize("shape", [(200, 120), (50, 36)])
def test_a_steep_vignette_is_flattened(shape):
    """10 % over the amp would drown a cut at 0.9; after division the level is that of the brightest bins."""
    affine = np.array([[8 / shape[1], 0, 300.0], [0, 20 / shape[0], 100.0]])

    def illumination(r):
        return 1.2 * (1 - 0.1 * ((r - 316.0) / 14) ** 2)

    image, r = amp(shape, affine, illumination, 1, noise=0.003)
    assert np.ptp(illumination(r)) > 0.1
    flat = remove_radial(image, affine, bin_size=8, border=20, n_nodes=4)
    assert flat.dtype == np.float32
    residual = flat / np.median(flat)
    assert abs(residual - 1).mean() < 0.003
    rows = residual.reshape(shape[0] // 10, 10, -1).mean(axis=(1, 2))
    np.testing.assert_allclose(rows, 1, atol=3e-3)


def test_dark_corner_and_missing_data():
    affine = np.array([[0.05, 0, 345.0], [0, 0.05, 0.0]])
    image, r = amp((200, 200), affine, lambda r: np.clip((354 - r) / 6, 0, 1), 2, noise=0.001)
    image[40:60] = np.nan
    flat = remove_radial(image, affine, bin_size=8, border=20, n_nodes=4)
    assert np.isnan(flat[40:60]).all()
    assert np.isnan(flat[r > 354.5]).all()
    nothing = np.full((200, 200), np.nan, np.float32)
    np.testing.assert_array_equal(remove_radial(nothing, affine, bin_size=8, border=20, n_nodes=4), nothing)
    zero = np.zeros((200, 200), np.float32)
    np.testing.assert_array_equal(remove_radial(zero, affine, bin_size=8, border=20, n_nodes=4), zero)


@pytest.mark.slow
def test_full_size_amp_is_fast():
    affine = np.array([[0.01, 0, 200.0], [0, 0.01, 100.0]])
    image, _ = amp((2002, 512), affine, lambda r: 1 - 1e-6 * r**2, 3, noise=0.005)
    remove_radial(image[:50, :50], affine, bin_size=8, border=2, n_nodes=4)
    begin = time.process_time()
    flat = remove_radial(image, affine, bin_size=8, border=20, n_nodes=4)
    assert time.process_time() - begin < 1.0
    assert abs(flat[:200].mean() / flat[-200:].mean() - 1) < 2e-4

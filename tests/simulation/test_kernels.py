"""Forward kernels against closed forms and obvious loops."""

import numpy as np
import pytest
import scipy.stats

from camcal_dask.kernels.simulator.sensor import (
    add_crosstalk,
    area_flow,
    bloom,
    pad_edges,
    poisson_from_normals,
    serial_cti,
)
from camcal_dask.simulation.brighter_fatter import (
    area_coefficients,
    boundary_shifts,
    plane,
    redistribute,
    series,
    shifts_of,
)
from camcal_dask.simulation.config import BrighterFatter


@pytest.mark.parametrize("mean", [0.3, 4.0, 29.5, 30.5, 80.0])
def test_poisson_numbers_follow_the_distribution(mean):
    z = np.random.default_rng(7).standard_normal((400, 1000), dtype=np.float32)
    drawn = np.full_like(z, mean)
    poisson_from_normals(drawn, z)
    law = scipy.stats.poisson(mean)
    low, high = law.ppf([0.001, 0.999])
    edges = np.arange(low, high + 1)
    observed = np.bincount(np.clip(drawn.ravel(), low, high).astype(int) - int(low), minlength=len(edges))
    expected = law.pmf(edges)
    expected[0], expected[-1] = law.cdf(low), law.sf(high - 1)
    assert scipy.stats.chisquare(observed, expected / expected.sum() * z.size).pvalue > 1e-3


@pytest.mark.parametrize("mean", [0.0, 1000.0, 100000.0])
def test_poisson_mean_and_variance(mean):
    z = np.random.default_rng(8).standard_normal((1000, 1000), dtype=np.float32)
    drawn = np.full_like(z, mean)
    poisson_from_normals(drawn, z)
    assert drawn.mean(dtype=float) == pytest.approx(mean, abs=4 * np.sqrt(mean / z.size))
    assert drawn.var(dtype=float) == pytest.approx(mean, rel=4 * np.sqrt(2 / z.size))
    assert (drawn == np.rint(drawn)).all()


def loop_bloom(column, full_well):
    """Electron by bunch: the excess of each pixel half up, half down; what meets the stop turns back."""
    column = column.astype(float).copy()
    excess = np.maximum(column - full_well, 0)
    column -= excess

    def spill(start, amount, step):
        y = start + step
        while 0 <= y < len(column) and amount > 0:
            taken = min(full_well - column[y], amount)
            column[y] += taken
            amount -= taken
            y += step
        return amount

    turned = sum(spill(y, excess[y] / 2, 1) for y in range(len(column)))
    lost = sum(spill(y, excess[y] / 2, -1) for y in range(len(column) - 1, -1, -1))
    return column, lost + spill(len(column), turned, -1)


def test_blooming_of_one_star_fills_neighbours_and_conserves_charge():
    columns = np.full((3, 40), 100.0, np.float32)
    columns[1, 20] = 5000.0
    before = columns.sum()
    lost = bloom(columns, 1000.0)
    assert columns.sum() + lost.sum() == pytest.approx(before)
    assert (columns[[0, 2]] == 100).all()
    np.testing.assert_allclose(columns[1, 18:23], 1000)  # 2000 e each way: two full pixels (900 e of room) and 200 e
    assert columns[1, 17] == columns[1, 23] == 300
    assert lost.sum() == 0


@pytest.mark.parametrize("y", [0, 3, 28, 29])
def test_blooming_near_the_ends(y):
    columns = np.full((1, 30), 400.0, np.float32)
    columns[0, y] = 30000.0
    expected, expected_lost = loop_bloom(columns[0], 1000.0)
    before = columns.sum(dtype=float)
    lost = bloom(columns, 1000.0)
    np.testing.assert_allclose(columns[0], expected, rtol=1e-6)
    assert lost[0] == pytest.approx(expected_lost)
    assert columns.sum(dtype=float) + lost[0] == pytest.approx(before)


def test_saturated_flat_loses_all_excess_to_the_register():
    columns = np.full((2, 30), 1500.0, np.float32)
    assert bloom(columns, 1000.0).tolist() == [15000.0, 15000.0]
    assert (columns == 1000).all()


def flat_row(level, prescan=4, width=36, overscan=16):
    row = np.zeros((1, prescan + width + overscan), np.float32)
    row[0, prescan : prescan + width] = level
    return row, prescan + width


def test_global_cti_makes_the_trail_of_the_eper_formula():
    row, n = flat_row(50000.0)
    serial_cti(row, n, np.array([1e-5, 0, 0, 1, 0, 1]))
    assert row[0, n] == pytest.approx(50000 * n * 1e-5, rel=1e-6)  # CTI = trail / (last column x transfers)
    assert row[0, n - 1] == pytest.approx(50000 * (1 - 1e-5), rel=1e-6)  # gets from its neighbour what it loses, but b
    assert (row[0, n + 1 :] == 0).all()
    assert row.sum(dtype=float) == pytest.approx(36 * 50000, rel=1e-7)


def test_trap_fills_once_and_empties_exponentially_into_the_overscan():
    row, n = flat_row(10000.0)
    serial_cti(row, n, np.array([0, 20.0, 1.0, 3.0, 0, 1]))
    keep = np.exp(-1 / 3)
    assert row[0, 4] == pytest.approx(10000 - 20)
    np.testing.assert_allclose(row[0, 5:n], 10000)
    np.testing.assert_allclose(row[0, n:], 20 * (1 - keep) * keep ** np.arange(16), rtol=1e-5)


def test_output_drift_decays_from_its_maximum():
    row, n = flat_row(10000.0)
    serial_cti(row, n, np.array([0, 0, 0, 1, 1e-3, 2.0]))
    np.testing.assert_allclose(row[0, 4:n], 10010)
    np.testing.assert_allclose(row[0, n:], 10 * np.exp(-np.arange(1, 17) / 2), rtol=1e-5)


def test_cti_is_undone_by_the_inverse_of_isr_2_7():
    """The correction as the reference writes it, as plain loops, leaves second-order residuals."""
    rng = np.random.default_rng(3)
    true = np.zeros((1, 56), np.float32)
    true[0, 4:40] = rng.uniform(2000, 40000, 36)
    seen = true.copy()
    size, slope, tau, scale, decay = 10.0, 1e-3, 1.0, 2e-4, 2.4  # the reference keeps six terms: tau short
    serial_cti(seen, 40, np.array([0, size, slope, tau, scale, decay]))
    s = seen[0].astype(float)
    s1 = np.array(
        [s[n] - max(scale * max(s[n - j], 0) * np.exp(-j / decay) for j in range(min(15, n + 1))) for n in range(56)]
    )
    r = np.exp(-1 / tau)
    f = np.minimum(size, slope * np.maximum(s1, 0))
    out = s1.copy()
    for n in range(1, 56):
        occupancy = max(f[n - 1 - j] * r**j for j in range(min(6, n)))
        out[n] -= occupancy * (1 - r) - max(0.0, f[n] - occupancy * r)
    assert abs(s - true[0]).max() > 5
    np.testing.assert_allclose(out[4:], true[0, 4:], atol=0.1)


def test_crosstalk_kernel_is_the_matrix_product():
    rng = np.random.default_rng(5)
    signal = rng.normal(0, 1e4, (5, 7, 9)).astype(np.float32)
    linear, quadratic = (rng.normal(0, k, (5, 5)).astype(np.float32) for k in (1e-3, 1e-8))
    expected = signal + np.einsum("st,syx->tyx", linear, signal) + np.einsum("st,syx->tyx", quadratic, signal**2)
    add_crosstalk(signal, linear, quadratic)
    np.testing.assert_allclose(signal, expected, rtol=1e-5, atol=1e-2)


EXPLICIT = BrighterFatter(a=((-4e-5, 8e-6, 1e-6), (4e-6, 2e-6, 4e-7), (5e-7, 3e-7, 1e-7)))


@pytest.mark.parametrize("strength", [BrighterFatter(), EXPLICIT, BrighterFatter(range_pixel=10)])
def test_boundary_shifts_make_the_given_areas(strength):
    a = area_coefficients(strength)
    given = np.array(strength.a) if strength.a else a[:-1, :-1]
    np.testing.assert_array_equal(a[: len(given), : len(given)], given)
    assert a[0, 0] < 0
    assert plane(a).sum() == pytest.approx(0, abs=1e-18)
    r = len(a) - 1
    charge = np.zeros((4 * r + 1, 4 * r + 1), np.float32)
    charge[2 * r, 2 * r] = 1000
    moved = np.zeros_like(charge)
    light = np.ones_like(charge)
    area_flow(pad_edges(charge, r), light, *boundary_shifts(a), moved)
    window = moved[r : 3 * r + 1, r : 3 * r + 1].T / 1000  # [serial, parallel]
    np.testing.assert_allclose(window, plane(a), atol=2e-6 * abs(a).max())
    assert moved.sum(dtype=float) == pytest.approx(0, abs=1e-7)


def closed_form(a, mu, size=64):
    """C_ij / mu of Eq. 20 with b = 0, all orders: mean over wave vectors of (exp(2 a(k) mu) - 1) / (2 a(k) mu)."""
    r = len(a) - 1
    kernel = np.zeros((size, size))
    for i in range(-r, r + 1):
        for j in range(-r, r + 1):
            kernel[i, j] = a[abs(i), abs(j)]
    x = 2 * mu * np.fft.fft2(kernel).real
    return np.fft.ifft2(np.where(abs(x) < 1e-9, 1 + x / 2, np.expm1(x) / np.where(x == 0, 1, x))).real


def covariances(images, lags):
    """C_ij [serial, parallel] of fluctuations about the mean over realisations, away from the edges."""
    noise = images - images.mean(axis=0)
    n, ny, nx = images.shape
    inner = noise[:, : ny - lags, : nx - lags]
    c = [[np.mean(inner * noise[:, j : j + ny - lags, i : i + nx - lags]) for j in range(lags)] for i in range(lags)]
    return np.array(c) * n / (n - 1), inner.size * (n - 1) / n


@pytest.mark.parametrize("mu", [1000.0, 4000.0, 12000.0])
def test_covariances_of_flats_follow_the_area_coefficients(mu):
    """C_ij = mu [delta + a_ij mu + 2/3 (a*a)_ij mu^2 + ...]: 400 flats of 64 x 64, a_00 mu down to -0.48."""
    rng = np.random.default_rng(11)
    a = area_coefficients(EXPLICIT)
    light = np.full((64, 64), mu, np.float32)
    images = rng.poisson(mu, (400, 64, 64)).astype(np.float32)
    for image in images:
        before = image.sum(dtype=float)
        redistribute(image, light, a, shifts_of(EXPLICIT))
        assert image.sum(dtype=float) == pytest.approx(before, rel=1e-7)
    measured, n = covariances(images[:, 4:-4, 4:-4].astype(np.float64), 4)
    expected = closed_form(a, mu)[:4, :4]
    sigma = np.sqrt((1 + np.eye(1, 16).reshape(4, 4)) / n)  # white noise; correlations change it little
    pull = (measured / mu - expected) / sigma
    assert abs(pull).max() < 4
    first_order = np.eye(1, 16).reshape(4, 4) + a[:4, :4] * mu
    assert abs(expected - first_order).max() < 2 * (a[0, 0] * mu) ** 2
    assert measured[0, 1] > measured[1, 0] > 0  # parallel neighbours couple more


def test_terms_of_the_series_grow_with_light():
    a = area_coefficients(BrighterFatter())
    assert [len(series(a, light)) for light in (0.0, 10.0, 2000.0, 20000.0, 100000.0, 200000.0)] == [0, 0, 1, 2, 3, 4]
    taylor = np.array([1 / 2, 5 / 24, 1 / 16])
    np.testing.assert_allclose(series(a, 100_000.0), taylor, rtol=0.2)


@pytest.mark.parametrize("mu", [60.0, 300.0, 3000.0, 11_000.0, 40_000.0, 100_000.0, 130_000.0, 200_000.0])
def test_power_of_a_flat_is_the_closed_form(mu):
    """White light becomes coloured by |response|^2: at every wavelength (exp(2 u) - 1) / (2 u), without any noise."""
    a, n, r = area_coefficients(BrighterFatter()), 64, 6
    point = np.zeros((n, n), np.float32)
    point[n // 2, n // 2] = 1000.0
    before = point.copy()
    redistribute(point, np.full((n, n), mu, np.float32), a, shifts_of(BrighterFatter()))
    power = np.abs(np.fft.fft2(point) / np.fft.fft2(before)) ** 2
    lags = np.arange(-r, r + 1)
    wave = np.exp(2j * np.pi * np.outer(np.arange(n) / n, lags))
    x = 2 * mu * (wave @ plane(a).T @ wave.T).real  # images are (y, x), planes (serial, parallel)
    expected = np.where(np.abs(x) < 1e-12, 1.0, np.expm1(x) / np.where(x == 0, 1, x))
    assert np.abs(power / expected - 1).max() < 2e-4
    assert np.mean(power / expected) == pytest.approx(1, abs=5e-5)

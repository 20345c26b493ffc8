"""A pair of flats in one amp: against closed forms, a slow loop, the reference's numbers, and correlated noise."""

import math

import numpy as np
import pytest

from camcal_dask.kernels.ptc.flat_pair import (
    PairRules,
    bad_pixels,
    clip_bias,
    fit_gaussian,
    measure_pair,
    pair_gain,
    unvignetted,
)
from tests.kernels.ptc.test_covariance import brute_force

RULES = PairRules(lags=4, min_pixels=100)


def flats(shape, electrons, gain=1.5, noise=5.0, seed=0, ratio=1.0):
    rng = np.random.default_rng(seed)
    levels = electrons, electrons * ratio
    return [((rng.poisson(e, shape) + rng.normal(0, noise, shape)) / gain).astype("f4") for e in levels]


def clean(shape):
    return np.zeros(shape, bool)


def test_against_the_definition():
    """Every number again, by a slow path in float64 (reference 3, 4)."""
    a, b = flats((90, 70), 20000, ratio=1.03)
    a[5, 7], b[60, 3] = 3e4, np.nan  # a cosmic ray; a pixel without a value
    bad = clean(a.shape)
    bad[20:22, :9] = True
    found = measure_pair(a, b, bad, 5 / 1.5, RULES)
    good = ~bad & np.isfinite(a) & np.isfinite(b)

    def clip(x):
        q25, c, q75 = np.quantile(x, [0.25, 0.5, 0.75])
        h = 5.5 * 0.741301109252802 * (q75 - q25)
        for _ in range(3):
            s = x[np.abs(x - c) <= h]
            c, v, h = s.mean(), s.var(ddof=1), 5.5 * s.std(ddof=1)
        return c, v, s.size

    x, y = a.astype("f8"), b.astype("f8")
    (m1, v1, n1), (m2, v2, _) = clip(x[good]), clip(y[good])
    assert n1 == good.sum() - 1
    assert found.raw_mean == pytest.approx((m1 + m2) / 2, rel=1e-12)
    assert found.raw_delta == pytest.approx(m2 - m1, rel=1e-9)
    assert found.pixel_stdev == pytest.approx(math.sqrt((v1 + v2) / 2), rel=1e-6)
    assert found.n_pixel == good.sum()
    d = (m2 * x - m1 * y) / found.raw_mean
    mean, var, n = clip(d[good])
    k = clip_bias(5.5)
    assert found.raw_var == pytest.approx(var / 2 * k, rel=1e-6)
    rows = np.array([row[g].mean() for row, g in zip(d, good, strict=True)])
    assert found.row_mean_variance == pytest.approx(clip(rows)[1], rel=1e-5)
    with np.errstate(invalid="ignore"):
        w = good & (np.abs(d) <= mean + 5.5 * math.sqrt(var))
    assert w.sum() == n
    cov, pairs = brute_force(np.where(w, d, 0), w, 4)
    np.testing.assert_array_equal(found.n_lag, pairs)
    weight = np.sqrt(pairs) / (cov[0, 0] / 2)
    weight[0, 0] /= math.sqrt(2)
    cov = cov / 2 * k**2
    cov[0, 0] /= k
    np.testing.assert_allclose(found.covariance, cov, rtol=0, atol=1e-6 * cov[0, 0])
    np.testing.assert_allclose(found.covariance_sqrt_weight, weight, rtol=1e-6)
    r = (x - y)[good] ** 2 / (x + y)[good]
    assert found.pair_gain == pytest.approx(pair_gain(r.mean(), found.raw_mean, 5 / 1.5), rel=1e-6)
    assert found.valid
    assert found.ks_pvalue == 1.0
    assert math.isnan(found.hist_var)


def test_variance_over_covariance_tells_the_number_of_pixels():
    """Reference 4: rawVar is divided by N - 1, C_00 by N."""
    a, b = flats((400, 300), 30000)
    found = measure_pair(a, b, clean(a.shape), rules=PairRules(lags=1))
    assert 1 / (found.raw_var / found.covariance[0, 0] - 1) == pytest.approx(400 * 300 - 1, rel=1e-3)
    same = measure_pair(a, b, clean(a.shape), rules=PairRules(lags=1, sample_variance=False))
    assert same.raw_var == pytest.approx(same.covariance[0, 0], rel=1e-9)


@pytest.mark.parametrize(("sigma", "excess"), [(5.5, 1.18e-6), (5, 1.5e-5), (4, 1.1e-3), (3, 2.7e-2)])
def test_clip_bias(sigma, excess):
    assert clip_bias(sigma) - 1 == pytest.approx(excess, rel=0.05)


@pytest.mark.parametrize(
    ("electrons", "want"),
    [
        (200, {"NONE": 1.3327, "SIMPLE_AS_CODED": 1.4844, "FULL": 1.4954, "UNBIASED": 1.4992}),
        (5000, {"NONE": 1.4927, "SIMPLE_AS_CODED": 1.4994, "FULL": 1.5000, "UNBIASED": 1.5001}),
    ],
)
def test_gain_corrections(electrons, want):
    """The Monte Carlo of reference 5: g = 1.5, s = 5 electron; its last digit is noise."""
    a, b = flats((2000, 2000), electrons, seed=3)
    s = (a.astype("f8") - b) ** 2 / (a.astype("f8") + b)
    mean, scatter = 0.5 * (a.mean(dtype="f8") + b.mean(dtype="f8")), s.std() / s.mean() / 2000
    for correction, gain in want.items():
        assert pair_gain(s.mean(), mean, 5 / 1.5, correction) == pytest.approx(gain, rel=5 * scatter + 1e-4)
    assert pair_gain(s.mean(), mean, math.nan, "FULL") == 1 / s.mean()
    exact, full = (pair_gain(s.mean(), mean, 5 / 1.5, c) for c in ("UNBIASED", "FULL"))
    assert exact / full - 1 == pytest.approx(1 / (2 * 1.5 * mean), rel=0.1)
    assert pair_gain(s.mean(), mean, 5 / 1.5, "SIMPLE") == pytest.approx(full, rel=1e-3)


def test_gain_without_light():
    assert math.isnan(pair_gain(math.nan, 10.0, 1.0))
    assert math.isnan(pair_gain(1.0, -1.0, 1.0))
    assert math.isnan(pair_gain(10.0, 1.0, 1.0, "FULL"))


def test_masked_pixels_never_matter():
    a, b = flats((60, 60), 9000)
    bad = np.random.default_rng(1).random(a.shape) < 0.1
    want = measure_pair(a, b, bad, 3.0, RULES)
    for junk in (0.0, 1e30, np.nan, -np.inf):
        c, d = a.copy(), b.copy()
        c[bad] = d[bad] = junk
        for x, y in zip(want, measure_pair(c, d, bad, 3.0, RULES), strict=True):
            np.testing.assert_array_equal(x, y)


def test_too_few_pixels_or_no_light():
    a, b = flats((60, 60), 9000)
    few = measure_pair(a, b, clean(a.shape), 3.0, PairRules(lags=2, min_pixels=4000))
    assert few.n_pixel == 3600
    assert np.isfinite([few.raw_mean, few.pair_gain]).all()
    assert np.isnan(few.covariance).all()
    assert math.isnan(few.raw_var)
    assert not few.valid
    strip = measure_pair(a[:3], b[:3], clean((3, 60)), 3.0, RULES)  # no pair at lag 3
    assert not strip.valid
    nothing = measure_pair(a, b, ~clean(a.shape), 3.0, RULES)
    assert nothing.n_pixel == 0
    assert math.isnan(nothing.raw_mean)
    dark = measure_pair(a - 7000, b - 7000, clean(a.shape), 3.0, RULES)
    assert dark.raw_mean < 0
    assert math.isnan(dark.pair_gain)
    assert not dark.valid


def test_parity_switches_change_little():
    a, b = flats((200, 200), 30000, ratio=1.02, seed=9)
    want = measure_pair(a, b, clean(a.shape), 3.0, RULES)
    for name in ("float32_difference", "absolute_bound"):
        other = measure_pair(a, b, clean(a.shape), 3.0, PairRules(lags=4, min_pixels=100, **{name: False}))
        assert other.raw_var == pytest.approx(want.raw_var, rel=1e-6)
        np.testing.assert_allclose(other.covariance, want.covariance, rtol=0, atol=1e-6 * want.raw_var)


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("sign", [-1, 1])
def test_an_outlier_is_left_out(absolute, sign):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(1000, 10, (100, 100)).astype("f4") for _ in range(2))
    a[0, 0] = b[0, 0] + sign * 6 * 10 * math.sqrt(2)
    found = measure_pair(a, b, clean(a.shape), 3.0, PairRules(lags=1, min_pixels=100, absolute_bound=absolute))
    assert (found.n_lag[0, 0], found.n_pixel) == (9999, 10000)


def test_gaussianity():
    a, b = flats((400, 250), 40000, noise=0.0)
    found = measure_pair(a, b, clean(a.shape), 3.0, PairRules(lags=1, gaussianity=True))
    assert found.hist_var / 2 == pytest.approx(found.raw_var, rel=0.02)
    assert 0.5 < found.hist_chi2_dof < 1.5
    assert found.ks_pvalue > 0.01
    uniform = np.random.default_rng(0).uniform(-200, 200, 10000).astype("f4")
    assert fit_gaussian(uniform, 8000.0)[2] == 0.0
    assert fit_gaussian(uniform[:50], 8000.0)[2] == 0.0


def test_unvignetted():
    """Light falls as 1 - r^2; 2 % are lost at r^2 = 0.02, and the cut is loosened until enough pixels are left."""
    radius = np.linspace(0, 0.3003, 1000).reshape(10, 100)
    np.testing.assert_array_equal(unvignetted(radius, [-1, 0, 1], 2.0, 1), radius**2 < 0.02)
    loose = unvignetted(radius, [-1, 0, 1], 2.0, 600)
    np.testing.assert_array_equal(loose, radius**2 < 0.04)
    assert unvignetted(radius, [-1, 0, 1], 2.0, 10**9).all()


def test_bad_pixels():
    a, b = np.array([[0, 1, 2, 4]], "i4"), np.array([[0, 0, 4, 3]], "i4")
    np.testing.assert_array_equal(bad_pixels(a, b, np.int32(5)), [[False, True, True, True]])


def moving_borders(shape, mean, area, n_step, rng):
    """Electrons of a flat whose pixel borders move with the charge: areas are 1 + sum over d of area[d] Q(p + d)."""
    charge = np.zeros(shape)
    for _ in range(n_step):
        size = np.ones(shape)
        for (i, j), a in area.items():
            size += a * np.roll(charge, (-j, -i), (0, 1))
        charge += rng.poisson(mean / n_step * size)
    return charge


def expected_covariance(shape, mean, area, n_step, lags):
    """Covariances of `moving_borders`, exact: every step multiplies the modes of the charge and adds white noise."""
    kernel = np.zeros(shape)
    for (i, j), a in area.items():
        kernel[j, i] = a
    power, modes = np.zeros(shape), np.fft.fft2(kernel)
    for _ in range(n_step):
        power = np.abs(1 + mean / n_step * modes) ** 2 * power + mean / n_step
    return np.fft.ifft2(power).real[:lags, :lags].T


def brighter_fatter():
    one = {(0, 1): 4e-7, (1, 0): 1.5e-7, (1, 1): 1e-7, (0, 2): 5e-8, (2, 0): 3e-8}
    area = {(si * i, sj * j): a for (i, j), a in one.items() for si in (-1, 1) for sj in (-1, 1)}
    return area | {(0, 0): -sum(area.values())}


@pytest.mark.parametrize("area", [{}, brighter_fatter()], ids=["white", "brighter-fatter"])
def test_pulls(area):
    """Covariances are those of the sensor and scatter by their weights, over many flats."""
    shape, mean, n_step, n_flat, lags = (150, 160), 60000, 6, 80, 4
    truth = expected_covariance(shape, mean, area, n_step, lags)
    rng, pulls, errors = np.random.default_rng(11), [], []
    for _ in range(n_flat):
        pair = [moving_borders(shape, mean, area, n_step, rng).astype("f4") for _ in range(2)]
        found = measure_pair(*pair, clean(shape), 0.0, PairRules(lags=lags))
        pulls.append((found.covariance - truth) * found.covariance_sqrt_weight)
        errors.append(found.raw_var / truth[0, 0] - 1)
    pulls = np.array(pulls)
    average = pulls.mean(axis=0) * math.sqrt(n_flat)  # each a unit Gaussian
    assert np.abs(average).max() < 4.5
    assert np.sum(average**2) < 40  # 16 lags
    assert 0.85 < pulls.std() < 1.15
    assert abs(np.mean(errors)) < 4.5 * math.sqrt(2 / 24000 / n_flat)
    if area:
        assert truth[0, 1] > 2 * truth[1, 0] > 0
        assert truth[0, 0] / mean - 1 < -0.05

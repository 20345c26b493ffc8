"""Covariances against the definition summed pixel by pixel, with any mask."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from camcal_dask.kernels.ptc.covariance import lag_covariance, lag_sums


def brute_force(image, good, lags):
    """The reference's estimator (section 4), from lists of pairs, float64."""
    values, (height, width) = image.astype("f8"), image.shape

    def at(i, j):
        first = np.s_[: height - j or None, max(0, -i) : width - max(0, i)]
        second = np.s_[j:, max(0, i) : width - max(0, -i)]
        both = good[first] & good[second] if j < height and abs(i) < width else np.zeros((0, 0), bool)
        if not both.any():
            return np.nan, 0
        a, b = values[first][both], values[second][both]
        return np.mean(a * b) - a.mean() * b.mean(), int(both.sum())

    cov, n = np.empty((lags, lags)), np.empty((lags, lags), int)
    for i, j in np.ndindex(lags, lags):
        (k1, n1), (k2, n2) = at(i, j), at(-i, j)
        cov[i, j], n[i, j] = ((k1 + k2) / 2, n1 + n2) if i and j else (k1, n1)
    return cov, n


def check(image, good, lags, **options):
    found = lag_covariance(np.where(good, image, np.nan).astype("f4"), good, lags, **options)
    cov, n = brute_force(image, good, lags)
    np.testing.assert_array_equal(found.n, n)
    scale = np.nanmax(np.abs(cov)) if np.isfinite(cov).any() else 1.0
    np.testing.assert_allclose(found.cov, cov, rtol=0, atol=1e-6 * scale + 1e-6)
    return found


def frame(shape, seed=0, level=500.0, spread=20.0):
    return np.random.default_rng(seed).normal(level, spread, shape).astype("f4")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 14), st.floats(0, 1), st.integers(0, 2**31))
def test_any_shape_any_mask_every_lag(height, width, lags, fraction, seed):
    good = np.random.default_rng(seed).random((height, width)) >= fraction
    check(frame((height, width), seed), good, lags)


def masks(shape):
    good = np.ones(shape, bool)
    yield "none", good
    for name, area in {
        "first row": np.s_[0], "last row": np.s_[-1], "first column": np.s_[:, 0], "last column": np.s_[:, -1],
        "frame of corners": np.s_[:: shape[0] - 1, :: shape[1] - 1], "block": np.s_[10:50, 7:40],
        "every other column": np.s_[:, ::2], "one pixel": np.s_[30, 30],
    }.items():  # fmt: skip
        masked = good.copy()
        masked[area] = False
        yield name, masked


@pytest.mark.parametrize(("name", "good"), list(masks((70, 61))), ids=lambda v: v if isinstance(v, str) else "")
def test_masks_at_edges(name, good):
    check(frame(good.shape), good, 10)


def test_masked_pixels_never_matter():
    image, good = frame((64, 50)), np.random.default_rng(3).random((64, 50)) > 0.1
    first = lag_covariance(image, good)
    for junk in (np.nan, np.inf, -3e38, 0.0):
        other = lag_covariance(np.where(good, image, np.float32(junk)), good, center=500.0)
        np.testing.assert_allclose(other.cov, lag_covariance(image, good, center=500.0).cov, rtol=0, atol=0)
        np.testing.assert_allclose(other.cov, first.cov, rtol=0, atol=1e-5 * first.cov[0, 0])


def test_a_constant_and_the_center_do_not_matter():
    image, good = frame((80, 60), level=0.0), np.random.default_rng(4).random((80, 60)) > 0.05
    want = lag_covariance(image, good).cov
    np.testing.assert_allclose(lag_covariance(image + np.float32(4096), good).cov, want, atol=2e-3 * want[0, 0] ** 0.5)
    np.testing.assert_allclose(lag_covariance(image, good, center=30.0).cov, want, rtol=0, atol=1e-5 * want[0, 0])


def test_first_axis_is_serial():
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 10, (300, 301))
    along_rows = (noise[:, 1:] + noise[:, :-1]).astype("f4")
    cov = lag_covariance(along_rows, np.ones(along_rows.shape, bool), 3).cov
    assert cov[1, 0] == pytest.approx(100, rel=0.03)
    assert abs(cov[0, 1]) < 3
    turned = lag_covariance(np.ascontiguousarray(along_rows.T), np.ones(along_rows.T.shape, bool), 3).cov
    np.testing.assert_allclose(turned, cov.T, rtol=0, atol=1e-4)


def test_full_size_sums_are_exact_to_rounding():
    """Float32 products of a whole amp against float64 ones: far below the photon noise, 1e-3 of the variance."""
    image = frame((2002, 512), level=0.1, spread=200.0)
    good = np.ones(image.shape, bool)
    good[1000:1003, 100:120] = False
    products, _ = lag_sums(np.where(good, image, np.nan), good, 10, 0.0)
    z = np.where(good, image, 0).astype("f8")
    for i, j in ((0, 0), (1, 0), (0, 1), (3, 7), (-3, 7), (9, 9), (-9, 9), (9, 0), (0, 9)):
        first = z[: 2002 - j, max(0, -i) : 512 - max(0, i)]
        second = z[j:, max(0, i) : 512 - max(0, -i)]
        assert products[j, i + 9] == pytest.approx(np.sum(first * second), abs=1e-8 * products[0, 9])
    assert products[0, 9] == pytest.approx(np.sum(z * z), rel=1e-13)


def test_blocks_of_pairs_add_up():
    """Pairs of an image without a mask have a closed form."""
    n = lag_covariance(frame((45, 33)), np.ones((45, 33), bool), 10).n
    i, j = np.mgrid[:10, :10]
    np.testing.assert_array_equal(n, (33 - i) * (45 - j) * np.where((i > 0) & (j > 0), 2, 1))

"""One sort for quantiles, clipped and unclipped moments, against numpy and the clipped mean of the package."""

import math

import numpy as np
import pytest

from camcal_dask.kernels.statistics.moments import clip_statistics
from camcal_dask.kernels.statistics.order_statistics import count_beyond, merge_sorted, moment_sums, sorted_moments

FRACTIONS = np.array([0.05, 0.5, 0.95])


def values_of(kind):
    rng = np.random.default_rng(3)
    gauss = rng.normal(1e4, 5, 4001)
    extra = {
        "gauss": [],
        "outliers": rng.uniform(-1e5, 1e5, 60),
        "heavy tails": 1e4 + 30 * rng.standard_t(1.5, 2000),
        "two levels": np.full(3999, 1e4 + 40),
        "constant": np.full(20000, 1e4),
    }[kind]
    return np.sort(np.concatenate([gauss, extra]).astype("f4"))


@pytest.mark.parametrize("kind", ["gauss", "outliers", "heavy tails", "two levels", "constant"])
@pytest.mark.parametrize("sigma", [3.0, 5.0])
def test_all_numbers_of_one_sort(kind, sigma):
    x = values_of(kind)
    found = sorted_moments(x, FRACTIONS, sigma=sigma, iterations=3)
    np.testing.assert_allclose(found.q, np.quantile(x.astype("f8"), FRACTIONS))
    deviation = x.astype("f8") - found.median
    assert found.median == np.median(x.astype("f8"))
    assert found.total == pytest.approx(deviation.sum(), abs=1e-6)
    assert found.square == pytest.approx((deviation**2).sum(), rel=1e-12)
    assert (found.low, found.high) == (x.min(), x.max())
    reference = clip_statistics(x, sigma=sigma, iterations=3)
    assert found.clip_mean == pytest.approx(reference.mean, rel=1e-12)
    assert found.clip_stdev == pytest.approx(reference.stdev, rel=1e-10)
    assert found.n_clipped == reference.n_clipped


def test_vector_of_the_reference():
    """Reference 0.5."""
    found = sorted_moments(np.append(np.arange(100), 10000).astype("f4"), FRACTIONS)
    assert (found.clip_mean, found.n_clipped) == (49.5, 1)
    assert found.clip_stdev == pytest.approx(29.0115, abs=1e-4)


def test_none_and_one_value():
    empty = sorted_moments(np.empty(0, "f4"), FRACTIONS)
    assert np.isnan([*empty.q, empty.median, empty.clip_mean, empty.clip_stdev, empty.low]).all()
    one = sorted_moments(np.array([7], "f4"), FRACTIONS)
    assert (one.clip_mean, one.n_clipped, one.low) == (7, 0, 7)
    assert math.isnan(one.clip_stdev)


def test_moment_sums_match_numpy_far_from_zero():
    values = values_of("gauss")
    deviation = values.astype("f8") - 1e4
    assert moment_sums(values, 1e4) == pytest.approx((deviation.sum(), (deviation**2).sum()), rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("n", [0, 1, 50, 5000])
def test_merge_and_count(n):
    a, b = values_of("gauss"), np.sort(np.random.default_rng(n).normal(1e4, 20, n).astype("f4"))
    b[: n // 10] = a[: n // 10]
    b.sort()
    merged = merge_sorted(a, b)
    np.testing.assert_array_equal(merged, np.sort(np.concatenate([a, b])))
    half = np.float64(a[-5]) - 1e4
    assert count_beyond(merged, 1e4, half) == (abs(merged.astype("f8") - 1e4) > half).sum()

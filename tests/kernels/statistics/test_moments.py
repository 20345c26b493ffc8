"""The clipped mean against a brute-force loop and the reference's test vector."""

import numpy as np
import pytest

from camcal_dask.kernels.pixels.masks import BAD, SAT
from camcal_dask.kernels.statistics.moments import (
    ClippedMean,
    clip_statistics,
    clipped_mean_stack,
    compare_amp,
    compare_halves,
    median,
    percentiles,
    sort_columns,
    sorting_network,
)


def brute_force(values, sigma=3.0, iterations=3):
    """Clipped mean, stdev and members of the last selection, step by step as in reference/construction.md 0.1."""
    x = [float(v) for v in values if np.isfinite(v)]
    if not x:
        return np.nan, np.nan, []
    q25, c, q75 = np.percentile(x, [25, 50, 75])
    h = sigma * 0.741301109252802 * (q75 - q25)
    for _ in range(iterations):
        chosen = [v for v in x if abs(v - c) <= h]
        c = sum(chosen) / len(chosen)
        v = sum((s - c) ** 2 for s in chosen) / (len(chosen) - 1) if len(chosen) > 1 else np.nan
        h = sigma * np.sqrt(v) if len(chosen) > 1 else 0.0
    return c, np.sqrt(v), chosen


def test_reference_vector():
    """reference/verification.md 0.5."""
    result = clip_statistics(np.append(np.arange(100), 10000).astype("f4"))
    assert result.mean == 49.5
    assert result.stdev == pytest.approx(29.0115, abs=1e-4)
    assert (result.n, result.n_clipped) == (100, 1)
    assert result.error == pytest.approx(29.0115 / 10, abs=1e-5)


@pytest.mark.parametrize(("sigma", "iterations"), [(3.0, 3), (5.0, 3), (2.0, 1), (3.0, 5)])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 20, 1001])
def test_flat_equals_brute_force(n, sigma, iterations):
    rng = np.random.default_rng(n)
    x = rng.normal(20000, 7, n).astype("f4")
    x[:: max(n // 7, 3)] += rng.normal(0, 300, x[:: max(n // 7, 3)].size).astype("f4")
    mean, stdev, chosen = brute_force(x, sigma, iterations)
    result = clip_statistics(x, sigma=sigma, iterations=iterations)
    assert result.n == len(chosen)
    assert result.n + result.n_clipped == n
    assert result.mean == pytest.approx(mean, rel=1e-12)
    assert result.stdev == pytest.approx(stdev, rel=1e-8, nan_ok=True)


def test_points_may_come_back():
    """The set is re-selected from all values: a value outside the first window is in the last one."""
    x = np.r_[np.zeros(40), np.linspace(-1, 1, 60), 3.2].astype("f4")
    *_, chosen = brute_force(x)
    first = 3 * 0.741301109252802 * np.subtract(*np.percentile(x, [75, 25]))
    assert max(chosen) > first + np.median(x), "the example does not show what it should"
    assert clip_statistics(x).n == len(chosen)


def test_masked_and_non_finite_values_never_matter():
    rng = np.random.default_rng(5)
    x = rng.normal(0, 3, (50, 40)).astype("f4")
    mask = np.where(rng.random(x.shape) < 0.2, SAT, BAD).astype("i4")
    good = x[mask != SAT]
    x[mask == SAT] = rng.choice([1e30, -np.inf, 17.0], (mask == SAT).sum())
    assert clip_statistics(x, mask, SAT) == clip_statistics(good)
    good[::9] = np.nan
    assert clip_statistics(good) == clip_statistics(good[np.isfinite(good)])


@pytest.mark.parametrize("n", [0, 1])
def test_flat_of_nothing_and_of_one(n):
    result = clip_statistics(np.full(n, 4.0, "f4"))
    assert (result.n, result.n_clipped) == (n, 0)
    assert isinstance(result, ClippedMean)
    assert np.isnan(result.stdev)
    assert result.mean == 4.0 if n else np.isnan(result.mean)


def test_zero_iqr_keeps_only_the_median_value():
    result = clip_statistics(np.r_[np.full(30, 2.5), 9.0, -3.0].astype("f4"))
    assert (result.mean, result.stdev, result.n, result.n_clipped) == (2.5, 0.0, 30, 2)


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_percentiles_are_numpys(n):
    x = np.random.default_rng(n).normal(0, 1e3, n).astype("f4")
    x[0] = -0.0
    levels = np.array([0, 0.05, 0.16, 0.5, 0.84, 0.95, 1])
    np.testing.assert_allclose(percentiles(x, levels), np.quantile(x.astype("f8"), levels), rtol=1e-12)
    assert median(x) == pytest.approx(np.median(x.astype("f8")), rel=1e-12)
    assert np.isnan(median(x[:0]))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13, 20, 33])
def test_sorting_network(n):
    a = np.random.default_rng(n).normal(size=(n, 300)).astype("f4")
    expected = np.sort(a, axis=0)
    sort_columns(a, sorting_network(n))
    np.testing.assert_array_equal(a, expected)


@pytest.mark.parametrize("n_exp", [1, 2, 4, 5, 20, 37])
def test_stack_equals_brute_force(n_exp):
    rng = np.random.default_rng(n_exp)
    stack = rng.normal(3, 7, (n_exp, 300)).astype("f4")
    stack[rng.random(stack.shape) < 0.05] = 4000.0
    stack[rng.random(stack.shape) < 0.1] = np.nan
    stack[:, 7] = np.nan
    stack[1:, 8] = np.nan
    result = clipped_mean_stack(stack)
    for i in range(stack.shape[1]):
        mean, stdev, chosen = brute_force(stack[:, i])
        assert result.n[i] == len(chosen)
        assert result.mean[i] == pytest.approx(mean, rel=1e-6, abs=1e-6, nan_ok=True)
        assert result.variance[i] == pytest.approx(stdev**2 / max(len(chosen), 1), rel=1e-5, nan_ok=True)


def test_stack_error_from_input_variance():
    rng = np.random.default_rng(2)
    stack = rng.normal(0, 1, (20, 50)).astype("f4")
    stack[3] = 1e4
    variance = rng.uniform(1, 2, stack.shape).astype("f4")
    variance[3] = 1e9
    result = clipped_mean_stack(stack, variance)
    for i in range(50):
        *_, chosen = brute_force(stack[:, i])
        used = np.isin(stack[:, i].astype("f8"), chosen)
        assert not used[3]
        assert result.variance[i] == pytest.approx(variance[used, i].sum(dtype="f8") / used.sum() ** 2, rel=1e-6)


def test_stack_does_not_depend_on_where_a_pixel_stands():
    stack = np.random.default_rng(9).normal(0, 7, (20, 1000)).astype("f4")
    whole = clipped_mean_stack(stack)
    for start, stop in [(0, 17), (17, 500), (500, 1000)]:
        part = clipped_mean_stack(np.ascontiguousarray(stack[:, start:stop]))
        for a, b in zip(part, whole, strict=True):
            np.testing.assert_array_equal(a, b[start:stop])
    shuffled = clipped_mean_stack(stack[np.random.default_rng(1).permutation(20)])
    np.testing.assert_array_equal(shuffled.mean, whole.mean)


def test_halves_of_noise_agree_as_their_variance_says():
    rng = np.random.default_rng(3)
    stack = rng.normal(5, 2, (7, 200_000)).astype("f4")
    stack[rng.random(stack.shape) < 0.1] = np.nan
    stack[:, 0], stack[::2, 1], stack[2:, 2] = np.nan, np.nan, np.nan
    halves = compare_halves(stack)
    assert np.isnan(halves.difference[:3]).all()
    assert np.isnan(halves.variance[:3]).all()
    even, odd = stack[::2, 3:13], stack[1::2, 3:13]
    np.testing.assert_allclose(halves.difference[3:13], np.nanmean(even, 0) - np.nanmean(odd, 0), rtol=1e-5, atol=1e-6)
    pull = halves.difference / np.sqrt(halves.variance)
    assert np.nanmedian(pull) == pytest.approx(0, abs=0.02)
    some = compare_halves(stack, (50, 400), every=4)  # 10 amps, rows 0, 4 .. 48 of each
    for one, all_ in zip(some, halves, strict=True):
        np.testing.assert_array_equal(one, all_.reshape(10, 50, 400)[:, ::4].ravel())
    full = compare_halves(rng.normal(5, 2, (7, 200_000)).astype("f4"))
    mean, noise, expected, n = compare_amp(full, 7)
    true = 2 * np.sqrt(1 / 4 + 1 / 3)
    assert n == 200_000
    assert abs(mean) < 5 * true / np.sqrt(n)
    assert noise == pytest.approx(true, rel=0.01)
    assert expected == pytest.approx(true, rel=0.02)

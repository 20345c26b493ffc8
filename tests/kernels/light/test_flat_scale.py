"""Flat scales against a direct weighted least-squares solution and against the truth of drawn tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camcal_dask.errors import DataError
from camcal_dask.kernels.light.flat_scale import measure_levels, solve_scales


def direct_solution(levels, counts):
    """exp(E), exp(G) from one dense least-squares system, row by row, then sum W G / sum W = 1."""
    n_exp, n_unit = levels.shape
    rows, right = [], []
    for j in range(n_exp):
        for i in range(n_unit):
            if np.isfinite(levels[j, i]) and levels[j, i] > 0 and counts[j, i] > 0:
                row = np.zeros(n_exp + n_unit)
                row[j] = row[n_exp + i] = np.sqrt(counts[j, i])
                rows.append(row)
                right.append(np.sqrt(counts[j, i]) * np.log(levels[j, i]))
    x = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    good = np.isfinite(levels) & (levels > 0)
    weight = np.where(good, counts, 0).sum(axis=0)
    shift = np.log((weight * np.exp(x[n_exp:])).sum() / weight.sum())
    return np.exp(x[:n_exp] + shift), np.exp(x[n_exp:] - shift)


def draw(seed, n_exp, n_unit, scatter=0.02):
    rng = np.random.default_rng(seed)
    e, g = rng.uniform(1e4, 6e4, n_exp), rng.uniform(0.7, 1.3, n_unit)
    counts = rng.integers(10_000, 16_000_000, (n_exp, n_unit))
    levels = np.outer(e, g) * np.exp(rng.normal(0, scatter, (n_exp, n_unit)))
    return rng, e, g, levels, counts


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 7), st.floats(0, 0.5))
def test_agrees_with_the_direct_solution_with_gaps(seed, n_exp, n_unit, missing):
    rng, _, _, levels, counts = draw(seed, n_exp, n_unit)
    gaps = rng.random(levels.shape) < missing
    gaps[0], gaps[:, 0] = False, False  # one full exposure and one full unit keep the table connected
    levels[gaps] = rng.choice([np.nan, 0.0, -3.0, np.inf], gaps.sum())
    found = solve_scales(levels, counts)
    e, g = direct_solution(levels, counts)
    np.testing.assert_allclose(found.exposure_scale, e, rtol=1e-8)
    np.testing.assert_allclose(found.unit_scale, g, rtol=1e-8)


def test_exact_product_is_recovered():
    _, e, g, levels, counts = draw(1, 20, 189, scatter=0.0)
    counts[:] = 16_000_000
    found = solve_scales(levels, counts)
    np.testing.assert_allclose(found.exposure_scale, e * g.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.unit_scale, g / g.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.residual, 0, atol=1e-12)
    assert found.iterations <= 3


def test_ten_iterations_of_the_reference_written_out():
    rng, _, _, levels, counts = draw(2, 6, 9)
    levels[rng.random(levels.shape) < 0.3] = np.nan
    weight = np.where(np.isfinite(levels), counts, 0).astype(float)
    log = np.log(np.where(np.isfinite(levels), levels, 1.0))
    g = np.zeros(9)
    e = np.array([np.average(log[j] - g, weights=weight[j]) for j in range(6)])
    for _ in range(10):
        g = np.array([np.average(log[:, i] - e, weights=weight[:, i]) for i in range(9)])
        e = np.array([np.average(log[j] - g, weights=weight[j]) for j in range(6)])
        g -= np.log(np.average(np.exp(g), weights=weight.sum(axis=0)))
    e = np.array([np.average(log[j] - g, weights=weight[j]) for j in range(6)])
    found = solve_scales(levels, counts, max_iterations=10, tolerance=0.0)
    assert found.iterations == 10
    np.testing.assert_allclose(found.exposure_scale, np.exp(e), rtol=1e-12)
    np.testing.assert_allclose(found.unit_scale, np.exp(g), rtol=1e-12)


def test_missing_detectors_and_exposures_are_nan_and_change_nothing():
    _, _, _, levels, counts = draw(3, 5, 8)
    alone = solve_scales(levels, counts)
    wide = np.full((6, 9), np.nan)
    wide[:5, :8] = levels
    many = np.full((6, 9), 7)
    many[:5, :8] = counts
    found = solve_scales(wide, many)
    np.testing.assert_allclose(found.exposure_scale[:5], alone.exposure_scale, rtol=1e-13)
    np.testing.assert_allclose(found.unit_scale[:8], alone.unit_scale, rtol=1e-13)
    assert np.isnan(found.exposure_scale[5])
    assert np.isnan(found.unit_scale[8])
    assert np.isnan(found.residual[5]).all()


def test_a_detector_missing_in_some_exposures_does_not_move_their_scales():
    """The trap of a plain mean over detectors: a blind detector makes its exposures look brighter."""
    _, e, g, levels, counts = draw(4, 10, 6, scatter=0.0)
    levels[3:, 0] = np.nan
    found = solve_scales(levels, counts)
    ratio = found.exposure_scale / e
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-10)


def test_amp_level_is_indexed_by_detector_and_amp():
    _, e, g, levels, counts = draw(5, 4, 3 * 16, scatter=0.0)
    found = solve_scales(levels.reshape(4, 3, 16), counts.reshape(4, 3, 16))
    assert found.unit_scale.shape == (3, 16)
    assert found.residual.shape == (4, 3, 16)
    np.testing.assert_allclose(found.unit_scale.ravel() / found.unit_scale[0, 0], g / g[0], rtol=1e-10)


def test_the_weighted_mean_of_the_unit_scales_is_one():
    rng, _, _, levels, counts = draw(6, 7, 11)
    levels[rng.random(levels.shape) < 0.2] = -1.0
    found = solve_scales(levels, counts)
    weight = np.where(levels > 0, counts, 0).sum(axis=0)
    assert np.average(found.unit_scale, weights=weight) == pytest.approx(1.0, abs=1e-12)


def test_tables_without_an_answer_are_refused():
    with pytest.raises(DataError, match="no level"):
        solve_scales(np.full((2, 3), np.nan), np.ones((2, 3)))
    apart = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, 3.0]])
    with pytest.raises(DataError, match=r"positions \[2\] share no detector"):
        solve_scales(apart, np.ones((3, 2)))
    with pytest.raises(DataError, match="shape"):
        solve_scales(np.ones((2, 3)), np.ones((3, 2)))


def test_levels_of_one_exposure():
    rng = np.random.default_rng(7)
    gain_steps = rng.uniform(0.9, 1.1, 16).astype(np.float32)
    image = (rng.normal(1000, 10, (16, 50, 36)) * gain_steps[:, None, None]).astype(np.float32)
    mask = np.zeros(image.shape, np.int32)
    image[3, 10:20], mask[3, 10:20] = 0.0, 256  # vignetted
    image[4, 5, 5] = np.nan
    image[5], mask[5] = np.nan, 1
    found = measure_levels(image, mask, 256 | 1)
    error = 10 / np.sqrt(50 * 26)
    live = np.arange(16) != 5
    np.testing.assert_allclose(found.amp_mean[live], 1000 * gain_steps[live], atol=5 * error)
    assert np.isnan(found.amp_mean[5])
    assert found.amp_n[3] == 40 * 36
    assert found.amp_n[4] == 50 * 36 - 1
    assert found.amp_n[5] == 0
    assert found.n == found.amp_n.sum()
    assert found.mean == pytest.approx(1000 * gain_steps[live].mean(), rel=0.01)

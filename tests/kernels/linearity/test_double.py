"""Double spline: nodes, reference, ratios of binned images, a toy of two amps."""

import numpy as np
import pytest

from camcal_dask.errors import DataError
from camcal_dask.kernels.linearity import double as ld
from camcal_dask.kernels.linearity.akima import akima_spline
from camcal_dask.kernels.linearity.correct import linearize, make_linearity
from camcal_dask.kernels.linearity.spline import Ramp, SplineTerms, fit_spline
from camcal_dask.kernels.statistics.binning import bin_amps, bin_centres

SIZES = ld.NodeSizes()


def test_nodes_of_three_ranges():
    nodes = ld.place_nodes(70000.0, 101000.0, SIZES)
    # 0; ceil(4900 / 750) = 7; ceil(65000 / 5000) = 13; ceil(31000 / 2000) = 16; two shared ends
    assert len(nodes) == 1 + 7 + 13 + 16 - 2
    assert {0.0, 100.0, 5000.0, 70000.0, 101000.0} <= set(nodes.tolist())
    np.testing.assert_allclose(np.diff(nodes[1:8]), 4900 / 6)
    np.testing.assert_allclose(np.diff(nodes[7:20]), 65000 / 12)


def test_nodes_at_their_least_numbers():
    nodes = ld.place_nodes(10000.0, 10500.0, SIZES)
    assert len(nodes) == 1 + 7 + 5 + 3 - 2
    assert (np.diff(nodes) > 0).all()


def test_nodes_below_the_low_end_and_without_range_beyond():
    np.testing.assert_allclose(ld.place_nodes(4000.0, 4800.0, SIZES), [0, 1000, 2000, 3000, 4000, 4400, 4800])
    assert ld.place_nodes(70000.0, 70000.0, SIZES)[-1] == 70000
    assert len(ld.place_nodes(70000.0, 70000.0, SIZES)) == 1 + 7 + 13 - 1


def test_absolute_nodes_have_one_at_the_turnoff():
    nodes = ld.absolute_nodes(70000.0, 90000.0, 3000.0)
    assert nodes[0] == 0
    assert 70000.0 in nodes
    assert nodes[-1] == 90000
    assert np.diff(nodes).max() < 1.2 * 3000


def test_reference_amp_and_exposure():
    turnoff, ptc = np.array([9e4, 8e4, 9.5e4, 1e5]), np.array([8e4, 8e4, np.nan, 8e4])
    noise, bad = np.array([13.0, 5, 5, 5]), np.array([False, False, False, True])
    assert ld.choose_reference(turnoff, ptc, noise, bad) == 1
    with pytest.raises(DataError, match="no amp can be the reference: 1 of 4 are bad, least noise 5.0"):
        ld.choose_reference(turnoff, ptc, noise, bad, max_noise=3)
    assert ld.reference_exposure(np.array([500.0, 9900, 10050]), np.array([True, True, False])) == 1
    with pytest.raises(DataError, match="no used exposure"):
        ld.reference_exposure(np.array([500.0]), np.array([False]))


def test_bins_against_a_loop():
    rng = np.random.default_rng(1)
    image = rng.normal(100, 1, (2, 49, 37)).astype("f4")
    mask = (rng.random(image.shape) < 0.1).astype("i4") * 4
    image[0, 12, 12] = np.nan
    binned = bin_amps(image, mask, 4, size=8, border=5)
    assert binned.shape == (2, 4, 3)
    for a in range(2):
        for j in range(4):
            for i in range(3):
                part = np.s_[a, 5 + 8 * j : 13 + 8 * j, 5 + 8 * i : 13 + 8 * i]
                np.testing.assert_allclose(binned[a, j, i], np.nanmean(image[part][mask[part] == 0], dtype=float))
    assert np.isnan(bin_amps(image, mask | 4, 4)).all()
    y, x = bin_centres(49, 37, size=8, border=5)
    np.testing.assert_allclose(y, [8.5, 16.5, 24.5, 32.5])
    assert x.shape == (3,)
    assert bin_amps(image, mask, 4, border=20).shape == (2, 3, 2)  # the border gives way


def test_ratios_divide_out_structure():
    rng = np.random.default_rng(3)
    structure = rng.uniform(0.9, 1.1, (3, 6, 7)) * np.array([1.0, 0.8, 1.2])[:, None, None]
    flat, gains = 9000 * structure, np.array([1.0, 1.01, 0.99])
    exposure = 4 * flat * gains[:, None, None]
    exposure[2, 1, 1] = np.nan
    level = np.median(flat[0])
    found = ld.measure_ratios(exposure, flat, 0)
    assert found.reference == pytest.approx(4 * level)
    np.testing.assert_allclose(found.amp, gains)
    scaling = ld.amp_scaling(flat, 0)
    np.testing.assert_allclose(scaling, np.median(structure, axis=(1, 2)) / np.median(structure[0]))
    dead = exposure.copy()
    dead[1] = np.nan
    assert np.isnan(ld.measure_ratios(dead, flat, 0).amp[1])


def test_double_spline_toy():
    """Amp 1 differs from amp 0 by one spline, amp 0 from the light by another; amp 1 receives 2 % more."""
    rng = np.random.default_rng(4)
    nodes = np.linspace(0, 1.1e5, 12)
    first = np.array([0, 20, 60, 50, 10, -30, -50, -20, 40, 90, 60, -40.0])
    second = 2 * np.array([0, -30, -80, -90, -60, 0, 40, 70, 60, 20, -40, -120.0])
    time = np.linspace(0.5, 100, 500)
    light = 1000 * time

    def read(linear, values):
        y = linear.copy()
        for _ in range(60):
            y = linear + akima_spline(nodes, values, y)
        return y

    amp0 = read(light, second) * (1 + 2e-5 * rng.normal(size=500))
    amp1 = read(read(1.02 * light, second), first) * (1 + 2e-5 * rng.normal(size=500))
    r = int(np.argmin(abs(amp0 - 1e4)))
    scaling = amp1[r] / amp0[r]
    used, limits = np.ones(500, bool), (8e4, 9.9e4)
    relative = ld.fit_relative(
        amp0, amp1 / amp0 / scaling, scaling, used, limits, SIZES, SplineTerms(max_correction=1e4)
    )
    zero = np.zeros(500)
    ramp = Ramp(time, amp0, zero.astype(int), zero, zero)
    absolute = fit_spline(ramp, amp0 < 9.9e4, ld.absolute_nodes(8e4, 9.9e4, 3000.0), 8e4, SplineTerms(), 2)
    rows = ld.coefficients([None, relative], absolute)
    assert rows.shape == (2, 2 + 2 * (len(absolute.nodes) + len(relative.nodes)))
    image = np.stack([amp0, amp1]).astype("f4")[:, None, :]
    linear = linearize(image, make_linearity(["DoubleSpline"] * 2, rows))[0][:, 0].astype(float)
    good = (light > 1000) & (light < 9.6e4)
    for amp, limit in ((0, 5e-4), (1, 1e-3)):
        ratio = linear[amp][good] / light[good]
        assert abs(ratio / np.median(ratio) - 1).max() < limit

"""Tests of photon transfer curves on tables, no pixels: clean ones pass, each fault fails by name."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.ptc.table import cauchy_line, gain_table, ptc_table
from camcal_dask.errors import DataError
from camcal_dask.verify.judging.account import failures, summary
from camcal_dask.verify.judging.tables import judge_table
from tests.ptc_data import FIRST, solved


@pytest.fixture
def ptc():
    return solved()


def failing(verdict):
    table = failures(verdict)
    return {(row.detector, row.amp, row.test) for row in table.itertuples()}


def test_a_clean_curve_passes(ptc):
    verdict = judge_table(ptc_table(ptc), "ptc")
    assert bool(verdict["run_success"])
    assert failing(verdict) <= {(d, a, "ptc.a00") for d, a, _ in failing(verdict)}  # TinyCam's ITL has another band
    assert verdict["status"].dims == ("test", "exposure", "detector", "amp")
    assert verdict["exposure"].values.tolist() == [FIRST]
    assert "verification of ptc passed" in summary(verdict)


@pytest.mark.parametrize(
    ("variable", "factor", "test"),
    [
        ("gain", 1.06, "ptc.gain"),
        ("noise", 1.2, "ptc.noise"),
        ("turnoff", 0.5, "ptc.turnoff"),
        ("gain", np.nan, "ptc.fitted"),
        ("a00", 3.0, "ptc.a00"),
    ],
)
def test_each_fault_fails_its_test_for_its_amp_only(ptc, variable, factor, test):
    before = failing(judge_table(ptc_table(ptc), "ptc"))
    ptc[variable][1, 5] *= factor
    verdict = judge_table(ptc_table(ptc), "ptc")
    new = failing(verdict) - before
    assert test in {t for _, _, t in new}
    assert {amp for _, amp, _ in new} == {"C15"}
    assert bool(verdict["run_success"]) == (test == "ptc.a00")  # the band is advice


@pytest.mark.parametrize("errors", [0.1, 1.0])
def test_a00_is_in_its_band_to_its_own_error(ptc, errors):
    """Four times too large, known to a tenth of that or to all of it: six errors never fail."""
    ptc["a00"][1, 5] *= 4
    ptc["a_matrix_err"][1, 5, 0, 0] = errors * abs(ptc["a00"].values[1, 5])
    fails = ("C15", "ptc.a00") in {(a, t) for _, a, t in failing(judge_table(ptc_table(ptc), "ptc"))}
    assert fails == (errors < 0.125)


def test_an_amp_without_light_has_no_short_ramp(ptc):
    """Dead: all its levels are noise, the last of them the brightest."""
    mean = ptc["raw_mean"].transpose("detector", "amp", "pair")
    mean[1, 5] *= 1e-5
    ptc["raw_mean"], ptc["turnoff"][1, 5] = mean, mean[1, 5].max()
    assert ("C15", "ptc.turnoff") in {(a, t) for _, a, t in failing(judge_table(ptc_table(ptc), "ptc"))}


def test_noise_that_depends_on_the_signal_fails(ptc):
    ptc["noise_adu"][0, 3] += np.linspace(0, 6, ptc.sizes["pair"])
    assert any(t == "ptc.noise_flat" and a == "C13" for _, a, t in failing(judge_table(ptc_table(ptc), "ptc")))


def test_a_ramp_that_ends_early_says_nothing_of_the_turnoff(ptc):
    """It holds to its brightest flat; where a brighter flat does not follow the curve, the turnoff is the amp's."""
    bright = ptc["raw_mean"] * ptc["gain"] > 60_000
    ptc["valid"] = ptc["valid"] & ~bright
    ptc["turnoff"][:] = ptc["raw_mean"].where(ptc["valid"]).max("pair")
    verdict = judge_table(ptc_table(ptc), "ptc")
    assert (verdict["status"].sel(test="ptc.turnoff") == -1).all()
    assert bool(verdict["run_success"])
    assert (verdict["upstream_status"].sel(test="ptc.turnoff") == 0).all()
    ptc["turnoff"][1, 5] *= 0.7
    verdict = judge_table(ptc_table(ptc), "ptc")
    assert {amp for _, amp, t in failing(verdict) if t == "ptc.turnoff"} == {"C15"}
    assert not verdict["run_success"]


def test_thresholds_and_known_bad_amps(ptc):
    ptc["turnoff"][0, 0] = 1000.0
    name = str(ptc_table(ptc)["detector_name"].values[0])
    assert not judge_table(ptc_table(ptc), "ptc")["run_success"]
    assert judge_table(ptc_table(ptc), "ptc", known_bad={(name, "C10")})["run_success"]
    assert judge_table(ptc_table(ptc), "ptc", thresholds={"ptc.turnoff": 1000.0})["run_success"]


def test_recorded_numbers(ptc):
    ptc["a_matrix"][0, 0, 1, 1] += 1e-7
    ptc["a_matrix"][0, 0, 1, 0] += 1e-8
    table = ptc_table(ptc)
    np.testing.assert_allclose(table["row_mean_slope"], 1.0, rtol=1e-12)
    np.testing.assert_allclose(table["a_sum"][0, :2], [4e-7 + 2e-8, 0.0], atol=1e-15)
    assert (table["n_used"] == ptc.sizes["pair"] - 1).all()
    assert np.isfinite(table["cov_slope"].sel(lag=["C10", "C01", "C11", "C20", "C02"])).all()


def test_cauchy_line_is_not_moved_by_outliers():
    x = np.linspace(0, 100, 50)
    y = 0.25 * x + 2
    y[::10] += 500
    np.testing.assert_allclose(cauchy_line(x, y), [0.25, 2.0], atol=0.02)


def test_gains_of_single_pairs(ptc):
    table = gain_table(ptc)
    assert ((table["raw_mean"] > 1000) & (table["raw_mean"] < 25_000)).all()
    assert table.sizes["exposure"] > 3
    verdict = judge_table(table, "gain")
    assert bool(verdict["run_success"])
    # Eq. 16 takes the brighter-fatter effect out to all orders; to first one 0.6 % is left at 25 000 adu
    assert np.abs(table["gain_ptc_corrected"] / table["gain"] - 1).max() < 1.5e-4 * 5
    ptc["pair_gain"][0, 2] *= 1.1
    verdict = judge_table(gain_table(ptc), "gain")
    assert {(a, t) for _, a, t in failing(verdict) if t != "gain.ptc"} == {("C12", "gain.gain")}


def test_gains_need_a_pair_in_range(ptc):
    with pytest.raises(DataError, match="no flat pair has a mean between 1000 and 25000 adu"):
        gain_table(ptc.isel(pair=[0]))


def test_a_table_needs_its_pixels():
    with pytest.raises(DataError, match="needs n_pixel, but has gain"):
        judge_table(xr.Dataset({"gain": ("amp", [1.0])}), "ptc")

"""What must not fail on good data, beside the number of inputs (`test_few_inputs`), and still must on bad data."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.ptc.table import gain_table, ptc_table
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.verify.judging.account import failures
from camcal_dask.verify.judging.judge import judge
from camcal_dask.verify.judging.levels import FAIL, PASS
from camcal_dask.verify.judging.policies import rubin, rubin_rule
from camcal_dask.verify.judging.tables import judge_table
from camcal_dask.verify.measuring.statistics import MeasureConfig, measure
from tests.ptc_data import solved
from tests.verify.judging.test_judge import statistics_of

ALL = (0, 1, 2, 3)
EXACT = MeasureConfig(overscan_skip_pixel=-1)
DIMS = ("exposure", "detector", "amp")
NAMES = [get_instrument("TinyCam").detectors[d].full_name for d in ALL]


# --- flats -----------------------------------------------------------------------------------------------------------


def test_one_dead_amp_is_no_scatter_of_the_detectors(make_flats):
    """Divided by a flat of nearly nothing, it has any level: the mean of its detector was off."""
    corrected, flat = make_flats(20_000.0, detectors=ALL, n_exposure=3)
    for e, level in enumerate((9e5, 1e6, -4e5)):
        corrected["image"][e, 2, 5] += np.float32(level)
    verdict = judge(measure(corrected, config=EXACT, calibs={"flat": flat}).compute(), "flat", first_in_set=())
    assert (verdict["exposure_status"].sel(exposure_test=["flat.exp_scatter", "flat.rate"]) == PASS).all()
    failed = failures(verdict, required_only=True)
    assert set(failed["detector"]) == {NAMES[2]}
    assert set(failed["amp"]) <= {str(verdict["amp"].values[5]), ""}
    corrected["image"][:, 1] *= np.float32(1.3)
    verdict = judge(measure(corrected, config=EXACT, calibs={"flat": flat}).compute(), "flat", first_in_set=())
    assert (verdict["exposure_status"].sel(exposure_test="flat.exp_scatter") == FAIL).all()


# --- defects ---------------------------------------------------------------------------------------------------------


def mask_statistics(**values):
    one = xr.DataArray(np.ones((3, 1, 16)), dims=DIMS)
    numbers = {"n_good": 1e6, "n_pixel": 1e6, "noise": 10.0, "unmasked_noise": 10.0, "n_masked": 0.0, "n_defect": 0.0}
    numbers |= dict.fromkeys(
        ("n_defect_frame", "n_clipped", "unmasked_n_clipped", "n_masked_outlier", "n_outlier"), 0.0
    )
    numbers |= {"min": -40.0, "unmasked_min": -40.0, "max": 40.0, "unmasked_max": 40.0, "force_failure": 0.0} | values
    coords = {"exposure": [1, 2, 3], "detector": [94], "amp": list("ABCDEFGHIJKLMNOP")}
    return xr.Dataset({k: one * v for k, v in numbers.items()}, coords)


def of_exposures(*values):
    return xr.DataArray(np.array(values, float), dims="exposure")


@pytest.mark.parametrize(
    ("numbers", "complete", "probable"),
    [
        ({"n_defect": 9_000.0}, -1, 1),  # a frame and columns by rule, none of them improbable: nothing is missed
        ({"n_clipped": of_exposures(40, 1, 25)}, 1, 1),  # cosmic rays, a different number in every exposure
        ({"n_masked_outlier": 30.0, "n_outlier": of_exposures(70, 31, 55), "n_clipped": of_exposures(40, 1, 25)}, 1, 1),
        (
            {"n_clipped": 35.0, "n_outlier": 36.0, "n_masked_outlier": 1.0},
            1,
            1,
        ),  # noise, in flats of five inputs
        ({"n_clipped": 500.0, "n_outlier": 800.0, "n_masked_outlier": 300.0}, 0, 1),  # 5 of 8 missed
        ({"n_clipped": 6000.0, "n_outlier": 6000.0}, 0, 0),  # no mask at all
    ],
)
def test_complete_defects_are_complete(numbers, complete, probable):
    status = judge(mask_statistics(**numbers), "defects", known_bad=())["status"]
    assert (status.sel(test="defects.completeness") == complete).all()
    assert (status.sel(test="defects.prob") == probable).all()


# --- curves ----------------------------------------------------------------------------------------------------------


def test_noise_of_a_curve_that_is_not_linearised_is_that_of_its_overscans():
    """A bend of the amplifier moves the intercept of the fit: 30 % of the noise here, none of it noise."""
    ptc = solved()
    ptc["noise"] = ptc["noise"] * 1.3
    as_linear = judge_table(ptc_table(ptc), "ptc")
    assert (as_linear["status"].sel(test="ptc.noise") == FAIL).all()
    ptc.attrs["recipe"] = {"isr": {"linearity": False}}
    verdict = judge_table(ptc_table(ptc), "ptc")
    assert (verdict["status"].sel(test="ptc.noise") == PASS).all()
    advice = ["ptc.a00", "ptc.overscan_noise", "ptc.sum_rule", "ptc.linearity"]
    assert (verdict["status"].sel(test=advice) == -1).all()
    ptc["noise_adu"] = ptc["noise_adu"] * 1.3  # a noisy amp is noisy
    assert (judge_table(ptc_table(ptc), "ptc")["status"].sel(test="ptc.noise") == FAIL).all()


def test_gains_of_pairs_of_20_to_28_thousand_electron():
    """The brighter-fatter effect is 6 to 9 % there, whatever the vendor's slope says of another a00."""
    ptc = solved()
    table = gain_table(ptc)
    bright = (table["raw_mean"] * table["gain"] > 20_000) & (table["raw_mean"] * table["gain"] < 28_000)
    assert bright.any()
    assert (table["pair_gain"] / table["gain"] - 1).where(bright).max() > 0.04
    assert abs(table["gain_flux_corrected"] / table["gain"] - 1).where(bright).max() < 1e-3
    ptc["a00"][:, 4] = np.nan  # then by the slope of the vendor
    assert np.isfinite(gain_table(ptc)["gain_flux_corrected"].where(bright).isel(amp=4)).any()


# --- the rule of the daily script -----------------------------------------------------------------------------------


def upstream_says(failed, n_detector):
    """Reject or accept (reference/operations.md 3), from the failing strings of each exposure: a loop as upstream's."""
    bad = sum(any(list(words).count(t) >= 8 * (n_detector // 2 + 1) for t in set(words)) for words in failed)
    return "reject" if bad >= (len(failed) + 1) // 2 + 1 else "accept"


@pytest.mark.parametrize("own", [{}, {"bias.noise": 0.5}, {"bias.noise": 0.001}])
@pytest.mark.parametrize("known", [(), "all noisy"])
@pytest.mark.parametrize("n_noisy", [5, 6])
def test_the_rule_knows_neither_own_thresholds_nor_amps_known_to_be_bad(own, known, n_noisy):
    """4 detectors: 24 failing amps count; 4 x 6 are noisier by 8 %, where upstream's limit is 5 %."""
    stats = statistics_of(3, ALL, "TinyCam", n_good=1e6)
    stats["noise"][:, :, :n_noisy] *= 1.08
    stats["cr_noise"] = stats["noise"]
    labels = get_instrument("TinyCam").amp_names[:n_noisy]
    bad = [(d, a) for d in NAMES for a in labels] if known else ()
    verdict = judge(stats, thresholds=own, known_bad=bad)
    words = [["NOISE"] * 4 * n_noisy for _ in range(3)]
    assert verdict.attrs["policy_rubin"] == upstream_says(words, 4) == ("reject" if n_noisy == 6 else "accept")
    assert rubin(verdict).limit == 3


def test_the_rule_has_no_allowance_for_few_pixels():
    """6 % more noise in amps of 1500 pixels: within our limit there (10 %), over upstream's."""
    stats = statistics_of(3, ALL, "TinyCam", n_good=1500.0)
    stats["noise"] *= 1.06
    stats["cr_noise"] = stats["noise"]
    verdict = judge(stats)
    assert bool(verdict["run_success"])
    assert verdict.attrs["policy_rubin"] == "reject"
    assert verdict["upstream_status"].sel(test="bias.noise_low").max() == -1
    assert rubin_rule(np.array([[64]] * 3), 4, 4).accepted is False

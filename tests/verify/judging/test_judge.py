"""Verdicts: each test at its limit, faults found by name, the automatic rules against their golden numbers."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.combined.criteria import BIAS
from camcal_dask.errors import ConfigError
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.verify.judging.account import failures, summary
from camcal_dask.verify.judging.criterion import Criterion
from camcal_dask.verify.judging.judge import judge
from camcal_dask.verify.judging.levels import FAIL, NOT_EVALUATED, PASS
from camcal_dask.verify.judging.policies import majority, rubin, rubin_rule
from camcal_dask.verify.measuring.statistics import MeasureConfig, expectations, measure

REQUIRED = {c.id for c in BIAS if c.required}


def statistics_of(n_exposure=4, detectors=(0, 2), instrument="TinyCam", n_good=None, seed=None):
    """Statistics of clean bias residuals, drawn as their estimators scatter (no pixels)."""
    camera = get_instrument(instrument)
    shape = (n_exposure, len(detectors), 16)
    dims = ("exposure", "detector", "amp")
    ny, nx = camera.trimmed_shape
    stub = xr.Dataset(
        {"image": (("exposure", "detector", "amp", "y", "x"), np.broadcast_to(np.float32(0), (*shape, ny, nx)))},
        {"exposure": 1 + np.arange(n_exposure), "detector": list(detectors), "amp": list(camera.amp_names)},
        {"instrument": instrument, "units": "electron"},
    )
    stats = xr.Dataset(expectations(stub, MeasureConfig()), attrs=stub.attrs)
    noise = stats["noise_expected"].values
    areas = np.array([[a.data.width * a.data.height for a in camera.detectors[d].amps] for d in detectors], float)
    pixels = np.broadcast_to(areas if n_good is None else np.full_like(areas, n_good), shape)

    def draw(scale):
        return np.zeros(shape) if seed is None else rng.standard_normal(shape) * scale

    rng = np.random.default_rng(seed)
    sigma = noise * (1 + draw(1 / np.sqrt(2 * pixels)))
    level = draw(stats["mean_error"].values)
    values = {"mean": level, "noise": sigma, "cr_noise": sigma, "stdev": sigma}
    values |= {"amp_corner": level + draw(stats["corner_error"].values), "n_good": pixels, "n_pixel": pixels}
    values["structure"] = 6 * stats["bin_error"].values + draw(stats["bin_error"].values)
    values["n_defect_frame"] = 0 * values["n_pixel"]
    values["read_noise_adu"] = np.broadcast_to((stats["read_noise"] / stats["gain"]).values, shape)
    for name in ("n_masked", "force_failure", "bias_shift_count"):
        values[name] = np.zeros(shape)
    stats = stats.assign({k: (dims, np.broadcast_to(v, shape).copy()) for k, v in values.items()})
    return stats.assign_coords(exposure=stub["exposure"].values)


def status(verdict, test):
    return verdict["status"].sel(test=test)


def test_clean_statistics_pass_everything():
    verdict = judge(statistics_of())
    assert (verdict["status"] == PASS).all()
    assert bool(verdict["run_success"])
    assert failures(verdict).empty
    assert (verdict["margin"] >= 0).all()
    assert summary(verdict).startswith("verification of bias passed: 0 of 128 amp images")


@pytest.mark.parametrize(
    ("test", "change", "value"),
    [
        ("bias.mean", {"mean": 1.01}, 1.01),
        ("bias.noise", {"noise": 1.06, "cr_noise": 1.06}, 0.06),
        ("bias.cr", {"cr_noise": 1.06}, 0.06 / 1.06),
        ("bias.noise_low", {"noise": 0.79, "cr_noise": 0.79}, 0.21),
        ("bias.structure", {"structure": 1.01}, 1.01),
    ],
)
def test_each_test_fails_beyond_its_limit_and_only_there(test, change, value):
    stats = statistics_of(instrument="LSSTCam", detectors=(0, 94))
    for name, factor in change.items():
        stats[name][1, 0, 3] = factor * stats["noise_expected"][0, 3]
    verdict = judge(stats)
    failed = failures(verdict, required_only=True)
    assert failed[["exposure", "detector", "amp", "test"]].to_numpy().tolist() == [[2, "R01_S00", "C13", test]]
    assert failed["value"][0] == pytest.approx(
        value * (verdict["limit"].sel(test=test)[1, 0, 3].item() if test == "bias.mean" else 1), rel=0.05
    )
    assert failed["margin"][0] < 0
    assert not verdict["amp_success"][1, 0, 3]
    assert int((~verdict["amp_success"]).sum()) == 1
    assert verdict["detector_success"].values.tolist() == [[True, True], [False, True], [True, True], [True, True]]
    assert verdict["exposure_success"].values.tolist() == [True, False, True, True]
    assert not verdict["run_success"]


@pytest.mark.parametrize(("excess", "outcome"), [(0.04, PASS), (0.06, FAIL)])
def test_noise_limit_on_full_size_amps(excess, outcome):
    """Reference, acceptance test (b)."""
    stats = statistics_of(instrument="LSSTCam", detectors=(94,))
    stats["noise"] = stats["noise"] * (1 + excess)
    assert (status(judge(stats), "bias.noise") == outcome).all()


def test_excess_noise_is_one_sided_and_processing_is_explicit():
    stats = statistics_of()
    stats["noise"] = stats["noise"] * 0.9
    stats["cr_noise"] = stats["noise"]
    stats["force_failure"][0, 0, 0] = 1
    verdict = judge(stats)
    assert (status(verdict, "bias.noise") == PASS).all()
    assert int((status(verdict, "bias.processing") == FAIL).sum()) == 1


def test_unknown_values_fail_required_tests_and_leave_advice_open():
    stats = statistics_of()
    for name in ("noise", "mean", "cr_noise", "structure"):
        stats[name][0, 0, 0] = np.nan
    stats["read_noise_adu"][0, 0, 0] = np.nan
    verdict = judge(stats).isel(exposure=0, detector=0, amp=0)
    for test in ("bias.mean", "bias.noise", "bias.cr", "bias.noise_low", "bias.structure"):
        assert verdict["status"].sel(test=test) == FAIL
    for test in ("bias.level", "bias.rn_consistent", "bias.flatness", "bias.dead"):
        assert verdict["status"].sel(test=test) == NOT_EVALUATED


def test_absent_amps_and_absent_advisory_statistics_are_not_evaluated():
    stats = statistics_of().drop_vars("read_noise_adu")
    stats["n_pixel"][:, 1, 8:] = 0
    stats["noise"][:, 1, 8:] = np.nan
    verdict = judge(stats)
    assert (verdict["status"][:, :, 1, 8:] == NOT_EVALUATED).all()
    assert (status(verdict, "bias.rn_consistent") == NOT_EVALUATED).all()
    assert bool(verdict["run_success"])


def test_missing_required_statistic_is_an_error():
    with pytest.raises(ConfigError, match="no statistic 'noise'"):
        judge(statistics_of().drop_vars("noise"))


def test_known_bad_amp_is_shown_but_not_judged():
    stats = statistics_of()
    stats["noise"][:, 0, 3] = 0.1
    verdict = judge(stats, known_bad={("R22_S00", "C13")})
    assert bool(verdict["run_success"])
    assert not verdict["amp_success"][:, 0, 3].any()
    table = failures(verdict)
    assert table["known_bad"].all()
    assert set(table["amp"]) == {"C13"}
    assert "1 known-bad amp fail as known" in summary(verdict)


def test_overridden_threshold_is_used_and_stored():
    stats = statistics_of(instrument="LSSTCam", detectors=(94,))
    stats["noise"] = stats["noise"] * 1.08
    verdict = judge(stats, thresholds={"bias.noise": 0.10})
    assert (status(verdict, "bias.noise") == PASS).all()
    assert verdict["test_threshold"].sel(test="bias.noise") == 0.10
    assert '"threshold": 0.1' in verdict.attrs["criteria"]
    assert verdict.attrs["criteria_hash"] != judge(stats).attrs["criteria_hash"]


def test_roles_and_first_exposures_are_coordinates():
    verdict = judge(statistics_of(3), role={1: "verification", 2: "construction", 3: "construction"}, first_in_set=[1])
    assert verdict["role"].values.tolist() == ["verification", "construction", "construction"]
    assert verdict["first_in_set"].values.tolist() == [True, False, False]


def with_a_bad_exposure(index, roles, first_in_set):
    """Three good exposures but for one, judged."""
    stats = statistics_of(3)
    stats["mean"][index] = 100.0
    ids = [int(e) for e in stats["exposure"].values]
    return judge(stats, role=dict(zip(ids, roles, strict=True)), first_in_set=[ids[i] for i in first_in_set])


OUT, IN = "verification", "construction"


@pytest.mark.parametrize(
    ("bad", "roles", "first", "passes"),
    [
        (0, (OUT, IN, IN), [0], True),  # kept out of the calibration because it is the first
        (0, (OUT, IN, IN), [], False),  # kept out, but not the first
        (0, (IN, IN, IN), [0], False),  # the first, and an input all the same
        (1, (OUT, OUT, IN), [0], False),  # a valid external exposure
        (2, (OUT, IN, IN), [0], False),  # an input
        (0, (OUT, OUT, OUT), [0, 1, 2], False),  # nothing else to rest on
    ],
)
def test_only_a_first_exposure_that_was_kept_out_does_not_block(bad, roles, first, passes):
    verdict = with_a_bad_exposure(bad, roles, first)
    assert bool(verdict["run_success"]) == passes
    assert verdict["exposure_success"].values.tolist() == [i != bad for i in range(3)]
    assert verdict["n_failed"].isel(exposure=bad).sum() > 0
    text = summary(verdict)
    assert ("passed" in text.splitlines()[0]) == passes
    assert ("the verdict does not rest on it" in text) == passes
    assert ("bad exposure" in text) or not passes


def test_tests_of_the_run_leave_the_first_exposure_out_too():
    rows = (Criterion("x.high", "HIGH", "max_over_exposures(mean)", 1.0, True, "ours", "largest", level="run"),)
    stats = statistics_of(3)
    stats["mean"][:] = 0.0
    stats["mean"][0] = 100.0
    ids = [int(e) for e in stats["exposure"].values]
    roles = dict(zip(ids, (OUT, IN, IN), strict=True))
    assert bool(judge(stats, rows, role=roles, first_in_set=ids[:1])["run_success"])
    assert not bool(judge(stats, rows, role=roles)["run_success"])


def test_detector_and_exposure_tests_extend_the_table_by_rows():
    """The flat's scatter over amps and detectors (reference 1.5), which no bias test needs."""
    rows = (
        *BIAS,
        Criterion(
            "x.scatter",
            "SCATTER",
            "std_over_amps(mean) / mean_over_amps(mean)",
            0.05,
            True,
            "ours",
            "",
            level="detector",
        ),
        Criterion(
            "x.scatter_exposure",
            "SCATTER",
            "std_over_detectors(mean_over_amps(mean)) / mean_over_detectors(mean_over_amps(mean))",
            0.05,
            True,
            "ours",
            "",
            level="exposure",
        ),
    )
    stats = statistics_of()
    stats["mean"] = xr.ones_like(stats["mean"])
    stats["mean"][2, 1, 5] = 2.5
    verdict = judge(stats, rows)
    assert not verdict["detector_success"][2, 1]
    assert not verdict["exposure_success"][2]
    assert verdict["exposure_success"].values.sum() == 3
    assert verdict["amp_success"].all()
    table = failures(verdict, required_only=True)
    assert table[["exposure", "detector", "amp", "test"]].to_numpy().tolist() == [
        [3, "", "", "x.scatter_exposure"],
        [3, faulty_name(2), "", "x.scatter"],
    ]
    with pytest.raises(ConfigError, match="must reduce amp"):
        judge(stats, (Criterion("x.y", "Y", "mean", 1, True, "ours", "", level="detector"),))


# --- the automatic rules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_detector", "limit"), [(1, 8), (9, 40), (189, 760), (197, 792)])
def test_rubin_rule_golden_table(n_detector, limit):
    """reference/operations.md 3."""
    for count, bad in ((limit - 1, 0), (limit, 20)):
        found = rubin_rule(np.full((20, 1), count), n_detector, 21)
        assert len(found.bad_exposures) == bad
        assert found.accepted == (bad == 0)


@pytest.mark.parametrize(("n_exposure", "limit"), [(20, 11), (21, 12)])
def test_rubin_rule_counts_the_success_key(n_exposure, limit):
    for bad, accepted in ((limit - 1, True), (limit, False)):
        counts = np.zeros((n_exposure, 2), int)
        counts[:bad, 0] = 8
        assert rubin_rule(counts, 1, n_exposure + 1).accepted is accepted
    assert rubin_rule(counts, 1, n_exposure + 1).limit == limit


def test_rubin_rule_lets_different_tests_count_for_different_exposures():
    counts = np.zeros((20, 2), int)
    counts[:6, 0] = counts[6:11, 1] = 8
    assert not rubin_rule(counts, 1, 21).accepted


@pytest.mark.parametrize(("n_bad", "accepted"), [(94, True), (95, False)])
def test_half_the_amps_of_95_detectors_reject(n_bad, accepted):
    """Reference, acceptance test (g)."""
    detectors = get_instrument("LSSTCam").science_detectors
    stats = statistics_of(4, detectors, "LSSTCam")
    noise = stats["noise"].values
    noise[:3, :n_bad, :8] *= 2
    stats["cr_noise"] = stats["noise"]
    verdict = judge(stats, known_bad=())
    assert rubin(verdict).accepted is accepted
    assert verdict.attrs["policy_rubin"] == ("accept" if accepted else "reject")
    assert majority(verdict).accepted  # 8 of 16 is not more than half
    noise[:3, :n_bad, :9] = 20
    assert majority(judge(stats, known_bad=())).accepted is accepted


def test_rubin_counts_upstream_tests_only_and_advice_only_in_failed_amps():
    stats = statistics_of()
    stats["structure"] = stats["structure"] + 100
    stats["read_noise_adu"] = stats["read_noise_adu"] * 2
    assert judge(stats).attrs["policy_rubin"] == "accept"
    assert judge(stats).attrs["policy_majority"] == "reject"
    stats["noise"] = stats["noise"] * 2
    assert len(rubin(judge(stats)).bad_exposures) == 4


# --- false alarms and faults ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("instrument", "detectors", "n_exposure"), [("LSSTCam", None, 20), ("TinyCam", (0, 1, 2, 3), 200)]
)
def test_no_clean_amp_of_the_focal_plane_fails_by_chance(instrument, detectors, n_exposure):
    detectors = detectors or get_instrument(instrument).science_detectors
    for seed in range(3):
        verdict = judge(statistics_of(n_exposure, detectors, instrument, seed=seed), known_bad=())
        required = verdict.isel(test=np.flatnonzero(verdict["test_required"].values))
        assert (required["status"] == PASS).all()
        assert required["margin"].sel(test=list(REQUIRED - {"bias.processing"})).min() > 0.08


def test_clean_tiny_pixels_pass_all_tests(make_exposures):
    """1800 pixels an amp, 8 x 4 x 16 amps: the statistical allowance of the limits is needed and enough."""
    verdict = judge(measure(make_exposures(detectors=(0, 1, 2, 3), n_exposure=8)).compute())
    assert (verdict["status"] != FAIL).all(), summary(verdict)
    excess = verdict["value"].sel(test="bias.noise")
    assert excess.max() < 0.05 + 0.1


@pytest.fixture(scope="module")
def faulty(make_exposures):
    """Detector 0 C11 dead, detector 2 C05 noisy, first exposure contaminated by stripes and charge of a few adu."""
    corrected = make_exposures(n_exposure=5, units="adu")
    image = corrected["image"].values
    rng = np.random.default_rng(8)
    dead, noisy = (0, 1), (1, 10)
    image[(slice(None), *dead)] *= 0.05
    image[(slice(None), *noisy)] *= 2.5
    ny, nx = image.shape[-2:]
    stripes = 4 * rng.standard_normal((2, 16, ny, 1)) + 4 * rng.standard_normal((2, 16, 1, nx))
    charge = 6 * np.exp(-np.arange(ny) / 15)[:, None] * np.exp(-np.arange(nx) / 12)
    image[0] += np.float32(stripes + charge)
    return judge(measure(corrected).compute(), first_in_set=[3026081200001])


def test_injected_faults_are_found_by_name(faulty):
    table = failures(faulty, required_only=True)
    later = table[~table["first_in_set"]]
    assert set(zip(later["detector"], later["amp"], strict=True)) == {("R22_S00", "C11"), (faulty_name(2), "C05")}
    dead = later[later["amp"] == "C11"]
    assert set(dead["name"]) >= {"NOISE_LOW"}
    assert set(later[later["amp"] == "C05"]["name"]) >= {"NOISE"}
    assert later.groupby(["detector", "amp"])["exposure"].nunique().tolist() == [4, 4]
    first = faulty.isel(exposure=0)
    assert int((~first["amp_success"]).sum()) == 32


def faulty_name(detector):
    return get_instrument("TinyCam").detectors[detector].full_name


def test_summary_names_the_exposure_and_the_amps_most_important_first(faulty):
    text = summary(faulty).splitlines()
    assert "FAILED" in text[0]
    assert text[1].startswith("  bad exposure 3026081200001 (first of its set): 32 amps fail: ")
    assert "NOISE" in text[1]
    assert any(
        line.startswith("  bad amp R22_S00 C11: fails in all 4 exposures: ") and "NOISE_LOW" in line
        for line in text[2:4]
    )
    assert any(
        line.startswith(f"  bad amp {faulty_name(2)} C05: fails in all 4 exposures: NOISE") for line in text[2:4]
    )


@pytest.mark.slow
def test_contamination_of_a_few_adu_is_caught_on_full_size_amps(make_exposures):
    corrected = make_exposures("LSSTCam", (94,), 3, units="adu")
    ny, nx = corrected["image"].shape[-2:]
    rng = np.random.default_rng(1)
    stripes = 2 * rng.standard_normal((ny, 1)) + 2 * rng.standard_normal((1, nx))
    charge = 6 * np.exp(-np.arange(ny) / 500)[:, None] * np.ones(nx)
    for e, added in enumerate((stripes, charge, np.full((ny, nx), 5.0))):
        corrected["image"][e] += added.astype("f4")
    verdict = judge(measure(corrected).compute())
    assert not verdict["amp_success"].any(), summary(verdict)
    failed = failures(verdict, required_only=True).groupby("exposure")["name"].agg(set).tolist()
    assert [name in found for name, found in zip(("NOISE", "STRUCTURE", "MEAN"), failed, strict=True)] == [True] * 3

"""Photon transfer curves of simulated flats against the truth, by the commands that a user types (TinyCam)."""

import numpy as np
import pytest
from click.testing import CliRunner

from camcal_dask.calibs.ptc.extract import PtcExtractConfig, extract
from camcal_dask.calibs.ptc.pairs import pair_exposures
from camcal_dask.calibs.ptc.product import amp_table
from camcal_dask.calibs.ptc.solve import PtcSolveConfig, solve
from camcal_dask.cli import main
from camcal_dask.instruments import get_instrument
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.repo.butler.repository import open_repo
from camcal_dask.simulation import SimulationConfig, flat_set, load_truth, ptc_set, schedule, simulate
from camcal_dask.simulation.config import (
    CosmicRays,
    Crosstalk,
    Faults,
    Gain,
    Illumination,
    NonLinearity,
    SerialCti,
)
from tests.declared import assert_declared

DAY = 20260812
TIMES_S = np.geomspace(0.3, 50, 12).round(3).tolist()
LEVELS = len(TIMES_S)
LOST = 2 * 5 + 1  # an exposure that detector 3 has no file of
DEAD = "C13"
UNLINEARISED = """
description: Photon transfer curves before anything else
instrument: TinyCam
task: ptc
product: linearizerPtc
where: exposure.observation_type = 'flat' AND exposure.observation_reason = 'ptc'
aux: [CCDTEMP]
extract: {edge_pixel: 2, min_pixels: 500, lags: 1}
solve: {n_sigma: 60}
"""


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


def run_ptc(root, *more, code=0):
    plain = ["-c", "isr.defects=false", "-c", "isr.linearity=false", "-c", "calibs={}", "--cluster", "threads"]
    arguments = ["-b", root, "-p", "TinyCam/ptc.yaml", "-i", "TinyCam/raw/all", "-o", "u/ptc", *plain]
    return camcal("run", *arguments, *more, code=code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Flat pairs of two detectors, one flat too many, one file lost, one amp dead; and the curves."""
    folder = tmp_path_factory.mktemp("ptc")
    off = {"enabled": False}
    config = SimulationConfig(
        gain=Gain(scatter=0.02),
        illumination=Illumination(vignetting=False),
        serial_cti=SerialCti(**off),
        crosstalk=Crosstalk(**off),
        non_linearity=NonLinearity(**off),
        cosmic_rays=CosmicRays(**off),
        faults=Faults(dead=((0, DEAD),)),
    )
    exposures = [*ptc_set(TIMES_S, DAY), *flat_set(1, 70.0, DAY, reason="ptc")]
    simulate(folder / "raw", "TinyCam", list(schedule(exposures, DAY)), [0, 3], config)
    next((folder / "raw").glob(f"*_{LOST:06d}/*{_name(3)}.fits")).unlink()
    root = folder / "repo"
    camcal("create", root, "--instrument", "TinyCam")
    camcal("ingest", root, folder / "raw", "--cluster", "threads")
    (folder / "ptc.txt").write_text(run_ptc(root))
    return folder


def _name(detector):
    return get_instrument("TinyCam").detectors[detector].full_name


@pytest.fixture(scope="module")
def repo(folder):
    with open_repo(folder / "repo") as opened:
        yield opened


@pytest.fixture(scope="module")
def ptc(repo):
    return repo.open("ptc", run="u/ptc", detector=[0, 3]).load()


@pytest.fixture(scope="module")
def truth(folder):
    return load_truth(folder / "raw")


def test_the_odd_flat_is_reported_and_every_pair_is_a_quantum(folder):
    text = (folder / "ptc.txt").read_text()
    odd = DAY * 100_000 + 2 * LEVELS + 1
    assert f"{LEVELS} pairs; 1 odd: no neighbour of the same exposure time ({odd})" in text
    assert f"ptc in u/ptc: {2 * LEVELS + 2} done" in text


def test_gains_are_the_true_ones(ptc, truth):
    pulls = []
    for d, detector in enumerate((0, 3)):
        true = truth.detector(detector).tables["gain"]
        one = ptc.isel(detector=d)
        good = np.array([not (detector == 0 and amp == DEAD) for amp in one["amp"].values])
        assert not one["bad"].values[good].any()
        pulls.append(((one["gain"].values - true) / one["gain_err"].values)[good])
        # 1500 pixels, 12 levels: 3.7 % a level
        assert np.abs(one["gain"].values / true - 1)[good].max() < 0.2
    pulls = np.concatenate(pulls)
    assert np.abs(pulls).max() < 6
    assert np.std(pulls) < 2
    assert abs(np.mean(pulls)) < 1.0


def test_the_dead_amp_and_the_lost_pair_cost_nobody_else(ptc):
    assert not ptc["valid"].sel(detector=0, amp=DEAD).all()
    place = (LOST - 1) // 2
    assert not ptc["valid"].sel(detector=3)[:, place].any()
    assert ptc["valid"].sel(detector=0).sel(amp="C10").all()
    assert ptc["valid"].sel(detector=3).drop_sel(pair=place).all()


def test_the_product_says_what_it_is(ptc, truth, repo):
    assert ptc["covariance"].dims == ("detector", "amp", "pair", "lag_i", "lag_j")
    assert ptc["gain"].attrs["units"] == "electron/adu"
    assert ptc.attrs["fit_type"] == "FULLCOVARIANCE_NO_B"
    first = DAY * 100_000 + 1
    assert ptc["exposure_1"].values.tolist() == [first + 2 * k for k in range(LEVELS)]
    np.testing.assert_allclose(ptc["exposure_time"], TIMES_S)
    charge = truth.photodiode()
    mean = [(charge[first + 2 * k] + charge[first + 2 * k + 1]) / 2 for k in range(LEVELS)]
    np.testing.assert_allclose(ptc["photo_charge"], mean, rtol=2e-3)
    table = amp_table(ptc).to_pandas()
    assert table.index.names == ["detector", "amp"]
    assert table.loc[(3, "C10"), "gain"] == float(ptc["gain"].sel(detector=3, amp="C10"))
    assert repo.find_calib("ptc", first, 3, "u/ptc").run == "u/ptc"


def test_the_isr_takes_its_gains_and_noise(repo, ptc):
    raw = repo.raws("exposure.seq_num = 5 AND detector = 3")
    config = IsrConfig(gains="ptc", read_noise="ptc")
    electron = isr(raw, {"ptc": repo.open("ptc", run="u/ptc")}, config).dataset().compute(scheduler="sync")
    adu = isr(raw).dataset().compute(scheduler="sync")
    ratio = (electron["image"] / adu["image"]).isel(exposure=0, detector=0).median(["y", "x"])
    np.testing.assert_allclose(ratio, ptc["gain"].sel(detector=3), rtol=1e-3)


def test_a_repeated_run_skips_and_other_settings_are_refused(folder):
    assert "2 skipped" in run_ptc(folder / "repo")
    assert "choose another output collection" in run_ptc(folder / "repo", "-c", "stride=2", code=1)


def test_verification_names_the_dead_amp(folder):
    arguments = ["-p", "TinyCam/verifyPtc.yaml", "-i", "u/ptc", "-o", "u/ptc.verify", "--cluster", "threads"]
    text = camcal("run", "-b", folder / "repo", *arguments)
    assert "verification of ptc FAILED" in text
    assert f"R22_S00 {DEAD}" in text
    assert "1 of 32 amp images fail" in text


def test_the_chain_makes_and_judges_a_curve(folder):
    recipe = folder / "linearizerPtc.yaml"
    recipe.write_text(UNLINEARISED)
    text = camcal("chain", folder / "repo", "-p", recipe, "-o", "v", "-d", "detector = 3", "--cluster", "threads")
    assert "linearizerPtc in v/linearizerPtc" in text
    assert "verifyPtc in v/linearizerPtc.verifyPtc" in text
    assert "verifyGain in v/linearizerPtc.verifyGain" in text
    with open_repo(folder / "repo") as repo:
        curve = repo.open("linearizerPtc", run="v/linearizerPtc").load()
        for name in ("verifyPtc", "verifyGain"):
            assert_declared(repo.open(name, run=f"v/linearizerPtc.{name}"), name)
    assert_declared(curve, "linearizerPtc")
    assert curve.sizes["lag_i"] == 1
    assert np.isfinite(curve["aux_CCDTEMP"]).all()
    assert np.isfinite(curve["gain"]).all()


def test_the_notebook_flow(folder, truth):
    # docs/ptc.md: keep equal
    repo = open_repo(folder / "repo")
    raw = repo.raws("exposure.observation_type = 'flat' AND detector = 3")
    pairs = pair_exposures(raw["exposure"].values, exposure_time=raw["exposure_time"].values).every(2)
    partial = extract(isr(raw), pairs.pairs, PtcExtractConfig(lags=2, edge_pixel=2, min_pixels=500))
    ptc = solve(partial.compute(scheduler="threads"), PtcSolveConfig(n_sigma=60))
    gains = ptc["gain"].isel(detector=0).to_pandas()
    assert len(pairs.pairs) == LEVELS // 2
    true = truth.detector(3).tables["gain"]
    assert abs(np.median(gains.values / true) - 1) < 0.05


def test_without_pairs_the_plan_says_why(folder):
    text = run_ptc(folder / "repo", "-d", "exposure.seq_num IN (1, 3, 5)", "-o", "u/none", code=1)
    assert "3 flats and not a single pair among them (pairing.mode=time)" in text

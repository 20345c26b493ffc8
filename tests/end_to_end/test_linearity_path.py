"""From raws of a bent amplifier to a linearizer that makes the ISR's signals proportional to light (TinyCam)."""

import numpy as np
import pytest
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.linearity.correct import TYPES
from camcal_dask.repo.butler.repository import open_repo
from camcal_dask.simulation import SimulationConfig, load_truth, simulate
from camcal_dask.simulation.config import Illumination, NonLinearity, Photodiode, ReadNoise, ShotNoise
from camcal_dask.simulation.exposures import ptc_set
from tests.declared import assert_declared

DAY = 20260812
DETECTORS = (0, 2)
TIMES = np.random.default_rng(4).permutation(np.geomspace(0.5, 48.0, 15)).round(3).tolist()
WITHOUT_DEFECTS = ("-c", "isr.defects=false", "-c", "calibs={}")
DOUBLE = ("type=DoubleSpline", "double.bin_size=4", "double.border=2", "normalization.rounds=1")
"""Amps are small; the nodes are those of the cameras, 37 on dense flats, as far as 15 levels support them."""


def camcal(*arguments):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pairs of flats up to 96 000 electrons in no order, 3 % bent at 100 000, a lamp that flickers by 0.2 %."""
    folder = tmp_path_factory.mktemp("linearity")
    config = SimulationConfig.ideal(
        shot_noise=ShotNoise(),
        read_noise=ReadNoise(),
        illumination=Illumination(vignetting=False),
        photodiode=Photodiode(),
        non_linearity=NonLinearity(c2_per_e=-3e-7, c3_per_e2=0.0),
    )
    simulate(folder / "raw", "TinyCam", ptc_set(TIMES, DAY), detectors=DETECTORS, config=config)
    root = folder / "repo"
    camcal("create", root, "--instrument", "TinyCam")
    camcal("ingest", root, folder / "raw", "--cluster", "threads")
    run(root, "linearizerPtc", "TinyCam/raw/all", "u/curves", *WITHOUT_DEFECTS)
    run(root, "linearizer", "u/curves,TinyCam/raw/all", "u/spline", *WITHOUT_DEFECTS)
    return folder


@pytest.fixture(scope="module")
def double(folder):
    settings = [x for setting in DOUBLE for x in ("-c", f"linearity.{setting}")]
    return run(folder / "repo", "linearizer", "u/curves,TinyCam/raw/all", "u/double", *WITHOUT_DEFECTS, *settings)


def run(root, pipeline, inputs, output, *more):
    return camcal("run", "-b", root, "-p", f"TinyCam/{pipeline}.yaml", "-i", inputs, "-o", output,
                  "--cluster", "threads", *more)  # fmt: skip


@pytest.fixture(scope="module")
def repo(folder):
    with open_repo(folder / "repo") as opened:
        yield opened


def off_the_line(folder, repo, config, calibs):
    """(exposure, amp) mean signal over light, relative to the median over exposures of 1000 to 90 000 electrons."""
    raw = repo.raws("exposure.observation_type = 'flat'", instrument="TinyCam", collections=["TinyCam/raw/all"])
    truth = load_truth(folder / "raw")
    light = np.array([truth.photodiode()[day * 100_000 + n] for day, n in zip(*map_of(raw), strict=True)])
    mean = isr(raw, calibs, config).dataset()["image"].mean(["y", "x"]).compute().values.reshape(len(light), -1)
    electron = light / truth.config.photodiode.current_a * truth.config.illumination.rate_e_per_s
    inside = (electron > 1000) & (electron < 90000)
    ratio = mean[inside] / light[inside, None]
    return ratio / np.median(ratio, axis=0) - 1


def map_of(raw):
    return raw["day_obs"].values.tolist(), raw["seq_num"].values.tolist()


@pytest.mark.parametrize(("name", "limit"), [("spline", 0.001), ("double", 0.002)])  # 30 flats for 9 nodes and a drift
def test_signals_become_proportional_to_light(folder, double, repo, name, limit):
    assert "6 done" in double  # ratios, a fit to normalise and the final one, of each detector
    made = repo.open("linearizer", run=f"u/{name}").load()
    kind = "DoubleSpline" if name == "double" else "Spline"
    assert (made["type"] == TYPES.index(kind)).all(), made.attrs
    before = off_the_line(folder, repo, IsrConfig(gains="none"), {})
    after = off_the_line(folder, repo, IsrConfig(gains="none", linearity=True), {"linearizer": made})
    assert np.abs(before).max() > 0.01
    # An amp has 1800 pixels: its mean scatters by 0.075 % at 1000 electrons, 0.008 % at 90 000.
    assert np.abs(after).max() < 0.004
    assert np.abs(np.median(after, axis=1)).max() < limit


def test_the_linearizer_is_verified(folder, repo):
    text = run(folder / "repo", "verifyLinearizer", "u/spline", "u/verify")
    assert "linearizer" in text
    verdict = repo.open("verifyLinearizer", run="u/verify")
    assert_declared(verdict, "verifyLinearizer")
    assert verdict["refit"].attrs["units"] == "1"
    assert_declared(repo.open("linearizer", run="u/spline"), "linearizer")
    assert bool(verdict["run_success"])
    assert float(verdict["refit"].max()) < 0.01


def test_a_repeated_run_does_nothing_again(folder):
    again = run(folder / "repo", "linearizer", "u/curves,TinyCam/raw/all", "u/spline", *WITHOUT_DEFECTS)
    assert "2 skipped" in again


def test_a_detector_without_linear_amp_is_no_success(folder, repo):
    arguments = ["run", "-b", folder / "repo", "-p", "TinyCam/linearizer.yaml", "-i", "u/curves,TinyCam/raw/all"]
    arguments += ["-o", "u/none", "--cluster", "threads", *WITHOUT_DEFECTS, "-c", "linearity.min_photodiode_charge=1"]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code != 0
    words = " ".join(result.output.split())
    assert "2 failed" in words
    assert "none of its 16 amps can be used: " in words
    assert ": the PTC used no flat whose light is known" in words
    assert "linearizer" not in repo.types_in("u/none")


def test_curves_without_content_are_no_success(folder, repo):
    """Two pairs make no curve of three parameters."""
    arguments = ["run", "-b", folder / "repo", "-p", "TinyCam/linearizerPtc.yaml", "-i", "TinyCam/raw/all"]
    arguments += ["-o", "u/few", "--cluster", "threads", *WITHOUT_DEFECTS, "-d", "exposure.seq_num < 5"]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code != 0
    words = " ".join(result.output.split())
    assert "2 failed" in words
    assert "none of its 16 amps can be used: " in words
    assert "linearizerPtc" not in repo.types_in("u/few")

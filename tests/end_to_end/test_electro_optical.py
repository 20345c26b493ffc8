"""Electro-optical pipelines on simulated raws against the truth of the simulation (TinyCam, two detectors)."""

import itertools

import numpy as np
import pytest
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.raw_fits.photodiode import is_reading
from camcal_dask.repo.butler.repository import open_repo
from camcal_dask.repo.incoming.photodiode import ingest_readings
from camcal_dask.simulation import SimulationConfig, bias_set, dark_set, flat_set, load_truth, schedule, simulate
from camcal_dask.simulation.config import (
    BiasLevel,
    Dark,
    Illumination,
    Photodiode,
    ReadNoise,
    SerialCti,
    ShotNoise,
)

DAY, N, RAWS = 20260812, 4, "TinyCam/raw/all"
CTI = 1e-4


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output


def run(root, pipeline, inputs, output, *more, code=0):
    options = ["-i", ",".join([*inputs, RAWS]), "-o", output, "--cluster", "threads", *more]
    return camcal("run", "-b", root, "-p", f"TinyCam/{pipeline}.yaml", *options, code=code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eo")
    config = SimulationConfig.ideal(
        read_noise=ReadNoise(),
        bias_level=BiasLevel(),
        dark=Dark(),
        illumination=Illumination(vignetting=False),
        shot_noise=ShotNoise(),
        serial_cti=SerialCti(global_cti=CTI, trap_size_e=0.0, drift_scale=0.0, scatter=0.0),
        photodiode=Photodiode(noise=0.0),
    )
    sets = [bias_set(N, DAY), dark_set(N, 60.0, DAY), flat_set(N, 10.0, DAY, physical_filter="r_57")]
    simulate(folder / "raw", "TinyCam", list(schedule(itertools.chain.from_iterable(sets), DAY)), [0, 1], config=config)
    root = folder / "repo"
    camcal("create", root, "--instrument", "TinyCam")
    camcal("ingest", root, folder / "raw", "--cluster", "threads")
    with open_repo(root, writeable=True) as repo:
        ingest_readings(repo, [str(p) for p in (folder / "raw").rglob("*") if p.is_file() and is_reading(str(p))])
    run(root, "biasBootstrap", [], "u/bias", "-d", f"exposure.seq_num < {N}")  # the last one is external
    run(root, "darkBootstrap", ["u/bias"], "u/dark")
    run(root, "flatBootstrap", ["u/dark", "u/bias"], "u/flat")
    return folder


@pytest.fixture(scope="module")
def truth(folder):
    return load_truth(folder / "raw")


def statistics(folder, kind, output):
    with open_repo(folder / "repo") as repo:
        return repo.stats(kind, output).load()


def test_biases(folder, truth):
    assert "eoBias in u/eo/bias: 2 done" in run(folder / "repo", "eoBias", ["u/bias"], "u/eo/bias")
    found = statistics(folder, "eoBias", "u/eo/bias")
    noise = (found["read_noise_boxes"] * truth.table("gain")).mean("exposure")
    np.testing.assert_allclose(noise, truth.table("read_noise"), rtol=0.1)
    correlation = found["raft_correlation"].isel(exposure=0).values
    off = correlation[np.isfinite(correlation) & (correlation < 0.99)]
    assert off.size == 2 * 16 * (2 * 16 - 1)
    assert abs(off.mean()) < 0.01
    assert (found["run_status"].sel(run_test=["bias.stability", "bias.spec_noise"]) >= 0).all()


def test_darks(folder, truth):
    run(folder / "repo", "eoDark", ["u/dark", "u/bias"], "u/eo/dark")
    found = statistics(folder, "eoDark", "u/eo/dark").isel(exposure=0)
    assert float(found["dark_current_median"].median()) == pytest.approx(truth.config.dark.rate_e_per_s, abs=0.02)
    defects = [truth.detector(d).defects for d in (0, 1)]
    hot = sum(int((d.hot_rate > 5.5).sum()) for d in defects)
    columns = sum(len(d.columns) for d in defects)
    assert abs(float(found["bright_pixels"].sum()) - hot) <= 0.1 * hot + 49 * columns
    run(folder / "repo", "eoPersistence", ["u/dark", "u/bias"], "u/eo/persistence")
    level = statistics(folder, "eoPersistence", "u/eo/persistence")
    assert level["run_test"].values.tolist() == ["persistence.level"]
    assert (level["run_status"] == 1).all()  # no light before these darks


def test_flats(folder):
    run(folder / "repo", "eoFlat", ["u/flat", "u/dark", "u/bias"], "u/eo/flat")
    found = statistics(folder, "eoFlat", "u/eo/flat")
    weight = found["scti_error"] ** -2
    scti = float((found["scti"] * weight).sum() / weight.sum())
    assert scti == pytest.approx(CTI, rel=0.1)  # the reference's acceptance test f
    assert (found["run_status"].sel(run_test="flat.scti") == 0).mean() > 0.9
    pcti = float((found["pcti"] * found["pcti_error"] ** -2).sum() / (found["pcti_error"] ** -2).sum())
    assert abs(pcti) < 5 * float((found["pcti_error"] ** -2).sum()) ** -0.5 * 1.5
    assert np.isfinite(found["photo_charge"]).all()
    assert float(found["gain_drift"].max()) < 0.02  # noise of 1700 pixels
    assert (found["run_status"].sel(run_test="flat.gain_stability") == 1).all()
    assert (found["run_status"].sel(run_test="flat.divisadero") >= 0).all()


def test_internal_and_external_exposures(folder):
    for role, seq_nums in (("internal", list(range(1, N))), ("external", [N])):
        run(folder / "repo", "verifyBias", ["u/bias"], f"u/{role}", "-c", f"verify.exposures={role}")
        found = statistics(folder, "verifyBias", f"u/{role}")
        assert found["seq_num"].values.tolist() == seq_nums
        assert set(found["role"].values) == {"construction" if role == "internal" else "verification"}
    only = ["-c", "verify.exposures=external", "-d", "exposure.seq_num = 1"]
    text = run(folder / "repo", "verifyBias", ["u/bias"], "u/none", *only, code=1)
    assert "of the 1 exposures selected, 1 made the candidate" in " ".join(text.split())

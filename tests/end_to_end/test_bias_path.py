"""From raw FITS files to a certified, verified bias, by the commands that a user types (TinyCam)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from camcal_dask.calibs.combined.combine import CombineConfig, combine
from camcal_dask.calibs.ptc.product import shared
from camcal_dask.cli import main
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.pixels.masks import NO_DATA
from camcal_dask.repo.butler.repository import open_repo
from camcal_dask.repo.cubes import products
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.cubes.layout import template
from camcal_dask.repo.storage import files
from camcal_dask.simulation import SimulationConfig, bias_set, load_truth, simulate
from camcal_dask.simulation.config import CosmicRays, Faults
from tests.ptc_data import solved

DAY = 20260812
N = 12
DEAD, NOISY = (0, "C12"), (2, "C05")
WHERE = f"exposure.day_obs = {DAY} AND exposure.seq_num > 1"


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output


def run(root, pipeline, inputs, output, *more, code=0):
    return camcal("run", "-b", root, "-p", f"TinyCam/{pipeline}.yaml", "-i", inputs, "-o", output,
                  "--cluster", "threads", *more, code=code)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A repository with raws of 4 detectors (one dead, one noisy amp), bias and verification."""
    folder = tmp_path_factory.mktemp("bias")
    config = SimulationConfig(faults=Faults(dead=(DEAD,), noisy=(NOISY,)), cosmic_rays=CosmicRays(enabled=False))
    simulate(folder / "raw", "TinyCam", bias_set(N, DAY, contaminated_first=True), config=config)
    root = folder / "repo"
    assert "4 detectors" in camcal("create", root, "--instrument", "TinyCam")
    assert f"{4 * N} ingested" in camcal("ingest", root, folder / "raw", "--cluster", "threads")
    run(root, "bias", "TinyCam/raw/all", "u/bias", "-d", WHERE)
    (folder / "verify.txt").write_text(run(root, "verifyBias", "u/bias,TinyCam/raw/all", "u/verify"))
    return folder


@pytest.fixture(scope="module")
def repo(folder):
    with open_repo(folder / "repo", writeable=True) as opened:
        yield opened


def truth_image(truth, detector):
    """Bias pattern of a detector [electron, nominal gain]."""
    pattern = np.asarray(truth.detector(detector).pattern, dtype=float)
    gains = np.array([amp.gain for amp in truth.instrument.detectors[detector].amps])
    return pattern * gains[:, None, None]


@pytest.mark.parametrize("detector", [1, 3])
def test_bias_agrees_with_the_truth_within_its_noise(folder, repo, detector):
    truth = load_truth(folder / "raw")
    expected = truth_image(truth, detector)
    bias = repo.open("bias", run="u/bias", detector=detector).isel(detector=0).load()
    assert (bias["mask"].values[bias["mask"].values != 0] == NO_DATA).all()
    bias = bias.isel(y=slice(expected.shape[1]), x=slice(expected.shape[2]))
    assert not bias["mask"].values.any()
    left = bias["image"].values - expected
    pull = left / np.sqrt(bias["variance"].values)
    assert abs(np.mean(left)) < 5 * np.std(left) / np.sqrt(left.size / 40)  # overscan medians tie ~40 pixels together
    # the scatter of 11 clipped inputs and two overscan medians: 1.06, and the 3-sigma clip shortens the error bars
    assert 1.0 < np.percentile(np.abs(pull), 68.27) < 1.25


def test_faults_are_found_by_name(folder, repo):
    text = (folder / "verify.txt").read_text()
    assert f"bad exposure {DAY * 100_000 + 1} (first of its set)" in text
    assert "bad amp R22_S00 C12" in text
    assert "bad amp R01_S00 C05" in text
    verdict = repo.open("verifyBias", run="u/verify")
    later = verdict.isel(exposure=slice(1, None))
    wrong = {
        (int(d), str(a))
        for d in later.detector.values
        for a in later.amp.values
        if not later["amp_success"].sel(detector=d, amp=a).values.all()
    }
    assert wrong == {DEAD, NOISY}
    assert not verdict["amp_success"].isel(exposure=0).values.any()
    assert verdict["role"].values.tolist() == ["verification"] + ["construction"] * (N - 1)
    assert verdict["first_in_set"].values.tolist() == [True] + [False] * (N - 1)


def test_read_noise_is_the_true_one(folder, repo):
    truth = load_truth(folder / "raw")
    measured = (
        repo.open("verifyBias", run="u/verify")["read_noise_adu"].isel(exposure=slice(1, None)).median("exposure")
    )
    expected = truth.table("read_noise") / truth.table("gain")
    ratio = measured.values / expected
    ratio[DEAD[0], list(measured.amp.values).index(DEAD[1])] = np.nan
    assert np.nanmedian(ratio) == pytest.approx(0.987, abs=0.01)  # 3-sigma clipping: reference/verification.md 0.5


def test_strict_exits_non_zero(folder):
    output = run(folder / "repo", "verifyBias", "u/bias,TinyCam/raw/all", "u/strict", "--strict", code=1)
    assert "FAILED" in output
    clean = "exposure.seq_num > 1 AND detector IN (1, 3)"
    run(folder / "repo", "verifyBias", "u/bias,TinyCam/raw/all", "u/clean", "--strict", "-d", clean)


def test_notebook_gives_the_same_bits(repo):
    raw = repo.raws(WHERE, detectors=[0, 3])
    lazy = combine(isr(raw, config=IsrConfig(gains="nominal")),
                   CombineConfig(reject_mask=("DETECTED", "INTRP")))  # fmt: skip
    assert "C10" in lazy._repr_html_()
    assert len(lazy._repr_html_()) < 60_000
    computed = lazy.compute(scheduler="threads")
    written = repo.open("bias", run="u/bias", detector=[0, 3])
    for name in ("image", "variance", "mask", "distribution"):
        np.testing.assert_array_equal(computed[name].values, written[name].values)


@pytest.mark.cluster
def test_processes_give_the_same_bits(folder, repo):
    output = camcal(
        "run", "-b", folder / "repo", "-p", "TinyCam/bias.yaml", "-i", "TinyCam/raw/all",
        "-o", "u/processes", "-d", WHERE, "-j", 2,
    )  # fmt: skip
    assert "4 done" in output
    one, two = (repo.open("bias", run=r).load() for r in ("u/bias", "u/processes"))
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name].values, two[name].values)


def test_dry_run_prints_the_plan_and_does_nothing(folder, repo):
    output = run(folder / "repo", "bias", "TinyCam/raw/all", "u/dry", "-d", WHERE, "--dry-run")
    for text in ("detectors (quanta)", "dask tasks", "peak memory per task", "raw pixels"):
        assert text in output
    assert not repo.collections("u/dry")


def test_repeating_a_run_skips_what_is_there(folder):
    assert "4 skipped" in run(folder / "repo", "bias", "TinyCam/raw/all", "u/bias", "-d", WHERE)
    output = run(folder / "repo", "bias", "TinyCam/raw/all", "u/bias", "-d", WHERE, "-c", "isr.dither=none", code=1)
    assert "was started with other settings" in output


def test_certified_bias_is_found_by_exposure(folder, repo):
    root = folder / "repo"
    assert "has not been approved" in camcal("certify", root, "u/bias", "u/calib", "bias", code=1)
    camcal("approve", root, "u/bias", "--by", "Ada", "--override", "the faults were simulated on purpose")
    camcal(
        "certify", root, "u/bias", "u/calib", "bias", "--begin-date", "2026-08-12T12:00:00", "--end-date", "20260813"
    )
    exposure = DAY * 100_000 + 3
    assert "u/bias" in camcal("which", root, "bias", "--exposure", exposure, "--detector", "R22_S11", "-i", "u/calib")
    code = (
        "import sys; from lsst.daf.butler import Butler\n"
        "b = Butler.from_config(sys.argv[1], instrument='TinyCam')\n"
        f"bias = b.get('bias', exposure={exposure}, detector=1, collections='u/calib')\n"
        f"raw = b.get('raw', exposure={exposure}, detector=1, collections='TinyCam/raw/all')\n"
        "print(bias['image'].attrs['units'], bias.attrs['units'], dict(raw.sizes))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("electron electron")
    overlap = camcal("certify", root, "u/processes2", "u/calib", "bias", code=1)
    assert "u/processes2" in overlap


def test_one_bad_detector_never_costs_the_others(folder, repo):
    root = folder / "repo"
    uri = cubes.raw_cube_uri(str(root), "TinyCam", DAY * 100_000 + 5)
    shard = next(p for p in Path(uri, "raw", "c", "5", "2").rglob("*") if p.is_file())
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    try:
        output = run(root, "bias", "TinyCam/raw/all", "u/broken", "-d", WHERE, code=1)
    finally:
        shard.write_bytes(whole)
    assert "3 done, 1 failed" in output
    assert "failed: detector 2" in output
    assert "damaged" in output
    assert repo.open("bias", run="u/broken").detector.values.tolist() == [0, 1, 3]
    repaired = run(root, "bias", "TinyCam/raw/all", "u/broken", "-d", WHERE)
    assert "1 done, 3 skipped" in repaired
    for name in ("image", "mask"):
        np.testing.assert_array_equal(
            repo.open("bias", run="u/broken")[name].values, repo.open("bias", run="u/bias")[name].values
        )


def test_every_run_leaves_its_record(folder, repo):
    record = repo.butler.get("runRecord", instrument="TinyCam", collections="u/bias")["attempts"][0]
    assert record["exposures"] == [DAY * 100_000 + s for s in range(2, N + 1)]
    assert record["state"] == "done"
    assert record["counts"]["done"] == 4
    assert record["versions"]["camcal_dask"]
    assert record["recipe"]["isr"]["gains"] == "nominal"


def test_bootstrap_bias_is_verified_in_adu(folder, repo):
    root = folder / "repo"
    run(root, "biasBootstrap", "TinyCam/raw/all", "u/bootstrap", "-d", WHERE)
    run(root, "verifyBias", "u/bootstrap,TinyCam/raw/all", "u/bootstrap.verify", "-d", WHERE)
    assert repo.open("verifyBias", run="u/bootstrap.verify").attrs["units"] == "adu"
    assert repo.open("biasBootstrap", run="u/bootstrap").attrs["units"] == "adu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "TinyCam/bais.yaml"], "did you mean 'TinyCam/bias.yaml'"),
        (["-p", "bais"], "did you mean 'bias'"),
        (["-c", "isr.gain=nominal"], "did you mean 'gains'"),
        (["-d", "exposure.seq_num = 999"], "finds none"),
        (["-i", "TinyCam/raw/al"], "did you mean 'TinyCam/raw/all'"),
        (["-p", "LSSTCam/bias.yaml"], "LSSTCam"),
        (["-p", "TinyCam/verifyBias.yaml"], "name the RUN of the candidate first"),
        (["--cluster", "nowhere"], "no cluster profile 'nowhere'"),
    ],
)
def test_mistakes_get_one_clear_message(folder, arguments, message):
    base = {"-b": folder / "repo", "-p": "TinyCam/bias.yaml", "-i": "TinyCam/raw/all", "-o": "u/x", "-d": WHERE}
    base |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    result = CliRunner().invoke(main, ["run", *(str(v) for pair in base.items() for v in pair)])
    assert result.exit_code == 1
    assert result.output.startswith("Error:")
    assert message in " ".join(result.output.split())


def test_mixed_camera_states_are_refused(folder, repo):
    uri = cubes.raw_cube_uri(str(folder / "repo"), "TinyCam", DAY * 100_000 + 7)
    manifest = cubes.read_raw_manifest(uri, 7, 1)
    changed = json.loads(json.dumps(manifest)) | {"header": manifest["header"] | {"SEQFILE": "other.seq"}}
    cubes.write_raw_manifest(uri, 7, 1, changed)
    try:
        output = run(folder / "repo", "bias", "TinyCam/raw/all", "u/mixed", "-d", WHERE, code=1)
    finally:
        cubes.write_raw_manifest(uri, 7, 1, manifest)
    assert "detector 1 (R22_S11): the exposures were read out in different camera states: SEQFILE" in output
    assert isinstance(repo.open("bias", run="u/mixed"), xr.Dataset)


def test_the_references_of_a_verification_are_those_of_the_curve_that_the_inputs_hold(folder, repo):
    """The curve says 30 % more noise, and has no fit for one amp; a bias in electron is corrected with its gains."""
    root = folder / "repo"
    camera = repo.instrument()
    layout = template("ptc", camera, {"provenance_id": "p"}, shared(solved(n_pair=4), 3))
    amps = camera.detectors[0].amps
    numbers = {
        "gain": np.array([a.gain * 1.1 for a in amps]),
        "noise": np.array([a.read_noise * 1.3 for a in amps]),
        "noise_err": np.full(16, 1e-6),
    }
    numbers["gain"][3] = np.nan
    arrays = {n: np.zeros(v.shape[1:], v.dtype) for n, v in layout.data_vars.items() if v.dims[:1] == ("detector",)}
    uri = files.join(repo.root, "cubes", "u/curve", "ptc.zarr")
    products.create_product(uri, layout)
    products.write_product(uri, 0, arrays | numbers)
    repo.register_dataset_type("ptc", ("instrument", "detector"), True)
    repo.register_product("u/curve", "ptc", uri, [{"instrument": "TinyCam", "detector": 0}])
    run(root, "biasBootstrap", "TinyCam/raw/all", "u/again", "-d", f"{WHERE} AND detector = 0")
    for candidate, units in (("u/bias", "electron"), ("u/again", "adu")):
        inputs, output = f"{candidate},u/curve,TinyCam/raw/all", f"{candidate}.curve"
        text = run(root, "verifyBias", inputs, output, "-d", "detector = 0")
        assert "references: ptc of u/curve, camera model for 1 of 16 amps" in " ".join(text.split())
        verdict = repo.open("verifyBias", run=f"{candidate}.curve").load()
        assert verdict.attrs["units"] == units
        assert verdict.attrs["references"].startswith("ptc of u/curve")
        expected = np.arange(16) != 3
        np.testing.assert_array_equal(verdict["from_ptc"].values[0], expected)
        np.testing.assert_allclose(verdict["gain"].values[0][expected], numbers["gain"][expected])
        noise = (verdict["noise_expected"] * verdict["to_electron"]).values[0]
        np.testing.assert_allclose(noise[expected], numbers["noise"][expected])
    assert repo.open("verifyBias", run="u/verify").attrs["references"] == "camera model"

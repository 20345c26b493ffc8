"""Bias, dark, flat and defects of simulated raws against the truth, by the commands that a user types (TinyCam)."""

import itertools

import numpy as np
import pytest
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.instruments.focal_plane import assemble
from camcal_dask.kernels.defects import COLUMN, DARK, EDGE, FLAT, compare_defects
from camcal_dask.kernels.masks import BAD
from camcal_dask.kernels.regions import boxes_to_mask
from camcal_dask.repo import products
from camcal_dask.repo.registry import open_repo
from camcal_dask.simulate import SimulationConfig, bias_set, dark_set, flat_set, load_truth, schedule, simulate
from camcal_dask.simulate.config import CosmicRays, Crosstalk, SerialCti

DAY = 20260812
N, FLAT_S, DARK_S = 9, 10.0, 60.0
CHAIN = "flatBootstrap,defects,dark,darkBootstrap,bias,biasBootstrap"
FIRST = {"bias": 1, "dark": N + 1, "r_57": 2 * N + 1, "i_39": 3 * N + 1}


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Raws of 4 detectors: biases, darks full of cosmic rays, flats of two filters; and all that the chain makes."""
    folder = tmp_path_factory.mktemp("chain")
    config = SimulationConfig(
        cosmic_rays=CosmicRays(rate_per_cm2_s=2.0),
        crosstalk=Crosstalk(enabled=False),
        serial_cti=SerialCti(enabled=False),
    )
    sets = [bias_set(N, DAY), dark_set(N, DARK_S, DAY)]
    sets += [flat_set(N, FLAT_S, DAY, physical_filter=f) for f in ("r_57", "i_39")]
    simulate(folder / "raw", "TinyCam", list(schedule(itertools.chain.from_iterable(sets), DAY)), config=config)
    root = folder / "repo"
    camcal("create", root, "--instrument", "TinyCam")
    camcal("ingest", root, folder / "raw", "--cluster", "threads")
    (folder / "chain.txt").write_text(camcal("chain", root, "-p", CHAIN, "-o", "u", "--cluster", "threads"))
    return folder


@pytest.fixture(scope="module")
def truth(folder):
    return load_truth(folder / "raw")


@pytest.fixture(scope="module")
def repo(folder):
    with open_repo(folder / "repo") as opened:
        yield opened


def image(repo, product, run, detector):
    return repo.open(product, run=run, detector=detector).isel(detector=0).load()


def true_dark(truth, detector, shape):
    """Dark current [electron/s] with hot pixels and columns; whether a pixel is hot."""
    known = truth.detector(detector).defects
    rate = np.full(shape, truth.config.dark.rate_e_per_s)
    for a, x in known.columns:
        rate[a, :, x] += known.column_rate[(known.columns == [a, x]).all(axis=1)].sum()
    box = truth.instrument.detectors[detector].amps[0].data
    for (a, y, x), extra in zip(known.hot, known.hot_rate, strict=True):
        rate[a, y - box.y0, x - box.x0] += extra
    return rate


def test_the_order_follows_from_the_needs_and_the_choice_is_explained(folder):
    text = (folder / "chain.txt").read_text()
    places = [text.index(f"\n{name}: ") for name in ("biasBootstrap", "darkBootstrap", "flatBootstrap", "defects")]
    assert places == sorted(places)
    assert text.index("\nbias: ") < text.index("\ndark: ")
    first = DAY * 100_000 + FIRST["dark"]
    assert f"1 left out: the first of their set, kept for the verification ({first})" in text
    assert f"{N - 1} chosen: {first + 1} .. {first + N - 1}" in text
    assert "verifyBias in u/biasBootstrap.verify" in text


def test_dark_is_the_true_dark_current(repo, truth):
    pulls = []
    for detector in (0, 3):
        dark = image(repo, "dark", "u/dark", detector)
        gains = np.array([amp.gain for amp in truth.instrument.detectors[detector].amps])
        true = truth.detector(detector).tables["gain"]
        expected = true_dark(truth, detector, dark["image"].shape) * (gains / true)[:, None, None]
        cool = expected < 1
        assert dark.attrs["units"] == "electron/s"
        assert not (dark["mask"].values & BAD).any()
        pull = (dark["image"].values - expected) / np.sqrt(dark["variance"].values)
        pulls.append(np.percentile(np.abs(pull[cool]), 68.27))
        # read noise over 8 darks of 60 s, less what the clip takes: cosmic rays are gone
        assert np.std(dark["image"].values[cool]) < 1.4 * 6.5 / np.sqrt(N - 1) / DARK_S
        assert abs(np.median(dark["image"].values[cool]) - 0.02) < 0.005
        hot = (expected > 5) & (expected < 200)
        ratio = dark["image"].values[hot] / expected[hot]
        assert hot.sum() > 100
        np.testing.assert_allclose(np.median(ratio), 1.0, atol=0.02)
        assert np.mean(np.abs(ratio - 1) < 0.15) > 0.97
    print("dark pulls", pulls)


def test_flat_is_the_true_response_and_keeps_the_throughput(repo, truth):
    flats = {d: image(repo, "flatBootstrap", "u/flatBootstrap/r_57", d) for d in range(4)}
    levels = {}
    for detector, flat in flats.items():
        response = np.asarray(truth.detector(detector).response["r_57"], float)
        true = truth.detector(detector).tables["gain"]
        ratio = flat["image"].values / (response / true[:, None, None])
        levels[detector] = np.median(ratio)
        cold = response < 0.6 * np.median(response)
        error = np.sqrt(flat["variance"].values) / flat["image"].values
        pull = (ratio / np.median(ratio, axis=(1, 2), keepdims=True) - 1) / error
        print("flat", detector, levels[detector], np.percentile(np.abs(pull[~cold]), 68.27), np.median(error))
    values = np.array(list(levels.values()))
    assert np.ptp(values) / values.mean() < 0.02
    mean = np.mean([flat["image"].values.mean() for flat in flats.values()])
    assert mean == pytest.approx(1.0, abs=0.01)


def test_defects_are_the_true_ones(repo, truth):
    found, known, ignore = [], [], []
    for detector in range(4):
        camera = truth.instrument.detectors[detector]
        defects = image(repo, "defects", "u/defects", detector)
        bits = assemble(defects["defects"].values, camera)
        hot = true_dark(truth, detector, defects["defects"].shape) > 3.0
        cold = np.asarray(truth.detector(detector).response["r_57"]) < 0.7
        known.append(assemble(hot | cold, camera))
        found.append((bits & (DARK | FLAT | COLUMN)) > 0)
        ignore.append((bits & EDGE) > 0)
        record = products.product_record(repo.datasets("defects", "u/defects")[0].uri, detector)
        np.testing.assert_array_equal(boxes_to_mask(record["boxes"], bits.shape), bits > 0)
    recovery = compare_defects(np.concatenate(found), np.concatenate(known), np.concatenate(ignore))
    print(recovery)
    assert recovery.n_known > 500
    assert recovery.completeness > 0.98
    assert recovery.purity > 0.95

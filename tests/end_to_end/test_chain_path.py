"""Bias, dark, flat and defects of simulated raws against the truth, by the commands that a user types (TinyCam)."""

import itertools

import numpy as np
import pytest
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.instruments.focal_plane import assemble
from camcal_dask.kernels.pixels.defects import COLUMN, DARK, EDGE, FLAT, compare_defects
from camcal_dask.kernels.pixels.masks import BAD, NO_DATA, bits
from camcal_dask.kernels.pixels.regions import boxes_to_mask
from camcal_dask.repo.butler.repository import open_repo
from camcal_dask.repo.cubes import products
from camcal_dask.simulation import SimulationConfig, bias_set, dark_set, flat_set, load_truth, schedule, simulate
from camcal_dask.simulation.config import CosmicRays, Crosstalk, SerialCti
from camcal_dask.verify.judging.levels import NOT_EVALUATED, PASS
from tests.declared import assert_declared

DAY = 20260812
N, FLAT_S, DARK_S = 9, 10.0, 60.0
CHAIN = "flat,flatBootstrap,defects,dark,darkBootstrap,bias,biasBootstrap"
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


def run(root, pipeline, inputs, output, *more, code=0):
    return camcal("run", "-b", root, "-p", f"TinyCam/{pipeline}.yaml", "-i", inputs, "-o", output,
                  "--cluster", "threads", *more, code=code)  # fmt: skip


def image(repo, product, run, detector):
    return repo.open(product, run=run, detector=detector).isel(detector=0).load()


def test_the_order_follows_from_the_needs_and_the_choice_is_explained(folder):
    text = (folder / "chain.txt").read_text()
    at = {name: text.index(f"\n{name}: ") for name in CHAIN.split(",")}
    assert at["biasBootstrap"] < min(at["darkBootstrap"], at["flatBootstrap"])
    assert at["defects"] > max(at["darkBootstrap"], at["flatBootstrap"])
    assert max(at["bias"], at["defects"]) < at["dark"]
    first = DAY * 100_000 + FIRST["dark"]
    assert f"1 left out: the first of their set, kept for the verification ({first})" in text
    assert f"{N - 1} chosen: {first + 1} .. {first + N - 1}" in text
    for product in CHAIN.split(","):
        kind = product.removesuffix("Bootstrap")
        runs = [f"u/{product}/{f}" for f in ("r_57", "i_39")] if kind == "flat" else [f"u/{product}"]
        for run_of_it in runs:
            assert f"verify{kind.capitalize()} in {run_of_it}.verify: 4 done" in text


def test_all_that_is_stored_is_declared(repo):
    for product in CHAIN.split(","):
        kind = product.removesuffix("Bootstrap")
        at = f"u/{product}/r_57" if kind == "flat" else f"u/{product}"
        assert_declared(repo.open(product, run=at), product)
        statistics = repo.open(f"verify{kind.capitalize()}", run=f"{at}.verify")
        assert_declared(statistics, f"verify{kind.capitalize()}")
        assert statistics["noise_expected"].attrs["units"] == statistics.attrs["units"]


def test_verifications_apply_the_candidate_and_what_belongs_beside_it(repo):
    flat = repo.open("verifyFlat", run="u/flat/r_57.verify")
    assert flat.attrs["calibration"] == "flat"
    assert flat.attrs["candidate"] == ["flat"]
    assert set(flat.attrs["calibs"]) == {"flat", "bias", "dark", "defects"}
    assert flat.attrs["units"] == "electron"
    assert flat["role"].values.tolist() == ["verification"] + ["construction"] * (N - 1)
    assert flat["first_in_set"].values.tolist() == [True] + [False] * (N - 1)
    assert flat["run_success"]  # vignetted amps included
    bootstrap = repo.open("verifyDark", run="u/darkBootstrap.verify")
    assert bootstrap.attrs["candidate"] == ["darkBootstrap"]
    assert bootstrap.attrs["units"] == "adu"
    dark = repo.open("verifyDark", run="u/dark.verify")
    halves = dark["status"].sel(test=["dark.split_mean", "dark.split_noise"])
    assert (halves != NOT_EVALUATED).any(("exposure", "test")).all()
    assert (halves == PASS).mean() > 0.9
    defects = repo.open("verifyDefects", run="u/defects.verify")
    assert defects["run_success"]
    assert set(np.unique(defects["physical_filter"].values)) == {"i_39"}
    assert (defects["n_defect"].isel(exposure=0) > 0).all()


def test_noise_of_an_exposure_that_made_the_flat_is_less_than_of_another(repo):
    """x - mean(x) of n exposures scatters by (n - 1)/n, an independent one by (n + 1)/n."""
    flat = repo.open("verifyFlat", run="u/flat/r_57.verify").isel(detector=[0, 1])
    excess = (flat["noise"] ** 2 - flat["flat_variance_expected"]) / flat["shot_variance"]
    made, other = excess.groupby("role").median(...).values  # alphabetical: construction, verification
    assert abs(made - other) < 0.06
    assert -0.12 < min(made, other) <= max(made, other) < 0.02  # the brighter-fatter effect takes up to 9 %
    expected = (flat["flat_variance_expected"] / flat["shot_variance"]).groupby("role").median(...)
    assert expected.diff("role") > 1 / (N - 1)


def test_dark_is_the_true_dark_current(repo, truth):
    for detector in (0, 3):
        dark = image(repo, "dark", "u/dark", detector)
        gains = np.array([amp.gain for amp in truth.instrument.detectors[detector].amps])
        true = truth.detector(detector).tables["gain"]
        expected = truth.dark_rate(detector, dark["image"].shape) * (gains / true)[:, None, None]
        inside = np.isfinite(expected)
        assert dark.attrs["units"] == dark["image"].attrs["units"] == "electron/s"
        assert not (dark["mask"].values[inside] & BAD).any()
        cool = dark["image"].values[expected < 1]
        # read noise of 8 darks and 8 biases with their two overscan medians (10 columns, 8 rows), and shot noise
        read = np.mean(truth.detector(detector).tables["read_noise"]) * np.sqrt(2 * (1 + np.pi / 20 + np.pi / 16))
        noise = np.hypot(read, np.sqrt(0.02 * DARK_S)) / np.sqrt(N - 1) / DARK_S
        assert np.std(cool) == pytest.approx(noise, rel=0.1)
        assert np.abs(cool - 0.02).max() < 8 * noise  # cosmic rays of 700 electron are gone
        assert abs(np.median(cool) - 0.02) < 0.005
        hot = (expected > 5) & (expected < 200)
        ratio = dark["image"].values[hot] / expected[hot]
        assert hot.sum() > 50
        assert np.median(ratio) == pytest.approx(1.0, abs=0.03)
        assert np.mean(np.abs(ratio - 1) < 0.2) > 0.95


def test_flat_is_the_true_response_and_keeps_the_throughput(repo, truth):
    levels, means = [], []
    for detector in range(4):
        flat = image(repo, "flatBootstrap", "u/flatBootstrap/r_57", detector)
        means.append(np.nanmean(flat["image"].values))
        assert flat.attrs["physical_filter"] == "r_57"
        if detector == 2:  # at the edge of the field: half dark
            continue
        response = truth.light_response(detector, "r_57", flat["image"].shape)
        ratio = flat["image"].values / response
        amp_level = np.nanmedian(ratio, axis=(1, 2), keepdims=True)
        # hot pixels stay in a flat that no dark was subtracted from
        good = (response > 0.8 * np.nanmedian(response)) & (truth.dark_rate(detector, response.shape) < 1)
        error = (np.sqrt(flat["variance"].values) / flat["image"].values)[good]
        left = (ratio / amp_level - 1)[good]
        before = (flat["image"].values / np.nanmedian(flat["image"].values, axis=(1, 2), keepdims=True) - 1)[good]
        assert np.percentile(np.abs(left), 68.27) < 0.75 * np.percentile(np.abs(before), 68.27)
        assert np.percentile(np.abs(left), 68.27) < 1.3 * np.median(error)
        true = truth.detector(detector).tables["gain"]
        levels.append(np.median(amp_level[:, 0, 0] * true))
        final = image(repo, "flat", "u/flat/r_57", detector)
        gains = np.array([amp.gain for amp in truth.instrument.detectors[detector].amps])
        ratio = np.nanmedian(final["image"].values / flat["image"].values, axis=(1, 2)) / gains
        assert np.ptp(ratio) / ratio.mean() < 2e-3  # the same flat, in electron
        assert final["image"].attrs["units"] == "1"
    assert np.ptp(levels) / np.mean(levels) < 0.08  # the roll-off of the lamp, which the flat keeps
    assert np.mean(means) == pytest.approx(1.0, abs=0.02)
    assert means[2] < 0.6


LIGHT = bits(["NO_DATA", "VIGNETTED", "PARTLY_VIGNETTED"])


@pytest.mark.parametrize(
    ("product", "place", "planes"),
    [
        ("bias", "u/bias", BAD),
        ("dark", "u/dark", BAD),
        ("flatBootstrap", "u/flatBootstrap/r_57", BAD),
        ("flat", "u/flat/r_57", BAD | LIGHT),
    ],
)
def test_masks_of_products_hold_only_what_they_may(repo, product, place, planes):
    """reference/isr.md 7.10: BAD, and in final flats what says where no light falls; padding is NO_DATA."""
    for detector in range(4):
        found = image(repo, product, place, detector)
        padding, mask = np.isnan(found["image"].values), found["mask"].values
        assert not (mask[~padding] & ~planes).any()
        assert (mask[padding] & NO_DATA).all()
        attrs = found["mask"].attrs
        meanings = dict(zip(attrs["flag_meanings"].split(), attrs["flag_masks"], strict=True))
        assert (meanings["BAD"], meanings["NO_DATA"]) == (BAD, NO_DATA)


@pytest.fixture(scope="module")
def remeasured(folder):
    run(folder / "repo", "defectsAfterFlats", "u/bias,u/dark,u/flat", "u/defects.final")
    return "u/defects.final"


@pytest.mark.parametrize("after_flats", [False, True])
def test_defects_are_the_true_ones(repo, truth, remeasured, after_flats):
    place = remeasured if after_flats else "u/defects"
    found, known, ignore = [], [], []
    uri = repo.datasets("defects", place)[0].uri
    for detector in range(4):
        camera = truth.instrument.detectors[detector]
        defects = image(repo, "defects", place, detector)
        bits = assemble(defects["defects"].values, camera)
        shape = defects["defects"].shape
        hot = truth.dark_rate(detector, shape) > 3.0
        known.append(assemble(truth.bad_pixels(detector, "r_57", shape, hot=3.0, cold=0.7), camera))
        found.append((bits & (DARK | FLAT | COLUMN)) > 0)
        ignore.append((bits & EDGE) > 0)
        record = products.product_record(uri, detector)
        np.testing.assert_array_equal(boxes_to_mask(record["boxes"], bits.shape), bits > 0)
        assert defects["n_pixels"].sel(reason="DARK").sum() > 0.9 * np.count_nonzero(hot)
    recovery = compare_defects(*(np.concatenate([m.ravel() for m in masks]) for masks in (found, known, ignore)))
    assert recovery.n_known > 500
    assert recovery.completeness > 0.97
    assert recovery.purity > 0.95


def test_worker_processes_make_the_same_bits(folder, repo):
    products_made = "biasBootstrap,darkBootstrap,flatBootstrap,defects"
    where = f"detector IN (0, 3) AND exposure.seq_num <= {3 * N}"  # one filter
    text = camcal("chain", folder / "repo", "-p", products_made, "-o", "p", "--cluster", "local", "-j", 2, "-d", where)
    assert "verifyDefects in p/defects.verify: 2 done" in text
    for product, place in (("darkBootstrap", "darkBootstrap"), ("flatBootstrap", "flatBootstrap/r_57")):
        for detector in (0, 3):
            here, there = (image(repo, product, f"{prefix}/{place}", detector) for prefix in "pu")
            for name in ("image", "variance", "mask", "halves") if product == "darkBootstrap" else ("mask",):
                np.testing.assert_array_equal(here[name], there[name])
            # the scales of the flats are those of two detectors instead of four
            ratio = (here["image"] / there["image"]).values
            assert np.nanstd(ratio) / np.nanmean(ratio) < 1e-3


def test_mixed_filters_are_refused(folder):
    text = run(folder / "repo", "flatBootstrap", "u/biasBootstrap,u/darkBootstrap,TinyCam/raw/all", "u/mixed", code=1)
    assert "2 filters: i_39 (9), r_57 (9)" in text
    assert "-d \"physical_filter='i_39'\"" in " ".join(text.split())


def test_a_flat_is_looked_up_by_filter_and_a_repeated_run_skips(folder, repo):
    exposure = DAY * 100_000 + FIRST["i_39"]
    assert repo.find_calib("flatBootstrap", exposure, 2, "u/flatBootstrap").run == "u/flatBootstrap/i_39"
    again = camcal(
        "chain", folder / "repo", "-p", "flatBootstrap", "-i", "u/biasBootstrap,u/darkBootstrap,TinyCam/raw/all",
        "-o", "u", "--cluster", "threads",
    )  # fmt: skip
    assert again.count("4 skipped") == 4  # the flats of two filters and their verifications


def test_what_is_missing_is_named(folder):
    root = folder / "repo"
    text = " ".join(camcal("chain", root, "-p", "defects", "-o", "v", "--cluster", "threads", code=1).split())
    assert "defects needs biasBootstrap, which is neither in -p nor in TinyCam/raw/all" in text
    text = run(root, "dark", "u/biasBootstrap,TinyCam/raw/all", "v/dark", code=1)
    assert "no bias, which dark needs for its ISR" in " ".join(text.split())
    arguments = ["-p", "biasBootstrap,darkBootstrap", "-o", "v", "-d", "exposure.seq_num < 10", "--cluster", "threads"]
    text = " ".join(camcal("chain", root, *arguments, code=1).split())
    assert "chain stopped at darkBootstrap" in text
    assert "done: v/biasBootstrap not tried: nothing" in text

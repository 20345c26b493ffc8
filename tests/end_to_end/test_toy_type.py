"""Adding a calibration type edits no file: two types of a package from outside go through every command.

The package is installed beside camcal_dask and the commands run in processes of their own, so that workers of a real
cluster find it as those of a site would: by its entry point.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import camcal_dask
from camcal_dask.cli import main
from camcal_dask.repo.butler.repository import open_repo
from camcal_dask.simulation import bias_set, simulate

pytestmark = [pytest.mark.timeout(600), pytest.mark.cluster]
DAY = 20260812
TOY = Path(__file__).parents[1] / "toy"
SESSION = """
import json, sys
from camcal_dask.cli import main
for arguments in json.loads(sys.argv[1]):
    print(">>>", *arguments, flush=True)
    try:
        main(arguments)
    except SystemExit as end:
        if end.code:
            raise
"""


def install(folder):
    """What ``pip install --no-deps --target folder tests/toy`` leaves, without a build tool."""
    project = tomllib.loads((TOY / "pyproject.toml").read_text())["project"]
    shutil.copytree(TOY / project["name"], folder / project["name"], ignore=shutil.ignore_patterns("__pycache__"))
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items())
        for group, named in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Repository with five biases of TinyCam, and the toy installed in ``site``."""
    folder = tmp_path_factory.mktemp("toy")
    install(folder / "site")
    simulate(folder / "raw", "TinyCam", bias_set(5, DAY))
    for arguments in (["create", "repo", "--instrument", "TinyCam"], ["ingest", "repo", folder / "raw"]):
        words = [str(folder / "repo") if a == "repo" else str(a) for a in arguments]
        words += ["--cluster", "threads"] if words[0] == "ingest" else []
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def camcal(folder):
    """Run commands one after the other in a process that has the toy installed; what they print."""
    paths = [str(folder / "site"), str(Path(camcal_dask.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def run(*commands, code=0):
        words = json.dumps([[str(word) for word in command] for command in commands])
        done = subprocess.run(
            [sys.executable, "-c", SESSION, words], env=environment, cwd=folder, capture_output=True, text=True
        )
        text = done.stdout + done.stderr
        assert done.returncode == code, text
        return text

    return run


def run_of(pipeline, output, inputs="TinyCam/raw/all", cluster="threads"):
    return ["run", "-b", "repo", "-p", f"TinyCam/{pipeline}.yaml", "-i", inputs, "-o", output,
            "--cluster", cluster, "-j", "2"]  # fmt: skip


@pytest.fixture(scope="module")
def sky(folder, camcal):
    """The image ``u/sky``: planned, made by processes with one detector that fails, resumed; what was printed."""
    command = run_of("toySky", "u/sky", cluster="local")
    planned = camcal([*command, "--dry-run", "--list-quanta", "--save-plan", "plan.json"])
    (cube,) = (folder / "repo" / "cubes" / "raw" / "TinyCam").glob("*.zarr")
    shard = next(p for p in (cube / "raw" / "c" / "2" / "1").rglob("*") if p.is_file())
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 3])
    try:
        failed = camcal(command, code=1)
    finally:
        shard.write_bytes(whole)
    return planned, failed, camcal(command)


def test_plan_names_every_quantum(folder, sky):
    planned = sky[0]
    assert "toy_sky -> toySky (Median of biases)" in planned
    assert len(re.findall(r"toy_sky detector \d: 5 raws .* -> toySky instrument=TinyCam detector=\d", planned)) == 4
    saved = json.loads((folder / "plan.json").read_text())
    assert [q["detector"] for q in saved["quanta"]] == [0, 1, 2, 3]
    assert saved["recipe"]["sky"] == {"most": 100}


def test_a_detector_fails_alone_and_the_same_command_makes_it(folder, sky):
    assert "3 done, 1 failed" in sky[1]
    assert "failed: detector 1:" in " ".join(sky[1].split())
    assert "1 done, 3 skipped" in sky[2]


def test_the_pixels_are_the_median_of_the_exposures(folder, sky):
    with open_repo(str(folder / "repo")) as repo:
        product = repo.open("toySky", run="u/sky")
        assert product.attrs["units"] == "electron"
        pixels = product["sky"].load()
        assert abs(float(pixels.median())) < 1
        assert 0.3 < float(pixels.std()) / 6 < 0.9  # read noise / sqrt(5), times 1.25 for a median
        np.testing.assert_array_equal(product["n_input"], 5)


@pytest.fixture(scope="module")
def rest(folder, camcal, sky):
    """Everything else that a user does with both types, in one process."""
    both = "u/levels,u/sky,TinyCam/raw/all"
    begin = ["--begin-date", "2026-08-12T12:00:00", "--by", "Ada"]
    commands = [
        run_of("toyLevels", "u/levels", "u/sky"),
        run_of("verifyToySky", "u/sky.verify", both),
        run_of("verifyToyLevels", "u/levels.verify", both),
        ["report", "repo", "u/sky", "-o", "of_sky"],
        ["report", "repo", "u/levels", "-o", "of_levels"],
        ["show", "repo", "toySky", "-i", "u/sky", "--detector", "0", "-o", "sky.png"],
        ["figures", "repo", "u/levels", "-o", "figures", "--detector", "R22_S00"],
        ["stats", "repo", "verifyToyLevels", "-q", "level", "--by", "run"],
        ["export", "repo", "toyLevels", "exported", "-i", "u/levels"],
        ["chain", "repo", "-p", "toyLevels,toySky", "-o", "c", "--cluster", "threads"],
        ["approve", "repo", "u/sky", "--by", "Ada"],
        ["approve", "repo", "u/levels", "--by", "Ada"],
        ["certify", "repo", "u/sky", "calib/toy", "toySky", *begin],
        ["certify", "repo", "u/levels", "calib/toy", "toyLevels", *begin],
        ["which", "repo", "toyLevels", "--exposure", f"{DAY}00003", "--detector", "2", "-i", "calib/toy"],
    ]
    printed = camcal(*commands)
    names, texts = (re.findall(r">>> (\w+)", printed), re.split(r">>> .*\n", printed)[1:])
    files = sorted((folder / "exported").iterdir())
    return list(zip(names, texts, strict=True)), camcal(["import", *files, "repo", "-o", "u/imported"])


def printed_by(rest, name):
    return "".join(text for found, text in rest[0] if found == name)


def test_both_are_verified_by_their_own_tests(folder, rest):
    assert printed_by(rest, "run").count("passed") >= 2
    with open_repo(str(folder / "repo")) as repo:
        for kind, run, tests in (
            ("verifyToySky", "u/sky.verify", ["toy_sky.mean", "toy_sky.noise"]),
            ("verifyToyLevels", "u/levels.verify", ["toy_levels.level"]),
        ):
            verdict = repo.open(kind, run=run)
            assert verdict["test"].values.tolist() == tests
            assert bool(verdict["run_success"])


def test_report_shows_pixels_curves_and_verdict(folder, rest):
    of_sky, of_levels = (folder / name / "index.html" for name in ("of_sky", "of_levels"))
    assert "median of exposures" in of_sky.read_text()
    assert list((folder / "of_sky" / "images").glob("product*.png"))
    assert "toy_levels.level" in of_levels.read_text() or "LEVEL" in of_levels.read_text()
    page = next((folder / "of_levels" / "detectors").glob("*.html")).read_text()
    assert "Percentiles of the sky [electron]." in page
    assert page.count("<svg") >= 16


def test_pictures_figures_and_statistics(folder, rest):
    assert (folder / "sky.png").is_file()
    assert "[electron]" in printed_by(rest, "show")
    assert [p.name for p in (folder / "figures").iterdir()] == ["levels_000.png"]
    assert "u/levels.verify" in printed_by(rest, "stats")


def test_files_go_out_and_come_back_without_loss(folder, rest):
    assert "toyLevels of 4 detectors in u/imported" in rest[1]
    with open_repo(str(folder / "repo")) as repo:
        made, read = (repo.open("toyLevels", run=run).load() for run in ("u/levels", "u/imported"))
    assert set(made.data_vars) == set(read.data_vars)
    for name in made.data_vars:
        np.testing.assert_array_equal(read[name], made[name])
    np.testing.assert_array_equal(read["percent"], made["percent"])


def test_a_chain_orders_them_and_finds_their_verifications(folder, rest):
    assert printed_by(rest, "chain").index("toySky") < printed_by(rest, "chain").index("toyLevels")
    with open_repo(str(folder / "repo")) as repo:
        runs = {c.name for c in repo.collections("c/*", kind="RUN")}
        held = {name for run in runs for name in repo.types_in(run)}
    assert {"toySky", "toyLevels", "verifyToySky", "verifyToyLevels"} <= held


def test_approved_and_certified(rest):
    assert printed_by(rest, "approve").count("(passed)") == 2
    assert "certified 4 toySky of u/sky in calib/toy" in printed_by(rest, "certify")
    assert "u/levels" in printed_by(rest, "which")


def test_an_unknown_key_of_the_type_is_refused_with_the_nearest(camcal):
    printed = camcal([*run_of("toySky", "u/no"), "--dry-run", "-c", "sky.mots=3"], code=1)
    assert "most" in printed

"""``camcal run`` as a person types it: limits on failures, signals, other detectors added."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from camcal_dask.campaign import chain
from camcal_dask.campaign.past import attempts
from camcal_dask.campaign.planning.quanta import Outcome
from camcal_dask.cli import main
from camcal_dask.repo.butler.repository import create_repo, open_repo
from camcal_dask.repo.incoming.ingest import ingest
from camcal_dask.repo.storage import files
from camcal_dask.simulation import bias_set, dark_set, simulate
from tests.services import wait_until

from .conftest import DAY, assert_same, held_camcal, markers_of

pytestmark = pytest.mark.timeout(240)


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


def bias(root, output, *more, cluster="threads"):
    return ["run", "-b", root, "-p", "TinyCam/bias.yaml", "-i", "TinyCam/raw/all", "-o", output,
            "--cluster", cluster, "-j", "1", *more]  # fmt: skip


def last_record(root, run):
    return attempts.read_record(attempts.list_attempts(root, run)[-1])


# ---------------------------------------------------------------------------- failures


@pytest.fixture
def two_damaged(biases):
    """The raws of detectors 0 and 1 cannot be read while the test runs."""
    (cube,) = Path(biases, "cubes", "raw", "TinyCam").glob("*.zarr")
    shards = [next(p for p in Path(cube, "raw", "c", "2", str(d)).rglob("*") if p.is_file()) for d in (0, 1)]
    whole = [shard.read_bytes() for shard in shards]
    for shard, data in zip(shards, whole, strict=True):
        shard.write_bytes(data[: len(data) // 3])

    def repair():
        for shard, data in zip(shards, whole, strict=True):
            shard.write_bytes(data)

    yield repair
    repair()


def test_a_chain_goes_on_without_the_detectors_that_failed(biases, repo, two_damaged):
    text = camcal("chain", biases, "-p", "biasBootstrap", "-o", "u/partly", "--cluster", "threads", code=1)
    run = "u/partly/biasBootstrap"
    assert f"finished, but not for every detector: {run} without detector 0, 1" in text
    assert f"verifyBias in {run}.verify: " in text
    assert sorted(ref.detector for ref in repo.datasets("biasBootstrap", run)) == [2, 3]


@pytest.mark.parametrize(
    ("options", "state", "why", "tried"),
    [
        (["--fail-fast"], "stopped", "the run is to stop at the first failure", 2),
        (["--max-failures", "1"], "stopped", "2 quanta failed, 1 are allowed", 3),
        (["--max-failures", "2"], "failed", "", 4),
        ([], "failed", "", 4),
    ],
)
def test_limits_on_failures(biases, repo, two_damaged, options, state, why, tried):
    run = f"u/limits{''.join(options)}"
    text = camcal(*bias(biases, run, *options), code=1)
    assert "failed: detector 0: " in text
    record = last_record(biases, run)
    assert (record["state"], why in record["stopped"], why in text) == (state, True, True)
    assert 4 - record["counts"]["not tried"] <= tried
    two_damaged()
    assert "the same command does the rest" in text or not why
    assert "failed" not in camcal(*bias(biases, run, *options))
    assert last_record(biases, run)["state"] == "done"
    assert_same(repo, run)


# ---------------------------------------------------------------------------- signals


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("number", "to_group", "cluster"),
    [
        (signal.SIGTERM, False, "threads"),
        (signal.SIGINT, False, "threads"),
        (signal.SIGTERM, False, "local"),  # a batch system's warning to the script
        (signal.SIGINT, True, "local"),  # Ctrl-C reaches the workers too
    ],
)
def test_a_signal_ends_the_run_in_order(tmp_path, biases, repo, number, to_group, cluster):
    run = f"u/{number.name}.{cluster}.{to_group}"
    script = tmp_path / "slow.py"
    markers, go = markers_of(biases, run), tmp_path / "go"
    script.write_text(held_camcal(markers, go))
    started = subprocess.Popen(
        [sys.executable, script, *bias(biases, run, cluster=cluster)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: started.poll() is not None or files.names(str(markers)), "detector that is whole")
        assert started.poll() is None, f"ended before the signal: {started.communicate()[0]}"
        (os.killpg if to_group else os.kill)(started.pid, number)  # the client may not have heard of the detector yet
        go.touch()
        text, _ = started.communicate(timeout=120)
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 128 + number, text
    assert f"stopped: interrupted by {number.name}" in text
    assert "Traceback" not in text
    record = last_record(biases, run)
    assert (record["state"], record["stopped"]) == ("interrupted", f"interrupted by {number.name}")
    assert record["ended"]
    there = [ref.detector for ref in repo.datasets("bias", run)]
    assert 1 <= len(there) < 4
    assert record["counts"]["done"] == len(there), "what is done is registered"
    camcal(*bias(biases, run))
    counts = last_record(biases, run)["counts"]
    assert counts["done"] + counts["skipped"] == 4
    assert counts["skipped"] >= len(there)
    assert_same(repo, run)


def test_an_interrupted_chain_goes_no_further(biases, monkeypatch):
    made = []

    def interrupted(repo, plan, client, **_):
        made.append(plan.recipe.product)
        stopped = "interrupted by SIGTERM"
        return Outcome(plan.output, plan.recipe.product, "", {}, stopped=stopped, signal=signal.SIGTERM)

    monkeypatch.setattr(chain, "execute", interrupted)
    text = camcal("chain", biases, "-p", "biasBootstrap,bias", "-o", "u/chain", "--cluster", "threads", code=143)
    assert "stopped: interrupted by SIGTERM" in text
    assert made == ["biasBootstrap"]


# ---------------------------------------------------------------------------- more detectors


@pytest.fixture(scope="module")
def darks(tmp_path_factory, threads):
    """Repository with biases, darks and the bootstrap bias ``u/bias``; its root."""
    folder = tmp_path_factory.mktemp("darks")
    exposures = [*bias_set(3, DAY), *dark_set(3, 30, DAY, first_seq_num=10)]
    made = simulate(folder / "raw", "TinyCam", exposures)
    with create_repo(str(folder / "repo"), "TinyCam") as repo:
        ingest(repo, [str(f) for f in made.files], client=threads)
        root = repo.root
    camcal("run", "-b", root, "-p", "TinyCam/biasBootstrap.yaml", "-i", "TinyCam/raw/all", "-o", "u/bias",
           "--cluster", "threads")  # fmt: skip
    return root


def test_detectors_are_added_to_a_run_that_applies_calibrations(darks):
    def dark(output, *more, code=0):
        return camcal("run", "-b", darks, "-p", "TinyCam/darkBootstrap.yaml", "-i", "u/bias,TinyCam/raw/all",
                      "-o", output, "--cluster", "threads", *more, code=code)  # fmt: skip

    dark("u/all")
    dark("u/grown", "-d", "detector IN (0, 2)")
    text = dark("u/grown", "-d", "detector IN (1, 3)", code=1)
    assert "add to this one with --extend-run" in text
    with open_repo(darks) as repo:
        assert [ref.detector for ref in repo.datasets("darkBootstrap", "u/grown")] == [0, 2]
    assert "2 done" in dark("u/grown", "-d", "detector IN (1, 3)", "--extend-run")
    text = dark("u/grown", "--extend-run", "-c", "combine.sigma_clip=4", code=1)
    assert "started with other settings" in text
    assert "4 skipped" in dark("u/grown", "--extend-run")
    with open_repo(darks) as repo:
        assert_same(repo, "u/grown", clean="u/all", product="darkBootstrap")
        used = repo.open("darkBootstrap", run="u/grown").attrs["calibs"]
        assert sorted(used["bias"]) == ["0", "1", "2", "3"]
        assert used == repo.open("darkBootstrap", run="u/all").attrs["calibs"]


# ---------------------------------------------------------------------------- what other runs have


def test_detectors_that_another_run_has_are_skipped(biases, repo):
    camcal(*bias(biases, "u/even", "-d", "detector IN (0, 2)"))
    with_skip = [*bias(biases, "u/rest"), "--skip-existing-in", "u/even,u/clean.none"]
    assert "no collection 'u/clean.none'" in camcal(*with_skip, code=1)
    with_skip[-1] = "u/even"
    text = camcal(*with_skip, "--dry-run", "--list-quanta")
    assert "skipped 2 detectors (0 .. 2): their bias is in u/even" in text
    assert "stack detector 1" in text
    assert "stack detector 2" not in text
    assert not repo.collections("u/rest")
    text = camcal(*with_skip)
    assert "their bias is in u/even" in text
    assert "2 done" in text
    assert_same(repo, "u/rest", detectors=(1, 3))
    assert last_record(biases, "u/rest")["elsewhere"] == {"0": "u/even", "2": "u/even"}
    assert "detector 2 is in u/even" in camcal("history", biases, "u/rest")
    # As if the others had been selected by hand: the same product, to the bit of its provenance.
    camcal(*bias(biases, "u/by.hand", "-d", "detector IN (1, 3)"))
    names = [repo.open("bias", run=run).attrs["provenance_id"] for run in ("u/rest", "u/by.hand")]
    assert names[0] == names[1]


def test_nothing_left_is_a_success(biases, repo):
    repo.chain("u/chained", ["u/clean"])
    for more in ([], ["--dry-run"]):
        text = camcal(*bias(biases, "u/nothing"), "--skip-existing-in", "u/chained", *more)
        assert "nothing is left to do" in text
        assert "their bias is in u/clean" in text
    assert not repo.collections("u/nothing")


def test_a_product_that_nobody_made_yet_is_not_skipped(biases):
    text = camcal("run", "-b", biases, "-p", "TinyCam/biasBootstrap.yaml", "-i", "TinyCam/raw/all", "-o", "u/first",
                  "--skip-existing-in", "u/clean", "--dry-run")  # fmt: skip
    assert "skipped" not in text
    assert "4: 0 .. 3" in text


def test_detectors_of_a_verification_cannot_be_skipped(biases):
    text = camcal("run", "-b", biases, "-p", "TinyCam/verifyBias.yaml", "-i", "u/clean,TinyCam/raw/all",
                  "-o", "u/v.skip", "--skip-existing-in", "u/clean", code=1)  # fmt: skip
    assert "verifyBias is one table of all detectors" in text
    assert "leave --skip-existing-in out" in text

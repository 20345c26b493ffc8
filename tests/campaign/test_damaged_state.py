"""Files that only describe a run may be cut or lost: every command says so and goes on."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from camcal_dask.campaign import attempts, history
from camcal_dask.cli import main
from camcal_dask.errors import RepoError
from camcal_dask.repo.registry import open_repo

from .conftest import assert_same, make_bias

RUN = "u/damaged"


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def run_again(root, run):
    return camcal("run", "-b", root, "-p", "TinyCam/bias.yaml", "-i", "TinyCam/raw/all", "-o", run,
                  "--cluster", "threads", "-j", "1")  # fmt: skip


@pytest.fixture(scope="module")
def made(biases, threads):
    with open_repo(biases, writeable=True) as repo:
        make_bias(repo, RUN, threads)
    (attempt,) = attempts.list_attempts(biases, RUN)
    return Path(attempt)


@pytest.fixture
def attempt(made):
    """Folder of the only attempt of RUN, which made its product in full; whole again after each test."""
    whole = {path: path.read_bytes() for path in made.iterdir()}
    yield made
    for path, content in whole.items():
        path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    path.write_text(json.dumps(["another", "program"]))


def garbage(path):
    path.write_bytes(b"\xff\xfe\x00" * 100)


@pytest.mark.parametrize("name", ["progress.json", "record.json", "quanta-0001.jsonl"])
@pytest.mark.parametrize("spoil", [cut, empty, foreign, garbage])
def test_no_command_is_stopped(biases, attempt, name, spoil):
    spoil(attempt / name)
    lost = name.endswith("jsonl") and spoil is empty  # nothing is left that could be damaged
    text = camcal("status", biases, RUN)
    assert "4/4 done" in text
    assert (f"{attempt / name}: " in text) == (not lost)
    assert "bias" in camcal("status", biases), "the other runs are listed too"
    assert (f"{attempt / name}: " in camcal("history", biases, RUN, "--quanta")) == (not lost)
    camcal("logs", biases, RUN)


def test_a_run_whose_only_record_is_damaged_cannot_be_repeated(biases, attempt):
    cut(attempt / "record.json")
    text = camcal("rerun", biases, RUN, "-o", "u/again", "--cluster", "threads", code=1)
    assert "no record of an attempt can be read" in text
    with pytest.raises(RepoError, match="no record of an attempt can be read"):
        history.reference_instrument(biases, RUN)


def test_values_of_a_wrong_type_are_damage(biases, attempt):
    path = attempt / "progress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "total": "many"}))
    (one,) = history.snapshots(biases, RUN)
    assert (one.state, one.total, one.done) == ("done", 4, 4)


def test_a_run_with_damaged_files_is_continued_at_last(biases, repo, attempt):
    for path in attempt.iterdir():
        cut(path)
    assert "4 skipped" in run_again(biases, RUN)
    assert_same(repo, RUN)
    assert len(history.damage(biases, RUN)) == 3, "the files stay as they are, and are named"

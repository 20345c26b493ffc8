"""Files that only describe a run may be cut or lost: every command says so and goes on."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from camcal_dask.campaign.past import attempts, history
from camcal_dask.campaign.planning.quanta import Quantum, QuantumOutcome
from camcal_dask.cli import main
from camcal_dask.errors import RepoError
from camcal_dask.repo.butler.repository import open_repo
from camcal_dask.repo.storage.files import SEAL
from tests.campaign.conftest import assert_same, make_bias

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


def test_no_flipped_bit_of_a_log_is_silent(tmp_path):
    """Every bit: the line that it hits is named, the other lines are read as they were."""
    rows = [QuantumOutcome(Quantum("stack", d), "done", 1.5, tries=d + 1, log=(f"kept {d}",)) for d in range(3)]
    attempts.write_outcomes(str(tmp_path), 1, rows)
    path = tmp_path / "quanta-0001.jsonl"
    content = path.read_bytes()
    ends = [i for i, byte in enumerate(content) if byte == ord("\n")]
    assert attempts.damage(str(tmp_path)) == []
    for bit in range(8 * len(content)):
        place = bit // 8
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit % 8]) + content[place + 1 :])
        line = sum(end < place for end in ends)
        (text,) = attempts.damage(str(tmp_path))
        assert text.startswith(f"{path}: "), bit
        assert f"(line {line + 1}" in text, bit
        lost = {line, line + 1} if place in ends else {line}  # two lines in one
        assert list(attempts.read_outcomes(str(tmp_path))) == [row for d, row in enumerate(rows) if d not in lost], bit


def test_logs_of_older_versions_are_read(attempt, biases):
    path = attempt / "quanta-0001.jsonl"
    rows = list(attempts.read_outcomes(str(attempt)))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in line.items() if k != SEAL}) + "\n" for line in lines))
    assert all(SEAL in line for line in lines)
    assert list(attempts.read_outcomes(str(attempt))) == rows
    assert attempts.damage(str(attempt)) == []
    assert "remark" not in camcal("status", biases, RUN)


def test_a_flipped_bit_in_a_log_is_named_with_its_line(attempt, biases):
    path = attempt / "quanta-0001.jsonl"
    content = bytearray(path.read_bytes())
    content[content.index(b"\n") + 40] ^= 1  # of the second line
    path.write_bytes(content)
    remark = f"{path}: 1 of 4 lines damaged (line 2); no product rests on it"
    assert remark in camcal("status", biases, RUN)
    assert remark in camcal("history", biases, RUN)
    assert f"damaged: {path}: line 2: its checksum does not match its text" in camcal(
        "check", biases, "--quick", code=1
    )


def test_a_run_whose_only_record_is_damaged_cannot_be_repeated(biases, attempt):
    cut(attempt / "record.json")
    text = camcal("rerun", biases, RUN, "-o", "u/again", "--cluster", "threads", code=1)
    assert "none of its records can be read" in text
    with pytest.raises(RepoError, match="none of its records can be read"):
        history.reference_instrument(biases, RUN)


@pytest.mark.parametrize("name", ["progress.json", "record.json", "quanta-0001.jsonl"])
def test_a_folder_in_the_place_of_a_file_is_damage(biases, attempt, name):
    path = attempt / name
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    try:
        for command in (("status", biases, RUN), ("status", biases), ("history", biases, RUN, "--quanta")):
            assert f"{path}: " in camcal(*command)
        assert f"damaged: {path}: " in camcal("check", biases, "--quick", code=1)
        assert "nothing is lost or damaged" in camcal("check", biases, "--quick", "--repair")
        assert not path.exists()
    finally:
        for left in (path, path.with_name(name + ".damaged")):
            if left.is_dir():
                left.rmdir()
        path.write_bytes(content)


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

"""What a person is told: one line with what, where and a remedy; no traceback, no markup."""

import errno
import os
import sqlite3
import sys
import warnings
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from camcal_dask.cli import common, main
from camcal_dask.errors import ConfigError, explain
from camcal_dask.repo.butler.repository import create_repo
from camcal_dask.repo.storage import files

from .services import as_nobody


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def command(action):
    """A program with one command that does this."""
    group = common.Group("camcal")
    group.add_command(click.Command("act", callback=action))
    return group


def output_of(action):
    result = CliRunner().invoke(command(action), ["act"])
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    return line


# ---------------------------------------------------------------------------- errors of others


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "give yourself access"),
        (errno.ENOSPC, "make room there"),
        (errno.EDQUOT, "within your quota"),
        (errno.EROFS, "mount it for writing"),
        (errno.ENOENT, "is its file system mounted?"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.EIO, "repeat the command"),
    ],
)
def test_errors_of_the_system(number, remedy):
    def fail():
        raise OSError(number, os.strerror(number), "/data/[b]:b:/x.json")

    line = output_of(fail)
    assert line.startswith("Error: /data/[b]:b:/x.json: ")
    assert os.strerror(number).lower() in line
    assert remedy in line


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    """The system does not say which file a write was of."""

    def full(self, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space") as caught:
        files.write_json(str(tmp_path / "act.json"), {"by": "me"})
    assert explain(caught.value).startswith(f"{tmp_path}/act.json: no space left on device; make room there")
    assert not list(tmp_path.iterdir())


def test_errors_of_the_registry():
    def fail():
        raise sqlite3.OperationalError("attempt to write a readonly database")

    assert "registry: attempt to write a readonly database; give yourself write access" in output_of(fail)


def test_faults_of_the_program_are_one_line_with_their_place(monkeypatch):
    def fail():
        raise KeyError("token=hunter2")

    line = output_of(fail)
    assert "unexpected KeyError in test_messages.py:" in line
    assert "CAMCAL_TRACEBACK=1" in line
    assert "hunter2" not in line
    monkeypatch.setenv("CAMCAL_TRACEBACK", "1")
    assert isinstance(CliRunner().invoke(command(fail), ["act"]).exception, KeyError)


def test_clicks_own_errors_stay():
    def fail():
        raise click.UsageError("give PATHS")

    assert CliRunner().invoke(command(fail), ["act"]).exit_code == 2
    assert CliRunner().invoke(command(lambda: sys.exit(7)), ["act"]).exit_code == 7


def test_an_explanation_is_one_line():
    assert explain(ValueError("a\nb")).count("\n") == 0
    assert explain(ConfigError("said by us")) == "said by us"
    assert explain(OverflowError("int too large")).startswith("one of the given numbers is too large")
    assert explain(MemoryError()).startswith("out of memory")
    assert "s3://bucket/x: reset; the storage or network may recover" in explain(OSError("s3://bucket/x: reset"))


def test_warnings_of_libraries_become_remarks():
    def warn():
        for _ in range(2):
            warnings.warn("dubious year\n [b] :b:", UserWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = CliRunner().invoke(command(warn), ["act"])
    assert result.exit_code == 0
    assert result.output == "remark: dubious year [b] :b:\n"


# ---------------------------------------------------------------------------- names like markup


def test_names_that_look_like_markup_are_printed(tmp_path):
    folder = tmp_path / "[b]" / ":b:[/]"
    folder.mkdir(parents=True)
    assert f"{folder / 'repo'}: TinyCam" in camcal("create", folder / "repo", "--instrument", "TinyCam")
    assert f"{folder}: not a repository" in camcal("status", folder, code=1)
    assert "[red]x[/red] :b:" in camcal("run", "-b", folder / "repo", "-p", "TinyCam/bias.yaml",
                                        "-o", "u/x", "--cluster", "[red]x[/red] :b:", code=1)  # fmt: skip


def test_no_console_reads_markup():
    for console in (common.console, common.errors):
        assert isinstance(console, Console)
        with console.capture() as said:
            console.print("[b]x[/b] :b: [/nothing]")
            console.print(common.grid([("[b]", "[/b] :warning:")]))
            console.rule("[b]")
        assert "[b]x[/b] :b: [/nothing]" in said.get()
        assert "[/b] :warning:" in said.get()


# ---------------------------------------------------------------------------- numbers and dates out of range


def test_numbers_and_dates_out_of_range(root):
    for name, *rest in (
        ["certify", "u/none", "TinyCam/calib", "bias", "--begin-date", "99999999"],
        ["certify", "u/none", "TinyCam/calib", "bias", "--begin-date", "2026-13-01"],
        ["certify", "u/none", "TinyCam/calib", "bias", "--end-date", "20260231"],
        ["which", "bias", "--exposure", "9" * 20, "--detector", "0", "-i", "TinyCam/raw/all"],
        ["which", "bias", "--exposure", "1", "--detector", "9" * 20, "-i", "TinyCam/raw/all"],
    ):
        text = camcal(name, root, *rest, code=1)
        assert text.startswith("Error: ")
        assert "unexpected" not in text


# ---------------------------------------------------------------------------- read-only repositories


@pytest.fixture
def root(tmp_path):
    made = str(tmp_path / "repo")
    create_repo(made, "TinyCam").close()
    return made


READING = (["status"], ["stats"], ["history", "u/none"], ["logs", "u/none"])
WRITING = (
    ["create", "--instrument", "TinyCam"],
    ["certify", "u/none", "TinyCam/calib", "bias"],
    ["chain", "-p", "bias", "-o", "u/none", "--cluster", "threads"],
)


def test_every_command_on_a_repository_that_may_not_be_written(root, tmp_path):
    for name, *rest in (*READING, *WRITING):  # imports what they need, and fails alike
        CliRunner().invoke(main, [name, root, *rest])
    with as_nobody(tmp_path):
        assert "no run is recorded there" in camcal("status", root)
        for name, *rest in READING[1:]:
            assert "Error:" in camcal(name, root, *rest, code=1)
        for name, *rest in WRITING:
            text = camcal(name, root, *rest, code=1)
            assert "unexpected" not in text, text
        os.seteuid(0)
        Path(root).chmod(0o700)
        os.seteuid(65534)
        for name, *rest in (*READING, *WRITING):
            text = camcal(name, root, *rest, code=1)
            assert root in text
            assert "unexpected" not in text, text

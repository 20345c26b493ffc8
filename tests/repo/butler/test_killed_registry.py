"""The registry after a kill: readable by those who only read, and made anew where it was never finished."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.errors import RepoError
from camcal_dask.repo.butler.repository import create_repo, open_repo
from tests.repo.conftest import CAMERA, copy
from tests.services import as_nobody

KILLED_IN_A_COMMIT = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # pages reach the file before the commit, their old content the journal
database.execute("BEGIN IMMEDIATE")
database.execute("CREATE TABLE cut (text TEXT)")
database.executemany("INSERT INTO cut VALUES (?)", [("x" * 3000,)] * 100)
database.execute("UPDATE detector SET full_name = full_name || 'x'")
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_in_a_commit(root):
    done = subprocess.run([sys.executable, "-c", KILLED_IN_A_COMMIT, str(Path(root, "gen3.sqlite3"))], check=False)
    assert done.returncode == -signal.SIGKILL
    assert Path(root, "gen3.sqlite3-journal").stat().st_size > 0


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


@pytest.fixture
def killed(tiny_root, tmp_path):
    root = copy(tiny_root, tmp_path / "repo")
    kill_in_a_commit(root)
    return root


def test_a_hot_journal_is_undone_by_whoever_comes_first(killed):
    assert "no run is recorded there" in camcal("status", killed)
    with open_repo(killed) as repo:
        assert repo.instruments == (CAMERA,)
        assert len(repo.raws().exposure) == 6
        rows = repo.butler.query_dimension_records("detector", instrument=CAMERA)
        assert not any(row.full_name.endswith("x") for row in rows), "the half-written change is undone"
    with closing(sqlite3.connect(Path(killed, "gen3.sqlite3"))) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_hot_journal_that_may_not_be_undone_is_named(killed, tmp_path, tiny_root):
    camcal("status", tiny_root)  # imports what it needs
    with as_nobody(tmp_path):
        text = camcal("status", killed, code=1)
    assert f"run once, with write access: camcal status {killed}" in text


KILLED_WHILE_CREATING = """
import os, signal, sys
from lsst.daf.butler import Butler
from camcal_dask.repo.butler import repository, sqlite

def end(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def in_part(*arguments):
    publish(*arguments)
    end()

publish = sqlite.publish
places = {
    "registry": (Butler, "_make_repo_registry", end),
    "staged": (sqlite, "publish", end),
    "published": (sqlite, "publish", in_part),
}
for place, change in places.items():
    if (child := os.fork()) == 0:  # importing takes seconds
        setattr(*change)
        repository.create_repo(f"{sys.argv[1]}/{place}.repo", "TinyCam")
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, place
"""


def test_a_creation_that_was_killed_is_repeated(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED_WHILE_CREATING, str(tmp_path)], check=True)
    roots = sorted(str(root) for root in tmp_path.iterdir())
    assert len(roots) == 3
    for root in roots:
        with pytest.raises(RepoError, match="not a repository"):
            open_repo(root)
        with create_repo(root, CAMERA) as repo:
            assert repo.instruments == (CAMERA,)


def test_a_repository_left_by_an_earlier_version_in_the_middle_of_its_creation(tiny_root, tmp_path):
    """Configuration there, registry absent, empty, or with tables and nothing in them."""
    root = tmp_path / "repo"
    for content in (None, "", "CREATE TABLE butler_attributes (name TEXT, value TEXT)"):
        root.mkdir()
        shutil.copy(Path(tiny_root, "butler.yaml"), root)
        if content is not None:
            with closing(sqlite3.connect(root / "gen3.sqlite3")) as database:
                database.execute(content or "SELECT 1")
                database.commit()
        with pytest.raises(RepoError, match="camcal create"):
            open_repo(str(root))
        with create_repo(str(root), CAMERA) as repo:
            assert repo.instruments == (CAMERA,)
        shutil.rmtree(root)


def test_a_lost_registry_is_not_replaced_by_an_empty_one(tiny_root, tmp_path):
    root = copy(tiny_root, tmp_path / "repo")
    Path(root, "gen3.sqlite3").unlink()
    for writeable in (False, True):
        with pytest.raises(RepoError, match="the registry is missing"):
            open_repo(root, writeable=writeable)
    with pytest.raises(RepoError, match="restore gen3.sqlite3 from a copy"):
        create_repo(root, CAMERA)
    assert not Path(root, "gen3.sqlite3").exists()

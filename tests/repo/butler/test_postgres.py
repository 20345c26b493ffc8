"""PostgreSQL as registry, on a private server (`tests.services`)."""

from __future__ import annotations

import signal
import subprocess
import sys
from multiprocessing import get_context

import pytest

from camcal_dask.errors import RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler.repository import create_repo, open_repo
from camcal_dask.repo.cubes import raw as cubes
from tests.repo.conftest import CAMERA, make_bias, record

pytestmark = pytest.mark.postgres


def _register(root: str, barrier: object) -> None:
    repo = open_repo(root, writeable=True)
    barrier.wait()  # type: ignore[attr-defined]
    for exposure in (2026081200001, 2026081200002, 2026081200003):
        repo.register_exposures([record(exposure)])
        repo.register_raws(CAMERA, [(exposure, d) for d in range(4)])


def test_create_register_in_two_processes_certify_and_look_up(postgres_database, tmp_path):
    root = str(tmp_path / "repo")
    repo = create_repo(root, CAMERA, postgres_database("calib"))
    assert "postgresql+psycopg2" in (tmp_path / "repo" / "butler.yaml").read_text()
    assert not (tmp_path / "repo" / "gen3.sqlite3").exists()
    cubes.ensure_raw_cube(cubes.raw_cube_uri(repo.root, CAMERA, 2026081200001), get_instrument(CAMERA))
    context = get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_register, args=(root, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0]
    assert repo.raws("exposure.day_obs=20260812").shape[:2] == (3, 4)
    make_bias(repo, "u/b", 1.0)
    repo.certify("u/b", "bias", "TinyCam/calib", 20260812, 20260901)
    assert repo.find_calib("bias", 2026081200002, 3, "TinyCam/calib").run == "u/b"
    with pytest.raises(RepoError, match="cannot be certified"):
        repo.certify("u/b", "bias", "TinyCam/calib", 20260813, None)
    bias = repo.butler.get("bias", instrument=CAMERA, exposure=2026081200002, detector=3, collections="TinyCam/calib")
    assert float(bias["image"][0, 0, 0]) == pytest.approx(1.3)
    repo.close()


KILLED_WHILE_CREATING = """
import os, signal, sys
from lsst.daf.butler import Butler
from lsst.daf.butler.registry.versions import ButlerVersionsManager
from lsst.daf.butler.registry.attributes import DefaultButlerAttributeManager as Attributes
from camcal_dask.repo.butler import repository

def end(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def but_for_the_last(self, name, value, **options):
    end() if name == "config:dimensions.json" else put(self, name, value, **options)

put = Attributes.set
setattr(*{
    "configuration": (Butler, "_make_repo_registry", end),
    "tables": (ButlerVersionsManager, "storeManagersConfig", end),
    "attributes": (Attributes, "set", but_for_the_last),
}[sys.argv[1]])
repository.create_repo(sys.argv[2], "TinyCam", sys.argv[3])
"""


@pytest.mark.parametrize("place", ["configuration", "tables", "attributes"])
def test_a_creation_that_was_killed_is_repeated(postgres_database, tmp_path, place):
    root, url = str(tmp_path / "repo"), postgres_database(f"killed_{place}")
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_CREATING, place, root, url], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(RepoError, match="its making was cut short; repeat camcal create"):
        open_repo(root)
    with create_repo(root, CAMERA) as repo:  # also without naming the registry again
        assert repo.instruments == (CAMERA,)
        make_bias(repo, "u/b", 1.0)
    with create_repo(root, CAMERA, url) as repo:
        assert repo.types_in("u/b") == ["bias"], "a whole one is left alone"


@pytest.mark.parametrize("what", ["rows", "another table", "attribute", "cubes"])
def test_what_may_be_somebodys_is_never_dropped(postgres_server, postgres_database, tmp_path, what):
    """A registry without its last attribute, in which something is."""
    folder, psql = postgres_server
    name = f"used_{what.replace(' ', '_')}"
    root = str(tmp_path / "repo")
    create_repo(root, CAMERA, postgres_database(name)).close()

    def ask(command):
        return subprocess.run([*psql, "-d", name, "-Atc", command], check=True, capture_output=True, cwd="/").stdout

    ask("DELETE FROM butler_attributes WHERE name = 'config:dimensions.json'")
    if what != "rows":  # make_repo's dynamic tables and rows go, so that only one thing is left
        tables = ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").decode().split()
        dynamic = [t for t in tables if t.startswith(("dataset_tags_", "dataset_calibs_", "file_datastore_records"))]
        ask(f"DROP TABLE {', '.join(dynamic)} CASCADE")
        rest = set(tables) - set(dynamic) - {"butler_attributes"}
        ask("TRUNCATE " + ", ".join(f'"{t}"' for t in sorted(rest)))
        ask("DELETE FROM butler_attributes WHERE NOT name ~ '^(config:registry.managers|version:)'")
    if what == "another table":
        ask("CREATE TABLE precious (id int)")
    elif what == "attribute":
        ask("INSERT INTO butler_attributes VALUES ('somebody:else', 'x')")
    elif what == "cubes":
        (tmp_path / "repo" / "cubes" / "raw").mkdir(parents=True)
    before = ask("SELECT count(*) FROM pg_tables")
    with pytest.raises(RepoError, match="has cubes but" if what == "cubes" else "it is left alone"):
        create_repo(root, CAMERA)
    assert ask("SELECT count(*) FROM pg_tables") == before
    assert (tmp_path / "repo" / "butler.yaml").exists()


def test_without_the_extension_the_cure_is_named(postgres_server, postgres_database, tmp_path):
    root = tmp_path / "repo"
    with pytest.raises(RepoError, match="CREATE EXTENSION btree_gist"):
        create_repo(str(root), CAMERA, postgres_database("bare", extension=False))
    assert not (root / "butler.yaml").exists()
    with pytest.raises(RepoError, match="registry cannot be made"):
        create_repo(str(root), CAMERA, f"postgresql://postgres@/nowhere?host={postgres_server[0]}")


def _certify(root: str, run: str, barrier: object, answers: object) -> None:
    repo = open_repo(root, writeable=True)
    barrier.wait()  # type: ignore[attr-defined]
    try:
        repo.certify(run, "bias", "TinyCam/calib", 20260812, None)
        answers.put((run, "certified"))  # type: ignore[attr-defined]
    except RepoError as error:
        answers.put((run, str(error)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("runs", [("u/a", "u/a"), ("u/a", "u/b")], ids=["the same", "rivals"])
def test_two_clients_certify_at_once(postgres_database, tmp_path, runs):
    """The same certification twice is one; of two that overlap, the registry lets one in."""
    root = str(tmp_path / "repo")
    repo = create_repo(root, CAMERA, postgres_database(f"certify_{runs[1][-1]}"))
    for run in dict.fromkeys(runs):
        make_bias(repo, run, 1.0)
    context = get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_certify, args=(root, run, barrier, answers)) for run in runs]
    for process in processes:
        process.start()
    said = [answers.get(timeout=120) for _ in runs]
    for process in processes:
        process.join(60)
    won = [run for run, text in said if text == "certified"]
    repo.register_exposures([record(2026081200002)])
    found = repo.find_calibs("bias", [2026081200002], range(4), "TinyCam/calib")
    assert {ref.run for ref in found.values()} == set(won)
    assert len(won) == (2 if runs[0] == runs[1] else 1)
    if len(won) == 1:
        (lost,) = (text for _, text in said if text != "certified")
        assert "cannot be certified" in lost
    repo.close()

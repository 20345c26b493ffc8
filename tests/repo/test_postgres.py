"""PostgreSQL as registry, on a private server that listens on a socket in a scratch folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from camcal_dask.errors import RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo import cubes
from camcal_dask.repo.registry import create_repo, open_repo

from .conftest import CAMERA, make_bias, record

pytestmark = pytest.mark.postgres


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
    if not found:
        pytest.skip("no PostgreSQL server in /usr/lib/postgresql (Debian: apt-get install postgresql)")
    return found[-1].parent


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[str]]]:
    """(socket folder, command prefix of the server's user) of a running server."""
    pytest.importorskip("psycopg2", reason="pip install 'camcal_dask[postgres]'")
    binaries = _binaries()
    prefix: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        if shutil.which("runuser") is None or subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("running as root without runuser or a user 'postgres'")
        prefix = ["runuser", "-u", "postgres", "--"]
    # Socket paths are limited to 107 characters and the user must reach the folder: not below tmp_path.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    if prefix:
        shutil.chown(folder, "postgres")

    def run(*command: str | Path) -> None:
        subprocess.run([*prefix, *map(str, command)], check=True, capture_output=True, cwd="/", timeout=60)

    control = binaries / "pg_ctl"
    options = f"-c listen_addresses='' -k {folder} -c fsync=off"
    try:
        run(binaries / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust")
        run(control, "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
        yield str(folder), [*prefix, str(binaries / "psql"), "-h", str(folder), "-U", "postgres"]
    finally:
        subprocess.run(
            [*prefix, str(control), "-D", str(folder / "data"), "-m", "immediate", "stop"], capture_output=True, cwd="/"
        )
        shutil.rmtree(folder, ignore_errors=True)


def _database(server: tuple[str, list[str]], name: str, *, extension: bool = True) -> str:
    folder, psql = server
    subprocess.run([*psql, "-c", f"CREATE DATABASE {name}"], check=True, capture_output=True, cwd="/")
    if extension:
        subprocess.run(
            [*psql, "-d", name, "-c", "CREATE EXTENSION btree_gist"], check=True, capture_output=True, cwd="/"
        )
    return f"postgresql://postgres@/{name}?host={folder}"


def _register(root: str, barrier: object) -> None:
    repo = open_repo(root, writeable=True)
    barrier.wait()  # type: ignore[attr-defined]
    for exposure in (2026081200001, 2026081200002, 2026081200003):
        repo.register_exposures([record(exposure)])
        repo.register_raws(CAMERA, [(exposure, d) for d in range(4)])


def test_create_register_in_two_processes_certify_and_look_up(server, tmp_path):
    root = str(tmp_path / "repo")
    repo = create_repo(root, CAMERA, _database(server, "calib"))
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


def test_without_the_extension_the_cure_is_named(server, tmp_path):
    root = tmp_path / "repo"
    with pytest.raises(RepoError, match="CREATE EXTENSION btree_gist"):
        create_repo(str(root), CAMERA, _database(server, "bare", extension=False))
    assert not (root / "butler.yaml").exists()
    with pytest.raises(RepoError, match="registry cannot be made"):
        create_repo(str(root), CAMERA, f"postgresql://postgres@/nowhere?host={server[0]}")

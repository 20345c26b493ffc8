"""Everything inside a repository is stored relative to it: a copy reads itself, and the Butler deletes no pixels."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from lsst.daf.butler.cli.butler import cli

from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler import registering
from camcal_dask.repo.butler.repository import create_repo, open_repo
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.storage import files

from .conftest import CAMERA, EXPOSURES, fill, make_bias, pixels


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository with raws, a certified bias and a record, whose folder has a blank and brackets in its name."""
    root = str(tmp_path_factory.mktemp("moved") / "my repo [1]")
    with fill(root) as repo:
        make_bias(repo, "u/me/b1", 1.0)
        repo.certify("u/me/b1", "bias", "calib", 20260812)
        record = f"{root}/cubes/u/me/b1/record.json"
        files.write_json(record, {"run": "u/me/b1"})
        repo.register_product("u/me/b1", "runRecord", record, [{"instrument": CAMERA}])
    return root


def check(root):
    """All that is read lies below ``root``."""
    with open_repo(root) as repo:
        raws = repo.raws("exposure.seq_num = 1 AND exposure.day_obs = 20260812")
        np.testing.assert_array_equal(raws.sel(detector=2)[0].values, pixels(EXPOSURES[0], 2))
        assert repo.find_calib("bias", EXPOSURES[0], 2, "calib").uri == f"{root}/cubes/u/me/b1/bias.zarr"
        assert repo.datasets("runRecord", "u/me/b1")[0].uri == f"{root}/cubes/u/me/b1/record.json"
        return float(repo.open("bias", run="u/me/b1", detector=2)["image"].mean())


def butler_get(root):
    """The same through the Butler alone."""
    with open_repo(root) as repo:
        at = {"instrument": CAMERA, "exposure": EXPOSURES[0], "detector": 2}
        raw = repo.butler.get("raw", **at, collections=f"{CAMERA}/raw/all")["raw"]
        np.testing.assert_array_equal(raw.values, pixels(EXPOSURES[0], 2))
        assert repo.butler.get("runRecord", instrument=CAMERA, collections="u/me/b1")["run"] == "u/me/b1"
        return float(repo.butler.get("bias", **at, collections="calib")["image"].mean())


OTHER = 99.0


def change(root):
    """Make the bias of a repository another one, so that who reads it shows."""
    shape = (16, *get_instrument(CAMERA).trimmed_shape)
    arrays = {"image": np.full(shape, OTHER, np.float32), "mask": np.zeros(shape, np.int32)}
    cubes.write_product(f"{root}/cubes/u/me/b1/bias.zarr", 2, arrays)


def test_a_copy_reads_itself_whether_the_original_is_there_or_not(made, tmp_path):
    copied = str(shutil.copytree(made, tmp_path / "copy"))
    assert check(copied) == butler_get(copied) == check(made)
    change(copied)
    assert check(copied) == OTHER
    assert check(made) != OTHER
    moved = str(tmp_path / "moved")
    os.rename(copied, moved)  # noqa: PTH104
    assert check(moved) == OTHER
    assert butler_get(moved) == OTHER


def test_nothing_inside_names_the_folder(made):
    for path in Path(made).rglob("*"):
        if path.suffix in {".json", ".yaml", ".butler"}:
            assert made not in path.read_text()
    with contextlib.closing(sqlite3.connect(f"{made}/gen3.sqlite3")) as db:
        paths = {path for (path,) in db.execute("SELECT path FROM file_datastore_records")}
    assert len(paths) == 4  # two days, a bias, a record
    assert all(path.startswith("cubes/") for path in paths)


def test_the_butler_deletes_no_pixels_and_what_it_forgot_is_registered_again(made, tmp_path):
    root = str(shutil.copytree(made, tmp_path / "copy"))
    pixels_before = {p for p in Path(root, "cubes").rglob("*") if p.is_file() and p.suffix != ".butler"}
    for run in ("u/me/b1", f"{CAMERA}/raw/all"):
        answer = CliRunner().invoke(cli, ["remove-runs", "--no-confirm", "--force", root, run], catch_exceptions=False)
        assert answer.exit_code == 0, answer.output
    assert {p for p in Path(root, "cubes").rglob("*") if p.is_file()} == pixels_before
    with open_repo(root, writeable=True) as repo:
        assert repo.collections("u/me/b1") == []
        data_ids = [{"instrument": CAMERA, "detector": d} for d in range(4)]
        repo.register_product("u/me/b1", "bias", f"{root}/cubes/u/me/b1/bias.zarr", data_ids)
        assert repo.butler.get("bias", **data_ids[2], collections="u/me/b1").sizes["amp"] == 16


def test_a_repository_with_absolute_paths_opens_and_moves(made, tmp_path, monkeypatch):
    """As repositories were made before: absolute URIs of the cubes themselves."""
    old = str(shutil.copytree(made, tmp_path / "old"))
    with contextlib.closing(sqlite3.connect(f"{old}/gen3.sqlite3")) as db, db:
        db.execute(
            "UPDATE file_datastore_records SET path = ? || replace(replace(path, 'record.butler', 'record.json'), "
            "'.butler', '.zarr')",
            (f"file://{old}/",),
        )
        db.execute(
            "UPDATE file_datastore_records SET formatter = 'lsst.daf.butler.formatters.json.JsonFormatter' "
            "WHERE path LIKE '%.json'"
        )
    for anchor in Path(old).rglob("*.butler"):
        anchor.unlink()
    assert check(old) == butler_get(old) == check(made)
    copied = str(shutil.copytree(old, tmp_path / "copy"))
    change(copied)
    assert check(copied) == OTHER
    shutil.rmtree(old)
    assert check(copied) == OTHER
    with open_repo(copied, writeable=True) as repo, monkeypatch.context() as patch:
        patch.setattr(registering, "ingest", lambda *_: 1 / 0)  # killed in the middle: nothing has changed
        with pytest.raises(ZeroDivisionError):
            repo.make_relative()
    assert check(copied) == OTHER
    create_repo(copied, CAMERA).close()  # may be repeated, and brings a repository up to date
    assert butler_get(copied) == OTHER
    with contextlib.closing(sqlite3.connect(f"{copied}/gen3.sqlite3")) as db:
        assert all(path.startswith("cubes/") for (path,) in db.execute("SELECT path FROM file_datastore_records"))
    with create_repo(copied, CAMERA) as repo:
        assert repo.make_relative() == 0

"""Two cameras in one repository: nothing is taken for the other's, and every command can be told which."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.errors import CamcalError
from camcal_dask.repo.butler.repository import create_repo, open_repo
from camcal_dask.repo.cubes import raw as cubes

from .conftest import CAMERA, EXPOSURES, record, write_bias

OTHER = "LATISS"


@pytest.fixture(scope="module")
def both(certified_root, tmp_path_factory):
    """TinyCam's certified biases, and one of LATISS in the same chain."""
    root = str(shutil.copytree(certified_root, tmp_path_factory.mktemp("two") / "repo"))
    with create_repo(root, OTHER) as repo:
        repo.register_exposures([record(EXPOSURES[0], instrument=OTHER, obs_id="AT_O_20260812_000001")])
        uri = f"{root}/cubes/u/latiss/bias.zarr"
        write_bias(uri, 9.0, detectors=(0,))
        repo.register_product("u/latiss", "bias", uri, [{"instrument": OTHER, "detector": 0}])
        repo.chain("u/all", ["u/me/b1", "u/latiss"])
    return root


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


def test_every_command_on_a_repository_takes_the_instrument():
    """And every one that makes data; what is left are commands on cluster profiles, which know no camera."""
    without = set()
    for name, command in commands(main):
        if "--instrument" not in {o for p in command.params for o in p.opts}:
            without.add(name)
            assert not {"repo", "folder", "out", "paths"} & {p.name for p in command.params}, name
    assert without == {"cluster list", "cluster render"}


def commands(group, *names):
    """All commands by their full names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        else:
            yield " ".join((*names, name)), command


def test_check_looks_at_one_camera(both, tmp_path):
    root = str(shutil.copytree(both, tmp_path / "repo"))
    before = camcal("check", root, "--instrument", CAMERA, code=1)  # its raws have no manifests
    assert camcal("check", root, "--instrument", OTHER) == "0 raws and 1 products: nothing is lost or damaged"
    shard = Path(root, "cubes/u/latiss/bias.zarr/image/c/0/0/0/0")
    shard.write_bytes(shard.read_bytes()[:-40])
    Path(root, "cubes/u/latiss/bias.butler").unlink()
    Path(root, "cubes/u/latiss/attempts").mkdir()
    Path(root, "cubes/u/latiss/attempts/record.json").write_text("{")
    assert camcal("check", root, "--instrument", CAMERA, code=1) == before
    said = camcal("check", root, "--instrument", OTHER, code=1)
    for text in ("detector 0", "attempts/record.json: damaged", "bias.butler: anchor", "3 lost or damaged"):
        assert text in said, said
    assert CAMERA not in said
    assert f"{23 + 3} lost or damaged" in camcal("check", root, code=1)


def test_the_dashboard_shows_the_runs_of_one_camera(both):
    source = pytest.importorskip("camcal_dask.dashboard.source", reason="needs bokeh")
    with open_repo(both) as repo:
        assert {"u/latiss", "u/me/b1"} <= set(source.Source(repo).runs)
        assert set(source.Source(repo, OTHER).runs) == {"u/latiss"}
        assert "u/latiss" not in source.Source(repo, CAMERA).runs
        assert source.Source(repo, OTHER).collections["u/all"] == ("u/latiss",)
        with pytest.raises(CamcalError, match="has no instrument 'TinyCan'"):
            source.Source(repo, "TinyCan")


def test_the_demo_refuses_other_cameras(tmp_path):
    said = camcal("demo", tmp_path / "demo", "--instrument", OTHER, code=1)
    assert "the demo is of LSSTCam, not of LATISS" in said
    assert not (tmp_path / "demo").exists()


def test_a_cluster_is_checked_for_the_detectors_of_one_camera(tmp_path):
    """500 MiB do for a tiny camera, and not for an exposure of a full-size detector."""
    profile = tmp_path / "small.yaml"
    profile.write_text("{kind: threads, workers: 1, memory_per_worker: 500 MiB}")
    assert "too little" not in camcal("cluster", "check", profile, "--instrument", CAMERA)
    said = camcal("cluster", "check", profile, "--instrument", OTHER, code=1)
    assert "500 MiB are too little for detectors of LATISS" in said
    assert "unknown instrument 'X'" in camcal("cluster", "check", profile, "--instrument", "X", code=1)


def test_products_of_two_cameras_are_never_mixed(both):
    with open_repo(both) as repo:
        with pytest.raises(CamcalError, match="of LATISS, TinyCam; say which"):
            repo.open("bias", run="u/all")
        assert float(repo.open("bias", run="u/all", instrument=OTHER)["image"].mean()) == pytest.approx(9.0)
        opened = repo.open("bias", run="u/all", instrument=CAMERA, detector="R22_S11")
        assert opened["detector"].values.tolist() == [1]
        assert repo.cameras_of("u/all") == [OTHER, CAMERA]
        assert repo.cameras_of("u/latiss") == [OTHER]
        with pytest.raises(CamcalError, match="holds LATISS, TinyCam; say which with --instrument"):
            repo.find_calib("bias", EXPOSURES[0], 0, "TinyCam/calib")


def test_commands_ask_and_are_told(both):
    which = ["which", both, "bias", "--exposure", EXPOSURES[0], "--detector", "R22_S11", "-i", "TinyCam/calib"]
    assert "say which with --instrument" in camcal(*which, code=1)
    assert "u/me/b1" in camcal(*which, "--instrument", CAMERA)
    assert "has no instrument 'TinyCan'; did you mean 'TinyCam'" in camcal(*which, "--instrument", "TinyCan", code=1)
    for command in (["report", both, "u/me/b1"], ["approve", both, "u/me/b1", "--by", "Ada"]):
        assert "u/me/b1: is of TinyCam, not of LATISS" in camcal(*command, "--instrument", OTHER, code=1)
    run = ["run", "-b", both, "-p", "TinyCam/bias.yaml", "-i", "TinyCam/raw/all", "-o", "u/x", "--dry-run"]
    assert "is for TinyCam, not for LATISS" in camcal(*run, "--instrument", OTHER, code=1)
    assert "6: 2026081200001" in camcal(*run, "--instrument", CAMERA)
    run[run.index("TinyCam/bias.yaml")] = "bias"
    assert "bias: is for any camera; say for which one with --instrument" in camcal(*run, code=1)
    assert "6: 2026081200001" in camcal(*run, "--instrument", CAMERA)
    assert "6: 2026081200001" in camcal(*run, "-d", f"instrument = '{CAMERA}'")
    assert "no run is recorded" in camcal("status", both, "--instrument", OTHER)


def test_a_chain_of_both_is_certified_for_one(both, tmp_path):
    root = str(shutil.copytree(both, tmp_path / "repo"))
    said = camcal("certify", root, "u/all", "calib", "bias", "--override", "test", "--instrument", OTHER)
    assert "certified 1 bias of u/latiss in calib" in said
    with open_repo(root) as repo:
        assert [one.run for one in repo.certified("bias", "calib")] == ["u/latiss"]


def test_exposures_of_all_cameras_are_listed_with_their_camera(both, tmp_path):
    root = str(shutil.copytree(both, tmp_path / "repo"))
    with open_repo(root, writeable=True) as repo:
        uri = cubes.raw_cube_uri(root, OTHER, EXPOSURES[0])
        cubes.ensure_raw_cube(uri, repo.instrument(OTHER))
        cubes.write_raw(uri, cubes.raw_slot(EXPOSURES[0]), 0, np.zeros((16, 10, 10), np.int32))
        repo.register_raws(OTHER, [(EXPOSURES[0], 0)])
        table = repo.exposures()
        assert table.groupby("instrument").size().to_dict() == {OTHER: 1, CAMERA: 6}
        assert table.loc[EXPOSURES[0], "instrument"].tolist() == [OTHER, CAMERA]  # the same id
        for one in (repo.exposures(instrument=OTHER), repo.exposures(f"instrument='{OTHER}'")):
            assert one["obs_id"].tolist() == ["AT_O_20260812_000001"]

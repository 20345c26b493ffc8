"""Two cameras in one repository: nothing is taken for the other's, and every command can be told which."""

import shutil

import pytest
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.errors import CamcalError
from camcal_dask.repo.registry import create_repo, open_repo

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
    others = {"demo", "cluster", "dashboard", "check"}  # these look at all there is
    for name, command in main.commands.items():
        options = {o for p in command.params for o in p.opts}
        assert name in others or "--instrument" in options, name


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
    assert "no run is recorded" in camcal("status", both, "--instrument", OTHER)


def test_a_chain_of_both_is_certified_for_one(both, tmp_path):
    root = str(shutil.copytree(both, tmp_path / "repo"))
    said = camcal("certify", root, "u/all", "calib", "bias", "--override", "test", "--instrument", OTHER)
    assert "certified 1 bias of u/latiss in calib" in said
    with open_repo(root) as repo:
        assert [one.run for one in repo.certified("bias", "calib")] == ["u/latiss"]

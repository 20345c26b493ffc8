"""Names that become folders: one rule, before any work; nothing ever leaves the folder of its RUN."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from camcal_dask.campaign.chain import ChainSettings
from camcal_dask.cli import main
from camcal_dask.errors import RepoError
from camcal_dask.repo.butler.repository import create_repo
from camcal_dask.repo.storage import files, naming

GOOD = [
    "u/me/bias.1",
    "u",
    "LSSTCam/calib/daily/calib.2022NOV04.1",
    "u/me/flat/SDSSr_65mm~empty",
    "20260812T1200Z",
    "a" * 64,
]
BAD = [
    "", ".", "..", "/", "/u/bias", "u/bias/", "u//bias", "../../x", "u/../../x", "u/./bias", "u/.hidden", "-o", "~/x",
    "u/me bias", "u/bias\n", "[b]", "u/*", "u/b?", "a,b", "u/%25", "u\\bias", "u/bia\u0301s", "s3://b/x", "a:b",
    "u/b#1", "u/'b'", "a" * 260, "u/me/bias.zarr", "u/me/bias.zarr/x", "u/attempts", "u/bias.finished/x", "raw/LSSTCam",
    "photodiode/x", "u/b.json", "u\x00b",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_names_that_people_use(name):
    assert naming.check_collection(name) == name


@pytest.mark.parametrize("name", BAD)
def test_names_that_are_refused_in_one_line_that_shows_them(name):
    with pytest.raises(RepoError) as caught:
        naming.run_folder("/repo", name)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"collection {name[:60]!r}"[:-1])
    assert len(str(caught.value)) < 300


@given(st.text(max_size=80))
def test_a_run_is_a_folder_inside_of_cubes(name):
    try:
        folder = naming.run_folder("/repo", name, "sign-off")
    except RepoError:
        return
    assert Path(folder).resolve() == Path(folder)
    assert Path(folder).is_relative_to("/repo/cubes")
    assert folder == f"/repo/cubes/{name}/sign-off"


@given(st.text(max_size=32), st.text(max_size=32))
def test_every_filter_has_a_folder_of_its_own(one, two):
    naming.check_collection(f"u/{naming.component(one)}")
    assert (naming.component(one) == naming.component(two)) == (one == two)


def test_filters_of_the_cameras_keep_their_names():
    for name in ("r_57", "SDSSr_65mm~empty", "ph_05~ND_OD0.1", "none"):
        assert naming.component(name) == name
    assert naming.component("i/z").startswith("i-z-")


def camcal(*arguments):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 1, result.output
    return " ".join(result.output.split())


def state(root):
    return sorted(str(p) for p in Path(root).parent.rglob("*") if "gen3.sqlite3" not in p.name)


@pytest.mark.parametrize("name", ["u/me/b1/", "../../x", "[b]", ""])
def test_commands_refuse_a_name_before_they_do_anything(certified_root, name):
    before = state(certified_root)
    run = ["run", "-b", certified_root, "-p", "TinyCam/bias.yaml", "-i", "TinyCam/raw/all", "--clobber", "-o", name]
    for command in (
        run,
        [*run, "--dry-run"],
        ["chain", certified_root, "-p", "bias", "-o", name],
        ["certify", certified_root, "u/me/b1", name, "bias", "--override", "test"],
        ["history", certified_root, name],
        ["logs", certified_root, name],
        ["rerun", certified_root, "u/me/b1", "-o", name],
    ):
        assert "collection" in camcal(*command)
    assert state(certified_root) == before


@pytest.mark.parametrize(
    ("name", "kind"),
    [("TinyCam/calib", "CHAINED"), ("TinyCam/calib/a", "CALIBRATION"), ("TinyCam/raw/all", "what was ingested")],
)
def test_a_collection_of_another_kind_is_told_before_anything_is_done(certified_root, name, kind):
    before = state(certified_root)
    run = ["run", "-b", certified_root, "-p", "TinyCam/bias.yaml", "-i", "TinyCam/raw/all", "-o", name]
    assert kind in camcal(*run)
    assert state(certified_root) == before


def test_python_refuses_them_too(certified):
    for act in (
        lambda: certified.register_run("../x"),
        lambda: certified.register_run("TinyCam/calib"),
        lambda: certified.forget_product("TinyCam/calib", "bias"),
        lambda: certified.forget_product("u/*", "bias"),
        lambda: certified.chain("u/me/b1", ["u/me/b2"]),
        lambda: certified.chain("u/x/", ["u/me/b2"]),
        lambda: certified.chain("TinyCam/calib", ["TinyCam/calib"], "extend"),
        lambda: certified.certify("u/me/b1", "bias", "u/me/b2"),
        lambda: certified.register_dataset_type("../bias", ["instrument"], False),
        lambda: ChainSettings("u/me/"),
    ):
        with pytest.raises(RepoError):
            act()
    assert certified.collections("u/x*") == []
    with pytest.raises(RepoError, match="u/nothing"):
        certified.chain("u/new", ["u/nothing"], "extend")
    assert certified.collections("u/new") == []
    assert len(certified.datasets("bias", "u/me/b1")) == 2


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%25b", "a\nb"])
def test_folders_that_are_another_place_as_a_uri(tmp_path, name):
    with pytest.raises(RepoError, match="means something else in a URI"):
        create_repo(str(tmp_path / name), "TinyCam")
    assert list(tmp_path.iterdir()) == []


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.absolute("~/repo") == str(tmp_path / "repo")
    assert files.absolute("/x/~y") == "/x/~y"


def test_the_limit_is_the_butlers():
    from lsst.daf.butler.column_spec import COLLECTION_NAME_MAX_LENGTH

    assert naming.LONGEST == COLLECTION_NAME_MAX_LENGTH

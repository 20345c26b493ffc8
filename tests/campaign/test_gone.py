"""A repository that goes away (unmounted, moved) while a run writes into it is not made again in its place."""

import errno
import shutil
from pathlib import Path

import pytest

from camcal_dask.campaign.cluster.workers import Profile, connect
from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.campaign.planning.request import make_plan
from camcal_dask.campaign.running.run import Options, execute
from camcal_dask.errors import RunError
from camcal_dask.repo.butler.repository import create_repo, open_repo
from camcal_dask.repo.incoming.ingest import ingest
from camcal_dask.repo.storage import files
from camcal_dask.simulation import bias_set, simulate

from .conftest import DAY


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A repository of one's own, to be moved about; its root and its raw files."""
    folder = tmp_path_factory.mktemp("gone")
    made = simulate(folder / "raw", "TinyCam", bias_set(3, DAY))
    paths = [str(path) for path in made.files]
    with connect(Profile(kind="threads", workers=1)) as client, create_repo(str(folder / "repo"), "TinyCam") as repo:
        ingest(repo, paths, client=client)
    return Path(repo.root), paths


@pytest.mark.parametrize("mount_point", [False, True])
def test_a_run_stops_and_is_repeated(filled, mount_point):
    root, _ = filled
    away, run = root.with_name("away"), f"u/gone{mount_point}"

    def unmount(_):
        if not away.exists():
            root.rename(away)
            if mount_point:
                root.mkdir()

    with connect(Profile(kind="threads", workers=1)) as client:
        with open_repo(str(root), writeable=True) as repo:
            plan = make_plan(repo, load_recipe("TinyCam/bias.yaml"), inputs=["TinyCam/raw/all"], output=run)
            with pytest.raises(RunError, match="no longer there"):
                execute(repo, plan, client, options=Options(progress=unmount))
        if mount_point:
            assert not list(root.iterdir())
            root.rmdir()
        assert not root.exists()
        away.rename(root)
        with open_repo(str(root), writeable=True) as repo:
            outcome = execute(repo, plan, client)
            assert outcome.complete, outcome.text()
            assert len(repo.datasets("bias", run)) == 4


def test_nothing_is_ingested_in_the_place_of_a_repository(filled, tmp_path):
    root, paths = filled
    away = tmp_path / "away"
    with open_repo(str(root), writeable=True) as repo:
        shutil.move(root, away)
        root.mkdir()
        with pytest.raises(OSError, match="no longer there") as caught:
            repo.register_run("u/never")
        assert caught.value.errno == errno.ENODEV
        with pytest.raises(OSError, match="no longer there"):
            files.write_json(files.join(repo.root, "cubes", "x", "y.json"), {})
        assert not list(root.iterdir())
    root.rmdir()
    shutil.move(away, root)


def test_the_guard_travels_to_workers(filled, monkeypatch):
    """A worker learns of the repository from what it unpickles."""
    import pickle

    from camcal_dask.campaign.running.job import Place

    sent = pickle.dumps(Place("/guarded/repo", None, ""))
    monkeypatch.setattr(files, "_roots", set())
    pickle.loads(sent)
    assert files._roots == {Path("/guarded/repo")}

"""A small repository that campaigns are run on: four biases of the four detectors of TinyCam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camcal_dask.campaign.cluster.workers import Profile, connect
from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.campaign.planning.request import make_plan
from camcal_dask.campaign.running.run import Options, execute
from camcal_dask.repo.butler.repository import create_repo, open_repo
from camcal_dask.repo.incoming.ingest import ingest
from camcal_dask.simulation import bias_set, simulate

DAY = 20260812


@pytest.fixture(scope="module")
def threads():
    with connect(Profile(kind="threads", workers=2)) as client:
        yield client


@pytest.fixture(scope="session")
def biases(tmp_path_factory):
    """Repository with raws and the undisturbed bias ``u/clean``; its root."""
    folder = tmp_path_factory.mktemp("campaign")
    made = simulate(folder / "raw", "TinyCam", bias_set(4, DAY))
    with (
        connect(Profile(kind="threads", workers=2)) as client,
        create_repo(str(folder / "repo"), "TinyCam") as repo,
    ):
        ingest(repo, [str(f) for f in made.files], client=client)
        make_bias(repo, "u/clean", client)
        return repo.root


@pytest.fixture
def repo(biases):
    with open_repo(biases, writeable=True) as opened:
        yield opened


def bias_plan(repo, output, *, where="", overrides=()):
    recipe = load_recipe("TinyCam/bias.yaml", overrides)
    return make_plan(repo, recipe, inputs=["TinyCam/raw/all"], output=output, where=where)


def make_bias(repo, output, client, *, where="", overrides=(), **options):
    return execute(repo, bias_plan(repo, output, where=where, overrides=overrides), client, options=Options(**options))


def assert_same(repo, run, detectors=(0, 1, 2, 3), clean="u/clean", product="bias"):
    """The product of a run is whole and, to the bit, that of the undisturbed one; nothing else is registered."""
    assert sorted(ref.detector for ref in repo.datasets(product, run)) == sorted(detectors)
    one, two = (repo.open(product, run=r, detector=list(detectors)).load() for r in (clean, run))
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name].values, two[name].values)


def markers_of(root, run):
    """Folder that says which detectors of a bias are whole."""
    return Path(root, "cubes", *run.split("/"), "bias.finished")


def held_camcal(markers, go):
    """Text of a program: ``camcal`` that, once a detector is whole, writes no shard before the file ``go`` is there."""
    return f"""
import sys, time
from pathlib import Path
from camcal_dask.repo.cubes import products
first, markers, go = products.write_shard, Path({str(markers)!r}), Path({str(go)!r})
def held(*arguments):
    while markers.is_dir() and any(markers.iterdir()) and not go.exists():
        time.sleep(0.01)
    if go.exists():
        time.sleep(0.3)
    first(*arguments)
products.write_shard = held  # at the top: worker processes import this file as well
if __name__ == "__main__":
    import signal
    from camcal_dask.cli import main
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts with &
    main(sys.argv[1:])
"""

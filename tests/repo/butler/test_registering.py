"""Registration: once, whole, and by any number of processes."""

import os
import stat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, event

from camcal_dask.errors import RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler.repository import create_repo, open_repo
from camcal_dask.repo.cubes import raw as cubes
from tests.repo.conftest import CAMERA, EXPOSURES, make_bias, record

BIASES = "exposure.observation_type='bias'"


def _register(root, barrier):
    repo = open_repo(root, writeable=True)
    exposures = [2026081300011 + i for i in range(5)]
    barrier.wait()
    for exposure in exposures:
        cubes.ensure_raw_cube(cubes.raw_cube_uri(root, CAMERA, exposure), get_instrument(CAMERA))
        repo.register_exposures([record(exposure)])
        repo.register_raws(CAMERA, [(exposure, d) for d in range(4)])


def test_reading_only(tiny_repo):
    repo = open_repo(tiny_repo.root)
    assert repo.raws().sizes["exposure"] == len(EXPOSURES)
    with pytest.raises(RepoError, match="opened for reading"):
        repo.register_raws(CAMERA, [(EXPOSURES[0], 0)])


def test_odd_exposures_do_not_stop_an_ingest(tiny_repo):
    odd = record(
        2026081300009, physical_filter="never~seen", begin_tai_nsec=None, end_tai_nsec=None, target_name="x" * 99
    )
    tiny_repo.repo.register_exposures([odd, odd])
    tiny_repo.repo.register_raws(CAMERA, [(odd.exposure, 0)])
    raw = tiny_repo.repo.raws(f"exposure={odd.exposure}")
    assert raw["physical_filter"].item() == "never~seen"
    assert np.isnan(raw["mjd"].item())
    make_bias(tiny_repo.repo, "u/b", 1.0)
    with pytest.raises(RepoError, match="TC_O_20260813_000009: its header has no time"):
        tiny_repo.repo.find_calib("bias", odd.exposure, 0, "u/b")


def test_a_contradicting_exposure_is_refused(tiny_repo):
    with pytest.raises(RepoError, match="registering 1 exposures from TC_O_20260812_000001"):
        tiny_repo.repo.register_exposures([record(2026081299999, obs_id="TC_O_20260812_000001")])


def test_registering_again_changes_nothing(tiny_repo):
    repo = tiny_repo.repo
    assert repo.register_raws(CAMERA, tiny_repo.raws) == 0
    assert repo.registered_raws(CAMERA, EXPOSURES) == tiny_repo.raws
    assert repo.registered_raws(CAMERA, []) == set()


def test_raws_without_cube_are_refused(tiny_repo):
    tiny_repo.repo.register_exposures([record(2026090100001)])
    with pytest.raises(RepoError, match="write the cube before"):
        tiny_repo.repo.register_raws(CAMERA, [(2026090100001, 0)])
    assert tiny_repo.repo.registered_raws(CAMERA, [2026090100001]) == set()


def test_a_product_is_registered_when_whole(tiny_repo):
    repo = tiny_repo.repo
    uuids = make_bias(repo, "u/me/b1", 1.0, detectors=(0, 2))
    assert make_bias(repo, "u/me/b1", 1.0, detectors=(0, 2)) == uuids
    uri = f"{repo.root}/cubes/u/me/b1/bias.zarr"
    with pytest.raises(RepoError, match=r"detectors \[1\] are not completely written"):
        repo.register_product("u/me/b1", "bias", uri, [{"instrument": CAMERA, "detector": d} for d in (0, 1)])
    more = make_bias(repo, "u/me/b1", 1.0, detectors=(1,))
    listed = repo.datasets("bias", "u/me/b1")
    assert [(r.detector, r.run, r.uri) for r in listed] == [(d, "u/me/b1", uri) for d in (0, 1, 2)]
    assert {r.uuid for r in listed} == {*uuids, *more}


def test_new_dataset_types(tiny_repo):
    tiny_repo.repo.register_dataset_type("flat", ["instrument", "detector", "physical_filter"], True)
    tiny_repo.repo.register_dataset_type("flat", ["instrument", "detector", "physical_filter"], True)
    with pytest.raises(RepoError, match="dataset type flat failed"):
        tiny_repo.repo.register_dataset_type("flat", ["instrument", "detector"], True)


def test_two_processes_register_the_same_raws(tiny_repo):
    context = get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_register, args=(tiny_repo.root, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(tiny_repo.repo.registered_raws(CAMERA, range(2026081300011, 2026081300016))) == 20


def test_permissions_are_the_users_umask(tiny_repo):
    umask = os.umask(0)
    os.umask(umask)
    shard = Path(tiny_repo.root) / "cubes/raw/TinyCam/20260812.zarr/raw/c/1/0/0/0/0"
    assert stat.S_IMODE(shard.stat().st_mode) == 0o666 & ~umask


@pytest.mark.slow
def test_a_night_of_the_whole_focal_plane_takes_few_statements(tmp_path):
    """18 900 raws: statements grow with the exposures, not with the raws."""
    repo = create_repo(str(tmp_path / "repo"), "LSSTCam")
    camera = get_instrument("LSSTCam")
    exposures = [2026081200001 + i for i in range(100)]
    cubes.ensure_raw_cube(cubes.raw_cube_uri(repo.root, "LSSTCam", exposures[0]), camera)
    repo.register_exposures(record(e, instrument="LSSTCam") for e in exposures)
    counts = []
    event.listen(Engine, "before_cursor_execute", count := lambda *_: counts.append(1))
    try:
        repo.register_raws("LSSTCam", [(e, d) for e in exposures for d in camera.science_detectors])
        registered = len(counts)
        raw = repo.raws(f"{BIASES} AND exposure.day_obs=20260812")
        resolved = len(counts) - registered
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert raw.shape == (100, 189, 16, 2048, 576)
    assert registered < 2000
    assert resolved < 100

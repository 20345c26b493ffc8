"""Raw cubes: addresses, whole shards, damage, lazy selection, one core a call."""

import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import dask
import numpy as np
import pytest
import xarray as xr

from camcal_dask.errors import DataError, RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.storage import files, shards
from camcal_dask.schema import RAW

TINY = get_instrument("TinyCam")
SHAPE = (16, 64, 56)


@pytest.fixture
def cube(tmp_path):
    uri = cubes.raw_cube_uri(str(tmp_path), "TinyCam", 2026081200007)
    cubes.ensure_raw_cube(uri, TINY)
    return uri


def random_pixels(seed=0, shape=SHAPE):
    # 18 bits and negative values: what the camera's int32 can hold.
    return np.random.default_rng(seed).integers(-5, 2**18, shape).astype(np.int32)


def test_addresses_are_computed():
    assert cubes.raw_cube_uri("/r", "LSSTCam", 3023100400001) == "/r/cubes/raw/LSSTCam/30231004.zarr"
    assert cubes.raw_slot(3023100400001) == 1


def test_write_then_read_is_identity_and_the_rest_is_lost(cube):
    a = random_pixels()
    cubes.write_raw(cube, 7, 2, a)
    np.testing.assert_array_equal(cubes.read_raw(cube, 7, 2), a)
    for slot, detector in ((7, 1), (8, 2)):
        with pytest.raises(DataError, match=f"202608120000{slot}, detector {detector} .*is lost; ingest"):
            cubes.read_raw(cube, slot, detector)
    assert [cubes.has_raw(cube, 7, d) for d in (1, 2)] == [False, True]


def test_a_smaller_readout_leaves_fill(cube):
    a = random_pixels(shape=(8, 60, 50))
    cubes.write_raw(cube, 7, 0, a)
    whole = cubes.read_raw(cube, 7, 0)
    np.testing.assert_array_equal(whole[:8, :60, :50], a)
    assert (whole[8:] == cubes.FILL).all()
    assert (whole[:, 60:] == cubes.FILL).all()
    assert (whole[:, :, 50:] == cubes.FILL).all()


@pytest.mark.parametrize(
    ("slot", "detector", "amps"),
    [
        (7, 4, np.zeros(SHAPE, np.int32)),
        (100_000, 0, np.zeros(SHAPE, np.int32)),
        (7, 0, np.zeros(SHAPE, np.uint16)),
        (7, 0, np.zeros((16, 65, 56), np.int32)),
    ],
)
def test_pixels_that_do_not_fit_are_refused(cube, slot, detector, amps):
    with pytest.raises(DataError, match="cube"):
        cubes.write_raw(cube, slot, detector, amps)


def test_the_cube_is_sharded_by_detector_and_any_zarr_reads_it(cube):
    a = random_pixels()
    cubes.write_raw(cube, 7, 2, a)
    document = json.loads((files.local_path(cube) / "raw" / "zarr.json").read_text())
    assert document["shape"] == [100_000, 4, *SHAPE]
    assert document["dimension_names"] == list(RAW.dims)
    assert document["fill_value"] == -(2**31)
    other = xr.open_zarr(cube, chunks=None, consolidated=False, zarr_format=3)["raw"]
    np.testing.assert_array_equal(other[7, 2].values, a)


@pytest.mark.parametrize(("height", "rows"), [(2048, 256), (2002, 286), (2000, 250), (64, 64), (50, 50), (1009, 1009)])
def test_inner_chunks_divide_the_shard(height, rows):
    assert shards.inner_rows(height) == rows


def test_ensure_is_idempotent_and_refuses_another_camera(cube):
    cubes.ensure_raw_cube(cube, TINY)
    with pytest.raises(RepoError, match="holds TinyCam.*LATISS needs"):
        cubes.ensure_raw_cube(cube, get_instrument("LATISS"))


def test_an_unknown_format_is_named(cube):
    document = json.loads((files.local_path(cube) / "zarr.json").read_text())
    document["attributes"]["camcal_format"] = 9
    shards.write_metadata(cube, document)
    with pytest.raises(RepoError, match="format 9.*reads format 1"):
        cubes.ensure_raw_cube(cube, TINY)


def test_missing_cube_and_unsupported_storage_are_named():
    with pytest.raises(RepoError, match="no such cube"):
        cubes.read_raw("/nowhere/1.zarr", 1, 1)
    with pytest.raises(RepoError, match="ftp:// cannot hold a repository"):
        files.local_path("ftp://host/repo")
    assert str(files.local_path("file:///a%20b")) == "/a b"


@pytest.mark.parametrize("size", [0, 10, 3000])
def test_a_truncated_shard_is_an_error_not_a_dark_sky(cube, size):
    cubes.write_raw(cube, 7, 2, random_pixels())
    os.truncate(f"{cube}/raw/c/7/2/0/0/0", size)
    with pytest.raises(DataError, match="exposure 2026081200007, detector 2 cannot be read.*ingest its file again"):
        cubes.read_raw(cube, 7, 2)


def test_a_killed_write_leaves_nothing(cube, monkeypatch):
    before = random_pixels(1)
    cubes.write_raw(cube, 7, 2, before)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shards.Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        cubes.write_raw(cube, 7, 2, random_pixels(2))
    np.testing.assert_array_equal(cubes.read_raw(cube, 7, 2), before)
    assert [n for n in files.names(files.parent(cube)) if n.startswith(".")] == []


def test_old_scratch_is_swept_and_nothing_else(tmp_path):
    old, young, other = tmp_path / f".a.zarr.{'0' * 32}", tmp_path / f".a.zarr.{'1' * 32}", tmp_path / ".cache"
    for path in (old, young, other):
        path.mkdir()
    for path in (old, other):
        os.utime(path, (time.time() - 1e6,) * 2)
    files.sweep(str(tmp_path / "a.zarr"))
    assert not old.exists()
    assert young.exists()
    assert other.exists()


def test_manifest_says_what_is_complete(cube):
    cubes.write_raw(cube, 7, 2, random_pixels())
    assert cubes.read_raw_manifest(cube, 7, 2) is None
    cubes.write_raw_manifest(cube, 7, 2, {"content_hash": "ab", "file": "x.fits"})
    assert cubes.read_raw_manifest(cube, 7, 2) == {"content_hash": "ab", "file": "x.fits"}


# ---------------------------------------------------------------------------- concurrency


def _race(root, barrier, done):
    barrier.wait()
    for seq in range(3):
        uri = cubes.raw_cube_uri(root, "TinyCam", (20260812 + seq) * 100_000)
        cubes.ensure_raw_cube(uri, TINY)
        for detector in range(4):
            cubes.write_raw(uri, 1, detector, random_pixels(detector))
    done.put(True)


def test_two_processes_make_and_fill_the_same_cubes(tmp_path):
    context = get_context("spawn")
    barrier, done = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_race, args=(str(tmp_path), barrier, done)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    folder = tmp_path / "cubes" / "raw" / "TinyCam"
    assert sorted(p.name for p in folder.iterdir()) == ["20260812.zarr", "20260813.zarr", "20260814.zarr"]
    for day in folder.iterdir():
        for detector in range(4):
            np.testing.assert_array_equal(cubes.read_raw(str(day), 1, detector), random_pixels(detector))


def test_threads_write_one_shard_at_once(cube):
    values = [np.full(SHAPE, n, np.int32) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda a: cubes.write_raw(cube, 7, 2, a), values * 4))
    found = cubes.read_raw(cube, 7, 2)
    assert (found == found[0, 0, 0]).all()  # one writer's shard, whole


@pytest.mark.slow
def test_a_read_uses_one_core(tmp_path):
    """Threads of dask share the cores; a read that took them all would take them from its neighbours."""
    uri = cubes.raw_cube_uri(str(tmp_path), "LATISS", 2026081200001)
    cubes.ensure_raw_cube(uri, get_instrument("LATISS"))
    noise = np.rint(np.random.default_rng(1).normal(25_000, 4, (16, 2048, 576))).astype(np.int32)
    cubes.write_raw(uri, 1, 0, noise)

    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(8):
        cubes.read_raw(uri, 1, 0)
    # a busy machine makes this ratio less, never more
    assert (time.process_time() - cpu) / (time.perf_counter() - wall) < 1.25


# ---------------------------------------------------------------------------- lazy selection


def lazy(cube, slots=(7, 8), detectors=(0, 2, 3), present=None):
    array = cubes.RawCubeArray([cube] * len(slots), slots, detectors, SHAPE, present=present)
    return xr.DataArray(cubes.lazy_variable(RAW.dims, array))


SELECTIONS = [
    {"exposure": 0, "detector": 1},
    {"exposure": [1, 0], "detector": slice(None, None, -1)},
    {"amp": [3, 5, 3], "y": slice(10, 20, 3), "x": slice(None, None, -1)},
    {"amp": 4, "y": -1, "x": 5, "detector": [2]},
    {"y": slice(30, 30)},
    {"exposure": slice(1, None), "amp": slice(-2, None), "x": [0, 55]},
]


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_selections_equal_those_of_numpy(cube, selection):
    whole = np.stack([[random_pixels(10 * s + d) for d in (0, 2, 3)] for s in (7, 8)])
    for s in (7, 8):
        for d in (0, 2, 3):
            cubes.write_raw(cube, s, d, random_pixels(10 * s + d))
    expected = xr.DataArray(whole, dims=RAW.dims).isel(selection)
    xr.testing.assert_identical(lazy(cube).isel(selection).load(), expected)
    chunked = lazy(cube).isel(selection).chunk()
    xr.testing.assert_identical(chunked.compute(scheduler="synchronous"), expected)


def test_reads_are_contiguous_and_only_what_is_needed(cube, monkeypatch):
    asked = []
    original = cubes.read_raw

    def spy(uri, slot, detector, *parts, out):
        asked.append((slot, detector, *parts))
        return original(uri, slot, detector, *parts, out=out)

    for detector in (0, 3):
        cubes.write_raw(cube, 8, detector, random_pixels())
    monkeypatch.setattr(cubes, "read_raw", spy)
    lazy(cube).isel(exposure=[1], detector=[0, 2], amp=[5, 3], y=slice(8, 16)).load()
    part = (slice(3, 6), slice(8, 16), slice(0, 56))
    assert asked == [(8, 0, *part), (8, 3, *part)]


def test_what_is_not_registered_is_fill_without_reading(cube, monkeypatch):
    cubes.write_raw(cube, 7, 0, random_pixels())  # written, but not registered
    present = np.array([[False, True, True], [True, True, True]])
    part = lazy(cube, present=present).isel(exposure=0, detector=0)
    monkeypatch.setattr(cubes, "read_raw", None)
    assert (part.values == cubes.FILL).all()


def test_selecting_and_chunking_read_nothing_and_stay_small(monkeypatch):
    """60 exposures x 189 detectors, at full size: 11,340 blocks, one task each, a few kB to send."""

    def reader(*_, **__):
        raise AssertionError("read while building the graph")

    monkeypatch.setattr(cubes, "read_raw", reader)
    days = ["/far/away/20260812.zarr"] * 30 + ["/far/away/20260813.zarr"] * 30
    array = cubes.RawCubeArray(days, range(100, 160), range(189), (16, 2048, 576))
    raw = xr.DataArray(cubes.lazy_variable(RAW.dims, array))
    exposures = raw.chunk(exposure=1, detector=1, amp=-1, y=-1, x=-1)
    stack = raw.chunk(exposure=-1, detector=1, amp=-1, y=256, x=-1)
    n_exposures, n_stack = len(exposures.__dask_graph__()), len(stack.__dask_graph__())
    assert (n_exposures, n_stack) == (60 * 189 + 1, 8 * 189 + 1)
    assert len(pickle.dumps(exposures.__dask_graph__())) < 20_000
    assert len(exposures._repr_html_()) < 60_000
    with pytest.raises(AssertionError, match="building the graph"), dask.config.set(scheduler="synchronous"):
        exposures[0, 0].compute()


def test_headers_come_from_the_first_detector_that_was_ingested(tmp_path):
    root, first, second = str(tmp_path), 2026081200001, 2026081200002
    uri = cubes.raw_cube_uri(root, "TinyCam", first)
    for exposure, detector in ((first, 2), (first, 3), (second, 3)):
        header = {"SEQFILE": f"{exposure} {detector}"}
        cubes.write_raw_manifest(uri, cubes.raw_slot(exposure), detector, {"header": header})
    found = cubes.headers(root, "TinyCam", np.array([second, first, first + 8]), [1, 2, 3])
    assert list(found) == [second, first, first + 8]
    assert found == {second: {"SEQFILE": f"{second} 3"}, first: {"SEQFILE": f"{first} 2"}, first + 8: None}
    assert cubes.headers(root, "TinyCam", [second], [2]) == {second: None}

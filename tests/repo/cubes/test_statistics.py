"""Statistics of several runs against the cubes they were written from."""

import json
import pickle

import numpy as np
import pytest
import xarray as xr

from camcal_dask.errors import RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler.repository import create_repo
from camcal_dask.repo.cubes import small, statistics
from camcal_dask.repo.storage.shards import write_metadata

CAMERA = get_instrument("TinyCam")


def cube(day, n=3, detectors=(0, 2), tests=("a", "b"), camera="TinyCam", seed=0, **extra):
    """Statistics of one run; the status knows its place."""
    rng = np.random.default_rng([seed, day])
    dims = ("exposure", "detector", "amp")
    shape = (n, len(detectors), 16)
    return xr.Dataset(
        {
            "noise": (dims, rng.normal(5, 1, shape), {"units": "electron"}),
            "status": (("test", *dims), rng.integers(0, 2, (len(tests), *shape)).astype(np.int8)),
            "gain": (dims[1:], rng.normal(1.6, 0.1, shape[1:])),
            "maps": ((*dims, "y_bin"), rng.normal(size=(*shape, 4))),
            "run_success": ((), True),
            **extra,
        },
        {
            "exposure": day * 100_000 + np.arange(1, n + 1),
            "detector": list(detectors),
            "amp": list(CAMERA.amp_names),
            "test": list(tests),
            "test_threshold": ("test", [0.05] * len(tests)),
            "mjd": ("exposure", day - 20200000 + np.arange(n) / 100),
            "day_obs": ("exposure", np.full(n, day)),
            "physical_filter": ("exposure", ["r_57"] * n),
        },
        {"instrument": camera, "candidate": "bias"},
    )


@pytest.fixture
def opened(tmp_path):
    def write(**cubes):
        found = []
        for run, dataset in cubes.items():
            uri = str(tmp_path / run / "verifyBias.zarr")
            (tmp_path / run).mkdir()
            small.write_dataset(uri, dataset)
            found.append(statistics.open_cube(uri, run))
        return statistics.open_cubes(found)

    return write


def test_runs_are_joined_in_order_of_time(opened):
    late, early = cube(20260813), cube(20260812, n=2)
    found = opened(late=late, early=early)
    assert found["run"].values.tolist() == ["early"] * 2 + ["late"] * 3
    expected = np.concatenate([early["noise"].values, late["noise"].values])
    np.testing.assert_array_equal(found["noise"].values, expected)
    assert found["status"].dims == ("exposure", "test", "detector", "amp")
    np.testing.assert_array_equal(found["status"].values[2:], late["status"].transpose(*found["status"].dims).values)
    np.testing.assert_array_equal(found["gain"].values[0], early["gain"].values)
    assert found["run_success"].values.tolist() == [True] * 5
    assert found["noise"].attrs["units"] == "electron"
    assert found.attrs["candidate"] == "bias"
    assert found["raft"].values.tolist() == [CAMERA.detectors[d].raft for d in (0, 2)]
    assert found["vendor"].values.tolist() == [CAMERA.detectors[d].vendor for d in (0, 2)]
    assert found["physical_filter"].values.tolist() == ["r_57"] * 5


def test_runs_of_different_detectors_and_tests_are_aligned(opened):
    first = cube(20260812, detectors=(2,), tests=("b",))
    second = cube(20260813, detectors=(0, 3), tests=("a", "b"), extra=(("exposure",), [1.0, 2.0, 3.0]))
    second["test_threshold"][1] = 0.1
    found = opened(first=first, second=second)
    assert found["detector"].values.tolist() == [0, 2, 3]
    assert found["test"].values.tolist() == ["b", "a"]
    for run, data in {"first": first, "second": second}.items():
        mine = found.isel(exposure=np.flatnonzero(found["run"] == run)).sel(detector=data["detector"].values)
        np.testing.assert_array_equal(mine["noise"].values, data["noise"].values)
        status = mine["status"].sel(test=data["test"].values).transpose(*data["status"].dims)
        np.testing.assert_array_equal(status.values, data["status"].values)
    absent = found.isel(exposure=0)
    assert np.isnan(absent["noise"].sel(detector=[0, 3]).values).all()
    assert (absent["status"].sel(test="a") == -1).all()
    assert not absent["run_success"].isnull()
    assert np.isnan(found["extra"].values[:3]).all()
    assert found["extra"].values[3:].tolist() == [1.0, 2.0, 3.0]
    assert "test_threshold" not in found.coords  # the runs disagree on that of b


@pytest.mark.parametrize(
    "key",
    [
        {"exposure": 4},
        {"exposure": slice(1, 5, 2), "amp": 3},
        {"exposure": [5, 0, 3], "detector": [1]},
        {"exposure": slice(None, None, -1), "amp": [15, 0]},
        {"exposure": [], "detector": 0},
        {"detector": -1, "amp": slice(4, 9)},
    ],
)
@pytest.mark.parametrize("name", ["noise", "status", "gain", "maps"])
def test_any_selection_reads_what_the_whole_has(opened, key, name):
    found = opened(a=cube(20260812), b=cube(20260813, detectors=(2, 3), tests=("b", "c")))
    whole = found[name].copy(deep=True).load()
    xr.testing.assert_identical(found[name].isel(key).load(), whole.isel(key))


def test_nothing_is_read_before_it_is_asked_for(opened, monkeypatch):
    reads = []
    real = statistics.read_into
    monkeypatch.setattr(statistics, "read_into", lambda uri, *a: (reads.append(uri), real(uri, *a)))
    found = opened(a=cube(20260812), b=cube(20260813))
    later = pickle.loads(pickle.dumps(found.chunk({"exposure": 2})["noise"].mean("exposure")))  # noqa: S301
    found.noise.sel(detector=2, amp="C10")
    assert reads == []
    np.testing.assert_allclose(later.compute().values, found["noise"].values.mean(axis=0))
    found["status"].isel(exposure=4).load()
    assert reads[-1].endswith("b/verifyBias.zarr/status")


def test_chunks_hold_one_test_all_amps_and_as_many_exposures_as_fit():
    block = ("exposure", "detector", "amp")
    assert statistics.chunks_of(block, (1000, 189, 16), 8) == (173, 189, 16)
    assert statistics.chunks_of(("test", *block), (13, 20, 189, 16), 8) == (1, 20, 189, 16)
    assert statistics.chunks_of(("test", *block), (13, 1000, 189, 16), 8) == (1, 173, 189, 16)
    assert statistics.chunks_of((*block, "y_bin", "x_bin"), (20, 189, 16, 31, 8), 8) == (1, 132, 16, 31, 8)
    assert statistics.chunks_of(("detector", "amp"), (0, 16), 8) == (1, 16)


def test_labels_keep_part(opened):
    found = opened(a=cube(20260812), b=cube(20260813))
    assert statistics.choose(found, day_obs=20260813).sizes["exposure"] == 3
    assert statistics.choose(found, day_obs=slice(None, 20260812), detector=[0]).sizes["detector"] == 1
    assert statistics.choose(found, amp=["C10", "C07"], run="b")["amp"].values.tolist() == ["C10", "C07"]
    with pytest.raises(RepoError, match=r"no coordinate 'vender'.*vendor"):
        statistics.choose(found, vender="ITL")
    with pytest.raises(RepoError, match="no raft is 'R99'; there are"):
        statistics.choose(found, raft="R99")


def test_mistakes_are_named(opened, tmp_path):
    with pytest.raises(RepoError, match="statistics of LSSTCam, TinyCam: say instrument='LSSTCam'"):
        opened(a=cube(20260812), b=cube(20260813, detectors=(0,), camera="LSSTCam"))
    uri = str(tmp_path / "table.zarr")
    small.write_dataset(uri, xr.Dataset({"scale": ("filter", [1.0])}))
    with pytest.raises(RepoError, match="no statistics of exposures"):
        statistics.open_cube(uri, "t")
    document = json.loads((tmp_path / "table.zarr" / "zarr.json").read_text())
    del document["attributes"][statistics.INDEX]
    write_metadata(uri, document)
    with pytest.raises(RepoError, match="without an index of statistics; run its pipeline again"):
        statistics.open_cube(uri, "t")


def test_repository_finds_runs_by_glob_chain_and_camera(tmp_path):
    with create_repo(str(tmp_path / "repo"), "TinyCam") as repo:
        for i, run in enumerate(("u/a", "u/b", "v/c")):
            uri = f"{repo.root}/cubes/{run}/verifyBias.zarr"
            small.write_dataset(uri, cube(20260812 + i))
            repo.register_product(run, "verifyBias", uri, [{"instrument": "TinyCam"}])
        repo.chain("ticket", ["v/c", "u/a"])
        runs = {glob: set(repo.stats("verifyBias", glob)["run"].values.tolist()) for glob in ("*", "u/*", "ticket")}
        assert runs == {"*": {"u/a", "u/b", "v/c"}, "u/*": {"u/a", "u/b"}, "ticket": {"v/c", "u/a"}}
        assert repo.stats("verifyBias", ["u/b"], instrument="TinyCam", detector=[2]).sizes["detector"] == 1
        with pytest.raises(RepoError, match=r"no verifyBias in w/\*; it is in: .*u/a"):
            repo.stats("verifyBias", "w/*")

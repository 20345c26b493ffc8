"""Small cubes: written whole, read whole."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.errors import RepoError
from camcal_dask.repo.cubes import raw as cubes


def statistics():
    return xr.Dataset(
        {
            "read_noise": (("exposure", "amp"), np.array([[1.5, np.nan]]), {"units": "adu"}),
            "status": (("amp",), np.array(["pass", "fail"])),
            "good": (("amp",), np.array([True, False])),
            "n": (("amp",), np.array([3, -4], dtype=np.int32)),
        },
        coords={"exposure": [2026081200001], "amp": ["C10", "C11"], "time": ("exposure", np.array([1], "M8[ns]"))},
        attrs={"limits": {"noise": [1, 2]}, "n_amp": np.int64(2), "nothing": None},
    )


def test_small_cubes_round_trip(tmp_path):
    uri = str(tmp_path / "stats.zarr")
    cubes.write_dataset(uri, statistics())
    found = cubes.open_dataset(uri)
    expected = statistics().assign_attrs(n_amp=2)
    xr.testing.assert_identical(found, expected)
    assert found["n"].dtype == np.int32
    assert cubes.cube_kind(uri) == "dataset"


def test_small_cubes_are_replaced_only_on_demand(tmp_path):
    uri = str(tmp_path / "stats.zarr")
    cubes.write_dataset(uri, statistics())
    with pytest.raises(RepoError, match="already exists"):
        cubes.write_dataset(uri, statistics())
    cubes.write_dataset(uri, statistics().isel(amp=[0]), overwrite=True)
    assert cubes.open_dataset(uri).sizes["amp"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stats.zarr"]


def test_a_cube_of_another_kind_is_named(tmp_path):
    uri = str(tmp_path / "stats.zarr")
    cubes.write_dataset(uri, statistics())
    with pytest.raises(RepoError, match="holds 'dataset', expected a 'product'"):
        cubes.open_product(uri)
    with pytest.raises(RepoError, match="no camcal_dask cube"):
        cubes.cube_kind(str(tmp_path))

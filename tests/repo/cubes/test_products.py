"""Product cubes: visible when whole, re-runnable, one detector never costs the others."""

import pickle

import numpy as np
import pytest
import xarray as xr

from camcal_dask.errors import DataError, RepoError
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.cubes import sharded
from tests.repo.conftest import bias_template, write_bias

SHAPE = (16, 50, 36)


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "u" / "run" / "bias.zarr")


def test_only_finished_detectors_are_visible(uri):
    write_bias(uri, 1.0, detectors=(1, 3))
    product = cubes.open_product(uri)
    assert product["detector"].values.tolist() == [1, 3]
    assert cubes.finished(uri) == cubes.finished_detectors(uri) == [1, 3]
    np.testing.assert_array_equal(product["image"].isel(detector=1, amp=2, y=slice(3, 5)), np.float32(1.3))
    assert product["image"].attrs == {"units": "adu"}
    assert product.attrs == {"units": "adu", "provenance": "0123", "inputs": [1, 2]}
    assert product["detector_name"].values.tolist() == ["R22_S11", "R01_S11"]
    assert product["amp"].values[[0, 8]].tolist() == ["C10", "C07"]


def test_nothing_finished_is_an_error(uri):
    cubes.create_product(uri, bias_template())
    with pytest.raises(RepoError, match="no detector of this product is complete"):
        cubes.open_product(uri)


def test_half_written_detector_is_invisible(uri, monkeypatch):
    write_bias(uri, 1.0, detectors=(0,))
    from camcal_dask.repo.cubes import products

    written = []

    def second_fails(array, index, block):
        written.append(array)
        if len(written) == 2:
            raise OSError("disk full")

    monkeypatch.setattr(products, "write_shard", second_fails)
    with pytest.raises(OSError, match="disk full"):
        cubes.write_product(uri, 1, {"image": np.zeros(SHAPE, "f4"), "mask": np.zeros(SHAPE, "i4")})
    assert cubes.finished(uri) == [0]


def test_repeating_a_detector_replaces_it(uri):
    write_bias(uri, 1.0)
    write_bias(uri, 2.0, detectors=(2,))
    image = cubes.open_product(uri)["image"].mean(["amp", "y", "x"])
    np.testing.assert_allclose(image, [1.0, 1.1, 2.2, 1.3], rtol=1e-6)


def test_the_record_travels_with_the_marker(uri):
    cubes.create_product(uri, bias_template())
    assert cubes.product_record(uri, 0) is None
    arrays = {"image": np.zeros(SHAPE, "f4"), "mask": np.zeros(SHAPE, "i4")}
    cubes.write_product(uri, 0, arrays, {"inputs": [1, 2]})
    assert cubes.product_record(uri, 0) == {"inputs": [1, 2]}


def test_another_layout_is_refused_with_both(uri):
    cubes.create_product(uri, bias_template())
    with pytest.raises(RepoError, match=r"exists.*\[0, 1, 2, 3\].*\[0, 1, 2, 9\]"):
        cubes.create_product(uri, bias_template().assign_coords(detector=[0, 1, 2, 9]))
    with pytest.raises(RepoError, match="'image' is .*'y': 50.*'y': 49"):
        cubes.create_product(uri, bias_template().isel(y=slice(49)))
    with pytest.raises(RepoError, match="'gain' is None"):
        cubes.create_product(uri, bias_template().assign(gain=("detector", np.zeros(4))))


@pytest.mark.parametrize(
    "arrays",
    [
        {"image": np.zeros(SHAPE, "f4")},
        {"image": np.zeros(SHAPE, "f8"), "mask": np.zeros(SHAPE, "i4")},
        {"image": np.zeros(SHAPE, "f4"), "mask": np.zeros((16, 50, 35), "i4")},
    ],
    ids=["missing", "dtype", "shape"],
)
def test_wrong_arrays_are_refused(uri, arrays):
    cubes.create_product(uri, bias_template())
    with pytest.raises(DataError, match="detector index 0"):
        cubes.write_product(uri, 0, arrays)


def test_full_size_amps_are_sharded_in_rows(tmp_path):
    uri = str(tmp_path / "big.zarr")
    dims = ("detector", "amp", "y", "x")
    image = np.random.default_rng(0).normal(size=(16, 2002, 512)).astype(np.float32)
    template = xr.Dataset(
        {
            "image": (dims, np.broadcast_to(np.float32(0), (2, 16, 2002, 512))),
            "level": (("detector", "amp"), np.ones((2, 16))),
        },
        coords={"detector": [5, 94]},
    )
    cubes.create_product(uri, template)
    cubes.write_product(uri, 1, {"image": image, "level": np.arange(16.0)})
    product = cubes.open_product(uri)
    np.testing.assert_array_equal(product["image"].sel(detector=94, y=slice(280, 290)), image[:, 280:290])
    assert product["level"].values.tolist() == [list(range(16))]
    names = sorted(p.name for p in (tmp_path / "big.zarr" / "image" / "c").iterdir())
    assert names == ["1"]


def test_products_of_several_runs_open_as_one(tmp_path):
    one, two = str(tmp_path / "a" / "bias.zarr"), str(tmp_path / "b" / "bias.zarr")
    write_bias(one, 1.0)
    write_bias(two, 2.0, detectors=(2,))
    both = cubes.open_products([(two, 2), (one, 0), (one, 1)])
    assert both["detector"].values.tolist() == [2, 0, 1]
    assert both["detector_name"].values.tolist() == ["R01_S00", "R22_S00", "R22_S11"]
    np.testing.assert_allclose(both["image"].isel(amp=0).mean(["y", "x"]), [2.2, 1.0, 1.1], rtol=1e-6)
    with pytest.raises(RepoError, match="detector 1 is not complete"):
        cubes.open_products([(two, 1)])


def test_lazy_until_asked_and_picklable(uri, monkeypatch):
    write_bias(uri, 1.0)
    product = cubes.open_product(uri)
    assert len(pickle.dumps(product["image"].variable._data)) < 2000
    assert len(product._repr_html_()) < 30_000
    monkeypatch.setattr(sharded, "read_into", None)
    part = product.isel(detector=[0, 1], y=slice(10)).chunk(detector=1)
    with pytest.raises(TypeError, match="not callable"):
        part["image"].compute(scheduler="synchronous")


def test_one_number_a_detector_comes_back(tmp_path):
    uri = f"{tmp_path}/numbers.zarr"
    layout = {"n": ("detector", np.zeros(3, "i4")), "x": ("detector", np.zeros(3))}
    cubes.create_product(uri, xr.Dataset(layout, {"detector": [4, 5, 6]}))
    for index in (0, 2):
        cubes.write_product(uri, index, {"n": np.array(-index, "i4"), "x": np.array(0.5 * index)})
    read = cubes.open_products([(uri, 6), (uri, 4)])
    assert read["n"].values.tolist() == [-2, 0]
    assert read["x"].values.tolist() == [1.0, 0.0]

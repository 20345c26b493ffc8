"""Planes of a detector are read once for all exposures, never changed, and never outlive their file."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from camcal_dask.repo.cubes import products, sharded
from camcal_dask.repo.storage import kept


@pytest.fixture(autouse=True)
def empty():
    kept.forget()
    yield
    kept.forget()


@pytest.fixture
def product(tmp_path):
    uri = str(tmp_path / "bias.zarr")
    dims, shape = ("detector", "amp", "y", "x"), (2, 2, 8, 6)
    layout = xr.Dataset({"image": (dims, np.zeros(shape, "f4"))}, {"detector": [3, 5]})
    products.create_product(uri, layout)
    for index in range(2):
        products.write_product(uri, index, {"image": np.full(shape[1:], index + 1, "f4")})
    return uri


def read(uri, detector, **options):
    return products.open_products([(uri, detector)], **options)["image"].values


def test_whole_detectors_are_read_once(product, monkeypatch):
    calls = []
    real = sharded.read_into
    monkeypatch.setattr(sharded, "read_into", lambda *args: (calls.append(args[0]), real(*args)))
    for _ in range(3):
        assert (read(product, 5, keep=True) == 2).all()
    assert len(calls) == 1
    assert (products.open_products([(product, 5)], keep=True)["image"][..., 2:4, :].values == 2).all()
    assert (read(product, 5) == 2).all()
    assert len(calls) == 3


def test_what_is_kept_cannot_be_changed(product):
    with pytest.raises(ValueError, match="read-only"):
        read(product, 3, keep=True)[...] = 7
    read(product, 3)[...] = 7
    assert (read(product, 3, keep=True) == 1).all()


def test_a_rewritten_or_removed_product_is_forgotten(product):
    assert (read(product, 3, keep=True) == 1).all()
    products.write_product(product, 0, {"image": np.full((2, 8, 6), 9, "f4")})
    assert (read(product, 3, keep=True) == 9).all()
    products.discard(product)
    assert not kept._kept


def test_no_more_is_kept_than_one_camera_detector(product, monkeypatch):
    monkeypatch.setattr(kept, "KEPT_BYTES", 2 * 8 * 6 * 4)
    for detector in (3, 5, 3):
        read(product, detector, keep=True)
    assert list(kept._kept) == [(f"{product}/image", 0)]

"""Datasets survive packing to the bit, and parts the way through a file."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from camcal_dask.repo.storage.parts import FLUSH_PARTS, Parts, pack, unbind, unpack


@pytest.fixture
def dataset():
    return xr.Dataset(
        {
            "mean": (("pair", "amp"), np.array([[1.5, np.nan, -0.0]]), {"units": "adu", "limits": np.arange(2)}),
            "image": (("amp",), np.arange(3, dtype="f4")[::-1]),
            "mask": ((), np.int32(7)),
            "valid": (("pair",), np.array([True])),
            "text": (("amp",), np.array(["a", "longer", ""], object)),
            "none": (("nothing", "amp"), np.empty((0, 3))),
        },
        {"amp": ["C10", "C11", "C12"], "detector": 94},
        {"recipe": {"lags": 10}},
    )


def test_nothing_is_lost(dataset):
    found = unpack(pack(dataset))
    xr.testing.assert_equal(found, dataset)
    assert {n: v.dtype for n, v in found.items() if n != "text"} == {
        n: v.dtype for n, v in dataset.items() if n != "text"
    }
    assert np.signbit(found["mean"].values[0, 2])
    assert found["mean"].attrs == {"units": "adu", "limits": [0, 1]}
    assert found.attrs == {"recipe": {"lags": 10}}
    found["image"].values[0] = 1.0  # a copy of its own


def test_parts_come_back_by_key(tmp_path, dataset):
    uri = str(tmp_path / "run.parts")
    parts = Parts(uri)
    wanted = {("pairs", str(d)): dataset.assign_coords(detector=d) for d in range(FLUSH_PARTS + 3)}
    for key, value in wanted.items():
        parts.add(key, pack(value))
    parts.flush()
    assert len(list((tmp_path / "run.parts").iterdir())) == 2
    found = dict(Parts(uri).read())
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        xr.testing.assert_identical(unpack(found[key]).coords.to_dataset(), value.coords.to_dataset())
    parts.clear()
    assert not dict(Parts(uri).read())


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-1], lambda b: b[:3], lambda b: b"", lambda b: b"\xff" + b, lambda b: b"7\n"]
)
def test_a_damaged_file_is_removed_and_its_parts_made_again(tmp_path, spoil):
    kept = Parts(str(tmp_path))
    for key in (("a", 1), ("b", 2)):
        kept.add(key, b"values")
        kept.flush()
    path = min(tmp_path.iterdir())
    ((lost, _),) = unbind(path.read_bytes(), str(path))
    path.write_bytes(spoil(path.read_bytes()))
    assert {key for key, _ in kept.read()} == {("a", 1), ("b", 2)} - {lost}
    assert not path.exists()

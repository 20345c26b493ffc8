"""Detectors and exposures as people have them: Python, numpy, xarray, pandas; what is none of them is refused."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from camcal_dask.errors import CamcalError, ConfigError
from camcal_dask.instruments import get_instrument
from camcal_dask.instruments.arguments import integer, integers
from camcal_dask.repo.cubes.statistics import choose
from tests.repo.conftest import CAMERA, EXPOSURES

ONE = [
    1, "R22_S11", "1", np.int64(1), np.uint8(1), np.array(1), np.array([1]), np.str_("R22_S11"), np.array(["R22_S11"]),
    [1], (1,), {1}, range(1, 2), iter([1]), [np.int32(1)], [xr.DataArray(1)], xr.DataArray(1),
    xr.DataArray([1], dims="x"),
    pd.Series([1]), pd.Index([1]), ["R22_S11"],
]  # fmt: skip
NONE = [[], (), np.array([], int), xr.DataArray(np.array([], int), dims="detector"), True, [True], 1.0, np.float64(1),
        "", "R22", 99, -1, [[1]], np.array([[1]]), None, b"1", b"\x01",
        bytearray(b"\x01"), np.ma.array([0, 1], mask=[True, False]), np.ma.masked]  # fmt: skip
SEVERAL = [
    [0, 1],
    np.array([0, 1]),
    xr.DataArray([0, 1], dims="detector"),
    range(2),
    ["R22_S00", 1],
    (np.int64(0), "1"),
]


def test_the_names_of_the_tests_are_those_of_the_camera():
    assert get_instrument(CAMERA).detector("R22_S11").id == 1


@pytest.mark.parametrize("detector", ONE, ids=lambda v: type(v).__name__)
def test_one_detector(certified_reader, detector):
    assert get_instrument(CAMERA).detector_ids(detector) == [1] if not hasattr(detector, "__next__") else True
    assert certified_reader.open("bias", run="u/me/b1", detector=detector)["detector"].values.tolist() == [1]


@pytest.mark.parametrize("detector", SEVERAL, ids=lambda v: type(v).__name__)
def test_several_detectors(certified_reader, detector):
    opened = certified_reader.open("bias", collections="TinyCam/calib", exposure=EXPOSURES[0], detector=detector)
    assert opened["detector"].values.tolist() == [0, 1]
    assert certified_reader.raws(detectors=detector)["detector"].values.tolist() == [0, 1]
    found = certified_reader.find_calibs("bias", EXPOSURES[0], detector, "TinyCam/calib")
    assert list(found) == [(EXPOSURES[0], 0), (EXPOSURES[0], 1)]


@pytest.mark.parametrize("detector", NONE, ids=lambda v: type(v).__name__)
def test_what_is_no_detector_is_refused(certified_reader, detector):
    acts = [lambda: certified_reader.find_calibs("bias", EXPOSURES[0], detector, "TinyCam/calib")]
    if detector is not None:
        acts.append(lambda: certified_reader.open("bias", run="u/me/b1", detector=detector))
        acts.append(lambda: certified_reader.raws(detectors=detector))
    for act in acts:
        with pytest.raises(CamcalError):
            act()


@pytest.mark.parametrize("form", [int, np.int64, np.array, xr.DataArray, lambda e: [e], lambda e: np.array([e])])
def test_one_exposure(certified_reader, form):
    exposure = form(EXPOSURES[0])
    assert certified_reader.find_calib("bias", exposure, np.int64(1), "TinyCam/calib").run == "u/me/b1"
    assert certified_reader.open("bias", collections="TinyCam/calib", exposure=exposure).sizes["detector"] == 3
    assert certified_reader.photodiode(exposure)["exposure"].values.tolist() == [EXPOSURES[0]]


@pytest.mark.parametrize(
    "exposure",
    [[], True, 2026081200001.0, "2026081200001", np.nan, 2**70, -(2**63) - 1, EXPOSURES[:2]],
    ids=lambda v: type(v).__name__,
)
def test_what_is_not_one_exposure_is_refused(certified_reader, exposure):
    with pytest.raises(CamcalError, match="exposure"):
        certified_reader.open("bias", collections="TinyCam/calib", exposure=exposure)
    with pytest.raises(CamcalError, match="exposure"):
        certified_reader.find_calib("bias", exposure, 1, "TinyCam/calib")


def test_integers_keep_their_order():
    assert integers(xr.DataArray([3, 1, 2], dims="x"), "exposure") == [3, 1, 2]
    with pytest.raises(ConfigError, match=r"exposure: 3\.0 is not an integer"):
        integers([1, 3.0], "exposure")
    with pytest.raises(ConfigError, match="detector: expected one, got 2"):
        integer([1, 2], "detector")


def test_labels_of_statistics_take_the_same():
    table = xr.Dataset({"noise": ("detector", [1.0, 2.0, 3.0])}, {"detector": [0, 1, 3]})
    for one in (1, np.int64(1), np.array(1), xr.DataArray([1], dims="x"), {1}, [1]):
        assert choose(table, detector=one)["noise"].values.tolist() == [2.0]
    for none in ([], True, [True], 7, [0, 7], "R22", b"\x01", np.ma.array([0, 1], mask=[False, True])):
        with pytest.raises(CamcalError):
            choose(table, detector=none)


def test_a_limit_of_no_exposures_is_refused(certified_reader):
    for limit in (0, -1, 1.5):
        with pytest.raises(ConfigError, match="limit"):
            certified_reader.raws(limit=limit)
    assert certified_reader.raws(limit=np.int64(2)).sizes["exposure"] == 2

"""Which calibration is valid for an exposure."""

import numpy as np
import pytest

from camcal_dask.errors import RepoError
from camcal_dask.repo.butler import exposures
from tests.repo.conftest import CAMERA, EXPOSURES, record, write_bias


@pytest.mark.parametrize(
    ("exposure", "detector", "run"),
    [
        (EXPOSURES[0], 0, "u/me/b1"),
        (EXPOSURES[0], 1, "u/me/b1"),
        (EXPOSURES[0], 3, "u/me/b2"),
        (EXPOSURES[4], 1, "u/me/b2"),
        (EXPOSURES[4], 0, None),
        (EXPOSURES[0], 2, None),
    ],
)
def test_look_up_agrees_with_the_butler(certified_reader, exposure, detector, run):
    row = exposures.exposures_by_id(certified_reader, CAMERA, [exposure])[0]
    theirs = certified_reader.butler.find_dataset(
        "bias", instrument=CAMERA, detector=detector, collections="TinyCam/calib", timespan=row.timespan
    )
    assert (theirs.run if theirs else None) == run
    found = certified_reader.find_calibs("bias", [exposure], [detector], "TinyCam/calib", required=False)
    assert {place: (ref.run, ref.uuid) for place, ref in found.items()} == (
        {(exposure, detector): (run, str(theirs.id))} if run else {}
    )


def test_look_up_in_bulk_and_open_by_exposure(certified_reader):
    found = certified_reader.find_calibs("bias", EXPOSURES, [1, 3], ["TinyCam/calib"])
    assert len(found) == 12
    assert {ref.run for (e, d), ref in found.items() if d == 1 and e in EXPOSURES[:4]} == {"u/me/b1"}
    opened = certified_reader.open("bias", collections="TinyCam/calib", exposure=EXPOSURES[0])
    assert opened["detector"].values.tolist() == [0, 1, 3]
    np.testing.assert_allclose(opened["image"].mean(["amp", "y", "x"]), [1.0, 1.1, 2.3], rtol=1e-6)


def test_look_up_that_fails_says_what_and_when(certified_reader):
    with pytest.raises(RepoError, match="exposure 2026081300001, detector 0, taken 2026-08-13T22:00:30 TAI"):
        certified_reader.find_calib("bias", EXPOSURES[4], 0, "TinyCam/calib")
    with pytest.raises(RepoError, match="exposure 2026081200099 of TinyCam is not registered"):
        certified_reader.find_calib("bias", 2026081200099, 0, "TinyCam/calib")
    with pytest.raises(RepoError, match="CALIBRATION collection; name the exposure"):
        certified_reader.open("bias", collections="TinyCam/calib")


def test_a_calibration_of_a_filter_follows_the_exposure(tiny_repo):
    repo = tiny_repo.repo
    repo.register_dataset_type("flat", ["instrument", "detector", "physical_filter"], True)
    repo.register_exposures([record(2026081300005, "flat", physical_filter="g_6")])
    uri = f"{repo.root}/cubes/u/f/flat.zarr"
    write_bias(uri, 3.0, detectors=(0,))
    repo.register_product("u/f", "flat", uri, [{"instrument": CAMERA, "detector": 0, "physical_filter": "g_6"}])
    repo.certify("u/f", "flat", "TinyCam/calib/f")
    found = repo.find_calibs("flat", [2026081300005, EXPOSURES[0]], [0], "TinyCam/calib/f", required=False)
    assert list(found) == [(2026081300005, 0)]

"""Exposures, selected by an expression."""

import numpy as np
import pytest

from camcal_dask.errors import RepoError
from camcal_dask.repo.cubes import raw as cubes
from tests.repo.conftest import CAMERA, DAYS, EXPOSURES, LOST, NOON_20260812, pixels, record

BIASES = "exposure.observation_type='bias'"


def test_exposure_records_arrive_whole(tiny_reader):
    (row,) = tiny_reader.butler.query_dimension_records("exposure", exposure=EXPOSURES[2], instrument=CAMERA)
    begin = NOON_20260812 + (36_000 + 90) * 10**9
    assert row.timespan.nsec == (begin, begin + 1)
    assert (row.obs_id, row.group, row.physical_filter, row.dark_time) == (
        "TC_O_20260812_000003",
        "20260812#3",
        "none",
        0.5,
    )
    assert row.has_simulated is True
    assert row.can_see_sky is None
    (day,) = tiny_reader.butler.query_dimension_records("day_obs", day_obs=DAYS[0], instrument=CAMERA)
    assert day.timespan.nsec == (NOON_20260812, NOON_20260812 + 86_400 * 10**9)


def test_selection_is_labelled_and_lazy(tiny_reader, monkeypatch):
    read, original = [], cubes.read_raw
    monkeypatch.setattr(cubes, "read_raw", lambda *a, **k: read.append(a) or original(*a, **k))
    raw = tiny_reader.raws(BIASES)
    assert raw.dims == ("exposure", "detector", "amp", "y", "x")
    assert raw.shape == (6, 4, 16, 64, 56)
    assert raw.chunks is None
    assert raw["exposure"].values.tolist() == list(EXPOSURES)
    assert raw["seq_num"].values.tolist() == [1, 2, 3, 4, 1, 2]
    assert raw["day_obs"].values.tolist() == [DAYS[0]] * 4 + [DAYS[1]] * 2
    assert raw["vendor"].values.tolist() == ["E2V", "E2V", "ITL", "ITL"]
    assert raw["detector_name"].values.tolist() == ["R22_S00", "R22_S11", "R01_S00", "R01_S11"]
    assert raw["raft"].values[2] == "R01"
    assert raw["slot"].values[1] == "S11"
    assert raw["amp"].values[[0, 15]].tolist() == ["C10", "C00"]
    assert raw["dark_time"].values.tolist() == [0.5] * 6
    np.testing.assert_allclose(raw["mjd"][0], 61264.5 + 36_030 / 86_400, rtol=0, atol=1e-9)
    assert raw.attrs == {"instrument": CAMERA, "units": "adu"}
    part = raw.isel(detector=1, exposure=[3, 4], amp=2)
    assert read == []
    np.testing.assert_array_equal(part[0], pixels(EXPOSURES[3], 1)[2])
    np.testing.assert_array_equal(part[1], pixels(EXPOSURES[4], 1)[2])
    assert len(raw._repr_html_()) < 40_000


def test_a_lost_detector_is_fill(tiny_reader):
    raw = tiny_reader.raws(f"exposure={LOST[0]}", detectors=[0, 3])
    assert raw["detector"].values.tolist() == [0]
    raw = tiny_reader.raws(BIASES).sel(exposure=[LOST[0], EXPOSURES[0]], detector=LOST[1])
    assert (raw[0] == cubes.FILL).all()
    np.testing.assert_array_equal(raw[1], pixels(EXPOSURES[0], LOST[1]))


@pytest.mark.parametrize(
    ("where", "options", "shape"),
    [
        ("", {}, (6, 4)),
        (f"{BIASES} AND exposure.day_obs=20260812 AND detector IN (0..2)", {}, (4, 3)),
        ("exposure.seq_num > 1 OR exposure.day_obs = 20260813", {"detectors": ["R22_S11", 2]}, (5, 2)),
        ("detector.purpose = 'SCIENCE'", {"limit": 2}, (2, 4)),
        ("exposure IN (mine)", {"bind": {"mine": list(EXPOSURES[:2])}}, (2, 4)),
        ("instrument='TinyCam'", {"collections": ["TinyCam/raw/all"]}, (6, 4)),
    ],
)
def test_expressions(tiny_reader, where, options, shape):
    assert tiny_reader.raws(where, **options).shape[:2] == shape


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "exposure.observation_type='dark' AND exposure.day_obs=20260812",
            "observation_type='dark' finds none. There are 6",
        ),
        ("exposure.day_obs=20260812 AND exposure=2026081300001", "each term finds some"),
        (f"({BIASES} AND exposure.day_obs=19991231) AND detector=1", "exposure.day_obs=19991231 finds none"),
        ("exposure.observation_tpe='dark'", "observation_tpe"),
        ("exposure.observation_type=", "exposure.observation_type="),
        ("exposure.day_obs=nobody", "nobody"),
    ],
)
def test_what_matches_nothing_is_explained(tiny_reader, where, message):
    with pytest.raises(RepoError) as caught:
        tiny_reader.raws(where)
    assert message in str(caught.value)


def test_unknown_collection_and_detector(tiny_reader):
    with pytest.raises(RepoError, match="nowhere"):
        tiny_reader.raws(BIASES, collections="nowhere")
    with pytest.raises(Exception, match="did you mean 'R22_S11'"):
        tiny_reader.raws(BIASES, detectors=["R22_S12"])
    with pytest.raises(RepoError, match="no instrument 'LATISS'"):
        tiny_reader.raws(BIASES, instrument="LATISS")


MJD = 61264.5 + 36_030 / 86_400
"""Of the first exposure: ten hours and 30 s after noon."""


def test_exposures_are_listed_without_further_arguments(tiny_reader):
    table = tiny_reader.exposures()
    assert table.index.name == "exposure"
    assert table.index.tolist() == list(EXPOSURES)
    assert table["n_detectors"].tolist() == [4, 3, 4, 4, 4, 4]  # one exposure lacks a detector
    first = table.loc[EXPOSURES[0]].to_dict()
    assert first == {
        "day_obs": 20260812, "seq_num": 1, "observation_type": "bias", "observation_reason": "bias",
        "physical_filter": "none", "exposure_time": 0.0, "dark_time": 0.5, "mjd": pytest.approx(MJD),
        "target_name": "UNKNOWN", "science_program": "BLOCK-T1", "obs_id": "TC_O_20260812_000001",
        "instrument": CAMERA, "n_detectors": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("where", "options", "count"),
    [
        ("exposure.day_obs = 20260813", {}, 2),
        ("exposure IN (some)", {"bind": {"some": [EXPOSURES[1], EXPOSURES[4]]}}, 2),
        (f"instrument='{CAMERA}' AND detector = 3", {}, 5),
        ("exposure.observation_type = 'dark'", {}, 0),
        ("", {"instrument": CAMERA}, 6),
    ],
)
def test_exposures_are_chosen_by_an_expression(tiny_reader, where, options, count):
    table, everything = tiny_reader.exposures(where, **options), tiny_reader.exposures()
    assert len(table) == count
    assert table.dtypes.to_dict() == everything.dtypes.to_dict()
    assert (table["n_detectors"] == 1).all() == ("detector" in where or count == 0)


def test_exposures_of_a_wrong_expression_or_camera_are_refused(tiny_reader):
    with pytest.raises(RepoError, match="exposures where 'exposure.colour = 3'"):
        tiny_reader.exposures("exposure.colour = 3")
    with pytest.raises(RepoError, match="has no instrument 'TinyCan'; did you mean 'TinyCam'"):
        tiny_reader.exposures(instrument="TinyCan")


def test_an_exposure_of_unknown_times_is_listed_with_nan(tiny_repo):
    odd = record(2026081200009, exposure_time_s=None, dark_time_s=None, begin_tai_nsec=None, end_tai_nsec=None)
    uri = cubes.raw_cube_uri(tiny_repo.root, CAMERA, odd.exposure)
    cubes.write_raw(uri, cubes.raw_slot(odd.exposure), 0, pixels(odd.exposure, 0))
    tiny_repo.repo.register_exposures([odd])
    tiny_repo.repo.register_raws(CAMERA, [(odd.exposure, 0)])
    row = tiny_repo.repo.exposures().loc[odd.exposure]
    assert row[["exposure_time", "dark_time", "mjd"]].isna().all()

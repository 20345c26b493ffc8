"""Header translation against the observatory's own answers and against rules read from the reference."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits

from camcal_dask.errors import DataError
from camcal_dask.raw_fits.header import ExposureRecord, RawIdentity, detector_exposure_id, translate
from camcal_dask.raw_fits.repairs import corrections

RAW = Path(__file__).resolve().parents[3] / "shared" / "data" / "raw"
NO_DATA = f"needs the reference data in {RAW}, which is not there"

OURS = {
    "id": "exposure",
    "exposure_time": "exposure_time_s",
    "dark_time": "dark_time_s",
    "tracking_ra": "tracking_ra_deg",
    "tracking_dec": "tracking_dec_deg",
    "sky_angle": "sky_angle_deg",
    "azimuth": "azimuth_deg",
    "zenith_angle": "zenith_angle_deg",
}
"""Our names of the Butler's fields where they carry a unit."""


def header_cases() -> list[Any]:
    path = RAW / "header_cases.jsonl"
    if not path.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason=NO_DATA))]
    cases = [json.loads(line) for line in path.read_text().splitlines()]
    return [pytest.param(case, id=case["case"]) for case in cases]


def raw_files() -> list[Any]:
    path = RAW / "raw_expected.json"
    if not path.is_file():
        return [pytest.param(None, None, marks=pytest.mark.skip(reason=NO_DATA))]
    return [pytest.param(RAW / name, case, id=name) for name, case in json.loads(path.read_text()).items()]


def assert_agrees(found: RawIdentity, expected: dict[str, Any]) -> None:
    """Every field of the Butler's record, plus detector, serial and packed id."""
    record, info = found.record, expected["observation_info"]
    wanted = dict(expected["butler_exposure"])
    begin, end = wanted.pop("timespan_nsec")
    assert (record.begin_tai_nsec, record.end_tai_nsec) == (begin, end)
    ours = {name: getattr(record, OURS.get(name, name)) for name in wanted}
    # One case is a transformation from azimuth and elevation: equal but for the last digits.
    assert ours == {
        name: pytest.approx(value, abs=1e-9) if isinstance(value, float) else value for name, value in wanted.items()
    }
    assert record.day_offset_s == expected["butler_day_obs"]["offset_s"]
    assert (found.detector, found.detector_serial) == (info["detector_num"], info["detector_serial"])
    assert detector_exposure_id(record.exposure, found.detector) == info["detector_exposure_id"]


@pytest.mark.parametrize("case", header_cases())
def test_real_header_agrees_with_official_translation(case: dict[str, Any]) -> None:
    header = copy.deepcopy(case["header"])
    assert_agrees(translate(header, file=case["case"]), case)
    assert header == case["header"]


@pytest.mark.parametrize(("path", "case"), raw_files())
def test_real_file_agrees_with_official_translation(path: Path, case: dict[str, Any]) -> None:
    header: dict[str, object] = {}
    with fits.open(path) as hdus:
        for hdu in hdus:
            if hdu is hdus[0] or hdu.name == "REB_COND":
                header.update(hdu.header)
    defined = {k: None if isinstance(v, fits.card.Undefined) else v for k, v in header.items()}
    assert_agrees(translate(defined, file=path.name), case)


def test_every_butler_field_is_compared() -> None:
    compared = {"begin_tai_nsec", "end_tai_nsec", "day_offset_s"} | set(OURS.values())
    compared |= {
        "instrument",
        "day_obs",
        "group",
        "physical_filter",
        "obs_id",
        "observation_type",
        "observation_reason",
    }
    compared |= {"seq_num", "seq_start", "seq_end", "target_name", "science_program", "has_simulated", "can_see_sky"}
    assert compared == set(ExposureRecord.__dataclass_fields__)


def summit_header(**cards: object) -> dict[str, object]:
    """LSSTCam header in the style of 2025, bias; keyword arguments replace cards (``_`` for ``-``)."""
    header: dict[str, object] = {
        "INSTRUME": "lsstCam",
        "TELESCOP": "Simonyi Survey Telescope",
        "OBSID": "MC_O_20250901_000012",
        "DAYOBS": "20250901",
        "SEQNUM": 12,
        "CONTRLLR": "O",
        "GROUPID": "2025-09-01T20:00:00.123",
        "IMGTYPE": "BIAS",
        "TESTTYPE": "BIAS",
        "REASON": None,
        "PROGRAM": "BLOCK-T60",
        "OBJECT": None,
        "FILTER": "r_57",
        "EXPTIME": 0.0,
        "DARKTIME": 0.0245,
        "SHUTTIME": 0.0,
        "VIGN_MIN": "FULLY",
        "TIMESYS": "TAI",
        "DATE": "2025-09-01T20:00:06.000",
        "DATE-BEG": "2025-09-01T20:00:03.500",
        "DATE-END": "2025-09-01T20:00:03.525",
        "RAFTBAY": "R22",
        "CCDSLOT": "S11",
        "LSST_NUM": "E2V-CCD250-382",
        "CURINDEX": 2,
        "MAXINDEX": 5,
    }
    return header | {name.replace("_", "-") if name not in header else name: value for name, value in cards.items()}


def tiny_header(**cards: object) -> dict[str, object]:
    return summit_header(INSTRUME="TinyCam", OBSID="TC_O_20250901_000012", LSST_NUM="E2V-TINY-001", **cards)


@pytest.mark.parametrize("name", ["LSSTCam", "TinyCam"])
def test_summit_bias_field_by_field(name: str) -> None:
    header = summit_header() if name == "LSSTCam" else tiny_header()
    found = translate(header)
    begin = 1_756_756_803_500_000_000  # 2025-09-01T20:00:03.5: 20332 days and 72003.5 s after 1970-01-01
    assert found == RawIdentity(
        ExposureRecord(
            instrument=name,
            exposure=2025090100012,
            obs_id="MC_O_20250901_000012" if name == "LSSTCam" else "TC_O_20250901_000012",
            day_obs=20250901,
            seq_num=12,
            seq_start=11,
            seq_end=15,
            group="2025-09-01T20:00:00.123",
            physical_filter="r_57",
            exposure_time_s=0.0,
            dark_time_s=0.0245,
            observation_type="bias",
            observation_reason="bias",
            target_name="UNKNOWN",
            science_program="BLOCK-T60",
            tracking_ra_deg=None,
            tracking_dec_deg=None,
            sky_angle_deg=None,
            azimuth_deg=None,
            zenith_angle_deg=None,
            has_simulated=False,
            can_see_sky=False,
            begin_tai_nsec=begin,
            end_tai_nsec=begin + 25_000_000,
            day_offset_s=43200,
        ),
        94 if name == "LSSTCam" else 1,
        "E2V-CCD250-382" if name == "LSSTCam" else "E2V-TINY-001",
    )


def test_repairs_of_lsstcam_do_not_touch_tinycam() -> None:
    cards = {"DAYOBS": "20250609", "SEQNUM": 100, "FILTER": "r_57", "CURINDEX": 1}
    assert translate(summit_header(**cards)).record.physical_filter == "z_20"
    assert translate(tiny_header(**cards)).record.physical_filter == "r_57"


@pytest.mark.parametrize(
    ("cards", "field", "expected"),
    [
        ({"FILTER": "ph_05", "DAYOBS": "20241015"}, "physical_filter", "ph_5"),
        ({"FILTER": "ph_05", "DAYOBS": "20241014"}, "physical_filter", "ph_05"),
        ({"FILTER": None, "FILTER2": "ND_OD0.5"}, "physical_filter", "unknown"),
        ({"FILTER": "SDSSi", "FILTER2": "ND_OD0.5"}, "physical_filter", "SDSSi~ND_OD0.5"),
        ({"FILTER": "SDSSi", "FILTER1": "empty", "FILTER2": "empty"}, "physical_filter", "SDSSi"),
        ({"FILTER": "empty"}, "physical_filter", "empty"),
        ({"FILTER": "NONE"}, "physical_filter", "none"),
        ({"DAYOBS": "20260315", "SEQNUM": 48}, "physical_filter", "r_57"),
        ({"DAYOBS": "20260315", "SEQNUM": 49}, "physical_filter", "i_39"),
        ({"DAYOBS": "20260315", "SEQNUM": 109}, "physical_filter", "i_39"),
        ({"DAYOBS": "20250609", "SEQNUM": 579}, "physical_filter", "r_57"),
        ({"PROGRAM": "BLOCK-417", "DAYOBS": "20250512"}, "science_program", "BLOCK-T417"),
        ({"PROGRAM": "BLOCK-417", "DAYOBS": "20250513"}, "science_program", "BLOCK-417"),
        ({"PROGRAM": None, "RUNNUM": 13593}, "science_program", "13593"),
        ({"VIGN_MIN": "NO", "SHUTTIME": 15.0, "DAYOBS": "20250707", "SEQNUM": 823}, "can_see_sky", False),
        ({"VIGN_MIN": "NO", "SHUTTIME": 15.0, "DAYOBS": "20250707", "SEQNUM": 824}, "can_see_sky", True),
        ({"VIGN_MIN": "NO", "SHUTTIME": 15.0, "DAYOBS": "20250518"}, "can_see_sky", False),
        ({"VIGN_MIN": "PARTIALLY", "SHUTTIME": 15.0}, "can_see_sky", True),
        ({"VIGN_MIN": "UNKNOWN", "SHUTTIME": 15.0}, "can_see_sky", None),
        ({"VIGN_MIN": None, "SHUTTIME": None}, "can_see_sky", None),
        ({"VIGN_MIN": "NO", "SHUTTIME": 0.0}, "can_see_sky", False),
        ({"IMGTYPE": "SKYEXP"}, "observation_type", "science"),
        ({"IMGTYPE": "OBJECT"}, "observation_type", "science"),
        ({"IMGTYPE": "stuttered"}, "observation_type", "stuttered"),
        ({"REASON": "GAIN_STABILITY"}, "observation_reason", "gain_stability"),
        ({"TESTTYPE": None, "IMGTYPE": "OBJECT"}, "observation_reason", "science"),
        ({"TESTTYPE": None}, "observation_reason", "unknown"),
        ({"GROUPID": None}, "group", "2025090100012"),
        ({"CURINDEX": None}, "seq_start", 12),
        ({"CURINDEX": None}, "seq_end", 12),
        ({"MAXINDEX": None}, "seq_end", 11),
        ({"SEQNUM": 0, "CURINDEX": None}, "seq_start", 2025090100000),
        ({"CONTRLLR": "C", "DAYOBS": "20231004"}, "exposure", 3023100400012),
        ({"CONTRLLR": "C"}, "exposure", 2025090100012),
        ({"CONTRLLR": "S"}, "has_simulated", True),
        ({"SIMULATE MTMOUNT": 1}, "has_simulated", True),
        ({"SIMULATE MTMOUNT": 0}, "has_simulated", False),
        ({"DAYOBS": None, "DATE-BEG": "2025-09-02T11:59:59.9"}, "day_obs", 20250901),
        ({"DAYOBS": None, "DATE-BEG": "2025-09-02T12:00:00.0"}, "day_obs", 20250902),
        ({"DARKTIME": None, "SHUTTIME": 15.2, "EXPTIME": 15.0}, "dark_time_s", 15.2),
        ({"SHUTTIME": 15.2, "EXPTIME": 15.0}, "exposure_time_s", 15.0),
    ],
)  # fmt: skip
def test_lsstcam_rules(cards: dict[str, object], field: str, expected: object) -> None:
    assert getattr(translate(summit_header() | cards).record, field) == expected


TRACKED = {"IMGTYPE": "ACQ", "TRACKSYS": "RADEC", "RADESYS": "ICRS", "RASTART": 200.0, "DECSTART": -30.0}
TURNED = {"ROTPA": 80.0, "ROTCOORD": "sky", "AZSTART": -90.5, "ELSTART": 60.0}


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({}, (200.0, -30.0, 80.0, 269.5, 30.0)),
        ({"ROTCOORD": "mount"}, (200.0, -30.0, None, 269.5, 30.0)),
        ({"TRACKSYS": "AZEL"}, (None, None, None, 269.5, 30.0)),
        ({"IMGTYPE": "FLAT"}, (None, None, None, 269.5, 30.0)),
        ({"IMGTYPE": "DARK"}, (200.0, -30.0, None, 269.5, 30.0)),
        ({"RASTART": None, "RA": 201.0, "DEC": -31.0}, (201.0, -31.0, 80.0, 269.5, 30.0)),
        ({"ELSTART": None}, (200.0, -30.0, 80.0, None, None)),
        ({"DAYOBS": "20250421"}, (200.0, -30.0, -10.0, 269.5, 30.0)),
        ({"DAYOBS": "20250422", "SEQNUM": 250}, (200.0, -30.0, -100.0, 269.5, 30.0)),
        ({"DAYOBS": "20250422", "SEQNUM": 251}, (200.0, -30.0, 80.0, 269.5, 30.0)),
        ({"DATE-BEG": "2025-03-01T00:00:37"}, (None, None, None, None, None)),  # still in the laboratory
    ],
)
def test_pointing(cards: dict[str, object], expected: tuple[float | None, ...]) -> None:
    r = translate(summit_header() | TRACKED | TURNED | cards).record
    found = (r.tracking_ra_deg, r.tracking_dec_deg, r.sky_angle_deg, r.azimuth_deg, r.zenith_angle_deg)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("cards", "end_ns_after_begin"),
    [
        ({}, 25_000_000),
        ({"TIMESYS": "UTC", "DATE-END": "2025-09-01T20:00:03.500"}, 37_000_000_000),
        ({"TIMESYS": None, "DATE-END": "2025-09-01T20:00:03.500"}, 37_000_000_000),
        ({"DATE-END": "2025-09-01T20:00:00.000"}, 1),
        ({"DATE-END": None}, 1),
        ({"DATE-END": None, "SHUTTIME": 15.25, "EXPTIME": 15.0}, 15_250_000_000),
    ],
)
def test_end_of_exposure(cards: dict[str, object], end_ns_after_begin: int) -> None:
    record = translate(summit_header() | cards).record
    assert record.begin_tai_nsec is not None
    assert record.end_tai_nsec == record.begin_tai_nsec + end_ns_after_begin


def test_mjd_wins_over_date_and_begin_is_tai_whatever_timesys_says() -> None:
    cards = {"MJD-BEG": 60919.5, "TIMESYS": "UTC", "MJD-OBS": 1.0}
    record = translate(summit_header() | cards).record
    assert record.begin_tai_nsec == (60919 - 40587) * 86_400_000_000_000 + 43_200_000_000_000


def test_without_any_date_the_timespan_is_unknown() -> None:
    record = translate(summit_header() | {"DATE-BEG": None}).record
    assert (record.begin_tai_nsec, record.end_tai_nsec) == (None, None)


@pytest.mark.parametrize(
    ("cards", "named"),
    [
        ({"EXPTIME": "long"}, ["EXPTIME", "'long'", "a number"]),
        ({"EXPTIME": None}, ["EXPTIME", "missing"]),
        ({"EXPTIME": float("nan")}, ["EXPTIME", "finite"]),
        ({"SEQNUM": 1.5}, ["SEQNUM", "1.5"]),
        ({"SEQNUM": 100000}, ["SEQNUM", "100000"]),
        ({"CONTRLLR": "X"}, ["CONTRLLR", "'X'"]),
        ({"DAYOBS": "20250931"}, ["DAYOBS", "20250931"]),
        ({"DAYOBS": "2025-09-01"}, ["DAYOBS", "2025-09-01"]),
        ({"DAYOBS": None, "DATE-BEG": None}, ["DAYOBS", "missing"]),
        ({"DATE-BEG": "yesterday"}, ["DATE-BEG", "yesterday"]),
        ({"DATE-END": "2025-13-01T00:00:00"}, ["DATE-END", "2025-13"]),
        ({"TIMESYS": "LOCAL"}, ["DATE-END", "TIMESYS", "LOCAL"]),
        ({"OBSID": None}, ["OBSID", "missing"]),
        ({"IMGTYPE": "a_very_long_image_type"}, ["IMGTYPE", "16 characters"]),
        ({"RAFTBAY": "R23", "CCDSLOT": "S33"}, ["RAFTBAY", "CCDSLOT", "R23_S33"]),
        ({"RAFTBAY": None}, ["RAFTBAY", "LSSTCam"]),
        ({"INSTRUME": "MegaCam"}, ["INSTRUME", "'MegaCam'", "LSSTCam"]),
        ({"INSTRUME": None}, ["INSTRUME"]),
        ({"INSTRUME": "ComCam", "TELESCOP": "Subaru"}, ["'ComCam'", "'Subaru'"]),
        ({"CALIB_ID": "detector=0"}, ["CALIB_ID", "calibration"]),
        ({"SEQNUM": None}, ["SEQNUM", "missing"]),
        ({"EXPTIME": -1.0}, ["EXPTIME", "-1.0"]),
        ({"EXPTIME": 1e9}, ["EXPTIME", "1000000000.0"]),
        ({"IMGTYPE": "DARK", "DARKTIME": -5.0}, ["DARKTIME", "-5.0"]),
        ({"IMGTYPE": "FLAT", "DARKTIME": "NaN"}, ["DARKTIME", "'NaN'"]),
        ({"DATE-BEG": None, "MJD-BEG": 1e9}, ["MJD-BEG", "1000000000.0"]),
        ({"IMGTYPE": "FLAT", "FILTER": "f" * 33}, ["FILTER", "32 characters"]),
    ],
)
def test_wrong_cards_are_named(cards: dict[str, object], named: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        translate(summit_header() | cards, file="MC_O_20250901_000012_R22_S11.fits")
    message = str(caught.value)
    assert "MC_O_20250901_000012_R22_S11.fits" in message
    assert all(part in message for part in named), message


@pytest.mark.parametrize(
    ("cards", "field", "named"),
    [
        (TRACKED | {"DECSTART": -91.0}, "tracking_dec_deg", "DECSTART is -91.0"),
        (TRACKED | {"RASTART": "NaN"}, "tracking_ra_deg", "RASTART is 'NaN'"),
        (TRACKED | {"RADESYS": "junk"}, "tracking_ra_deg", "RADESYS is 'junk'"),
        (TRACKED | {"ROTPA": "junk", "ROTCOORD": "sky"}, "sky_angle_deg", "ROTPA is 'junk'"),
        ({"AZSTART": 0.0, "ELSTART": 92.0}, "zenith_angle_deg", "ELSTART is 92.0"),
        ({"AZSTART": "NaN", "ELSTART": 80.0}, "azimuth_deg", "AZSTART is 'NaN'"),
        ({"AZSTART": float("inf"), "ELSTART": 80.0}, "azimuth_deg", "AZSTART is inf"),
    ],
)
def test_cards_that_only_describe_become_unknown(cards: dict[str, object], field: str, named: str) -> None:
    found = translate(summit_header() | cards)
    assert getattr(found.record, field) is None
    assert len(found.remarks) == 1
    assert named in found.remarks[0]


@pytest.mark.parametrize(
    ("cards", "field", "value", "named"),
    [
        ({"GROUPID": "g" * 65}, "group", "2025090100012", "GROUPID"),
        ({"OBJECT": "o" * 65}, "target_name", "UNKNOWN", "OBJECT"),
        ({"PROGRAM": "p" * 65}, "science_program", "unknown", "PROGRAM"),
        ({"REASON": "r" * 69, "TESTTYPE": None}, "observation_reason", "unknown", "REASON"),
        ({"FILTER": "f" * 33}, "physical_filter", "unknown", "FILTER"),
        ({"CURINDEX": "second"}, "seq_start", 12, "CURINDEX"),
        ({"SHUTTIME": "short"}, "exposure_time_s", 0.0, "SHUTTIME"),
        ({"DARKTIME": -5.0}, "dark_time_s", 0.0, "DARKTIME"),
        ({"DARKTIME": "NaN"}, "dark_time_s", 0.0, "DARKTIME"),
        ({"IMGTYPE": "DARK", "EXPTIME": 30.0, "DARKTIME": None}, "dark_time_s", 30.0, "no DARKTIME"),
        ({"IMGTYPE": "DARK", "EXPTIME": 30.0, "DARKTIME": 1469.57}, "dark_time_s", 1469.57, "DARKTIME is 1469.57"),
        ({"IMGTYPE": "DARK", "EXPTIME": 30.0, "DARKTIME": 0.0}, "dark_time_s", 0.0, "DARKTIME is 0 s"),
        ({"MJD-BEG": "soon"}, "begin_tai_nsec", 1_756_756_803_500_000_000, "MJD-BEG is 'soon'"),
        ({"MJD-BEG": 1e9}, "begin_tai_nsec", 1_756_756_803_500_000_000, "MJD-BEG"),
    ],
)
def test_what_a_bias_does_without_is_a_remark(cards: dict[str, object], field: str, value: object, named: str) -> None:
    found = translate(summit_header() | cards)
    assert getattr(found.record, field) == value
    assert len(found.remarks) == 1
    assert named in found.remarks[0]


def test_a_clean_header_has_no_remarks() -> None:
    assert translate(summit_header() | TRACKED | TURNED).remarks == ()


def latiss_header(**cards: object) -> dict[str, object]:
    header: dict[str, object] = {
        "INSTRUME": "LATISS",
        "OBSID": "AT_O_20220901_000003",
        "DAYOBS": "20220901",
        "SEQNUM": 3,
    }
    header |= {"SEQNUM": 3, "CONTRLLR": "O", "DATE-BEG": "2022-09-01T20:00:00", "TIMESYS": "TAI", "FILTER": "empty_1"}
    return header | {"GRATING": "empty_1", "IMGTYPE": "DARK", "EXPTIME": 10.0} | cards


@pytest.mark.parametrize(
    ("cards", "field", "expected"),
    [
        ({}, "physical_filter", "empty~empty"),
        ({"FILTER": None, "GRATING": ""}, "physical_filter", "unknown~empty"),
        ({"FILTER": "EMPTY_1", "GRATING": "EMPTY_1"}, "physical_filter", "empty~empty"),
        ({"FILTER": "empty1", "GRATING": "empty1"}, "physical_filter", "empty~empty"),
        ({"FILTER": "Empty", "GRATING": "Empty"}, "physical_filter", "empty~empty"),
        ({"FILTER": "empty_12"}, "physical_filter", "empty~empty"),
        ({"FILTER": "empty_frame"}, "physical_filter", "empty_frame~empty"),
        ({"FILTER": "emptyish"}, "physical_filter", "emptyish~empty"),
        ({"FILTER": "SDSSr_65mm", "GRATING": "holo4_003"}, "physical_filter", "SDSSr_65mm~holo4_003"),
        ({"DARKTIME": 0.0}, "dark_time_s", 10.0),
        ({"DARKTIME": 10.2}, "dark_time_s", 10.2),
        ({"EXPTIME": None}, "exposure_time_s", -1.0),
        ({"IMGTYPE": None, "EXPTIME": 0.0}, "observation_type", "bias"),
        ({"IMGTYPE": None}, "observation_type", "unknown"),
        ({"OBSTYPE": "Flat"}, "observation_type", "flat"),
        ({"OBSTYPE": "object", "DATE-BEG": "2019-12-31T20:00:00"}, "observation_type", "labobject"),
        ({"OBSTYPE": "object"}, "target_name", None),
        ({"IMGTYPE": "OBJECT"}, "target_name", "NOTSET"),
        ({"IMGTYPE": "OBJECT", "OBJECT": "HD 131586"}, "target_name", "HD 131586"),
        ({"OBJECT": "spec:HD1", "DATE-BEG": "2022-07-09T20:00:00"}, "target_name", "HD1"),
        ({"OBJECT": "spec:HD1"}, "target_name", "spec:HD1"),
        ({"RUNNUM": "13"}, "science_program", "unknown"),
        ({"SHUTTIME": 3.1}, "can_see_sky", False),
        ({"SHUTTIME": 0.0, "IMGTYPE": "OBJECT"}, "can_see_sky", False),
        ({"IMGTYPE": "FOCUS"}, "can_see_sky", None),
        ({"CONTRLLR": None}, "exposure", 2022090100003),
        ({"GROUPID": "dark_1_2", "IMGTYPE": None, "DATE-BEG": "2019-10-01T20:00:00"}, "observation_type", "dark"),
        ({"GROUPID": "FOCUS12", "IMGTYPE": None, "DATE-BEG": "2019-10-01T20:00:00"}, "observation_type", "focus"),
        ({"GROUPID": "FLAT", "IMGTYPE": None, "DATE-BEG": "2019-10-01T20:00:00"}, "observation_type", "flat"),
        ({"GROUPID": "FLAT", "IMGTYPE": None, "DATE-BEG": "2019-10-01T20:00:00"}, "group", "2022090100003"),
        ({"GROUPID": "test_1", "IMGTYPE": None, "DATE-BEG": "2019-10-01T20:00:00"}, "observation_type", "unknown"),
        ({"GROUPID": "DARK", "DATE-BEG": "2019-10-01T20:00:00"}, "group", "2022090100003"),
    ],
)  # fmt: skip
def test_latiss_rules(cards: dict[str, object], field: str, expected: object) -> None:
    assert getattr(translate(latiss_header() | cards).record, field) == expected


@pytest.mark.parametrize(
    ("begin", "serial"), [("2019-06-23T00:00:00", "ITL-3800C-098"), ("2019-06-25T00:00:00", "ITL-3800C-068")]
)
def test_latiss_sensor_was_replaced(begin: str, serial: str) -> None:
    header = latiss_header() | {"DATE-BEG": begin, "LSST_NUM": "wrong"}
    assert translate(header).detector_serial == serial


def test_early_latiss_names_come_from_the_image_name() -> None:
    header = {"OBSID": None, "DAYOBS": None, "SEQNUM": None, "IMGNAME": "AT_O_20190306_000014", "OBS-NITE": "20190306"}
    record = translate(latiss_header() | header | {"DATE-BEG": "2019-03-06T19:37:54"}).record
    assert (record.obs_id, record.day_obs, record.seq_num) == ("AT_O_20190306_000014", 20190306, 14)


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"FILTER": None}, "unknown"),
        ({"FILTER": "r", "DATE-BEG": "2020-03-12T00:00:00"}, "r_03"),
        ({"FILTER": "r", "DATE-BEG": "2020-03-14T00:00:00"}, "empty"),
        ({"FILTER": "", "DATE-BEG": "2020-03-14T00:00:00"}, "empty"),
        ({"FILTER": "g_01"}, "g_01"),
    ],
)
def test_comcam_filters(cards: dict[str, object], expected: str) -> None:
    header = summit_header() | {"INSTRUME": "ComCam", "OBSID": "CC_O_20240901_000012", "ROTPA": "unset"} | cards
    assert translate(header).record.physical_filter == expected


def test_corrections_win_over_the_header() -> None:
    """Two rows of header_corrections.csv, copied here."""
    header = summit_header() | {"OBSID": "MC_O_20250718_000033", "DAYOBS": "20250718", "SEQNUM": 33, "FILTER": "r_57"}
    assert translate(header).record.physical_filter == "g_6"
    header = latiss_header() | {"OBSID": "AT_O_20210115_00011", "IMGTYPE": "OBJECT"}
    assert translate(header).record.observation_type == "flat"


@pytest.mark.parametrize(("tables", "observations"), [("LATISS", 3341), ("LSSTComCam", 1912), ("LSSTCam", 43)])
def test_number_of_corrected_observations(tables: str, observations: int) -> None:
    assert len(corrections(tables)) == observations


def test_translation_is_cheap() -> None:
    """Called 189 times an exposure: some thousand Python calls once the tables are read, 0.1 ms."""
    header = summit_header() | TRACKED | TURNED | {"RADESYS": "FK5"} | {f"CARD{i}": i for i in range(300)}
    translate(header)
    calls: list[str] = []
    sys.setprofile(lambda _frame, event, _argument: calls.append(event))
    try:
        translate(header)
    finally:
        sys.setprofile(None)
    assert len(calls) < 3000

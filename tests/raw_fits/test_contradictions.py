"""What says which exposure a file is must agree; TinyCam files, each with one thing changed."""

import pytest
from astropy.io import fits

from camcal_dask.errors import DataError
from camcal_dask.instruments import get_instrument
from camcal_dask.raw_fits.fits import read_raw
from camcal_dask.raw_fits.header import check_sensor
from tests.raw_files import hdu_list, pixels, primary, write_raw_file

OBSERVATORY_NAME = "TC_O_20260812_000001_R22_S00.fits"


def written(tmp_path, name=OBSERVATORY_NAME, **cards):
    return write_raw_file(tmp_path / name, pixels(), how="plain", cards=primary(**cards))


def test_a_file_that_agrees_has_no_remarks(tmp_path):
    assert read_raw(written(tmp_path)).warnings == ()


@pytest.mark.parametrize(
    ("name", "cards", "message"),
    [
        (OBSERVATORY_NAME, {"DAYOBS": "20260813"}, "OBSID is TC_O_20260812_000001, DAYOBS 20260813"),
        (OBSERVATORY_NAME, {"SEQNUM": 2}, "OBSID is TC_O_20260812_000001, SEQNUM 2"),
        (OBSERVATORY_NAME, {"CONTRLLR": "C"}, "OBSID is TC_O_20260812_000001, CONTRLLR C"),
        (OBSERVATORY_NAME, {"DATE-BEG": "2026-08-13T20:00:00"}, r"began \+1.3 days from the start of its DAYOBS"),
        (OBSERVATORY_NAME, {"DATE-BEG": "2025-08-12T20:00:00"}, r"began -364.7 days from the start of its DAYOBS"),
        (OBSERVATORY_NAME, {"MJD-BEG": 61265.8}, r"began \+1.3 days"),
        (OBSERVATORY_NAME, {"DATE-BEG": None}, r"has no begin time \(MJD-BEG, DATE-BEG, MJD-OBS, DATE-OBS\)"),
        (OBSERVATORY_NAME, {"SEQNUM": ...}, "card SEQNUM is missing"),
        ("TC_O_20260812_000002_R22_S00.fits", {}, "name says TC_O_20260812_000002, OBSID TC_O_20260812_000001"),
        ("TC_O_20260812_000001_R22_S01.fits", {}, "name says R22_S01, the header R22_S00"),
        ("TC_O_20260812_000001_R22_S01.fits.fz", {}, "name says R22_S01, the header R22_S00"),
    ],
)
def test_contradictions_are_refused_by_name(tmp_path, name, cards, message):
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        read_raw(written(tmp_path, name, **cards))


@pytest.mark.parametrize("begin", ["2026-08-12T11:30:00", "2026-08-13T12:30:00"])
def test_an_hour_of_summer_time_is_no_contradiction(tmp_path, begin):
    assert read_raw(written(tmp_path, **{"DATE-BEG": begin})).warnings == ()


@pytest.mark.parametrize("name", ["a.fits", "TC_O_20260812_000002_0.fits", "raw_S00.fits"])
def test_other_names_say_nothing(tmp_path, name):
    assert read_raw(written(tmp_path, name)).warnings == ()


def test_simulations_contradict_themselves_with_a_remark(tmp_path):
    """Their dates are of the sky that they show (reference/raw_format.md 1.2)."""
    cards = {"CONTRLLR": "H", "OBSID": "TC_H_20260812_000001", "DATE-BEG": "2000-02-17T00:00:00"}
    (remark,) = read_raw(written(tmp_path, "a.fits", **cards)).warnings
    assert "days from the start of its DAYOBS 20260812" in remark


@pytest.mark.parametrize(
    ("cards", "remark"),
    [
        ({"FILTER": "q_99"}, "filter 'q_99' is not in the tables of TinyCam"),
        ({"ELSTART": 92.0, "AZSTART": 0.0}, "card ELSTART is 92.0"),
        ({"OBJECT": "o" * 70}, "card OBJECT"),
        ({"CCD_MANU": ...}, "no CCD_MANU, DATASEC or DETSIZE card says what sensor it is"),
        ({"CAMCODE": "AT"}, "OBSID is TC_O_20260812_000001, CAMCODE AT"),
        ({"IMGTYPE": ...}, "no IMGTYPE, so no calibration will use it"),
        ({"IMGTYPE": "FLAT", "FILTER": ...}, "no FILTER, so its filter is unknown"),
        ({"DATE-BEG": "2026-08-12T20:00:37", "MJD-BEG": 61264.0 + 20 / 24}, "are 37 s apart; MJD-BEG is used"),
        ({"DATE-BEG": "soon", "MJD-BEG": 61264.0 + 20 / 24}, "card DATE-BEG is 'soon'"),
        ({"IMGTYPE": "DARK", "EXPTIME": 30.0, "DARKTIME": 30.0, "DATE-END": "2026-08-11T00:00:00"}, "is not after its"),
        ({"IMGTYPE": "DARK", "EXPTIME": 30.0, "DARKTIME": ...}, "no DARKTIME: the exposure time of 30 s is used"),
    ],
)
def test_what_is_unlikely_but_harmless_is_a_remark(tmp_path, cards, remark):
    (found,) = read_raw(written(tmp_path, **cards)).warnings
    assert remark in found


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("[9:44,1:50]", "DATASEC is .* which starts at"),
        ("[8:40,1:48]", "DATASEC is .* pixels"),
        ("[44:9,1:50]", "DATASEC is .* which starts at"),
        ("everywhere", "DATASEC is 'everywhere', expected a section"),
    ],
)
def test_sections_of_every_amp_count(tmp_path, section, message):
    data = hdu_list(pixels(), how="plain", cards=primary())
    data[11].header["DATASEC"] = section
    data.writeto(tmp_path / "a.fits")
    with pytest.raises(DataError, match=rf"a.fits: .*amp C05 \(HDU 11\).*{message}"):
        read_raw(tmp_path / "a.fits")


def test_an_amp_that_is_there_twice_is_refused(tmp_path):
    hdus = hdu_list(pixels(), how="plain", cards=primary())
    hdus.append(hdus[3].copy())
    hdus.writeto(tmp_path / "a.fits")
    with pytest.raises(DataError, match=rf"HDU {len(hdus) - 1} is 'SEGMENT12' again"):
        read_raw(tmp_path / "a.fits")


@pytest.mark.parametrize("card", ["EXPTIME", "SEQNUM", "DARKTIME"])
def test_a_truth_value_is_no_number(tmp_path, card):
    cards = {"IMGTYPE": "DARK", "EXPTIME": 1.0, "DARKTIME": 1.0} | {card: True}
    with pytest.raises(DataError, match=f"card {card} is True, expected a number"):
        read_raw(written(tmp_path, **cards))


def test_missing_electronics_are_a_remark(tmp_path):
    hdus = hdu_list(pixels(), how="plain", cards=primary())
    del hdus["REB_COND"]
    hdus.writeto(tmp_path / "a.fits")
    (remark,) = read_raw(tmp_path / "a.fits").warnings
    assert remark.startswith("no REB_COND")


def test_what_astropy_remarks_is_a_remark_of_the_file(tmp_path):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"PROGRAM = ", b"PROGRAM @ "))
    (remark,) = read_raw(path).warnings
    assert remark.startswith("astropy: ")
    assert "PROGRAM @" in remark
    assert "\n" not in remark


def test_bytes_behind_the_last_hdu_are_a_remark(tmp_path):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes() + bytes(2880))
    assert any("2880 bytes behind HDU 17" in text for text in read_raw(path).warnings)


def test_sections_of_latiss_in_2021_count_from_the_data_box():
    box = fits.Header({"DATASEC": "[1:509,1:2000]"})
    (remark,) = check_sensor(box, get_instrument("LATISS").detectors[0])
    assert "taken to count from the data box" in remark

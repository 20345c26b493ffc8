"""Raw files: every container and coding gives the same pixels; every fault is said by name."""

import gzip
import hashlib
import json
import os
import re

import numpy as np
import pytest
from astropy.io import fits

from camcal_dask.errors import DataError
from camcal_dask.exchange.tables import read_table
from camcal_dask.instruments import get_instrument
from camcal_dask.raw_fits import decode
from camcal_dask.raw_fits.fits import content_hash, read_header, read_raw
from camcal_dask.raw_fits.photodiode import read_reading
from tests.raw_files import TINY, hdu_list, pixels, primary, write_raw_file


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("how", ["RICE_1", "GZIP_1", "GZIP_2", "rice_tiles", "plain"])
def test_every_coding_gives_the_pixels_that_were_written(tmp_path, how, zipped):
    truth = pixels()
    path = write_raw_file(tmp_path / "a.fits", truth, how=how)
    if zipped:
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    raw = read_raw(path)
    assert raw.amps.dtype == np.int32
    np.testing.assert_array_equal(raw.amps, truth)
    assert raw.content_hash == hashlib.sha256(path.read_bytes()).hexdigest() == content_hash(path)
    assert (raw.identity.record.exposure, raw.identity.detector) == (2026081200001, 0)


def test_camera_files_take_the_fast_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "decode_any", pytest.fail)
    read_raw(write_raw_file(tmp_path / "a.fits.fz", pixels()))


def test_sixteen_bit_files_keep_values_above_32767(tmp_path):
    truth = (pixels() + 30_000).clip(0, 65_535)
    path = write_raw_file(tmp_path / "a.fits", truth.astype(np.uint16), how="plain")
    assert fits.getheader(path, 1)["BITPIX"] == 16
    np.testing.assert_array_equal(read_raw(path).amps, truth)


def test_header_is_primary_then_reb_cond_and_keeps_undefined_cards(tmp_path):
    path = write_raw_file(tmp_path / "a.fits", pixels(), reb={"CCDTEMP": -99.0, "PROGRAM": "shadow"})
    header = read_header(path)
    assert header["CCDTEMP"] == -99.0
    assert header["PROGRAM"] == "shadow"
    assert header["EXTNAME"] == "REB_COND"
    assert header["RA"] is None
    assert header["SEQNUM"] == 1
    assert json.loads(json.dumps(header)) == header


@pytest.mark.parametrize(("height", "width"), [(64, 48), (60, 56), (64, 55)])
def test_smaller_readouts_are_read_at_their_size(tmp_path, height, width):
    truth = pixels(shape=(16, height, width))
    np.testing.assert_array_equal(read_raw(write_raw_file(tmp_path / "a.fits", truth)).amps, truth)


@pytest.mark.parametrize(("shape", "message"), [((16, 64, 39), "39 x 64"), ((16, 40, 56), "56 x 40")])
def test_image_without_the_data_box_is_refused(tmp_path, shape, message):
    path = write_raw_file(tmp_path / "a.fits", pixels(shape=shape))
    with pytest.raises(DataError, match=f"a.fits: detector 0 .*C10.*{message}.*data box"):
        read_raw(path)


def test_image_larger_than_the_camera_is_refused(tmp_path):
    path = write_raw_file(tmp_path / "a.fits", pixels(shape=(16, 64, 60)))
    with pytest.raises(DataError, match="60 x 64 pixels, larger than the camera's 56 x 64"):
        read_raw(path)


def test_amps_of_different_size_are_refused(tmp_path):
    amps = list(pixels())
    amps[5] = amps[5][:, :50]
    path = write_raw_file(tmp_path / "a.fits", amps)
    with pytest.raises(DataError, match=r"amp C15 \(HDU 6\): is 50 x 64 pixels, Segment10 is 56 x 64"):
        read_raw(path)


def test_missing_segment_is_named(tmp_path):
    hdus = hdu_list(pixels())
    del hdus[5]
    hdus.writeto(tmp_path / "a.fits")
    with pytest.raises(DataError, match=r"a.fits: detector 0 \(R22_S00\): Segment14 missing: 15 of 16"):
        read_raw(tmp_path / "a.fits")


def test_swapped_segments_are_refused(tmp_path):
    names = [amp.extname for amp in TINY.detectors[0].amps]
    names[1], names[2] = names[2], names[1]
    path = write_raw_file(tmp_path / "a.fits", pixels(), names=names)
    with pytest.raises(DataError, match="(?i)HDU 2 is 'Segment12', expected 'Segment11'"):
        read_raw(path)


def test_unnamed_amps_are_taken_by_position_with_a_remark(tmp_path):
    raw = read_raw(write_raw_file(tmp_path / "a.fits", pixels(), names=[""] * 16))
    np.testing.assert_array_equal(raw.amps, pixels())
    assert raw.warnings == ("16 amp HDUs have no name; identified by their position",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a FITS file: is empty"),
        (b"\x89PNG, not pixels", "is not a FITS file: begins with"),
        (gzip.compress(b"nothing like FITS"), "is not a FITS file"),
        (gzip.compress(bytes(range(256)) * 99)[:60], "gzip container is damaged or truncated"),
        (b"SIMPLE  =                    T", "damaged: "),
    ],
    ids=["empty", "png", "gzip of text", "cut gzip", "cut header"],
)
def test_what_is_not_fits_is_said(tmp_path, content, message):
    (tmp_path / "a.fits").write_bytes(content)
    with pytest.raises(DataError, match=f"a.fits: {message}"):
        read_raw(tmp_path / "a.fits")


@pytest.mark.parametrize("how", ["RICE_1", "GZIP_1", "plain"])
@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.5, 0.8, 0.95])
def test_truncated_file_is_a_data_error_wherever_it_is_cut(tmp_path, how, fraction):
    data = write_raw_file(tmp_path / "a.fits", pixels(), how=how).read_bytes()
    (tmp_path / "b.fits").write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(DataError, match=r"b.fits: .*(truncated|card|damaged)"):
        read_raw(tmp_path / "b.fits")


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(DataError, match="none.fits: cannot be read: No such file"):
        read_raw(tmp_path / "none.fits")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_raw(tmp_path)


def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.fits")
    (tmp_path / "endless.fits").symlink_to("/dev/zero")
    (tmp_path / "Photodiode_Readings_2_1.txt").symlink_to("pipe.fits")
    for name in ("pipe.fits", "endless.fits"):
        with pytest.raises(DataError, match=f"{name}: cannot be read: Is a pipe, socket or device"):
            read_raw(tmp_path / name)
        with pytest.raises(DataError, match=f"{name}: no table that can be read .*pipe, socket or device"):
            read_table(tmp_path / name, TINY)
    with pytest.raises(DataError, match="Is a pipe, socket or device"):
        read_reading(str(tmp_path / "Photodiode_Readings_2_1.txt"))


def test_wrong_camera_is_refused(tmp_path):
    path = write_raw_file(tmp_path / "a.fits", pixels())
    with pytest.raises(DataError, match="a.fits: is a file of TinyCam, expected LSSTCam"):
        read_raw(path, get_instrument("LSSTCam"))


def test_float_pixels_are_refused(tmp_path):
    path = write_raw_file(tmp_path / "a.fits", pixels().astype(np.float32), how="plain")
    with pytest.raises(DataError, match=r"amp C10 \(HDU 1\): damaged: pixels are >f4, expected integers"):
        read_raw(path)


def test_damaged_compressed_bytes_never_crash(tmp_path):
    data = write_raw_file(tmp_path / "a.fits", pixels()).read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(40):
        damaged = bytearray(data)
        for at in rng.integers(6000, len(data), 30):
            damaged[at] = rng.integers(256)
        (tmp_path / "b.fits").write_bytes(damaged)
        try:
            read_raw(tmp_path / "b.fits")
        except DataError as error:
            assert "b.fits" in str(error)  # noqa: PT017 -- damage inside a row's values cannot be seen


@pytest.mark.parametrize(
    ("reb", "remark"),
    [
        ({"HVBIAS": "OFF", "BSSVBS": 50.0}, ("switched off",)),
        ({"HVBIAS": "ON", "BSSVBS": 0.3}, ("switched off",)),
        ({"HVBIAS": "ON", "BSSVBS": 50.0}, ()),
        ({"CCDTEMP": -100.0}, ()),
    ],
)
def test_switched_off_sensor_is_a_remark(tmp_path, reb, remark):
    warnings = read_raw(write_raw_file(tmp_path / "a.fits", pixels(), reb=reb)).warnings
    assert len(warnings) == len(remark)
    assert all(word in warning for word, warning in zip(remark, warnings, strict=True))


@pytest.mark.parametrize("detector", range(4))
def test_every_detector_is_found_by_bay_and_slot(tmp_path, detector):
    path = write_raw_file(tmp_path / "a.fits", pixels(detector), detector=detector, cards=primary(detector))
    assert read_raw(path, TINY).identity.detector == detector


# ---------------------------------------------------------------------------- real files


@pytest.mark.slow
def test_real_files_give_the_published_pixels_and_hashes(shared_data):
    folder = shared_data / "raw"
    for name, expected in json.loads((folder / "raw_expected.json").read_text()).items():
        if "R22-S21" in name:  # refused, see below
            continue
        raw, image = read_raw(folder / name, accept_checksum=True), expected["image"]
        assert raw.content_hash == expected["sha256"], name
        assert list(raw.amps.shape[1:]) == image["amp_shape_yx"], name
        found = int(raw.amps.sum()), int(raw.amps.min()), int(raw.amps.max())
        assert found == (image["pixel_sum"], image["pixel_min"], image["pixel_max"]), name
        assert raw.identity.record.exposure == expected["butler_exposure"]["id"], name


@pytest.mark.parametrize(
    "name", ["LSSTCam/30211212000310-R22-S22-det098.fits", "LSSTCamSim/7024032100720-R22-S11-det094.fits.fz"]
)
def test_real_compressed_files(shared_data, name):
    raw = read_raw(shared_data / "raw" / name, accept_checksum=True)
    assert raw.amps.shape == (16, 2048, 576)
    assert not raw.amps.any()  # upstream blanked the pixels


def test_sensor_in_a_bay_of_the_other_vendor_is_refused(shared_data):
    with pytest.raises(DataError, match=re.escape("3019031900001-R22-S21-det097.fits: detector 97 (R22_S21)")):
        read_raw(shared_data / "raw/LSSTCam/3019031900001-R22-S21-det097.fits")

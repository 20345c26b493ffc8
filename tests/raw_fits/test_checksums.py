"""Checksums: every flipped bit that one covers is refused by name; a stale one is accepted only when asked for."""

import io
import json
import re

import numpy as np
import pytest
from astropy.io import fits

from camcal_dask.errors import DataError
from camcal_dask.raw_fits import checksums
from camcal_dask.raw_fits.fits import read_raw
from camcal_dask.simulation.exposures import bias_set
from camcal_dask.simulation.run import simulate
from tests.raw_files import hdu_list, pixels


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Bytes of a simulated file: RICE_1, CHECKSUM and DATASUM in every HDU."""
    (path,) = simulate(tmp_path_factory.mktemp("sim"), "TinyCam", bias_set(1, 20260812), [0]).files
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()


def with_checksums(how, zdatasum=False, **options):
    """Bytes of a file written by astropy, with checksums; ``zdatasum``: of the uncompressed images too, as fpack."""
    stream = io.BytesIO()
    hdu_list(options.pop("amps", pixels()), how=how, **options).writeto(stream, checksum=True)
    if not zdatasum:
        return stream.getvalue()
    with fits.open(io.BytesIO(stream.getvalue()), disable_image_compression=True) as hdus:
        for hdu, plane in zip(hdus[1:], pixels(), strict=False):
            image = fits.ImageHDU(plane)
            image.add_datasum()
            hdu.header["ZDATASUM"] = image.header["DATASUM"]
        again = io.BytesIO()
        hdus.writeto(again, checksum=True)
    return again.getvalue()


def read(tmp_path, data, **options):
    (tmp_path / "a.fits").write_bytes(data)
    return read_raw(tmp_path / "a.fits", **options)


def regions(data):
    """(begin, end, is_header) of everything the HDUs are made of, in file order."""
    with fits.open(io.BytesIO(data), disable_image_compression=True) as hdus:
        for hdu in hdus:
            place = hdu.fileinfo()
            yield place["hdrLoc"], place["datLoc"], True
            yield place["datLoc"], place["datLoc"] + place["datSpan"], False


def flipped(data, position):
    damaged = bytearray(data)
    damaged[position // 8] ^= 1 << position % 8
    return bytes(damaged)


# ---------------------------------------------------------------------------- the sums


@pytest.mark.parametrize("size", [4, 2880, 28_800])
def test_sums_agree_with_astropy(size):
    data = np.random.default_rng(size).bytes(size)
    ours = checksums.sum_bytes(data, 0, None) % 0xFFFFFFFF
    theirs = int(fits.ImageHDU()._compute_checksum(np.frombuffer(data, np.uint8)))
    assert ours == theirs % 0xFFFFFFFF


@pytest.mark.parametrize("how", ["RICE_1", "GZIP_1", "GZIP_2", "rice_tiles", "plain"])
def test_true_checksums_are_no_remark(tmp_path, how):
    raw = read(tmp_path, with_checksums(how, zdatasum=how != "plain"))
    np.testing.assert_array_equal(raw.amps, pixels())
    assert raw.warnings == ()


def test_simulated_files_are_clean(tmp_path, simulated):
    assert read(tmp_path, simulated).warnings == ()


def test_sixteen_bit_pixels_have_the_sum_of_their_stored_words(tmp_path):
    amps = (pixels() + 30_000).clip(0, 65_535).astype(np.uint16)
    data = with_checksums("RICE_1", amps=amps)
    with fits.open(io.BytesIO(data), disable_image_compression=True) as hdus:
        for hdu, plane in zip(hdus[1:], amps, strict=False):
            image = fits.ImageHDU(plane)
            image.add_datasum()
            hdu.header["ZDATASUM"] = image.header["DATASUM"]
        stream = io.BytesIO()
        hdus.writeto(stream, checksum=True)
    np.testing.assert_array_equal(read(tmp_path, stream.getvalue()).amps, amps)


# ---------------------------------------------------------------------------- damage


@pytest.mark.parametrize("how", ["simulated", "RICE_1", "GZIP_1", "plain"])
def test_every_flipped_bit_of_the_data_is_refused_by_name(tmp_path, simulated, how):
    data = simulated if how == "simulated" else with_checksums(how)
    rng = np.random.default_rng(8)
    areas = [(begin, end) for begin, end, header in regions(data) if not header and end > begin]
    for begin, end in [areas[i] for i in rng.integers(0, len(areas), 8)]:
        damaged = flipped(data, int(rng.integers(8 * begin, 8 * end)))
        with pytest.raises(DataError, match=r"a.fits: detector 0 \(R22_S00\), amp C\d\d \(HDU \d+\): .*DATASUM"):
            read(tmp_path, damaged)


def test_every_flipped_bit_of_a_header_is_refused_or_named(tmp_path, simulated):
    """Nothing is silent: refused, or (in keywords that claim a checksum, and in text of no HDU) a remark."""
    rng = np.random.default_rng(9)
    areas = [(begin, end) for begin, end, header in regions(simulated) if header]
    silent = []
    for begin, end in [areas[i] for i in rng.integers(0, len(areas), 40)]:
        position = int(rng.integers(8 * begin, 8 * end))
        try:
            if not read(tmp_path, flipped(simulated, position)).warnings:
                silent.append(position)
        except DataError as error:
            assert "a.fits" in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
    assert silent == []


def test_a_lost_datasum_does_not_hide_damage(tmp_path, simulated):
    damaged = simulated.replace(b"DATASUM =", b"DATASUN =")
    with pytest.raises(DataError, match=r"header and data do not match CHECKSUM"):
        read(tmp_path, damaged)


def test_a_lost_checksum_is_a_remark(tmp_path, simulated):
    at = [match.start() for match in re.finditer(b"CHECKSUM=", simulated)][4]
    damaged = simulated[:at] + b"CHECKSUN=" + simulated[at + 9 :]
    assert read(tmp_path, damaged).warnings == ("no CHECKSUM in HDU 4, although the others have one: damaged header?",)


def test_a_flipped_header_bit_of_an_amp_whose_pixels_are_vouched_for_is_a_remark(tmp_path):
    data = with_checksums("RICE_1", zdatasum=True)
    damaged = flipped(data, 8 * (data.index(b"ZIMAGE  =") + 40))  # in its comment
    assert read(tmp_path, damaged).warnings == ("CHECKSUM does not match, but ZDATASUM vouches for the pixels: C10",)


@pytest.mark.parametrize("card", ["DATASUM", "ZDATASUM"])
def test_a_wrong_claim_is_refused_and_accepted_when_asked(tmp_path, card):
    with fits.open(io.BytesIO(with_checksums("RICE_1", zdatasum=True)), disable_image_compression=True) as hdus:
        hdus[5].header[card] = "12345"
        hdus[5].header["CHECKSUM"] = ""
        stream = io.BytesIO()
        hdus.writeto(stream)
    with pytest.raises(DataError, match=rf"amp C14 \(HDU 5\): .*{card}.*--accept-checksum"):
        read(tmp_path, stream.getvalue())
    raw = read(tmp_path, stream.getvalue(), accept_checksum=True)
    np.testing.assert_array_equal(raw.amps, pixels())
    assert raw.warnings == (f"{card} does not match, accepted: C14",)


def test_a_claim_that_is_no_number_is_refused(tmp_path):
    data = re.sub(rb"DATASUM = '[1-9]", b"DATASUM = 'q", with_checksums("plain"))
    with pytest.raises(DataError, match=r"amp C\d\d .*: damaged: card DATASUM is 'q\d+', expected a number"):
        read(tmp_path, data)


def test_datasum_that_repeats_the_one_of_the_image_counts_as_that(tmp_path):
    """So a program leaves it that copies the cards of an image into its compressed form (as in files of 2021)."""
    with fits.open(io.BytesIO(with_checksums("RICE_1", zdatasum=True)), disable_image_compression=True) as hdus:
        for hdu in hdus[1:17]:
            hdu.header["DATASUM"] = hdu.header["ZDATASUM"]
            del hdu.header["CHECKSUM"]
        stream = io.BytesIO()
        hdus.writeto(stream)
    assert read(tmp_path, stream.getvalue()).warnings == ()
    areas = [(begin, end) for begin, end, header in regions(stream.getvalue()) if not header and end > begin]
    with pytest.raises(DataError, match="damaged"):
        read(tmp_path, flipped(stream.getvalue(), 8 * (areas[0][0] + 3000)))


def test_an_edited_primary_header_is_a_remark(tmp_path, simulated):
    """People correct cards; the pixels are still what was read out."""
    with fits.open(io.BytesIO(simulated), disable_image_compression=True) as hdus:
        hdus[0].header["PROGRAM"] = "BLOCK-T99"
        stream = io.BytesIO()
        hdus.writeto(stream)
    (remark,) = read(tmp_path, stream.getvalue()).warnings
    assert remark.startswith("HDU 0 (PRIMARY): its header does not match CHECKSUM")


# ---------------------------------------------------------------------------- without checksums


def test_one_amp_of_another_bitpix_is_refused(tmp_path):
    hdus = hdu_list(pixels(), how="plain")
    hdus[7] = fits.ImageHDU(pixels()[6].clip(0, 32767).astype(np.int16), name="Segment16")
    stream = io.BytesIO()
    hdus.writeto(stream)
    with pytest.raises(DataError, match=r"amp C16 \(HDU 7\): BITPIX, BZERO, BSCALE are \(16, 0, 1\).*\(32, 0, 1\)"):
        read(tmp_path, stream.getvalue())


def descriptors(data):
    """Place of the tile descriptors of the first amp, (row, 2) of size and offset [byte]."""
    with fits.open(io.BytesIO(data), disable_image_compression=True) as hdus:
        begin, n_rows = hdus[1].fileinfo()["datLoc"], hdus[1].header["NAXIS2"]
    return begin, np.frombuffer(data, ">i4", 2 * n_rows, begin).reshape(n_rows, 2).copy()


def put(data, begin, table):
    return data[:begin] + table.tobytes() + data[begin + table.nbytes :]


@pytest.mark.parametrize("how", ["RICE_1", "GZIP_1"])
def test_damaged_tile_descriptors_are_refused(tmp_path, how):
    stream = io.BytesIO()
    hdu_list(pixels(), how=how).writeto(stream)
    data = stream.getvalue()
    begin, table = descriptors(data)
    for row, column, change, message in [
        (9, 1, table[8, 1] - table[9, 1], "rows 8 and 9 of the compressed image share bytes"),
        (9, 0, 4, "rows 9 and 10 of the compressed image share bytes"),
        (9, 1, 1 << 20, "row 9 of the compressed image points outside"),
        (9, 1, -(1 << 20), "row 9 of the compressed image points outside"),
        (9, 0, -(1 << 20), "row 9 of the compressed image points outside"),
    ]:
        damaged = table.copy()
        damaged[row, column] += change
        with pytest.raises(DataError, match=rf"amp C10 \(HDU 1\): damaged: {message}"):
            read(tmp_path, put(data, begin, damaged))


# ---------------------------------------------------------------------------- real files


def test_real_files_with_emptied_pixels_are_refused_unless_accepted(shared_data):
    path = shared_data / "raw/LSSTCam/30211212000310-R22-S22-det098.fits"
    with pytest.raises(DataError, match=re.escape("det098.fits: detector 98 (R22_S22), amp C10 (HDU 1)") + ".*DATASUM"):
        read_raw(path)
    warnings = read_raw(path, accept_checksum=True).warnings
    assert [text.partition(" ")[0] for text in warnings] == ["DATASUM", "ZDATASUM", "CHECKSUM"]


def test_real_file_with_true_checksums(tmp_path, shared_data):
    path = shared_data / "raw/LSSTCamSim/7024032100720-R22-S11-det094.fits.fz"
    assert read_raw(path).warnings == ()
    data, rng = path.read_bytes(), np.random.default_rng(3)
    areas = [(begin, end) for begin, end, header in regions(data) if not header and end > begin]
    for begin, end in [areas[i] for i in rng.integers(0, len(areas), 3)]:
        with pytest.raises(DataError, match=r"a.fits: detector 94 \(R22_S11\), amp C\d\d .*DATASUM"):
            read(tmp_path, flipped(data, int(rng.integers(8 * begin, 8 * end))))


def test_what_a_decoder_raises_is_damage_whatever_it_is(tmp_path, simulated):
    """A flipped bit of the number of tiles: the exception of astropy's decoder is of a class of its own."""
    card = b"NAXIS2  =                   64 / number of rows in table"
    assert card in simulated
    with pytest.raises(DataError, match=r"amp C10 .*damaged"):
        read(tmp_path, simulated.replace(card, card.replace(b"64 /", b"24 /"), 1))


def test_manifests_can_hold_what_is_remarked(tmp_path, simulated):
    assert json.loads(json.dumps(read(tmp_path, simulated).warnings)) == []

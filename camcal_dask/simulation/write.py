"""Raw FITS files as the camera writes them: tile-compressed amps, then two tables of camera state."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from camcal_dask.instruments.geometry import Detector, Instrument
from camcal_dask.kernels.compression.rice_encode import BLOCK_SIZE, encode_image
from camcal_dask.simulation.config import SimulationConfig
from camcal_dask.simulation.exposures import ExposureSpec
from camcal_dask.simulation.headers import Card, amp_cards, config_cards, primary_header, reb_cards

_BLOCK = 2880


def write_raw_fits(
    path: Path,
    amps: npt.NDArray[np.int32],
    instrument: Instrument,
    detector: Detector,
    exposure: ExposureSpec,
    config: SimulationConfig,
) -> int:
    """Write one raw file; it appears under its name only when whole.

    Parameters
    ----------
    path : Path
        The file; replaced if it exists.
    amps : (amp, y, x) int32 [adu]
        Pixels in HDU order.

    Returns
    -------
    int
        Bytes of the file.
    """
    parts = [_hdu(primary_header(instrument, detector, exposure, config))]
    parts.extend(compressed_hdu(amps[amp.index], amp_cards(detector, amp)) for amp in detector.amps)
    parts.append(_hdu(_table_header(reb_cards(detector, exposure, config))))
    parts.append(_hdu(_table_header(config_cards())))
    return write_atomically(path, parts)


def compressed_hdu(image: npt.NDArray[np.int32], cards: Iterable[Card]) -> bytes:
    """One tile-compressed image HDU: RICE_1, one row per tile, 32 pixels per block (reference/raw_format.md 2.2).

    Parameters
    ----------
    image : (y, x) int32
    cards : Iterable[Card]
        Keywords of the image, in order.

    Returns
    -------
    bytes
        Header and data, whole FITS blocks.
    """
    ny, nx = image.shape
    heap, lengths = encode_image(image)
    table = np.empty((ny, 2), ">i4")
    table[:, 0] = lengths
    table[:, 1] = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    header = fits.Header()
    header["XTENSION"] = ("BINTABLE", "binary table extension")
    header["BITPIX"] = (8, "array data type")
    header["NAXIS"] = (2, "number of array dimensions")
    header["NAXIS1"] = (8, "width of table in bytes")
    header["NAXIS2"] = (ny, "number of rows in table")
    header["PCOUNT"] = (len(heap), "number of group parameters")
    header["GCOUNT"] = (1, "number of groups")
    header["TFIELDS"] = (1, "number of fields in each row")
    header["TTYPE1"] = ("COMPRESSED_DATA", "label for field 1")
    header["TFORM1"] = (f"1PB({lengths.max()})", "data format of field: variable length array")
    header["ZIMAGE"] = (True, "extension contains compressed image")
    header["ZTENSION"] = ("IMAGE", "type of the image extension")
    header["ZBITPIX"] = (32, "bits per data value")
    header["ZNAXIS"] = (2, "number of axis")
    header["ZNAXIS1"], header["ZNAXIS2"] = nx, ny
    header["ZPCOUNT"], header["ZGCOUNT"] = 0, 1
    header["ZTILE1"], header["ZTILE2"] = nx, 1
    header["ZCMPTYPE"] = ("RICE_1", "compression algorithm")
    header["ZNAME1"], header["ZVAL1"] = ("BLOCKSIZE", "compression block size"), (BLOCK_SIZE, "pixels per block")
    header["ZNAME2"], header["ZVAL2"] = ("BYTEPIX", "bytes per pixel"), (4, "bytes per pixel (1, 2, 4, or 8)")
    for key, value, comment in cards:
        header[key] = (value, comment)
    return _hdu(header, table.tobytes() + heap)


def write_atomically(path: Path, parts: Iterable[bytes]) -> int:
    """Write ``parts`` to a temporary sibling of ``path``, then rename it; return the bytes written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            size = sum(file.write(part) for part in parts)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _table_header(cards: Iterable[Card]) -> fits.Header:
    """Header of a table without rows and columns; its cards are the content."""
    header = fits.Header()
    header["XTENSION"] = ("BINTABLE", "binary table extension")
    header["BITPIX"], header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 8, 2, 0, 0
    header["PCOUNT"], header["GCOUNT"], header["TFIELDS"] = 0, 1, 0
    for key, value, comment in cards:
        header[key] = (value, comment)
    return header


def _hdu(header: fits.Header, data: bytes = b"") -> bytes:
    """Header and data with CHECKSUM and DATASUM, padded to whole FITS blocks."""
    data += b"\0" * (-len(data) % _BLOCK)
    data_sum = ones_complement_sum(data)
    header["CHECKSUM"] = ("0" * 16, "checksum for the current HDU")
    header["DATASUM"] = (str(data_sum), "checksum of the data records")
    total = ones_complement_sum(header.tostring().encode("ascii"), data_sum)
    header["CHECKSUM"] = (encode_checksum(~total & 0xFFFFFFFF), "checksum for the current HDU")
    return bytes(header.tostring().encode("ascii")) + data


def ones_complement_sum(data: bytes, start: int = 0) -> int:
    """32-bit ones-complement sum of big-endian words (FITS standard, appendix J)."""
    total = start + int(np.frombuffer(data, ">u4").sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def encode_checksum(value: int) -> str:
    """ASCII form of a 32-bit checksum: 16 characters, no punctuation (FITS standard, appendix J)."""
    punctuation = {*range(0x3A, 0x41), *range(0x5B, 0x61)}
    columns = []
    for byte in value.to_bytes(4, "big"):
        quarter, rest = divmod(byte, 4)
        four = [quarter + 0x30 + rest, quarter + 0x30, quarter + 0x30, quarter + 0x30]
        while punctuation & set(four):
            for pair in (0, 2):
                if punctuation & {four[pair], four[pair + 1]}:
                    four[pair] += 1
                    four[pair + 1] -= 1
        columns.append(four)
    text = "".join(chr(columns[byte][i]) for i in range(4) for byte in range(4))
    return text[-1] + text[:-1]

"""Pixels of one image HDU as int32, by the fastest suitable decoder.

The decoder was chosen by measurement: a full-size E2V bias, 16 amps of 2048 x 576 int32 (75.5 MB) as RICE_1 row
tiles (12.9 MB), file in the page cache, one Xeon 2.5 GHz core, best of five; MB/s of raw int32, opening included:

===========================================================  ====
astropy ``CompImageHDU.data`` (public API)                     70
fitsio                                                        128
astropy table + its ``Rice1`` codec, a call per row           176
astropy table + imagecodecs ``rcomp_decode``, a call per row  177
astropy table + astropy's C function, a call per row          215
:func:`camcal_dask.kernels.compression.rice.decode_rows`, a call per amp  500
===========================================================  ====

(The kernel alone does 950 MB/s.)  imagecodecs would be 26 MB of dependency for a third of the speed and fitsio is
GPL, so RICE_1 row tiles of int32, which is what the camera writes, go to our kernel, and everything else
(uncompressed, GZIP, other tiles, 16 bits, scaled) to astropy's public API.  Tests hold the two equal.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from camcal_dask.kernels.arrays import Int32Array
from camcal_dask.kernels.compression.rice import BLOCK, SLACK, decode_rows

FAULTS = (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError, fits.VerifyError)
"""What astropy raises on a damaged file."""

_RICE_CARDS: dict[str, set[object]] = {
    "ZCMPTYPE": {"RICE_1", "RICE_ONE"},
    "ZBITPIX": {32},
    "ZNAXIS": {2},
    "ZTILE2": {1, None},
    "TFIELDS": {1},
}
_INERT_CARDS: dict[str, set[object]] = {
    "BZERO": {0, None},
    "BSCALE": {1, None},
    "ZZERO": {None},
    "ZSCALE": {None},
    "ZBLANK": {None},
}
_quiet = threading.Lock()


@contextmanager
def tolerant(said: dict[str, None] | None = None) -> Iterator[None]:
    """Keep astropy's remarks on odd cards and short files from the screen; they become keys of ``said``, each once.

    Warning filters belong to the process, so one thread at a time; parsing holds the GIL anyway.
    """
    with _quiet, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AstropyUserWarning)
        try:
            yield
        finally:
            if said is not None:
                said |= dict.fromkeys(" ".join(str(w.message).split()) for w in caught)


def open_hdus(data: bytes, *, tables: bool, said: dict[str, None] | None = None) -> fits.HDUList:
    """Open a FITS file in memory; with ``tables`` compressed images stay the tables they are stored as.

    What astropy remarks goes into ``said``, as in `tolerant`.
    """
    with tolerant(said):
        hdus = fits.open(io.BytesIO(data), disable_image_compression=tables, memmap=False)
        for hdu in hdus:  # reads all headers; a keyword is judged when it is first looked at
            list(hdu.header)
    return hdus


def image_shape(hdu: Any) -> tuple[int, int] | None:
    """(y, x) of the image [pixel] that an HDU (opened as table) holds, None if it holds no 2-D image."""
    header = hdu.header
    prefix = "Z" if header.get("ZIMAGE") else ""
    if (not prefix and "XTENSION" in header and header["XTENSION"] != "IMAGE") or header.get(prefix + "NAXIS") != 2:
        return None
    return header[prefix + "NAXIS2"], header[prefix + "NAXIS1"]


def pixel_type(hdu: Any) -> tuple[object, object, object]:
    """BITPIX, BZERO and BSCALE of the image that an HDU (opened as table) holds."""
    header = hdu.header
    return header.get("ZBITPIX" if header.get("ZIMAGE") else "BITPIX"), header.get("BZERO", 0), header.get("BSCALE", 1)


def decode_tiles(data: bytes, hdu: Any, out: Int32Array) -> bool:
    """Decode a RICE_1 row-tiled int32 image with our kernel.

    Parameters
    ----------
    data : bytes
        The whole file.
    hdu : astropy.io.fits.BinTableHDU
        The image's HDU, opened as table.
    out : (y, x) int32 [adu]
        Filled, if the image is of this kind.

    Returns
    -------
    bool
        False if the image is stored in another way: use `decode_any`.

    Raises
    ------
    ValueError
        If the compressed bytes are damaged; says where.
    """
    header = hdu.header
    if not _is_rice_rows(header):
        return False
    sizes, offsets, start, n_bytes = _descriptors(data, hdu)
    if not sizes.all():  # an incompressible row is kept in another column
        return False
    row = decode_rows(_with_slack(data, start, n_bytes), offsets, sizes, out)
    if row >= 0:
        raise ValueError(f"row {row} of the compressed image is not valid RICE_1 code")
    return True


def check_descriptors(data: bytes, hdu: Any) -> None:
    """Check where a compressed image says that its tiles are, however they are coded.

    Without this a damaged descriptor can hand the bytes of one tile to another, and they decode.

    Raises
    ------
    ValueError
        If a tile points outside the HDU's heap, or two tiles share bytes; says which.
    """
    header = hdu.header
    if header.get("ZIMAGE") and header.get("TTYPE1") == "COMPRESSED_DATA" and header["TFIELDS"] == 1:
        _descriptors(data, hdu)


def _descriptors(data: bytes, hdu: Any) -> tuple[Any, Any, int, int]:
    """Sizes and offsets [byte] of all tiles, (tile,) int64 each, and where their heap starts and how long it is."""
    header = hdu.header
    n_rows, width = header["NAXIS2"], header["NAXIS1"]
    if width not in (8, 16):
        raise ValueError(f"tile descriptors are {width} bytes wide, expected 8 or 16")
    table = hdu.fileinfo()["datLoc"]
    pointers = np.frombuffer(data, f">i{width // 2}", 2 * n_rows, table).reshape(n_rows, 2).astype(np.int64)
    sizes, offsets = np.ascontiguousarray(pointers.T)
    start = table + header.get("THEAP", n_rows * width)  # PCOUNT counts from the end of the table, the heap from here
    n_bytes = table + n_rows * width + header["PCOUNT"] - start
    if start < table or n_bytes < 0:
        raise ValueError(f"heap of the compressed image starts at byte {start - table}, outside the HDU")
    bad = (sizes < 0) | (offsets < 0) | (sizes > n_bytes) | (offsets > n_bytes - sizes)
    if bad.any():
        raise ValueError(f"row {int(np.argmax(bad))} of the compressed image points outside its {n_bytes} bytes")
    order = np.argsort(offsets, kind="stable")
    order = order[sizes[order] > 0]
    shared = offsets[order][1:] < (offsets + sizes)[order][:-1]
    if shared.any():
        one, other = order[int(np.argmax(shared)) :][:2]
        raise ValueError(f"rows {min(one, other)} and {max(one, other)} of the compressed image share bytes")
    return sizes, offsets, start, n_bytes


def _is_rice_rows(header: Any) -> bool:
    if any(header.get(card) not in values for card, values in (_RICE_CARDS | _INERT_CARDS).items()):
        return False
    if header.get("ZTILE1", header["ZNAXIS1"]) != header["ZNAXIS1"] or header["NAXIS2"] != header["ZNAXIS2"]:
        return False
    options = {header.get(f"ZNAME{i}"): header.get(f"ZVAL{i}") for i in range(1, 5)}
    form = str(header.get("TFORM1", ""))
    return (
        options.get("BLOCKSIZE", BLOCK) == BLOCK
        and options.get("BYTEPIX", 4) == 4
        and header.get("TTYPE1") == "COMPRESSED_DATA"
        and (form[:3], header["NAXIS1"]) in {("1PB", 8), ("1QB", 16)}
    )


def _with_slack(data: bytes, start: int, n_bytes: int) -> npt.NDArray[np.uint8]:
    """View of the heap with the slack behind it that the kernel wants; a copy only at the end of a file."""
    view = np.frombuffer(data, np.uint8)[start : start + n_bytes + SLACK]
    missing = n_bytes + SLACK - view.size
    if missing:
        view = np.concatenate([view, np.zeros(missing, np.uint8)])
        view.flags.writeable = False  # as the view is: the kernel is compiled for one kind
    return view


def decode_any(hdu: Any, out: Int32Array) -> None:
    """Decode any integer image through astropy's public API.

    Parameters
    ----------
    hdu : astropy.io.fits.ImageHDU or CompImageHDU
        Opened as image.
    out : (y, x) int32 [adu]
        Filled.

    Raises
    ------
    ValueError
        If the pixels are not integers of at most 32 bits, and says what they are; or if they cannot be unpacked.
    """
    try:
        pixels = hdu.data
    except (MemoryError, *FAULTS):
        raise
    except Exception as error:  # the compiled decoders of astropy have exceptions of their own, which nobody may name
        raise ValueError(str(error)) from error
    if pixels is None or not np.can_cast(pixels.dtype, np.int32):
        raise ValueError(f"pixels are {getattr(pixels, 'dtype', None)}, expected integers that fit int32")
    out[...] = pixels

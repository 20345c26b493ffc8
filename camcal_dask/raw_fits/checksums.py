"""Checksums of FITS files (FITS standard 4.0, section 4.4.2.7 and appendix J; Seaman et al. 2012).

``DATASUM`` is the 32-bit ones'-complement sum of an HDU's data as stored, ``CHECKSUM`` makes the sum of header and
data "minus zero".  In a tile-compressed HDU both cover the compressed table, and ``ZDATASUM`` the uncompressed image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_MODULUS = 0xFFFFFFFF
"""Ones'-complement addition is addition modulo this: all bits set and no bit set are the same number."""


@dataclass(frozen=True)
class Faults:
    """What does not match in one HDU, as text; None where everything does or nothing is claimed.

    ``flipped`` says that the header's sum is off by a power of two: one flipped bit does that, an edited card
    hardly ever.
    """

    data: str | None = None
    header: str | None = None
    flipped: bool = False


def check_hdu(data: bytes, hdu: Any) -> Faults:
    """Compare an HDU, opened as it is stored, with its ``DATASUM`` and ``CHECKSUM``.

    Parameters
    ----------
    data : bytes
        The whole file.
    hdu : astropy HDU
        From the same bytes.
    """
    place = hdu.fileinfo()
    begin, middle, end = place["hdrLoc"], place["datLoc"], place["datLoc"] + place["datSpan"]
    expected, text = _claim(hdu.header, "DATASUM"), str(hdu.header.get("CHECKSUM", "")).strip()
    if expected is None and not text:
        return Faults()
    found = sum_bytes(data, middle, end)
    wrong = None
    if expected is not None and (found - expected) % _MODULUS:
        wrong = f"its data sum to {found}, DATASUM is {expected}"
    # The claimed sum of the data, if there is one, so that damaged data do not accuse the header.
    excess = (sum_bytes(data, begin, middle) + (found if expected is None else expected)) % _MODULUS
    if not text or not excess:
        return Faults(wrong)
    if expected is None:
        return Faults(f"header and data do not match CHECKSUM {text!r}")
    return Faults(
        wrong, f"its header does not match CHECKSUM {text!r}", min(excess, _MODULUS - excess).bit_count() == 1
    )


def pixels_match(pixels: npt.NDArray[np.integer[Any]], header: Any) -> bool | None:
    """Whether a decoded image has the sum ``ZDATASUM`` of its HDU; None if the HDU does not claim one.

    Parameters
    ----------
    pixels : (y, x) int32 [adu]
        Decoded pixels, scaled by ``BZERO``.
    header : astropy.io.fits.Header
        Of the compressed HDU, opened as table.
    """
    expected = _claim(header, "ZDATASUM")
    if expected is None or header.get("BSCALE", 1) != 1:
        return None
    stored = pixels if not header.get("BZERO") else pixels - int(header["BZERO"])
    if header.get("ZBITPIX") == 32:
        found = int(stored.view(np.uint32).sum(dtype=np.uint64))
    else:
        raw = stored.astype(">i2" if header.get("ZBITPIX") == 16 else np.uint8).tobytes()
        found = sum_bytes(raw + b"\0" * (-len(raw) % 4), 0, None)
    return not (found - expected) % _MODULUS


def is_copy(header: Any) -> bool:
    """Whether ``DATASUM`` of a compressed HDU repeats ``ZDATASUM``, as some programs leave it."""
    expected = _claim(header, "ZDATASUM")
    return expected is not None and expected == _claim(header, "DATASUM")


def sum_bytes(data: bytes, begin: int, end: int | None) -> int:
    """Sum of the big-endian 32-bit words of ``data[begin:end]``, not yet folded into 32 bits."""
    count = ((len(data) if end is None else min(end, len(data))) - begin) // 4
    return int(np.frombuffer(data, ">u4", count, begin).sum(dtype=np.uint64))


def _claim(header: Any, card: str) -> int | None:
    """Value of ``DATASUM`` or ``ZDATASUM``: decimal digits, often as text; None without the card.

    Raises
    ------
    ValueError
        If it is no number.
    """
    text = str(header.get(card, "")).strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"card {card} is {text!r}, expected a number")
    return int(text)

"""Images as PNG files: 8 bit, written with zlib alone, quick enough for hundreds."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
BytesArray = NDArray[np.uint8]
_LEVEL = 4
NO_VALUE = 0
"""Grey level of pixels without value; all others are 1 to 255, and this one is drawn transparent."""


def zscale(image: FloatArray, *, contrast: float = 0.25, n_sample: int = 10_000) -> tuple[float, float]:
    """Display limits by zscale: a line through the sorted pixels, its slope divided by the contrast.

    Parameters
    ----------
    image : any shape; NaN ignored
    contrast : float
        Smaller shows more.
    n_sample : int
        Most pixels looked at, evenly spaced.

    Returns
    -------
    low, high
        (0, 1) without pixels; one unit apart around the value of a constant image.
    """
    from astropy.visualization import ZScaleInterval  # slow to import, and most commands draw nothing

    if not np.isfinite(image).any():
        return 0.0, 1.0
    low, high = map(float, ZScaleInterval(n_samples=n_sample, contrast=contrast).get_limits(image))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def grey(image: FloatArray, limits: tuple[float, float]) -> BytesArray:
    """Grey levels 1..255 of an image (y, x) between limits; `NO_VALUE` where it is not finite."""
    low, high = limits
    known = np.isfinite(image)
    with np.errstate(invalid="ignore"):
        level = 1 + np.clip((np.where(known, image, low) - low) * (254 / (high - low)), 0, 254)
    return np.where(known, level, NO_VALUE).astype(np.uint8)


def write_png(path: Path, levels: BytesArray) -> None:
    """Write grey levels, y up as astronomers draw it.

    Parameters
    ----------
    path : Path
    levels : (y, x) uint8 grey, level 0 transparent; or (y, x, 3) uint8 RGB
    """
    upright = np.ascontiguousarray(levels[::-1])
    height, width = upright.shape[:2]
    rows = upright.reshape(height, -1)
    filtered = np.zeros((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 1:] = rows
    colour = 2 if upright.ndim == 3 else 0
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))]
    if colour == 0:
        chunks.append((b"tRNS", struct.pack(">H", NO_VALUE)))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), _LEVEL)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

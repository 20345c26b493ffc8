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
    """Display limits after IRAF's zscale: a line through the sorted pixels, its slope divided by the contrast.

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
        (0, 1) without pixels.
    """
    known = np.ravel(image)
    known = known[np.isfinite(known)]
    if known.size == 0:
        return 0.0, 1.0
    sample = np.sort(known[:: max(1, known.size // n_sample)].astype(np.float64))
    low, high = float(sample[0]), float(sample[-1])
    slope = _slope(sample)
    if slope is not None:
        middle, median = (len(sample) - 1) / 2, float(np.median(sample))
        low = max(low, median - middle * slope / contrast)
        high = min(high, median + (len(sample) - 1 - middle) * slope / contrast)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _slope(sample: NDArray[np.float64]) -> float | None:
    """Slope of the sorted values, outliers of 2.5 sigma rejected as long as half of them are left."""
    x = np.arange(len(sample), dtype=np.float64)
    used = np.ones(len(sample), bool)
    slope = 0.0
    for _ in range(5):
        if used.sum() < max(5, len(sample) // 2):
            return None
        slope, offset = np.polyfit(x[used], sample[used], 1)
        left = sample - (slope * x + offset)
        inside = np.abs(left - left[used].mean()) <= 2.5 * left[used].std() + 1e-300
        if (inside == used).all():
            break
        used = inside
    return float(slope)


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

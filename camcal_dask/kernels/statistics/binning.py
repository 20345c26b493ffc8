"""Means of square bins of an amp's pixels inside a border (reference/ptc_linearity.md 8 and 12)."""

from __future__ import annotations

import numpy as np

from camcal_dask.kernels.arrays import FloatArray, Mask, Pixels
from camcal_dask.kernels.compiled import compiled


def bin_amps(image: Pixels, mask: Mask, reject: int, *, size: int = 8, border: int = 20) -> FloatArray:
    """Bin all amps of a detector.

    Parameters
    ----------
    image, mask : (amp, y, x) trimmed amps, padded alike; padding is flagged in ``mask``
    reject : planes of ``mask`` whose pixels do not count; NaN pixels never do
    size : side of a bin [pixel]
    border : pixels left out at all four sides; as many as leave two bins along the shorter side, if fewer

    Returns
    -------
    (amp, y // size, x // size) float64 of the same unit: mean of each whole bin, NaN if it has no good pixel.
    """
    height, width = image.shape[1:]
    border = _border(height, width, size, border)
    out = np.empty((len(image), (height - 2 * border) // size, (width - 2 * border) // size))
    _bin(image[:, border:, border:], mask[:, border:, border:], np.int32(reject), size, out)
    return out


def bin_centres(height: int, width: int, *, size: int = 8, border: int = 20) -> tuple[FloatArray, FloatArray]:
    """Centres of the bins of `bin_amps` in the amp (height, width): (y,) and (x,) [pixel]."""
    border = _border(height, width, size, border)
    first = border + (size - 1) / 2
    y = first + size * np.arange((height - 2 * border) // size, dtype=np.float64)
    x = first + size * np.arange((width - 2 * border) // size, dtype=np.float64)
    return y, x


def _border(height: int, width: int, size: int, border: int) -> int:
    return min(border, max(0, (min(height, width) - 2 * size) // 2))


@compiled(error_model="numpy")
def _bin(image: Pixels, mask: Mask, reject: np.int32, size: int, out: FloatArray) -> None:
    n_amp, n_y, n_x = out.shape
    for a in range(n_amp):
        for j in range(n_y):
            for i in range(n_x):
                total, n = 0.0, 0
                for y in range(j * size, (j + 1) * size):
                    for x in range(i * size, (i + 1) * size):
                        v = image[a, y, x]
                        if mask[a, y, x] & reject == 0 and v == v:
                            total += v
                            n += 1
                out[a, j, i] = total / n

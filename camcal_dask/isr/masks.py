"""Masks of pixels that are not finite or have no positive variance (steps 22 and 25)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camcal_dask.instruments.geometry import Detector
from camcal_dask.kernels.arrays import Int32Array, Pixels
from camcal_dask.kernels.pixels.masks import BAD
from camcal_dask.kernels.readout import calibrate


def areas(mask: Int32Array, detector: Detector, y0: int) -> list[tuple[int, int, int]]:
    """Index, rows and columns of the pixels of each amp in arrays that start at row ``y0``."""
    rows = mask.shape[1]
    return [(amp.index, min(max(amp.data.height - y0, 0), rows), amp.data.width) for amp in detector.amps]


def mask_not_finite(
    image: Pixels, mask: Int32Array, detector: Detector, y0: int, skip: NDArray[np.bool_] | None = None
) -> None:
    """Flag pixels that are not finite as UNMASKEDNAN (step 22), in place.

    Only pixels that the detector has: the padding of smaller amps stays NO_DATA alone.  The arrays
    start at row ``y0`` of the trimmed amps; amps of ``skip`` are known to be finite.
    """
    for a, height, width in areas(mask, detector, y0):
        if skip is None or not skip[a]:
            calibrate.flag_not_finite(image[a], mask[a], height, width)


def mask_negative_variance(variance: Pixels, mask: Int32Array, detector: Detector, y0: int) -> None:
    """Flag pixels with variance <= 0 as BAD (step 25), in place."""
    for a, height, width in areas(mask, detector, y0):
        mask[a, :height, :width][variance[a, :height, :width] <= 0] |= BAD

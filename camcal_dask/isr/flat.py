"""Flat (step 26; reference/isr.md 2.13)."""

from __future__ import annotations

import numpy as np

from camcal_dask.instruments.geometry import Detector
from camcal_dask.isr.calibrations import Plane
from camcal_dask.isr.masks import areas
from camcal_dask.kernels.arrays import Int32Array, Pixels
from camcal_dask.kernels.readout import calibrate


def divide(image: Pixels, mask: Int32Array, flat: Plane | None, scale: float, detector: Detector, y0: int) -> None:
    """Divide by ``scale`` times the flat in place and add its mask planes; 0 where it says NO_DATA.

    Where the flat is not positive without NO_DATA, the pixel becomes NaN, BAD and UNMASKEDNAN.  Arrays (amp, y, x)
    start at row ``y0`` of the trimmed amps.
    """
    for a, height, width in areas(mask, detector, y0) if flat is not None else ():
        calibrate.divide_flat(image[a], mask[a], flat.image[a], flat.mask[a], np.float32(scale), height, width)  # type: ignore[union-attr]

"""Saturation, suspect pixels and gains (steps 7 to 9; reference/isr.md 2.3 and 2.4), in one pass over an amp."""

from __future__ import annotations

import numpy as np

from camcal_dask.isr.tables import Prepared
from camcal_dask.kernels.arrays import Int32Array, Pixels
from camcal_dask.kernels.readout import calibrate


def flag_and_scale(pixels: Pixels, flags: Int32Array, index: int, tables: Prepared) -> None:
    """Set SAT and SUSPECT where an amp reaches its levels [adu], then multiply it by its gain, in place.

    Parameters
    ----------
    pixels, flags : (y, x) of the amp ``index``; float32 [adu], afterwards in the unit of the image; int32
    """
    limits = (np.float32(values[index]) for values in (tables.saturated, tables.suspect, tables.gain))
    calibrate.flag_and_scale(pixels, flags, *limits)

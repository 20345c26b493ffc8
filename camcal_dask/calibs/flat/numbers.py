"""Numbers of a combined flat itself: dark pixels, vampires, tearing (reference/verification.md 3.8, 3.9, 3.18)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.instruments.geometry import Amp, Detector
from camcal_dask.kernels.readout.tearing import profile, tearing
from camcal_dask.kernels.statistics import outlier_counts
from camcal_dask.kernels.statistics.moments import median
from camcal_dask.schema import AMP_DIMS, number_variables
from camcal_dask.verify.measuring.product import measure_image

FRAME = 9
"""Pixels at the edges of a CCD that are no dark defects: the picture frame [pixel]."""
_LIT = 0.1
"""An amp of a flat below this fraction of the median amp is dead, as for the defects."""
FLAT_NUMBERS = number_variables(
    AMP_DIMS,
    {
        "dark_columns": ("column", "columns with over 100 contiguous pixels below 0.8 of the mean"),
        "dark_pixels": ("pixel", "pixels below 0.8 of the mean outside of such columns, without the frame"),
        "vampires": ("1", "spots brighter than 1.2 times their surroundings"),
        "divisadero": ("1", "largest ripple at the boundaries to the neighbour amps"),
    },
)
"""Numbers of every amp of a combined flat."""


def measure_flat(flat: xr.Dataset) -> xr.Dataset:
    """Measure a combined flat; nothing is computed.  Returns a Dataset of `FLAT_NUMBERS`, (detector, amp) float64."""
    return measure_image(flat, FLAT_NUMBERS, _flat_numbers)


def _flat_numbers(detector: Detector, image: npt.NDArray[np.float32], units: str) -> dict[int, list[float]]:
    level = {amp.index: median(image[amp.index]) for amp in detector.amps}
    lit = _LIT * float(np.nanmedian(list(level.values())))
    profiles = {}
    for amp in detector.amps:
        along = profile(image[amp.index, : amp.data.height, : amp.data.width])
        along[:] = along if level[amp.index] > lit else np.nan  # a dead amp tears nothing
        profiles[amp.ix, amp.iy] = along[::-1] if amp.flip_x else along
    torn = tearing(profiles)
    found = {}
    for amp in detector.amps:
        inner = image[amp.index][inside(amp, detector)]
        found[amp.index] = [*outlier_counts.dark(inner), outlier_counts.vampires(inner), torn[amp.ix, amp.iy]]
    return found


def inside(amp: Amp, detector: Detector, frame: int = FRAME) -> tuple[slice, slice]:
    """Rows and columns of an amp, readout coordinates, without the picture frame of the CCD.

    Readout row 0 is an outer row; the first or last columns are outer ones for the amps at the ends of a row.
    """
    height, width = amp.data.height, amp.data.width
    first, last = (amp.ix == 0, amp.ix == detector.last_ix)
    left, right = (last, first) if amp.flip_x else (first, last)
    return slice(min(frame, height), height), slice(frame if left else 0, width - frame if right else width)

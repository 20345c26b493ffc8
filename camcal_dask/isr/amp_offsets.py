"""Pedestals of the amps from the steps at their edges (step 30; reference/isr.md 2.16); whole CCDs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camcal_dask.instruments.focal_plane import assemble
from camcal_dask.instruments.geometry import Detector
from camcal_dask.isr.ccd import ccd_boxes, put_back
from camcal_dask.isr.config import IsrConfig
from camcal_dask.kernels.arrays import Int32Array, Pixels
from camcal_dask.kernels.readout import amp_offset


def correct(image: Pixels, mask: Int32Array, detector: Detector, config: IsrConfig) -> NDArray[np.float64]:
    """Measure the pedestals and, if so configured, subtract them in place; arrays (amp, y, x).

    Returns
    -------
    Pedestal of each of the detector's amps, (n_amp,) [image unit]; zeros if not measured.
    """
    if config.amp_offsets == "none":
        return np.zeros(len(detector.amps))
    pixels, boxes = assemble(image, detector), ccd_boxes(detector)
    found = amp_offset.measure_amp_offsets(
        pixels, assemble(mask, detector), boxes, max_offset=config.amp_offset_max
    ).pedestals
    if config.amp_offsets == "apply":
        amp_offset.apply_amp_offsets(pixels, found, boxes)
        put_back(image, pixels, detector)
    return found

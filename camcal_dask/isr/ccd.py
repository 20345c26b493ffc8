"""Between the amps of a detector and its assembled CCD, for the steps that need whole ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from camcal_dask.instruments.focal_plane import amp_boxes, split
from camcal_dask.instruments.geometry import Detector


def ccd_boxes(detector: Detector) -> NDArray[np.int64]:
    """Boxes of the amps in the CCD, as the kernels want them."""
    return amp_boxes(detector).astype(np.int64)


def put_back(amps: NDArray[Any], ccd: NDArray[Any], detector: Detector) -> None:
    """Write an assembled CCD into its amps (amp, y, x), padding untouched."""
    parts = split(ccd, detector, amps.shape)
    for amp in detector.amps:
        area = np.s_[amp.index, : amp.data.height, : amp.data.width]
        amps[area] = parts[area]

"""Amps and detectors as rectangles in the focal plane, for maps (reference/verification.md 5.1, 5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camcal_dask.instruments import Detector
from camcal_dask.instruments.focal_plane import ccd_to_focal_plane, readout_to_focal_plane, transform
from camcal_dask.kernels.arrays import FloatArray

_FILL = 0.94
"""Part of the distance to the neighbour that a magnified detector takes."""


@dataclass(frozen=True)
class Layout:
    """Rectangles x0, y0, width, height [mm] and whose they are, in the order of detectors, then amps.

    Attributes
    ----------
    detectors : (n_detector, 4) float64
    amps : (n_amp, 4) float64
    owner : (n_amp,) int, position of the amp's detector
    index : (n_amp,) int, position of the amp in its detector
    """

    detectors: FloatArray
    amps: FloatArray
    owner: NDArray[np.int64]
    index: NDArray[np.int64]


def make_layout(detectors: Sequence[Detector]) -> Layout:
    """Place detectors and amps as they are in the camera.

    Detectors much smaller than their distances (the test camera's) are magnified about their centres; they
    would be dots.
    """
    whole = np.array([_rectangle(ccd_to_focal_plane(d), d.width_pix, d.height_pix) for d in detectors])
    scale = _magnification(whole)
    amps, owner, index = [], [], []
    for i, detector in enumerate(detectors):
        for amp in detector.amps:
            affine = readout_to_focal_plane(detector, amp)
            amps.append(_scaled(_rectangle(affine, amp.data.width, amp.data.height), whole[i], scale))
            owner.append(i)
            index.append(amp.index)
    boxes = np.array([_scaled(box, box, scale) for box in whole])
    return Layout(boxes, np.array(amps), np.array(owner), np.array(index))


def _rectangle(affine: FloatArray, width: int, height: int) -> FloatArray:
    """Rectangle around the corners of an image of this size, pixel edges included."""
    x, y = transform(affine, [-0.5, width - 0.5, -0.5, width - 0.5], [-0.5, -0.5, height - 0.5, height - 0.5])
    return np.array([x.min(), y.min(), np.ptp(x), np.ptp(y)])


def _magnification(boxes: FloatArray) -> float:
    """Factor that makes the detectors fill the distances between them; 1 for a real mosaic."""
    if len(boxes) < 2:
        return 1.0
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    distance = np.abs(centre[:, None] - centre[None]).max(axis=-1)
    nearest = distance[~np.eye(len(boxes), dtype=bool)].min()
    side = boxes[:, 2:].max()
    return float(_FILL * nearest / side) if nearest > 4 * side else 1.0


def _scaled(box: FloatArray, about: FloatArray, scale: float) -> FloatArray:
    centre = about[:2] + about[2:] / 2
    return np.concatenate([centre + (box[:2] - centre) * scale, box[2:] * scale])

"""Bias, dark and defects (steps 19 to 21; reference/isr.md 2.10 and 2.18): calibrations that are images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camcal_dask.instruments.geometry import Detector
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.masks import areas
from camcal_dask.kernels.arrays import Int32Array, Pixels
from camcal_dask.kernels.readout import calibrate


class Plane(NamedTuple):
    """A combined calibration, same rows as the image: image [u], variance [u^2] float32, mask int32; (amp, y, x)."""

    image: Pixels
    variance: Pixels
    mask: Int32Array


class Planes(NamedTuple):
    """The calibrations that are images; None for those not applied.  ``defects`` int32 (amp, y, x): 0 is good."""

    bias: Plane | None = None
    dark: Plane | None = None
    flat: Plane | None = None
    defects: Int32Array | None = None

    def of_detector(self, index: int = 0) -> Planes:
        """Arrays (amp, y, x) of one detector out of arrays (detector, amp, y, x)."""
        bias, dark, flat = (p if p is None else Plane._make(v[index] for v in p) for p in self[:3])
        return Planes(bias, dark, flat, None if self.defects is None else self.defects[index])

    @property
    def subtracted(self) -> list[Plane]:
        """Bias and dark, those there are."""
        return [plane for plane in (self.bias, self.dark) if plane is not None]


class Flags(NamedTuple):
    """What the calibrations add to the mask: ``mask`` int32 (amp, y, x); ``quiet`` (amp,) amps that they leave alone.

    Of a quiet amp bias and dark are finite, too.
    """

    mask: Int32Array
    quiet: NDArray[np.bool_]


def subtract_bias(image: Pixels, bias: Plane | None) -> None:
    """Subtract the combined bias in place; mask and variance of it enter by `add_flags` and `variance_plane`."""
    if bias is not None:
        _subtract(image, bias, 1.0)


def subtract_dark(image: Pixels, dark: Plane | None, scale: float) -> None:
    """Subtract ``scale`` times the combined dark in place; mask and variance as those of the bias."""
    if dark is not None:
        _subtract(image, dark, scale)


def _subtract(image: Pixels, plane: Plane, scale: float) -> None:
    for a in range(image.shape[0]):
        calibrate.subtract_plane(image[a], plane.image[a], np.float32(scale))


def add_flags(
    mask: Int32Array, planes: Planes, detector: Detector, y0: int, config: IsrConfig, known: Flags | None = None
) -> NDArray[np.bool_]:
    """Mask planes of bias and dark, BAD where a defect is (21), UNMASKEDNAN where a variance is not finite (22).

    In place; arrays (amp, y, x) that start at row ``y0`` of the trimmed amps.  The padding of smaller amps
    stays NO_DATA alone.  ``known`` : from `common_flags`, the same for all exposures.

    Returns
    -------
    (amp,) bool, amps known to be left as they were, and finite if they were.
    """
    if known is not None:
        for touched in np.flatnonzero(~known.quiet):
            mask[touched] |= known.mask[touched]
        return known.quiet
    for plane in planes.subtracted:
        mask |= plane.mask
    for a, height, width in areas(mask, detector, y0):
        if planes.defects is not None:
            calibrate.flag_defects(mask[a], planes.defects[a], height, width)
        for plane in planes.subtracted if config.nan_mask else ():
            calibrate.flag_not_finite(plane.variance[a], mask[a], height, width)
    return np.zeros(len(mask), bool)


def common_flags(shape: tuple[int, int, int], planes: Planes, detector: Detector, y0: int, config: IsrConfig) -> Flags:
    """Flags that `add_flags` adds to every exposure, worked out once; ``shape`` is (amp, y, x)."""
    mask, quiet = np.zeros(shape, np.int32), np.zeros(shape[0], bool)
    add_flags(mask, planes, detector, y0, config)
    for a, height, width in areas(mask, detector, y0):
        box = np.s_[a, :height, :width]
        quiet[a] = not mask[box].any() and all(np.isfinite(plane.image[box]).all() for plane in planes.subtracted)
    return Flags(mask, quiet)

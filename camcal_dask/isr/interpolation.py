"""Bad regions filled, masked pixels interpolated (steps 28 and 29; reference/isr.md 2.14); whole CCDs."""

from __future__ import annotations

from camcal_dask.instruments.focal_plane import assemble
from camcal_dask.instruments.geometry import Detector
from camcal_dask.isr.ccd import put_back
from camcal_dask.isr.config import IsrConfig
from camcal_dask.kernels.arrays import Int32Array, Pixels
from camcal_dask.kernels.pixels import interpolation


def fill_bad_regions(image: Pixels, mask: Int32Array, detector: Detector, config: IsrConfig) -> None:
    """Give BAD pixels the median of the others (step 28), in place; arrays (amp, y, x)."""
    if config.fill_bad_regions:
        pixels = assemble(image, detector)
        interpolation.set_bad_regions(pixels, assemble(mask, detector))
        put_back(image, pixels, detector)


def interpolate(
    image: Pixels, variance: Pixels | None, mask: Int32Array, detector: Detector, config: IsrConfig
) -> None:
    """Interpolate SAT, BAD and UNMASKEDNAN along rows (step 29), in place; the variance if it is given."""
    if not config.interpolate:
        return
    pixels, flags = assemble(image, detector), assemble(mask, detector)
    spread = None if variance is None else assemble(variance, detector)
    interpolation.interpolate(pixels, spread, flags)
    if variance is not None and spread is not None:
        put_back(variance, spread, detector)
    put_back(mask, flags, detector)
    put_back(image, pixels, detector)

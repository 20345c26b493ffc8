"""Brighter-fatter effect (step 24; reference/isr.md 2.11); whole CCDs."""

from __future__ import annotations

from camcal_dask.instruments.focal_plane import assemble
from camcal_dask.instruments.geometry import Detector
from camcal_dask.isr.ccd import put_back
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.tables import Prepared
from camcal_dask.kernels.arrays import Int32Array, Pixels
from camcal_dask.kernels.charge import brighter_fatter


def correct(image: Pixels, mask: Int32Array, detector: Detector, config: IsrConfig, tables: Prepared) -> None:
    """Undo the brighter-fatter effect in place, if a method is chosen.

    Parameters
    ----------
    image : (amp, y, x) float32 [electron], bias and dark subtracted
    mask : (amp, y, x) int32
    """
    method = config.brighter_fatter
    if method == "none":
        return
    pixels, flags = assemble(image, detector), assemble(mask, detector)
    if tables.shifts is not None:
        brighter_fatter.astier23(pixels, flags, tables.shifts)
    elif tables.kernel is not None:
        conserving = method == "coulton18_flux_conserving"
        kernel = brighter_fatter.coulton18_flux_conserving if conserving else brighter_fatter.coulton18
        kernel(pixels, flags, tables.kernel)
    put_back(image, pixels, detector)
    put_back(mask, flags, detector)

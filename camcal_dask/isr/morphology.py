"""Shapes that saturation leaves on a CCD (steps 16 to 18 and 23; reference/isr.md 2.9): bleeds, dips, trails.

Whole CCDs: arrays come and go as amps in readout coordinates (amp, y, x) and are assembled here.
"""

from __future__ import annotations

import numpy as np

from camcal_dask.instruments.focal_plane import assemble
from camcal_dask.instruments.geometry import Detector
from camcal_dask.isr.ccd import ccd_boxes, put_back
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.tables import Prepared
from camcal_dask.kernels.arrays import Int32Array, Pixels
from camcal_dask.kernels.readout import saturation


def mask_shapes(image: Pixels, mask: Int32Array, detector: Detector, config: IsrConfig, tables: Prepared) -> None:
    """Flag what saturation leaves on E2V and ITL sensors (steps 16 to 18), in ``mask``.

    Parameters
    ----------
    image : (amp, y, x) float32 [electron], trimmed
    mask : (amp, y, x) int32, changed in place
    """
    rules = config.morphology
    e2v = rules.e2v_edge_bleed and detector.vendor == "E2V"
    dip = rules.itl_dips.get(detector.full_name) if rules.itl_dip and detector.vendor == "ITL" else None
    itl = rules.itl_edge_bleed and detector.vendor == "ITL"
    if not (e2v or dip or itl):
        return
    flags, boxes = assemble(mask, detector), ccd_boxes(detector)
    footprints = saturation.find_footprints(flags)
    if footprints.area.size == 0:
        return
    pixels = assemble(image, detector) if dip or itl else None
    if e2v:
        saturation.mask_e2v_edge_bleed(flags, footprints, boxes)
    if pixels is not None and dip:
        saturation.mask_itl_dip(pixels, flags, footprints, min_width=dip[0], background_fraction=dip[1])
    if pixels is not None and itl:
        level = _saturation_level(tables)
        if np.isfinite(level):
            saturation.mask_itl_edge_bleed(pixels, flags, footprints, boxes, level)
        saturation.mask_itl_saturation_sag(flags, footprints)
    put_back(mask, flags, detector)


def widen_trails(mask: Int32Array, detector: Detector, config: IsrConfig) -> None:
    """Lengthen horizontal runs of SAT at both ends (step 23), in place."""
    if config.widen_trails:
        flags = assemble(mask, detector)
        saturation.widen_saturation_trails(flags)
        put_back(mask, flags, detector)


def _saturation_level(tables: Prepared) -> float:
    """Median over good amps [electron], NaN if there is no level."""
    levels = (tables.saturated * tables.gain)[~tables.bad & np.isfinite(tables.saturated)]
    return float(np.median(levels)) if levels.size else float("nan")

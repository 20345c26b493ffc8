"""Steps that need a whole CCD in detector coordinates (reference/isr.md 5: connected components, stencils, solves).

Arrays come and go as amps in readout coordinates (amp, y, x); each function assembles what it needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from camcal_dask.instruments.focal_plane import amp_boxes, assemble, split
from camcal_dask.instruments.geometry import Detector
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.tables import Prepared
from camcal_dask.kernels.charge import brighter_fatter
from camcal_dask.kernels.pixels import interpolation
from camcal_dask.kernels.readout import amp_offset, saturation

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]


def mask_shapes(image: FloatArray, mask: IntArray, detector: Detector, config: IsrConfig, tables: Prepared) -> None:
    """Flag what saturation leaves on E2V and ITL sensors (steps 16-18), in ``mask``.

    Parameters
    ----------
    image : (amp, y, x) float32 [electron], after `steps.correct_rows`
    mask : (amp, y, x) int32, changed in place
    """
    rules = config.morphology
    e2v = rules.e2v_edge_bleed and detector.vendor == "E2V"
    dip = rules.itl_dips.get(detector.full_name) if rules.itl_dip and detector.vendor == "ITL" else None
    itl = rules.itl_edge_bleed and detector.vendor == "ITL"
    if not (e2v or dip or itl):
        return
    flags, boxes = assemble(mask, detector), _boxes(detector)
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
    _put_back(mask, flags, detector)


def correct_light(image: FloatArray, mask: IntArray, detector: Detector, config: IsrConfig, tables: Prepared) -> None:
    """Widen saturation trails, undo the brighter-fatter effect (steps 23, 24), in place.

    Parameters
    ----------
    image : (amp, y, x) float32 [electron], bias and dark subtracted
    mask : (amp, y, x) int32
    """
    method = config.brighter_fatter
    if method == "none" and not config.widen_trails:
        return
    flags = assemble(mask, detector)
    if config.widen_trails:
        saturation.widen_saturation_trails(flags)
    if method != "none":
        pixels = assemble(image, detector)
        if tables.shifts is not None:
            brighter_fatter.astier23(pixels, flags, tables.shifts)
        elif tables.kernel is not None:
            conserving = method == "coulton18_flux_conserving"
            correct = brighter_fatter.coulton18_flux_conserving if conserving else brighter_fatter.coulton18
            correct(pixels, flags, tables.kernel)
        _put_back(image, pixels, detector)
    _put_back(mask, flags, detector)


def finish(
    image: FloatArray, variance: FloatArray | None, mask: IntArray, detector: Detector, config: IsrConfig
) -> NDArray[np.float64]:
    """Fill bad regions, interpolate, measure or subtract amp offsets (steps 28-30), in place.

    Parameters
    ----------
    image, variance, mask : (amp, y, x) float32, float32 (needed for interpolation), int32; flat-fielded

    Returns
    -------
    Pedestal of each of the detector's amps, (n_amp,) [image unit]; zeros if not measured.
    """
    n = len(detector.amps)
    if not (config.fill_bad_regions or config.interpolate or config.amp_offsets != "none"):
        return np.zeros(n)
    pixels, flags, boxes = assemble(image, detector), assemble(mask, detector), _boxes(detector)
    if config.fill_bad_regions:
        interpolation.set_bad_regions(pixels, flags)
    if config.interpolate:
        spread = None if variance is None else assemble(variance, detector)
        interpolation.interpolate(pixels, spread, flags)
        if variance is not None and spread is not None:
            _put_back(variance, spread, detector)
        _put_back(mask, flags, detector)
    offsets = np.zeros(n)
    if config.amp_offsets != "none":
        offsets = amp_offset.measure_amp_offsets(pixels, flags, boxes, max_offset=config.amp_offset_max).pedestals
    if config.amp_offsets == "apply":
        amp_offset.apply_amp_offsets(pixels, offsets, boxes)
    if config.fill_bad_regions or config.interpolate or config.amp_offsets == "apply":
        _put_back(image, pixels, detector)
    return offsets


def _boxes(detector: Detector) -> NDArray[np.int64]:
    return amp_boxes(detector).astype(np.int64)


def _saturation_level(tables: Prepared) -> float:
    """Median over good amps [electron], NaN if there is no level."""
    levels = (tables.saturated * tables.gain)[~tables.bad & np.isfinite(tables.saturated)]
    return float(np.median(levels)) if levels.size else float("nan")


def _put_back(amps: NDArray[Any], ccd: NDArray[Any], detector: Detector) -> None:
    """Write an assembled CCD into its amps, padding untouched."""
    parts = split(ccd, detector, amps.shape)
    for amp in detector.amps:
        area = np.s_[amp.index, : amp.data.height, : amp.data.width]
        amps[area] = parts[area]

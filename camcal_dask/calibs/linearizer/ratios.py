"""Ratios of the amps of every exposure, for the double spline: pixels never move (reference/ptc_linearity.md 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from camcal_dask.calibs.linearizer.config import DoubleSplineConfig, LinearityConfig
from camcal_dask.calibs.linearizer.flats import linear_ranges, read_flats
from camcal_dask.errors import PlanError
from camcal_dask.isr.blocks import blocks_of, unwrap
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.linearity.double import (
    Ratios,
    amp_scaling,
    choose_reference,
    measure_ratios,
    reference_exposure,
)
from camcal_dask.kernels.pixels.masks import bits
from camcal_dask.kernels.statistics.binning import bin_amps


class Reference(NamedTuple):
    """What the others are compared with: index of an amp, id of an exposure."""

    amp: int
    exposure: int


class DetectorRatios(NamedTuple):
    """Ratios of all exposures of a detector; ``scaling`` (amp,) level of each amp in the reference exposure."""

    ratios: list[Ratios]
    scaling: FloatArray
    reference: Reference


def choose(ptc: xr.Dataset, detector: int, config: LinearityConfig) -> Reference:
    """Choose reference amp and exposure of a detector from its PTC.

    Raises
    ------
    DataError
        If no amp qualifies.
    """
    flats = read_flats(ptc, detector, config, None)
    turnoff = np.array([r.turnoff for r in linear_ranges(flats, config)])
    settings = config.double
    amp = choose_reference(turnoff, flats.ptc_turnoff, flats.noise, flats.bad, settings.max_noise)
    position = reference_exposure(flats.ordinate[amp], flats.used[amp], settings.reference_signal)
    return Reference(amp, int(flats.exposure[position]))


def measure(corrected: xr.Dataset, reference: Reference, config: DoubleSplineConfig) -> Any:
    """Ratios of all exposures of one detector: a delayed `DetectorRatios`.

    Parameters
    ----------
    corrected : Dataset
        From ``isr(..., block="exposure")`` without linearity, one detector [adu].
    reference : Reference
        Its exposure is among those of ``corrected``.
    """
    blocks = blocks_of(corrected)
    if blocks is None or corrected.sizes["detector"] != 1:
        raise PlanError("amp ratios: need the blocks of isr(..., block='exposure') as they are, of one detector")
    position = corrected["exposure"].values.tolist().index(reference.exposure)
    common: dict[str, Any] = {"align_arrays": False, "dtype": object, "meta": np.empty((0, 0), object)}
    token = tokenize(blocks.name, config, reference)
    flat = da.blockwise(
        _bin, "ed", blocks.blocks[position : position + 1], "edayx", config, None, name=f"ratio-flat-{token}", **common
    )
    ratios = da.blockwise(
        _ratios, "ed", blocks, "edayx", flat, "fd", config, None, reference.amp, None, name=f"ratio-{token}", **common
    )
    flat, ratios = dask.optimize(flat, ratios)
    return dask.delayed(_gather)(ratios.to_delayed()[:, 0].tolist(), flat.to_delayed()[0, 0], reference)


def table(measured: Mapping[int, DetectorRatios], exposures: Sequence[int], amps: Sequence[str]) -> xr.Dataset:
    """Table of all detectors.

    Returns
    -------
    Dataset
        ``reference_level`` (detector, exposure) [adu], ``gain_ratio`` (detector, amp, exposure), ``amp_scaling``
        (detector, amp), ``reference_amp`` and ``reference_exposure`` (detector).
    """
    ids = sorted(measured)
    each = [measured[d] for d in ids]
    return xr.Dataset(
        {
            "reference_level": (("detector", "exposure"), [[r.reference for r in d.ratios] for d in each]),
            "gain_ratio": (("detector", "amp", "exposure"), [np.transpose([r.amp for r in d.ratios]) for d in each]),
            "amp_scaling": (("detector", "amp"), [d.scaling for d in each]),
            "reference_amp": ("detector", np.array([d.reference.amp for d in each], np.int32)),
            "reference_exposure": ("detector", np.array([d.reference.exposure for d in each], np.int64)),
        },
        {"detector": ids, "amp": list(amps), "exposure": list(exposures)},
    )


def _bin(block: Any, config: DoubleSplineConfig) -> FloatArray:
    corrected = unwrap(block)
    image, mask = corrected.image[0, 0], corrected.mask[0, 0]
    return bin_amps(image, mask, bits(config.reject_mask), size=config.bin_size, border=config.border)


def _ratios(block: Any, flat: Any, config: DoubleSplineConfig, amp: int) -> Ratios:
    return measure_ratios(_bin(block, config), unwrap(flat), amp)


def _gather(ratios: list[Ratios], flat: FloatArray, reference: Reference) -> DetectorRatios:
    return DetectorRatios(ratios, amp_scaling(flat, reference.amp), reference)

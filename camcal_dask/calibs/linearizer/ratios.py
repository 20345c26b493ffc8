"""Ratios of the amps of every exposure, for the double spline: pixels never move (reference/ptc_linearity.md 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import dask
import numpy as np
import xarray as xr
from dask.base import tokenize

from camcal_dask.calibs.linearizer.config import DoubleSplineConfig, LinearityConfig
from camcal_dask.calibs.linearizer.flats import linear_ranges, read_flats
from camcal_dask.errors import PlanError
from camcal_dask.isr.corrected import CorrectedExposures, as_corrected
from camcal_dask.isr.graph import PIXEL_INDEX, objects, unwrap
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
from camcal_dask.schema import AMP_DIMS


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


def measure(exposures: CorrectedExposures | xr.Dataset, reference: Reference, config: DoubleSplineConfig) -> Any:
    """Ratios of all exposures of one detector: a delayed `DetectorRatios`.

    Parameters
    ----------
    exposures : CorrectedExposures
        From ``isr`` without linearity, or a Dataset of them, one detector [adu]; ratios of the amps that are selected.
    reference : Reference
        Its exposure is among them.  Its amp is the position among all amps, whichever are selected.
    """
    corrected = as_corrected(exposures)
    if corrected.sizes["detector"] != 1:
        found = corrected.sizes["detector"]
        raise PlanError(f"amp ratios: {found} detectors, expected one: select it by sel(detector=[..])")
    blocks, amps = corrected.by_exposure(), corrected.amps
    position = corrected.labels["exposure"].values.tolist().index(reference.exposure)
    token = tokenize(blocks.name, config, reference, amps)
    one = blocks.blocks[position : position + 1]
    flat = objects(_bin, "ed", one, PIXEL_INDEX, config, None, name=f"ratio-flat-{token}")
    ratios = objects(
        _ratios, "ed", blocks, PIXEL_INDEX, flat, "fd", config, None, reference.amp, None, amps, None,
        name=f"ratio-{token}",
    )  # fmt: skip
    flat, ratios = dask.optimize(flat, ratios)
    return dask.delayed(_gather)(ratios.to_delayed()[:, 0].tolist(), flat.to_delayed()[0, 0], reference, amps)


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
            "amp_scaling": (AMP_DIMS, [d.scaling for d in each]),
            "reference_amp": ("detector", np.array([d.reference.amp for d in each], np.int32)),
            "reference_exposure": ("detector", np.array([d.reference.exposure for d in each], np.int64)),
        },
        {"detector": ids, "amp": list(amps), "exposure": list(exposures)},
    )


def _bin(block: Any, config: DoubleSplineConfig) -> FloatArray:
    corrected = unwrap(block)
    image, mask = corrected.image[0, 0], corrected.mask[0, 0]
    return bin_amps(image, mask, bits(config.reject_mask), size=config.bin_size, border=config.border)


def _ratios(block: Any, flat: Any, config: DoubleSplineConfig, amp: int, amps: tuple[int, ...] | None) -> Ratios:
    found = measure_ratios(_bin(block, config), unwrap(flat), amp)
    return found if amps is None else found._replace(amp=found.amp[list(amps)])


def _gather(
    ratios: list[Ratios], flat: FloatArray, reference: Reference, amps: tuple[int, ...] | None
) -> DetectorRatios:
    scaling = amp_scaling(flat, reference.amp)
    return DetectorRatios(ratios, scaling if amps is None else scaling[list(amps)], reference)

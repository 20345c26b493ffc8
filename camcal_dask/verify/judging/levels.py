"""What a verdict says at each of its levels, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.verify.judging.criterion import (
    Level,
)

PASS, FAIL, NOT_EVALUATED = 1, 0, -1


PREFIX: Mapping[Level, str] = MappingProxyType(
    {"amp": "", "detector": "detector_", "exposure": "exposure_", "run": "run_"}
)
"""Of the names of what a verdict says at each level."""


def detector_names(dataset: xr.Dataset) -> list[str]:
    """Full names of the detectors of a Dataset, ``R22_S11``."""
    if "detector_name" in dataset.coords:
        return [str(n) for n in dataset["detector_name"].values]
    detectors = get_instrument(dataset.attrs["instrument"]).detectors if dataset.attrs.get("instrument") else {}
    return [detectors[int(d)].full_name if int(d) in detectors else str(d) for d in dataset["detector"].values]


def required_failures(verdict: xr.Dataset, level: Level) -> xr.DataArray:
    """Where any required test of the level failed."""
    prefix = PREFIX[level]
    if f"{prefix}status" not in verdict:
        return xr.DataArray(False)
    failed = verdict[f"{prefix}status"] == FAIL
    return failed.where(verdict[f"{prefix}test_required"], False).any(f"{prefix}test")


def set_aside(verdict: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Return which exposures do not count in the verdict of the run, (exposure,); none in verdicts of old."""
    if "decisive" not in verdict:
        return np.zeros(verdict.sizes["exposure"], np.bool_)
    return ~verdict["decisive"].values.astype(bool)

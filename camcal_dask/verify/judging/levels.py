"""What a verdict says at each of its levels, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.schema import AMP_DIMS, Variable, Variables, variables
from camcal_dask.verify.judging.criterion import LEVEL_DIMS, Level

PASS, FAIL, NOT_EVALUATED = 1, 0, -1


PREFIX: Mapping[Level, str] = MappingProxyType(
    {"amp": "", "detector": "detector_", "exposure": "exposure_", "run": "run_"}
)
"""Of the names of what a verdict says at each level."""


def _of_level(level: Level) -> list[Variable]:
    """What a verdict says of the tests of one level."""
    prefix = PREFIX[level]
    dims = (f"{prefix}test", *LEVEL_DIMS[level])
    number = {"value": "what was tested", "limit": "what it was tested against"}
    return [
        *(
            Variable(f"{prefix}{n}", dims, "f8", "", f"{doc}, in the unit of the test", "unknown")
            for n, doc in number.items()
        ),
        Variable(
            f"{prefix}margin", dims, "f8", "1", "distance to the limit in units of it, negative: failed", "unknown"
        ),
        Variable(f"{prefix}status", dims, "i1", "1", "1 pass, 0 fail, -1 not evaluated"),
        Variable(f"{prefix}upstream_status", dims, "i1", "1", "the same of upstream's tests by upstream's limits"),
    ]


VERDICT: Variables = variables(
    *(variable for level in PREFIX for variable in _of_level(level)),
    Variable("amp_success", LEVEL_DIMS["amp"], "?", "1", "no required test of the amp failed"),
    Variable("detector_success", LEVEL_DIMS["detector"], "?", "1", "none of the detector or of its amps failed"),
    Variable("exposure_success", LEVEL_DIMS["exposure"], "?", "1", "none of the exposure or of its detectors failed"),
    Variable("run_success", (), "?", "1", "none of the run or of a decisive exposure failed"),
    Variable("n_failed", LEVEL_DIMS["detector"], "i8", "amp", "amps that failed, without those known to be bad"),
    Variable("known_bad", AMP_DIMS, "?", "1", "amps that are shown, but do not count"),
    Variable("decisive", ("exposure",), "?", "1", "the verdict rests on the exposure"),
)
"""What `camcal_dask.verify.judging.judge.judge` says."""


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

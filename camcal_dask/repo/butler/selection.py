"""From a registry's answer to a lazy labelled array of raws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from camcal_dask.instruments import Instrument
from camcal_dask.instruments.arguments import Detectors
from camcal_dask.repo.butler import expression
from camcal_dask.repo.butler.lookup import open_bounds
from camcal_dask.repo.butler.records import mjd
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.schema import RAW, RAW_COORDS

EXPOSURE_FIELDS = (
    "day_obs",
    "seq_num",
    "seq_start",
    "exposure_time",
    "dark_time",
    "physical_filter",
    "observation_type",
    "observation_reason",
)


@dataclass(frozen=True)
class Exposure:
    """What a selection says about an exposure (`RAW_COORDS`)."""

    id: int
    mjd: float
    day_obs: int
    seq_num: int
    seq_start: int
    exposure_time: float | None
    dark_time: float | None
    physical_filter: str
    observation_type: str
    observation_reason: str


def raw_array(
    root: str, camera: Instrument, exposures: Sequence[Exposure], registered: Collection[tuple[int, int]]
) -> xr.DataArray:
    """Lazy raws of exposures and all detectors that any of them has.

    Parameters
    ----------
    root : str
        Of the repository.
    camera : Instrument
        Camera of all exposures.
    exposures : sequence of Exposure
        In the order wanted.
    registered : collection of (exposure, detector)
        What the registry knows; other places read as FILL, whatever the cube holds there.

    Returns
    -------
    xr.DataArray
        ``raw`` (exposure, detector, amp, y, x) int32 [adu].
    """
    ids = [e.id for e in exposures]
    chosen = set(ids)
    detectors = sorted({d for e, d in registered if e in chosen})
    present = np.array([[(e, d) in registered for d in detectors] for e in ids], dtype=bool)
    array = cubes.RawCubeArray(
        [cubes.raw_cube_uri(root, camera.name, e) for e in ids],
        [cubes.raw_slot(e) for e in ids],
        detectors,
        camera.raw_shape[1:],
        present=present,
    )
    coords = exposure_coords(exposures) | detector_coords(camera, detectors)
    return xr.DataArray(
        cubes.lazy_variable(RAW.dims, array),
        coords=coords,
        name="raw",
        attrs={"instrument": camera.name, "units": RAW.unit},
    )


def from_record(row: Any) -> Exposure:
    """Take over a record of the registry."""
    begin = None if row.timespan is None else open_bounds(row.timespan)[0]
    values = {name: getattr(row, name) for name in EXPOSURE_FIELDS}
    return Exposure(id=row.id, mjd=mjd(begin), **values)


def with_detectors(where: str, camera: Instrument, detectors: Detectors | None, bind: dict[str, Any]) -> str:
    """Add the detectors to an expression; they are bound, which keeps 189 ids out of messages."""
    if detectors is None and expression.mentions(where, "detector"):
        return where
    chosen = camera.science_detectors if detectors is None else camera.detector_ids(detectors)
    bind["chosen_detectors"] = sorted(chosen)
    term = "detector IN (chosen_detectors)"
    return f"({where}) AND {term}" if where.strip() else term


def exposure_coords(exposures: Sequence[Exposure]) -> dict[str, tuple[str, np.ndarray]]:
    """Coordinates along ``exposure``; times that are unknown are NaN."""
    columns = {"exposure": [e.id for e in exposures], "mjd": [e.mjd for e in exposures]}
    columns |= {name: [getattr(e, name) for e in exposures] for name in EXPOSURE_FIELDS}
    types = {v.name: v.dtype for v in RAW_COORDS}
    return {name: ("exposure", np.array(values, dtype=types[name])) for name, values in columns.items()}


def detector_coords(camera: Instrument, detectors: Sequence[int]) -> dict[str, tuple[str, np.ndarray]]:
    """Coordinates along ``detector`` and ``amp``."""
    chosen = [camera.detectors[d] for d in detectors]
    return {
        "detector": ("detector", np.array([d.id for d in chosen], dtype=np.int64)),
        "detector_name": ("detector", np.array([d.full_name for d in chosen])),
        "raft": ("detector", np.array([d.raft for d in chosen])),
        "slot": ("detector", np.array([d.name_in_raft for d in chosen])),
        "vendor": ("detector", np.array([d.vendor for d in chosen])),
        "amp": ("amp", np.array(camera.amp_names)),
    }


def spelled(text: str, bind: dict[str, Any], most: int = 10) -> str:
    """Put the values (the first few) of bound identifiers into a message."""
    for name, values in bind.items():
        if isinstance(values, list | tuple | set):
            listed = sorted(values)
            short = ", ".join(str(v) for v in listed[:most]) + (", ..." if len(listed) > most else "")
            text = text.replace(f"({name})", f"({short})")
    return text


def inventory(exposures: Sequence[Exposure], most: int = 8) -> str:
    """One sentence on what there is, by day and type, newest days first."""
    counts = Counter((e.day_obs, e.observation_type) for e in exposures)
    lines = [f"{day} {kind} x {n}" for (day, kind), n in sorted(counts.items(), reverse=True)]
    more = f" and {len(lines) - most} more" if len(lines) > most else ""
    return f"There are {len(exposures)} exposures: {', '.join(lines[:most])}{more}."

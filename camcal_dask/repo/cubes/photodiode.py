"""Stored photodiode readings: where each lies, and the charge of many.

They lie beside the raws (``cubes/photodiode/<instrument>/<day>/<exposure>.json``) and keep the samples, so that a
charge can be integrated anew by any method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import xarray as xr

from camcal_dask.errors import ConfigError, nearest
from camcal_dask.kernels.light.photodiode import Method, charge, light_sign
from camcal_dask.repo.storage import files

DATASET_TYPE = "photodiode"


def reading_uri(root: str, instrument: str, exposure: int) -> str:
    """Where the reading of an exposure lies."""
    return files.join(root, "cubes", DATASET_TYPE, instrument, str(exposure // 100_000), f"{exposure}.json")


def charges(
    places: Mapping[int, str],
    exposures: Sequence[int],
    method: Method = "trimmed_sum",
    *,
    scale: float | None = None,
    exposure_times: Mapping[int, float] | None = None,
) -> xr.DataArray:
    """Integrate readings.

    Parameters
    ----------
    places : mapping
        URI of the reading by exposure.
    exposures : sequence of int
        Wanted, in this order.
    method, scale
        See `camcal_dask.kernels.light.photodiode.charge`; scale None makes the light positive whatever the wiring.
    exposure_times : mapping, optional
        [s], for ``method="mean"``.

    Returns
    -------
    DataArray
        ``photo_charge`` (exposure) float64 [C]; NaN where there is no reading.
    """
    if method not in get_args(Method):
        raise ConfigError(f"photodiode: method {method!r}{nearest(method, get_args(Method))}")
    values = np.full(len(exposures), np.nan)
    for i, exposure in enumerate(exposures):
        record = files.read_json(places[exposure]) if exposure in places else None
        if record is not None:
            time, current = (np.array(record[name], np.float64) for name in ("time", "current"))
            sign = light_sign(current) if scale is None else scale
            seconds = (exposure_times or {}).get(exposure, float("nan"))
            values[i] = charge(time, current, method, scale=sign, exposure_time=seconds)
    attrs = {"units": "C", "long_name": f"photodiode charge, {method}"}
    return xr.DataArray(values, {"exposure": list(exposures)}, ("exposure",), "photo_charge", attrs)

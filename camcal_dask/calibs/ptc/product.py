"""Photon transfer curves as a product cube: its variables, its layout, its table of scalars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.calibs.ptc.extract import EXTRACTED
from camcal_dask.calibs.ptc.variables import SOLVED
from camcal_dask.schema import AMP_DIMS, Variables


def _detector_first(dims: tuple[str, ...]) -> tuple[str, ...]:
    return (*AMP_DIMS, *(d for d in dims if d not in AMP_DIMS))


PTC: Variables = MappingProxyType(
    {name: v.with_dims(_detector_first(v.dims)) for name, v in EXTRACTED.items()} | dict(SOLVED)
)
"""Variables of ``linearizerPtc`` and ``ptc``; coordinates of a pair: exposures, time, photodiode, header values."""


def shared(pairs: xr.Dataset, n_parameter: int) -> xr.Dataset:
    """What all detectors of a product share: coordinates and values of the pairs, the axes of lags and parameters.

    Parameters
    ----------
    pairs : Dataset
        Extracted pairs of any detector, lazy.
    n_parameter : int
        Parameters of the fit of the variance.
    """
    common = pairs.drop_vars([name for name, v in pairs.variables.items() if {*AMP_DIMS} & set(v.dims)])
    lags = {name: range(pairs.sizes[name]) for name in ("lag_i", "lag_j")}
    return common.assign_coords(lags).assign_coords(parameter=range(n_parameter))


def join_pairs(parts: Mapping[tuple[int, int], xr.Dataset], pairs: Sequence[tuple[int, int]]) -> xr.Dataset:
    """Pairs that were measured one by one, in the order of ``pairs``; those that are missing are not valid.

    Parameters
    ----------
    parts : mapping
        `extract` of a single pair, by its exposures; one at least.
    pairs : sequence of (first, second) exposure ids
    """
    empty = next(iter(parts.values())).copy(deep=True)
    for variable in empty.data_vars.values():
        variable[...] = np.nan if variable.dtype.kind == "f" else 0
    joined = xr.concat([parts.get(pair, empty) for pair in pairs], "pair")
    return joined.assign_coords(pair=range(len(pairs)))


def arrays_of(solved: xr.Dataset, n_parameter: int) -> dict[str, npt.NDArray[Any]]:
    """Arrays of the one detector of ``solved`` as the product holds them; what a fit does not give is NaN."""
    sizes = {**solved.sizes, "parameter": n_parameter}
    arrays = {}
    for name, variable in PTC.items():
        dims = variable.dims[1:]
        if name in solved:
            values = solved[name].isel(detector=0).transpose(*dims).to_numpy().astype(variable.dtype)
        else:
            values = np.full([sizes[d] for d in dims], np.nan if variable.dtype == "f8" else 0, variable.dtype)
        arrays[name] = np.ascontiguousarray(values)
    return arrays


def amp_table(ptc: xr.Dataset) -> xr.Dataset:
    """Scalars of the amps, a row each: ``amp_table(ptc).to_pandas()`` is a DataFrame with index (detector, amp)."""
    scalars = [name for name, v in ptc.data_vars.items() if set(v.dims) == set(AMP_DIMS)]
    return ptc[scalars].reset_coords(drop=True).stack(row=AMP_DIMS)

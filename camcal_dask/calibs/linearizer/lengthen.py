"""Linearizers of several detectors put together: what is shorter is padded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from camcal_dask.kernels.linearity.correct import lengthen_spline

FILLS: Mapping[str, float] = {"coefficients": 0.0, "fit_params": np.nan, "fit_params_err": np.nan}
"""What pads the rows of amps and detectors that have fewer entries."""


def concat(parts: list[xr.Dataset]) -> xr.Dataset:
    """Join the linearizers of several detectors, rows padded to the longest."""
    problems = {d: p for part in parts for d, p in part.attrs["problems"].items()}
    longest = max(part.sizes["coefficient"] for part in parts)
    parts = [_lengthened(part, longest) for part in parts]
    for dim in ("coefficient", "parameter"):
        longest = max(part.sizes[dim] for part in parts)
        names = [name for name in FILLS if dim in parts[0][name].dims]
        fills = {name: FILLS[name] for name in names}
        parts = [part.pad({dim: (0, longest - part.sizes[dim])}, constant_values=fills) for part in parts]
    joined = xr.concat(parts, "detector", data_vars="minimal", coords="minimal", compat="override", join="exact")
    return joined.assign_attrs(problems=problems)


def _lengthened(part: xr.Dataset, longest: int) -> xr.Dataset:
    """Give the rows of a Spline more nodes: zeros at their end would move the border between nodes and values."""
    short = part.sizes["coefficient"] < longest
    if not short or part.attrs["linearity_type"] != "Spline":
        return part
    rows = part["coefficients"].transpose("detector", "amp", "coefficient")
    longer = [[lengthen_spline(row, longest) for row in rows_of_one] for rows_of_one in rows.values]
    return part.drop_vars("coefficients").assign(coefficients=(rows.dims, np.array(longer)))

"""Verdicts on calibrations that are tables themselves: no exposures, no pixels (reference/verification.md 1.7, 1.8)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import xarray as xr

from camcal_dask.errors import DataError
from camcal_dask.schema import STATISTIC_DIMS
from camcal_dask.verify.judging.criterion import Criterion
from camcal_dask.verify.judging.judge import judge


def judge_table(
    table: xr.Dataset,
    tests: str | tuple[Criterion, ...],
    *,
    thresholds: Mapping[str, float] | None = None,
    known_bad: Collection[tuple[str, str]] | None = None,
) -> xr.Dataset:
    """Judge a table by the same rows, and into the same form, as statistics of exposures.

    Parameters
    ----------
    table : Dataset
        Variables (detector, amp), or (exposure, detector, amp) where a row belongs to an exposure; ``n_pixel`` among
        them, the pixels of the amp: one with 0 does not exist and is not judged.
        Scalar coordinates (``exposure``, ``mjd`` ...) are those of the exposure that stands for a table without
        that dimension.
    tests, thresholds, known_bad
        As in `camcal_dask.verify.judging.judge.judge`.

    Returns
    -------
    Dataset
        The table and its verdict, dims (test, exposure, detector, amp): a statistics cube as any other.
    """
    if "n_pixel" not in table:
        raise DataError(f"a table to be judged needs n_pixel, but has {', '.join(map(str, table.data_vars))}")
    rows = table.load()
    if "exposure" not in rows.dims:
        scalars = {name: [c.item()] for name, c in rows.coords.items() if not c.dims}
        named = {name: ("exposure", values) for name, values in ({"exposure": [0]} | scalars).items()}
        rows = rows.drop_vars(scalars).expand_dims("exposure").assign_coords(named)
    dims = STATISTIC_DIMS
    pixels = (rows["n_pixel"] + xr.zeros_like(rows["exposure"])).transpose(*dims)
    rows = rows.transpose(*dims, ..., missing_dims="ignore").assign(n_pixel=pixels, n_good=pixels.astype(np.float64))
    verdict = judge(rows, tests, thresholds=thresholds, known_bad=known_bad, role="construction")
    return rows.merge(verdict, compat="override", join="exact").assign_attrs(verdict.attrs)

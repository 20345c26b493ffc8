"""Answers from statistics (``Repo.stats``): tables of numbers and failures, the worst amps, two runs compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from camcal_dask.errors import ConfigError, nearest
from camcal_dask.schema import AMP_DIMS
from camcal_dask.verify.judging.levels import FAIL, PREFIX

BESIDE = ("exposure", "run", "day_obs", "mjd", "physical_filter", "detector_name", "raft", "slot", "vendor")
"""Coordinates that stand in a row beside its numbers, where it has them."""
REDUCTIONS = ("median", "mean", "std", "min", "max")


def table(
    statistics: xr.Dataset, names: Sequence[str], *, by: Sequence[str] = AMP_DIMS, how: str = "median"
) -> pd.DataFrame:
    """Numbers as a table, one row a combination of ``by``.

    Parameters
    ----------
    statistics : Dataset
        From ``Repo.stats``.
    names : sequence of str
        Statistics, such as ``noise``.
    by : sequence of str
        ``exposure``, ``detector``, ``amp``, or coordinates of them (``vendor``, ``raft``, ``day_obs``, ``run`` ...).
    how : str
        What reduces the rest, unknown values left out: `REDUCTIONS`; the exposures of an amp first, then the amps.

    Returns
    -------
    DataFrame
        Columns: the ``by``, coordinates that belong to the rows (`BESIDE`), the names.  Amps in order of name.

    Raises
    ------
    ConfigError
        For a name, coordinate or reduction that is not there.
    """
    _check("reduction", how, REDUCTIONS)
    for name in names:
        _check("statistic", name, [str(n) for n in statistics.data_vars])
    for name in by:
        _check("coordinate", name, [str(n) for n in statistics.coords])
    frames = [_reduced(statistics[name], by, how).rename(name) for name in names]
    found = pd.concat(frames, axis=1)
    return _beside(statistics, found.reset_index(), by)


def _check(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ConfigError(f"statistics have no {what} {name!r}{nearest(name, known)}")


def _reduced(array: xr.DataArray, by: Sequence[str], how: str) -> pd.Series:
    if lacking := [name for name in by if name not in array.coords]:
        raise ConfigError(f"{array.name} has no {lacking[0]!r}; it has {', '.join(map(str, array.coords))}")
    axes = {name: array[name].dims[0] for name in by}
    if "exposure" not in axes.values():
        array = getattr(array, how)("exposure")
    # codes of the labels, on short axes, are what millions of values are grouped by
    labels = {name: np.unique(array[name].values, return_inverse=True) for name in by}
    code = np.zeros((1,) * array.ndim, np.int64)
    for name, (unique, inverse) in labels.items():
        shape = [-1 if dim == axes[name] else 1 for dim in array.dims]
        code = code * unique.size + inverse.reshape(shape)
    codes = np.broadcast_to(code, array.shape).ravel()
    grouped = getattr(pd.Series(array.values.ravel()).groupby(codes), how)()
    places = np.unravel_index(grouped.index.to_numpy(), [unique.size for unique, _ in labels.values()])
    keys = [unique[place] for (unique, _), place in zip(labels.values(), places, strict=True)]
    return pd.Series(grouped.to_numpy(), pd.MultiIndex.from_arrays(keys, names=list(by)))


def _beside(statistics: xr.Dataset, rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    at = len(by)
    for name in BESIDE:
        dim = statistics[name].dims[0] if name in statistics.coords else None
        if name not in by and dim in by and statistics.indexes[dim].is_unique:
            place = statistics.indexes[dim].get_indexer(pd.Index(rows[dim]))
            rows.insert(at, name, statistics[name].values[place])
            at += 1
    return rows


def worst(array: xr.DataArray, n: int = 10, *, lowest: bool = False) -> pd.DataFrame:
    """Rank the amps (or detectors, exposures) by a number.

    Parameters
    ----------
    array : DataArray
        For example ``stats.noise.median("exposure")``, (detector, amp).
    n : int
        Rows wanted.
    lowest : bool
        Smallest first, instead of largest first.

    Returns
    -------
    DataFrame
        Its dims, ``detector_name`` and ``vendor`` of a detector, ``value``; unknown values are left out.
    """
    values = np.asarray(array.values, np.float64).ravel()
    known = np.flatnonzero(~np.isnan(values))
    order = np.argsort(values[known] if lowest else -values[known], kind="stable")[:n]
    places = np.unravel_index(known[order], array.shape)
    columns: dict[str, Any] = {}
    for dim, place in zip(array.dims, places, strict=True):
        columns[str(dim)] = array[dim].values[place]
        if dim == "detector":
            columns |= {c: array[c].values[place] for c in ("detector_name", "vendor") if c in array.coords}
    return pd.DataFrame(columns | {"value": values[known[order]]})


def failed(statistics: xr.Dataset, test: str | None = None, *, required: bool = False) -> pd.DataFrame:
    """List what failed, of one test or of all, with value and limit.

    Parameters
    ----------
    statistics : Dataset
        From ``Repo.stats``.
    test : str, optional
        Id of a test, such as ``bias.noise``.
    required : bool
        Only tests that a verdict hangs on.

    Returns
    -------
    DataFrame
        run, exposure, detector_name, amp, test, value, limit, in order of exposure; detector and amp empty in tests
        of a level above them.

    Raises
    ------
    ConfigError
        For a test that no run had.
    """
    levels = [prefix for prefix in PREFIX.values() if f"{prefix}status" in statistics]
    known = [str(t) for prefix in levels for t in statistics[f"{prefix}test"].values]
    if test is not None:
        _check("test", test, known)
    frames = [frame for prefix in levels for frame in _failed_of_level(statistics, prefix, test, required)]
    columns = ["run", "exposure", "detector_name", "amp", "test", "value", "limit"]
    found = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    return found.reindex(columns=columns).sort_values("exposure", kind="stable", ignore_index=True)


def _failed_of_level(statistics: xr.Dataset, prefix: str, test: str | None, required: bool) -> Iterator[pd.DataFrame]:
    axis = f"{prefix}test"
    for i, name in enumerate(statistics[axis].values):
        if test not in (None, name) or (required and not statistics[f"{axis}_required"].values[i]):
            continue
        status = statistics[f"{prefix}status"].isel({axis: i})
        places = np.nonzero(status.values == FAIL)
        if places[0].size == 0:
            continue
        at = dict(zip(status.dims, places, strict=True))
        rows = {"run": statistics["run"].values[at["exposure"]], "exposure": status["exposure"].values[at["exposure"]]}
        empty = np.full(places[0].size, "")
        rows["detector_name"] = statistics["detector_name"].values[at["detector"]] if "detector" in at else empty
        rows["amp"] = statistics["amp"].values[at["amp"]] if "amp" in at else empty
        numbers = {n: statistics[f"{prefix}{n}"].isel({axis: i}).values[places] for n in ("value", "limit")}
        yield pd.DataFrame(rows | {"test": name} | numbers)


def compare(first: xr.DataArray, second: xr.DataArray) -> pd.DataFrame:
    """Compare a number of the same amps in two runs.

    Parameters
    ----------
    first, second : DataArray
        (exposure, detector, amp) or (detector, amp); exposures are reduced to their median.

    Returns
    -------
    DataFrame
        detector, detector_name, amp, first, second, difference (second - first), ratio; amps that both have, largest
        change first.
    """
    a, b = (array.median("exposure") if "exposure" in array.dims else array for array in (first, second))
    a, b = xr.align(a, b, join="inner")
    change = b - a
    ranked = worst(abs(change), change.size)
    place = {dim: xr.DataArray(ranked[dim].values, dims="row") for dim in AMP_DIMS}
    ranked = ranked.drop(columns="value").assign(first=a.sel(place).values, second=b.sel(place).values)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = ranked["second"] / ranked["first"]
    return ranked.assign(difference=ranked["second"] - ranked["first"], ratio=ratio)

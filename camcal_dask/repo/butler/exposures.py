"""Exposures: selected by a Butler expression, as a table, as records or as lazy raws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import xarray as xr

from camcal_dask.errors import ConfigError, RepoError
from camcal_dask.instruments import Instrument
from camcal_dask.instruments.arguments import Detectors, integer
from camcal_dask.repo import schema
from camcal_dask.repo.butler import arranging, expression, opened, selection
from camcal_dask.repo.butler.arranging import USER_ERRORS, Names
from camcal_dask.repo.butler.opened import Opened

_COLUMNS = {
    "day_obs": "i8",
    "seq_num": "i8",
    "observation_type": "str",
    "observation_reason": "str",
    "physical_filter": "str",
    "exposure_time": "f8",
    "dark_time": "f8",
    "mjd": "f8",
    "target_name": "str",
    "science_program": "str",
    "obs_id": "str",
    "instrument": "str",
    "n_detectors": "i8",
}
"""Columns of `exposures`, and their types."""


def exposures(
    repo: Opened, where: str = "", *, instrument: str | None = None, bind: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """List the exposures that have raws; no pixels are read.

    Parameters
    ----------
    where : str
        Butler expression, as of `raws`; default: all exposures.
    instrument : str, optional
        Camera; default: all that the repository has, or the one that ``where`` names.
    bind : dict, optional
        Values of identifiers in ``where``.

    Returns
    -------
    DataFrame
        One row an exposure, sorted by camera and id.  The index ``exposure`` is the Butler's id (of two cameras the
        same id may be there twice).  Columns: ``day_obs`` YYYYMMDD, ``seq_num``, ``observation_type``,
        ``observation_reason``, ``physical_filter``, ``exposure_time`` [s], ``dark_time`` [s], ``mjd`` (TAI, begin)
        [d], ``target_name``, ``science_program``, ``obs_id``, ``instrument``, and ``n_detectors``, the number of raws
        among those that ``where`` selects.  Unknown numbers are NaN, unknown texts empty.  No row if nothing matches.

    Raises
    ------
    RepoError
        If the expression is wrong, or the repository has no such camera.
    """
    one = instrument or expression.instrument_of(where)
    names = opened.instruments(repo) if one is None else (opened.instrument(repo, one).name,)
    table: list[dict[str, Any]] = []
    for name in names:
        pairs, rows = _query_raws(repo, where, name, [schema.raw_run(name)], dict(bind or {}), "exposures")
        counts = Counter(exposure for exposure, _ in pairs)
        table += [_listed(row) | {"instrument": name, "n_detectors": counts[row.id]} for row in rows]
    columns = {c: pd.Series([row[c] for row in table], dtype=kind) for c, kind in _COLUMNS.items()}
    return pd.DataFrame(columns).set_index(pd.Index([row["exposure"] for row in table], dtype="i8", name="exposure"))


def _listed(row: Any) -> dict[str, Any]:
    """Values of a registry's record, as the table has them."""
    begin = selection.from_record(row).mjd
    found = {name: getattr(row, name, None) for name in _COLUMNS}
    texts = {name: value or "" for name, value in found.items() if _COLUMNS[name] == "str"}
    return found | texts | {"exposure": row.id, "mjd": begin}


def raws(
    repo: Opened,
    where: str = "",
    *,
    instrument: str | None = None,
    detectors: Detectors | None = None,
    collections: Names | None = None,
    bind: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> xr.DataArray:
    """Select raws with a Butler expression; nothing is read.

    Parameters
    ----------
    where : str
        For example ``"exposure.observation_type='bias' AND exposure.day_obs=20260812"``.
    instrument : str, optional
        Needed if the repository has several and ``where`` does not say.
    detectors : int, str or several of them, optional
        Ids or names, also as arrays; default: the science detectors, unless ``where`` speaks of ``detector``.
    collections : str or list of str, optional
        Default: ``{instrument}/raw/all``.
    bind : dict, optional
        Values of identifiers in ``where``.
    limit : int, optional
        Take only so many exposures, the lowest ids.

    Returns
    -------
    xr.DataArray
        ``raw`` (exposure, detector, amp, y, x) int32 [adu], lazy and without dask: select first, then
        ``.chunk(exposure=1, detector=1, amp=-1, y=-1, x=-1)`` for exposures or ``.chunk(exposure=-1, detector=1,
        amp=-1, y=256, x=-1)`` for stacks.  A detector that an exposure lacks is FILL.

    Raises
    ------
    RepoError
        If nothing matches (it says which term), or the expression is wrong.
    """
    camera = opened.instrument(repo, instrument, where)
    if limit is not None and integer(limit, "limit") < 1:
        raise ConfigError(f"limit: cannot select {limit} exposures; give 1 or more")
    bind = dict(bind or {})
    where = selection.with_detectors(where, camera, detectors, bind)
    search = [schema.raw_run(camera.name)] if collections is None else _as_list(collections)
    arranging.flatten(repo, search)  # names an unknown collection better than the Butler does
    pairs, rows = _query_raws(repo, where, camera.name, search, bind, "raws")
    if not pairs:
        raise RepoError(_explain(repo, where, camera, search, bind))
    return selection.raw_array(repo.root, camera, [selection.from_record(r) for r in rows][:limit], pairs)


def _query_raws(
    repo: Opened, where: str, instrument: str, search: Names, bind: dict[str, Any], what: str
) -> tuple[set[tuple[int, int]], list[Any]]:
    """(exposure, detector) of the raws that satisfy an expression, and the records of the exposures by id."""
    try:
        with repo.butler.query() as query:
            found = query.join_dataset_search("raw", search).where(where, bind=bind, instrument=instrument)
            pairs = {(int(i["exposure"]), int(i["detector"])) for i in found.data_ids(["exposure", "detector"])}
            rows = list(found.dimension_records("exposure")) if pairs else []
    except USER_ERRORS as error:
        raise RepoError(f"{what} where {where!r}: {str(error).strip()}") from error
    return pairs, sorted(rows, key=lambda row: row.id)


def _explain(repo: Opened, where: str, camera: Instrument, search: Names, bind: dict[str, Any]) -> str:
    """Say why nothing matched: which term alone matches nothing, and what there is."""
    with repo.butler.query() as query:
        found = query.join_dataset_search("raw", search).where(instrument=camera.name)
        rows = list(found.dimension_records("exposure"))
        if not rows:
            return f"{repo.root}: no raws of {camera.name} in {search}; ingest first: camcal ingest {repo.root} PATHS"
        failing = [
            term
            for term in expression.terms(where)
            if not found.where(term, bind=bind).data_ids(["exposure", "detector"]).any()
        ]
    reason = f"{' AND '.join(failing)} finds none" if failing else "each term finds some, but none matches all"
    stock = selection.inventory([selection.from_record(r) for r in rows])
    return f"no raws match {where!r}: {selection.spelled(reason, bind)}. {stock}"


def exposure_records(repo: Opened, where: str, bind: Mapping[str, Any], instrument: str) -> list[Any]:
    """Records of the registered exposures that satisfy an expression."""
    with repo.butler.query() as query:
        found = query.where(where, bind=dict(bind), instrument=instrument)
        return list(found.dimension_records("exposure"))


def exposures_by_id(repo: Opened, instrument: str, exposures: Iterable[int]) -> list[Any]:
    """Records of exposures.

    Raises
    ------
    RepoError
        If one is not registered.
    """
    wanted = sorted({int(e) for e in exposures})
    rows = exposure_records(repo, "exposure IN (wanted)", {"wanted": wanted}, instrument)
    if lacking := sorted(set(wanted) - {row.id for row in rows}):
        raise RepoError(f"{repo.root}: exposure {lacking[0]} of {instrument} is not registered; ingest it first")
    return rows


def detectors(repo: Opened, where: str, instrument: str) -> set[int]:
    """Ids of the detectors that an expression without exposures selects.

    Raises
    ------
    RepoError
        If the expression is wrong.
    """
    try:
        with repo.butler.query() as query:
            return {int(i["detector"]) for i in query.where(where, instrument=instrument).data_ids(["detector"])}
    except ValueError as error:
        raise RepoError(f"detectors where {where!r}: {str(error).strip()}") from error


def _as_list(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)

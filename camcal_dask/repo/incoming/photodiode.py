"""Ingest of photodiode readings: one JSON record per exposure, registered as ``photodiode``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from camcal_dask.errors import DataError
from camcal_dask.raw_fits.photodiode import Reading, read_reading
from camcal_dask.repo import schema
from camcal_dask.repo.cubes.photodiode import DATASET_TYPE, reading_uri
from camcal_dask.repo.incoming.ingest_file import Status
from camcal_dask.repo.storage import files

if TYPE_CHECKING:
    from camcal_dask.repo.butler.repository import Repo

Outcomes = dict[str, tuple[Status, str]]
"""File -> status, and the reason if it failed."""


def ingest_readings(repo: Repo, paths: Sequence[str], *, replace: bool = False) -> Outcomes:
    """Bring readings into the repository; may be repeated and interrupted.

    Parameters
    ----------
    repo : Repo
        Opened for writing; the exposures must be registered.
    paths : sequence of str
        Files (`camcal_dask.raw_fits.photodiode.is_reading`).
    replace : bool
        Let other content replace an earlier reading of the same exposure.
    """
    outcomes: Outcomes = {}
    readings: dict[str, Reading] = {}
    for path in paths:
        try:
            readings[path] = read_reading(path)
        except DataError as error:
            outcomes[path] = ("failed", str(error))
    stored: dict[str, dict[str, list[dict[str, Any]]]] = {}
    exposures = _exposures(repo, [reading.key for reading in readings.values()])
    for path, reading in readings.items():
        found = exposures.get(tuple(reading.key.values()), [])
        if len(found) != 1:
            which = ", ".join(f"{k} {v}" for k, v in reading.key.items())
            reason = f"{path}: {len(found)} registered exposures have {which}, expected one; ingest its raws first"
            outcomes[path] = ("failed", reason)
            continue
        row = found[0]
        uri = reading_uri(repo.root, row.instrument, row.id)
        outcomes[path] = _store(path, uri, reading, replace)
        if outcomes[path][0] != "failed":
            day = stored.setdefault(row.instrument, {}).setdefault(files.parent(uri), [])
            day.append({"instrument": row.instrument, "exposure": row.id})
    for instrument, places in stored.items():
        repo.register_all(schema.photodiode_run(instrument), DATASET_TYPE, places)
    return outcomes


def _exposures(repo: Repo, keys: Iterable[Mapping[str, int | str]]) -> dict[tuple[Any, ...], list[Any]]:
    """Records of the exposures that the keys of readings name, by the values of the key."""
    wanted: dict[tuple[str, ...], set[tuple[Any, ...]]] = {}
    for key in keys:
        wanted.setdefault(tuple(key), set()).add(tuple(key.values()))
    found: dict[tuple[Any, ...], list[Any]] = {}
    for names, values in wanted.items():
        some = sorted({value[0] for value in values})
        for instrument in repo.instruments:
            for row in repo.exposure_records(f"exposure.{names[0]} IN (wanted)", {"wanted": some}, instrument):
                value = tuple(getattr(row, name) for name in names)
                if value in values:
                    found.setdefault(value, []).append(row)
    return found


def _store(path: str, uri: str, reading: Reading, replace: bool) -> tuple[Status, str]:
    record = {"time": reading.time.tolist(), "current": reading.current.tolist(), "file": path}
    there = files.read_json(uri)
    same = there is not None and all(there[name] == record[name] for name in ("time", "current"))
    if same:
        return "skipped", ""
    if there is not None and not replace:
        return "failed", f"{path}: {there['file']} gave another reading of this exposure; replace it with --replace"
    files.write_json(uri, record)
    return "ingested" if there is None else "replaced", ""

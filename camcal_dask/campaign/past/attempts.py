"""Attempts of a run on disk: what was asked for, how far it got, how every quantum ended.

    cubes/<run>/attempts/0001-<product>-<id>/record.json      who, what, from which inputs, with which software
                                            /progress.json    the latest `Snapshot`
                                            /quanta-0001.jsonl  one line per quantum: outcome, cost, log, traceback

Nothing is overwritten by a later attempt; all files appear whole.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import MISSING, fields
from typing import Any

from camcal_dask.campaign.past.record import RunRecord
from camcal_dask.campaign.planning.quanta import Quantum, QuantumOutcome
from camcal_dask.errors import RepoError
from camcal_dask.repo.storage import files, naming

_RECORD = tuple(f.name for f in fields(RunRecord) if f.default is MISSING and f.default_factory is MISSING)
_KNOWN = frozenset(f.name for f in fields(RunRecord))
_PROGRESS = ("run", "product", "state", "host", "pid")
"""Without these keys, what was read is no record, no snapshot."""


def attempts_uri(root: str, run: str) -> str:
    """Folder of all attempts of a RUN collection."""
    return naming.run_folder(root, run, "attempts")


def open_attempt(root: str, run: str, product: str) -> str:
    """Make the folder of a new attempt; return its URI."""
    folder = attempts_uri(root, run)
    number = max((int(name[:4]) for name in files.names(folder) if name[:4].isdigit()), default=0) + 1
    return files.join(folder, f"{number:04d}-{product}-{uuid.uuid4().hex[:6]}")


def list_attempts(root: str, run: str) -> list[str]:
    """Folders of the attempts of a RUN, oldest first.

    Raises
    ------
    RepoError
        If there is none.
    """
    folder = attempts_uri(root, run)
    found = [files.join(folder, name) for name in files.names(folder) if name[:4].isdigit()]
    if not found:
        raise RepoError(f"{run}: no run with this name is recorded in {root}; camcal status {root} lists the runs")
    return found


def record_uri(attempt: str) -> str:
    """Record of an attempt."""
    return files.join(attempt, "record.json")


def progress_uri(attempt: str) -> str:
    """Latest snapshot of an attempt."""
    return files.join(attempt, "progress.json")


def read_record(attempt: str) -> dict[str, Any]:
    """Record of an attempt; empty if it was killed before it wrote one, or if the record is `damage`."""
    values = _whole(record_uri(attempt), _RECORD)
    return {} if values is None else RunRecord(**{k: v for k, v in values.items() if k in _KNOWN}).plain()


def read_progress(attempt: str) -> dict[str, Any] | None:
    """Values of the latest snapshot of an attempt; None if there is none, or if it is `damage`."""
    return _whole(progress_uri(attempt), _PROGRESS)


def _whole(uri: str, needed: Collection[str]) -> dict[str, Any] | None:
    """JSON object with certain keys; None if it is not that."""
    try:
        values = files.read_json(uri)
    except RepoError:
        return None
    return values if values is not None and values.keys() >= set(needed) else None


def damage(attempt: str) -> list[str]:
    """Say which files of an attempt cannot be read.  They only describe it: no product depends on them."""
    found = [
        f"{uri}: damaged"
        for uri, needed in ((record_uri(attempt), _RECORD), (progress_uri(attempt), _PROGRESS))
        if files.exists(uri) and _whole(uri, needed) is None
    ]
    for uri, lines in _outcome_lines(attempt):
        if bad := [i for i, line in enumerate(lines, 1) if _outcome(line) is None]:
            which = ", ".join(map(str, bad[:10])) + (" ..." if len(bad) > 10 else "")
            found.append(f"{uri}: {len(bad)} of {len(lines)} lines damaged (line {which})")
    return found


def write_run_record(root: str, run: str) -> str:
    """Write the record of a RUN, the list of its attempts as they stand, and return its URI."""
    uri = naming.run_folder(root, run, "record.json")
    files.write_json(uri, {"run": run, "attempts": [read_record(attempt) for attempt in list_attempts(root, run)]})
    return uri


def write_outcomes(attempt: str, number: int, outcomes: Sequence[QuantumOutcome]) -> None:
    """Write the outcomes of some quanta as one file."""
    files.write_lines(files.join(attempt, f"quanta-{number:04d}.jsonl"), map(_row, outcomes))


def read_outcomes(attempt: str) -> Iterator[QuantumOutcome]:
    """Outcomes of the quanta of an attempt, in the order they ended; without lines that are `damage`."""
    for _, lines in _outcome_lines(attempt):
        yield from filter(None, map(_outcome, lines))


def _outcome_lines(attempt: str) -> Iterator[tuple[str, list[dict[str, Any] | ValueError]]]:
    for name in files.names(attempt):
        if name.startswith("quanta-") and name.endswith(".jsonl"):
            uri = files.join(attempt, name)
            yield uri, list(files.read_lines(uri))


def _row(outcome: QuantumOutcome) -> dict[str, Any]:
    return {k: v for k, v in vars(outcome).items() if v not in ("", (), False)}


def _outcome(row: dict[str, Any] | ValueError) -> QuantumOutcome | None:
    if isinstance(row, ValueError):
        return None
    try:
        task, detector, exposures = row["quantum"]
        values = {**row, "quantum": Quantum(task, detector, tuple(exposures)), "log": tuple(row.get("log", ()))}
        return QuantumOutcome(**values)
    except (ValueError, TypeError, KeyError):
        return None

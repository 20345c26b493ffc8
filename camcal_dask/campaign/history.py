"""What runs did, read from their attempts: for ``camcal status``, ``history`` and ``logs``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from camcal_dask.campaign import attempts, exclusive
from camcal_dask.campaign.quanta import Quantum, QuantumOutcome
from camcal_dask.campaign.tracker import Snapshot
from camcal_dask.errors import RepoError
from camcal_dask.repo import files, naming
from camcal_dask.repo.registry import Repo


def recorded_runs(repo: Repo, instrument: str | None = None) -> list[str]:
    """RUN collections that have attempts, of one camera or of all, by name."""
    runs = (c.name for c in repo.collections(kind="RUN") if naming.fault(c.name) is None)
    found = [name for name in runs if files.names(attempts.attempts_uri(repo.root, name))]
    if instrument is None:
        return found
    camera = repo.instrument(instrument).name
    return [name for name in found if camera in _cameras(repo.root, name)]


def snapshots(root: str, run: str) -> list[Snapshot]:
    """Latest snapshot of each product of a RUN; ``killed`` if its client died without a word.

    Raises
    ------
    RepoError
        If nothing was recorded.
    """
    latest: dict[str, Snapshot] = {}
    known = {f.name for f in fields(Snapshot)}
    for attempt in attempts.list_attempts(root, run):
        values = files.read_json(attempts.progress_uri(attempt))
        if values is None:
            continue
        if values["state"] == "running" and not exclusive.lives(attempt, values["host"], values["pid"]):
            values["state"] = "killed"
        values["last_failures"] = tuple(values["last_failures"])
        latest[values["product"]] = Snapshot(**{k: v for k, v in values.items() if k in known})
    return list(latest.values())


def outcomes(root: str, run: str) -> Iterator[tuple[str, QuantumOutcome]]:
    """Attempt and outcome of every quantum of all attempts of a RUN, oldest first."""
    for attempt in attempts.list_attempts(root, run):
        for outcome in attempts.read_outcomes(attempt):
            yield attempt.rpartition("/")[2], outcome


def latest_outcomes(found: Iterable[tuple[str, QuantumOutcome]]) -> dict[Quantum, QuantumOutcome]:
    """How every quantum stands after all attempts; what was skipped keeps the outcome that made it."""
    latest: dict[Quantum, QuantumOutcome] = {}
    for _, outcome in found:
        if outcome.status != "skipped" or outcome.quantum not in latest:
            latest[outcome.quantum] = outcome
    return latest


def reference_record(root: str, run: str, product: str | None = None) -> dict[str, Any]:
    """Record of the attempt that says what a run is: the last one that ended well, or the last.

    Raises
    ------
    RepoError
        If there is none, or the RUN holds several products and none is named.
    """
    records = [r for r in map(attempts.read_record, attempts.list_attempts(root, run)) if r]
    made = sorted({r["product"] for r in records})
    if product is None and len(made) > 1:
        raise RepoError(f"{run} holds {', '.join(made)}: say which with --product")
    mine = [r for r in records if product in (None, r["product"])]
    if not mine:
        raise RepoError(f"{run}: no run of {product} was recorded there, only of {', '.join(made)}")
    return next((r for r in reversed(mine) if r["state"] == "done"), mine[-1])


def reference_instrument(root: str, run: str) -> str:
    """Name of the camera that a RUN was made for."""
    if not (found := _cameras(root, run)):
        raise RepoError(f"{run}: was killed before it wrote its record; it did nothing")
    return found[-1]


def _cameras(root: str, run: str) -> list[str]:
    """Cameras of the attempts of a RUN that wrote a record."""
    records = map(attempts.read_record, attempts.list_attempts(root, run))
    return [str(record["recipe"]["instrument"]) for record in records if record]

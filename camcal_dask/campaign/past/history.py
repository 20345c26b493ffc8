"""What runs did, read from their attempts: for ``camcal status``, ``history`` and ``logs``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pydantic

from camcal_dask.campaign.past import attempts
from camcal_dask.campaign.planning.quanta import Quantum, QuantumOutcome, count_by_status
from camcal_dask.campaign.running import exclusive
from camcal_dask.campaign.running.process import Process
from camcal_dask.campaign.running.tracker import Snapshot
from camcal_dask.errors import RepoError
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.repo.storage import files, naming

_SNAPSHOT = pydantic.TypeAdapter(Snapshot)


def recorded_runs(repo: Repo, instrument: str | None = None) -> list[str]:
    """RUN collections that have attempts, of one camera or of all, by name."""
    runs = (c.name for c in repo.collections(kind="RUN") if naming.fault(c.name) is None)
    found = [name for name in runs if files.names(attempts.attempts_uri(repo.root, name))]
    if instrument is None:
        return found
    camera = repo.instrument(instrument).name
    return [name for name in found if camera in _cameras(repo.root, name)]


def snapshots(root: str, run: str) -> list[Snapshot]:
    """Latest snapshot of each product of a RUN; ``killed`` if its client died without a trace.

    Raises
    ------
    RepoError
        If nothing was recorded.
    """
    found = (_snapshot(attempt, run) for attempt in attempts.list_attempts(root, run))
    return list({one.product: one for one in found if one is not None}.values())


def _snapshot(attempt: str, run: str) -> Snapshot | None:
    """Snapshot of an attempt, None if it wrote none; a damaged one is counted anew from the outcomes."""
    if not files.exists(attempts.progress_uri(attempt)):
        return None
    try:
        one = _SNAPSHOT.validate_python(attempts.read_progress(attempt))
    except pydantic.ValidationError:
        return _recounted(attempt, run)
    if one.state == "running" and not exclusive.lives(attempt, Process(one.host, one.pid, one.mark)):
        return replace(one, state="killed")
    return one


def _recounted(attempt: str, run: str) -> Snapshot:
    record = attempts.read_record(attempt)
    count: Any = count_by_status({o.quantum: o for o in attempts.read_outcomes(attempt)}.values())
    total = sum(record.get("counts", count).values())
    product = record.get("product") or attempt.rpartition("/")[2].split("-")[1]
    state = record["state"] if record.get("ended") else "unknown"
    return replace(Snapshot(run, product, state, total), **count)


def damage(root: str, run: str) -> list[str]:
    """Say which files that describe a RUN cannot be read (`attempts.damage`)."""
    return [text for attempt in attempts.list_attempts(root, run) for text in attempts.damage(attempt)]


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
    if not records:
        raise RepoError(f"{run}: none of its records can be read; camcal history says what is damaged")
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
        raise RepoError(f"{run}: none of its records can be read; camcal history says what is damaged")
    return found[-1]


def _cameras(root: str, run: str) -> list[str]:
    """Cameras of the attempts of a RUN that wrote a record."""
    records = map(attempts.read_record, attempts.list_attempts(root, run))
    return [str(record["recipe"]["instrument"]) for record in records if record]

"""Quanta: the units in which a run is planned, carried out, recorded and resumed; and how a run ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from signal import Signals
from typing import Any, Literal, NamedTuple

import pandas as pd
import xarray as xr

from camcal_dask.repo.cubes import usable

Status = Literal["done", "skipped", "failed"]
SHOWN_FAILURES = 20
"""Failed quanta that a summary spells out."""


class Quantum(NamedTuple):
    """One unit of work: a task on a detector, of one exposure, a pair, or all of them (``exposures`` empty)."""

    task: str
    detector: int
    exposures: tuple[int, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.task, f"detector {self.detector}", *(str(e) for e in self.exposures)])


@dataclass(frozen=True)
class Step:
    """One kind of quanta.

    Attributes
    ----------
    name : of the quanta.
    each : what is one quantum: a detector, an exposure of it, or a group of exposures that planning found (a pair).
    raws : whether raw pixels are read, and so the calibrations that the ISR applies.
    calibs : names of the calibrations read; None: all of them.
    after : earlier steps whose results are read, each of this detector (``own``) or of ``all``.
    """

    name: str
    each: Literal["detector", "exposure", "group"] = "detector"
    raws: bool = True
    calibs: tuple[str, ...] | None = None
    after: tuple[tuple[str, Literal["own", "all"]], ...] = ()


@dataclass(frozen=True)
class QuantumOutcome:
    """How one quantum ended, and what it cost."""

    quantum: Quantum
    status: Status
    """``"skipped"``: it was there already."""
    seconds: float = 0.0
    reason: str = ""
    can_pass: bool = False
    """Of a failure: whether another try might succeed (worker lost, storage)."""
    storage_full: bool = False
    hung: bool = False
    """Of a failure: it gave no result in time, and perhaps still occupies a thread of its worker."""
    tries: int = 1
    cpu_s: float = 0.0
    peak_mib: float = 0.0
    """Largest resident memory of the worker process during the quantum."""
    began: str = ""
    worker: str = ""
    host: str = ""
    trace: str = ""
    log: tuple[str, ...] = ()
    """Lines that the quantum logged on its worker."""

    @property
    def detector(self) -> int:
        """Id of the detector."""
        return self.quantum.detector


class Result(NamedTuple):
    """Outcome of a quantum and what it returned."""

    outcome: QuantumOutcome
    value: Any = None


def missing(quantum: Quantum, reason: str) -> QuantumOutcome:
    """Outcome of a quantum that cannot be done because something it needs is not there."""
    return QuantumOutcome(quantum, "failed", reason=reason)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: str
    product: str
    uri: str
    quanta: Mapping[Quantum, QuantumOutcome]
    seconds: float = 0.0
    verdict: xr.Dataset | None = None
    """Statistics, tests and summaries of a verification."""
    failures: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Failing tests of a verification: exposure, detector, amp, test, value, limit."""
    stopped: str = ""
    """Why the run ended before all quanta were tried."""
    signal: Signals | None = None
    """What interrupted the run, if a signal did."""
    total: int = 0
    """Quanta of the plan."""
    unusable: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """Amps that the product is no use for, and why: by detector and amp."""

    @property
    def failed(self) -> list[QuantumOutcome]:
        """Quanta that failed, with their reasons."""
        return [q for q in self.quanta.values() if q.status == "failed"]

    @property
    def complete(self) -> bool:
        """Whether every quantum is done."""
        return not self.failed and not self.stopped

    @property
    def passed(self) -> bool:
        """Whether all quanta are done and, for a verification, every required test passed."""
        return self.complete and (self.verdict is None or bool(self.verdict["run_success"]))

    def text(self) -> str:
        """Return the summary of the run for the terminal."""
        count = count_by_status(self.quanta.values())
        count["not tried"] = max(self.total - len(self.quanta), 0)
        lines = [f"{self.product} in {self.run}: " + ", ".join(f"{n} {s}" for s, n in count.items() if n)]
        lines[0] += f" ({self.seconds:.1f} s)"
        lines += [f"  failed: {_short(q)}: {q.reason}" for q in self.failed[:SHOWN_FAILURES]]
        if len(self.failed) > SHOWN_FAILURES:
            lines.append(f"  and {len(self.failed) - SHOWN_FAILURES} more: camcal history REPO {self.run} --failed")
        if self.unusable:
            lines.append(f"  {usable.counted(usable.count(self.unusable))} cannot be used:")
            lines += [f"    {line}" for line in usable.told(self.unusable, SHOWN_FAILURES)]
        if self.stopped:
            lines.append(f"  stopped: {self.stopped}; what is done is registered, and the same command does the rest")
        if self.verdict is not None:
            from camcal_dask.verify.judging.account import summary

            lines.append(summary(self.verdict))
        return "\n".join(lines)


def count_by_status(outcomes: Iterable[QuantumOutcome]) -> dict[str, int]:
    """Numbers of quanta done, skipped and failed."""
    count = {"done": 0, "skipped": 0, "failed": 0}
    for outcome in outcomes:
        count[outcome.status] += 1
    return count


def _short(outcome: QuantumOutcome) -> str:
    return " ".join([f"detector {outcome.detector}", *(str(e) for e in outcome.quantum.exposures)])

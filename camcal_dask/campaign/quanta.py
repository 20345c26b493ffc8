"""Quanta on a cluster: a bounded number at once, each with its outcome; and how a run of them ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from camcal_dask.campaign.record import QuantumOutcome
from camcal_dask.verify.judge import summary

if TYPE_CHECKING:
    from distributed import Client, Future

Progress = Callable[[QuantumOutcome], None]
IN_FLIGHT_PER_THREAD = 3
"""Quanta submitted at once for each thread of the cluster: keeps it busy and the scheduler small."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: str
    product: str
    uri: str
    quanta: Mapping[int, QuantumOutcome]
    seconds: float
    verdict: xr.Dataset | None = None
    """Statistics, tests and summaries of a verification."""
    failures: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Failing tests of a verification: exposure, detector, amp, test, value, limit."""

    @property
    def failed(self) -> list[QuantumOutcome]:
        """Quanta that failed, with their reasons."""
        return [q for q in self.quanta.values() if q.status == "failed"]

    @property
    def passed(self) -> bool:
        """Whether all quanta are done and, for a verification, every required test passed."""
        return not self.failed and (self.verdict is None or bool(self.verdict["run_success"]))

    def text(self) -> str:
        """Return the account of the run for the terminal."""
        count = {s: sum(q.status == s for q in self.quanta.values()) for s in ("done", "skipped", "failed")}
        lines = [f"{self.product} in {self.run}: " + ", ".join(f"{n} {s}" for s, n in count.items() if n)]
        lines[0] += f" ({self.seconds:.1f} s)"
        lines += [f"  failed: detector {q.detector}: {q.reason}" for q in self.failed]
        if self.verdict is not None:
            lines.append(summary(self.verdict))
        return "\n".join(lines)


@dataclass(frozen=True)
class Result:
    """Outcome of a quantum and what it returned."""

    outcome: QuantumOutcome
    value: Any


def run_quanta(client: Client, graphs: Iterator[tuple[int, Any]]) -> Iterator[Result]:
    """Keep a bounded number of quanta on the cluster; yield each as it ends, failed ones included."""
    from distributed import as_completed

    threads = sum(client.nthreads().values())
    flying: dict[Future, tuple[int, float]] = {}
    ended = as_completed()

    def submit() -> None:
        for detector, graph in graphs:
            future = client.compute(graph)
            flying[future] = (detector, time.perf_counter())
            ended.add(future)
            return

    for _ in range(max(2, IN_FLIGHT_PER_THREAD * threads)):
        submit()
    for future in ended:
        detector, begun = flying.pop(future)
        error = future.exception()
        status, reason = ("done", "") if error is None else ("failed", _reason(error))
        value = future.result() if error is None else None
        future.release()
        submit()
        yield Result(QuantumOutcome(detector, status, time.perf_counter() - begun, reason), value)


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"

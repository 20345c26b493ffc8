"""Follow a run: count, decide when it must stop, write progress and outcomes where others can see them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from signal import Signals
from typing import TYPE_CHECKING, Any

from camcal_dask.campaign.past import attempts
from camcal_dask.campaign.past.record import now
from camcal_dask.campaign.planning.quanta import SHOWN_FAILURES, Quantum, QuantumOutcome, count_by_status
from camcal_dask.campaign.running import faults, process
from camcal_dask.redact import redacted
from camcal_dask.repo.cubes import usable
from camcal_dask.repo.storage import files

if TYPE_CHECKING:
    from distributed import Client

Progress = Callable[[QuantumOutcome], None]
WRITE_S = 2.0
"""Least time between two writings of the progress file."""
FLUSH_S = 10.0
"""Least time between two files of outcomes, unless many wait."""
FLUSH_QUANTA = 500
CENSUS_S = 2.0


@dataclass(frozen=True)
class Limits:
    """When a run gives up, and what it does with existing products."""

    fail_fast: bool = False
    max_failures: int | None = None
    """Failed quanta after which the run stops; None: never."""
    clobber: bool = False
    """Do what is done already once more."""
    extend: bool = False
    """Add detectors to a product that was begun for others."""
    quantum_timeout_s: float | None = 7200.0
    """Time after which a quantum that gave no result is called failed; None: never.  Ours take minutes at most."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at a moment: what the terminal shows and ``camcal status`` reads."""

    run: str
    product: str
    state: str = "running"
    """running, done, failed (finished with failures), stopped, interrupted (by a signal)."""
    total: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    running: int = 0
    elapsed_s: float = 0.0
    per_s: float = 0.0
    """Quanta that ended in a second, lately."""
    left_s: float | None = None
    workers: int = 0
    threads: int = 0
    memory_mib: float = 0.0
    """Memory of all workers together."""
    dashboard: str = ""
    host: str = ""
    pid: int = 0
    mark: str = ""
    """With these two the client: `process.Process`."""
    started: str = ""
    beat: int = 0
    """Grows with every writing: a reader sees whether the run lives without comparing clocks."""
    last_failures: tuple[str, ...] = ()
    n_unusable: int = 0
    """Amps that the product is no use for."""
    unusable: tuple[str, ...] = ()
    """Which, and why; some of them."""

    @property
    def pending(self) -> int:
        """Quanta that were not tried."""
        return max(self.total - self.done - self.skipped - self.failed, 0)


@dataclass
class Tracker:
    """Follows one attempt of a run.

    Parameters
    ----------
    folder : str
        Of the attempt (`attempts.open_attempt`); "" keeps everything in memory.
    snapshot : Snapshot
        Names of run and product; counts of zero.
    limits : Limits
        When to stop.
    progress, watch : callable
        Called with every outcome; with every snapshot.
    task_bytes : int
        Memory of one quantum.
    """

    folder: str
    snapshot: Snapshot
    limits: Limits = Limits()
    progress: Progress | None = None
    watch: Callable[[Snapshot], None] | None = None
    task_bytes: int = 0
    stopped: str = ""
    signal: Signals | None = None
    """What interrupted the run."""
    outcomes: dict[Quantum, QuantumOutcome] = field(default_factory=dict)
    _pending: list[QuantumOutcome] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)
    _written: float = 0.0
    _flushed: float = field(default_factory=time.monotonic)
    _counted: float = 0.0
    _recent: list[tuple[float, int]] = field(default_factory=list)
    _files: int = 0

    def __post_init__(self) -> None:
        me = process.here()
        self.snapshot = replace(self.snapshot, host=me.host, pid=me.pid, mark=me.mark, started=now())

    def expect(self, quanta: Iterable[Quantum]) -> None:
        """Say what the run consists of."""
        self.snapshot = replace(self.snapshot, total=len(set(quanta)))

    def note(self, outcome: QuantumOutcome) -> None:
        """Take the outcome of a quantum."""
        self._pending.append(outcome)
        self.outcomes[outcome.quantum] = replace(outcome, log=(), trace="")  # those are in the journal
        status: Any = {outcome.status: getattr(self.snapshot, outcome.status) + 1}
        if outcome.status == "failed":
            status["last_failures"] = (*self.snapshot.last_failures, f"{outcome.quantum}: {outcome.reason}")[-5:]
        self.snapshot = replace(self.snapshot, **status)
        if self.progress is not None:
            self.progress(outcome)
        if outcome.status == "failed":
            self._consider(outcome)
        if len(self._pending) >= FLUSH_QUANTA or time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def _consider(self, outcome: QuantumOutcome) -> None:
        if outcome.storage_full:
            self.stop(f"nothing more can be stored ({outcome.reason}); make room or mount the storage again first")
        elif self.limits.fail_fast:
            self.stop(f"{outcome.quantum} failed, and the run is to stop at the first failure")
        elif self.limits.max_failures is not None and self.snapshot.failed > self.limits.max_failures:
            self.stop(f"{self.snapshot.failed} quanta failed, {self.limits.max_failures} are allowed")

    def stop(self, why: str) -> None:
        """End the run early; the first reason counts."""
        self.stopped = self.stopped or why

    def unusable(self, found: Mapping[int, Mapping[str, str]]) -> None:
        """Take note of the amps for which the product is of no use, by detector, and why."""
        told = tuple(usable.told(found, SHOWN_FAILURES))
        self.snapshot = replace(self.snapshot, n_unusable=usable.count(found), unusable=told)

    def interrupt(self, by: KeyboardInterrupt) -> None:
        """End the run because of a signal."""
        self.signal = faults.signal_of(by)
        self.stop(f"interrupted by {self.signal.name}")

    def tick(self, client: Client | None = None, running: int = 0) -> None:
        """Update rate and workers; write the progress file if it is due."""
        clock = time.monotonic()
        if client is not None and clock - self._counted > CENSUS_S:
            self._counted = clock
            self._census(client)
        if clock - self._written > WRITE_S:
            self._written = clock
            self._rate(clock)
            self._write(running=running)

    def _census(self, client: Client) -> None:
        with contextlib.suppress(OSError, TimeoutError):  # a count is not worth a run
            workers, threads, memory = client.run_on_scheduler(_census)
            self.snapshot = replace(
                self.snapshot, workers=workers, threads=threads, memory_mib=memory / 2**20,
                dashboard=redacted(client.dashboard_link or ""),
            )  # fmt: skip

    def _rate(self, clock: float) -> None:
        ended = self.snapshot.done + self.snapshot.failed
        self._recent = [*self._recent, (clock, ended)][-30:]
        then, before = self._recent[0] if len(self._recent) > 1 else (self._begun, 0)
        per_s = (ended - before) / max(clock - then, 1e-9)
        left = self.snapshot.pending / per_s if per_s > 0 else None
        self.snapshot = replace(self.snapshot, per_s=per_s, left_s=left)

    def _write(self, **changes: Any) -> None:
        self.snapshot = replace(self.snapshot, elapsed_s=self.seconds, beat=self.snapshot.beat + 1, **changes)
        if self.watch is not None:
            self.watch(self.snapshot)
        if self.folder:
            with contextlib.suppress(OSError):  # a full disk ends the run by its quanta, not here
                files.write_json(attempts.progress_uri(self.folder), asdict(self.snapshot))

    def flush(self) -> None:
        """Write the pending outcomes; what cannot be written stays pending."""
        self._flushed = time.monotonic()
        if not self._pending:
            return
        if self.folder:
            try:
                attempts.write_outcomes(self.folder, self._files + 1, self._pending)
            except OSError:
                return
            self._files += 1
        self._pending = []

    def close(self) -> None:
        """Write everything, with how the run ended."""
        self.flush()
        ended = "failed" if self.snapshot.failed else "done"
        state = "interrupted" if self.signal else "stopped" if self.stopped else ended
        left = {} if self.stopped else {"left_s": 0.0}
        per_s = (self.snapshot.done + self.snapshot.failed) / max(self.seconds, 1e-9)
        self._write(state=state, running=0, per_s=per_s, **left)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._begun

    def count(self) -> dict[str, int]:
        """Numbers of quanta done, skipped, failed and not tried."""
        counts = count_by_status(self.outcomes.values())
        return {**counts, "not tried": self.snapshot.pending}


def _census(dask_scheduler: Any) -> tuple[int, int, int]:
    """Number of workers, their threads and memory [byte]; runs on the scheduler."""
    workers = dask_scheduler.workers.values()
    memory = sum(w.metrics.get("memory", 0) for w in workers)
    return len(workers), sum(w.nthreads for w in workers), memory

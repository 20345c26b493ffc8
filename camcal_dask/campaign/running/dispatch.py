"""Keep a cluster busy with quanta: a bounded number at a time, in bundles, resubmitting lost ones.

Measured (``python -m benchmarks campaign``): a task costs client and scheduler some 8 ms together,
so short quanta travel in bundles; the time of the quanta so far decides how many.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from camcal_dask.campaign.planning.quanta import Quantum, QuantumOutcome, Result
from camcal_dask.campaign.running import faults
from camcal_dask.campaign.running.tracker import Tracker

if TYPE_CHECKING:
    from distributed import Client, Future, WorkerPlugin

    from camcal_dask.campaign.running.bundle import Work

IN_FLIGHT = 2
"""Bundles submitted at once for each thread: one runs, one waits on the worker; the scheduler stays small."""
BUNDLES_PER_S = 40
"""Bundles that client and scheduler are asked to handle in a second; their length follows from it."""
BUNDLE_S = 1.0
"""Shortest bundle worth having: what a lost worker costs."""
BUNDLE_MAX = 100
LOST_MAX = 5
"""Times that a quantum may be lost with its worker before it is called failed."""
TICK_S = 0.5
COUNT_S = 2.0
"""Seconds between two looks at how many threads there are."""
SHIP_TRIES = 5
PATIENCE_S = 60.0
"""Time that a scheduler that went away is given to come back."""


def run_quanta(client: Client, work: Work, quanta: Sequence[Quantum], tracker: Tracker) -> Iterator[Result]:
    """Carry out quanta on the workers; yield each as it ends, failed ones included.

    Ends early when the tracker says so (too many failures, storage full, interrupted); quanta that
    have not ended then are not reported.

    Parameters
    ----------
    client : distributed.Client
        Where they run.
    work : Work
        Picklable; called with the quantum on a worker.
    quanta : sequence of Quantum
        In the order wanted.
    tracker : Tracker
        Hears of every outcome.
    """
    if not quanta:
        return
    from camcal_dask.campaign.running.bundle import Shipped

    name = f"camcal-{uuid.uuid4().hex[:12]}"
    _ship(client, Shipped(name, work))
    threads_each = _threads_each(client, len(quanta), tracker.task_bytes)
    flights = _Flights(client, name, quanta, threads_each, tracker.limits.quantum_timeout_s)
    try:
        while flights.unfinished and not tracker.stopped and _connected(client, tracker):
            flights.fill()
            for result in flights.landed(TICK_S):
                tracker.note(result.outcome)
                yield result
            tracker.tick(client, running=flights.n_running)
    except KeyboardInterrupt as interrupt:
        tracker.interrupt(interrupt)
    except OSError as error:  # of the network: work and storage fail on the workers
        tracker.stop(f"the connection to the scheduler is lost ({faults.reason(error)})")
    finally:
        flights.cancel()
        _forget(client, name)


def _ship(client: Client, plugin: WorkerPlugin) -> None:
    """Give the work to all workers; one that is lost meanwhile is replaced and gets it then."""
    for _ in range(SHIP_TRIES - 1):
        try:
            client.register_plugin(plugin)
        except (OSError, TimeoutError):  # CommClosedError is one: a worker that was there is not any more
            time.sleep(TICK_S)
        else:
            return
    client.register_plugin(plugin)


def _connected(client: Client, tracker: Tracker) -> bool:
    """Whether the scheduler can be talked to; waits for a lost one, then stops the run."""
    end = time.monotonic() + PATIENCE_S
    while client.status == "connecting" and time.monotonic() < end:
        time.sleep(0.1)
    if client.status != "running":
        tracker.stop(f"the connection to the scheduler is lost (client {client.status})")
    return not tracker.stopped


class _Flights:
    """Bundles on the cluster and quanta that wait for one."""

    def __init__(
        self, client: Client, name: str, quanta: Sequence[Quantum], threads_each: int, timeout_s: float | None
    ) -> None:
        self.client, self.name, self.threads_each, self.timeout_s = client, name, threads_each, timeout_s
        self.waiting = deque(quanta)
        self.lost: dict[Quantum, int] = {}
        self.again: deque[Quantum] = deque()
        self.flying: dict[Future, tuple[Quantum, ...]] = {}
        self.ended: SimpleQueue[Future] = SimpleQueue()
        self.threads, self.counted = 1, float("-inf")
        self.ended_s, self.n_ended = 0.0, 0

    @property
    def unfinished(self) -> bool:
        return bool(self.waiting or self.again or self.flying)

    @property
    def n_running(self) -> int:
        """Quanta that are running: one per thread."""
        return min(sum(map(len, self.flying.values())), self.threads)

    def fill(self) -> None:
        """Submit until every thread has enough to do."""
        if time.monotonic() - self.counted > COUNT_S:
            self.counted, self.threads = time.monotonic(), max(1, sum(self.client.nthreads().values()))
        while len(self.flying) < max(2, IN_FLIGHT * self.threads) and (bundle := self._next()):
            self._submit(bundle)

    def _next(self) -> tuple[Quantum, ...]:
        if self.again:  # lost before: alone, so that what kills workers takes no other with it
            return (self.again.popleft(),)
        n = min(len(self.waiting), self._bundle_size())
        return tuple(self.waiting.popleft() for _ in range(n))

    def _bundle_size(self) -> int:
        """As many as take a bundle's time, but so few that all threads end together."""
        if not self.n_ended:
            return 1
        seconds = max(BUNDLE_S, self.threads / BUNDLES_PER_S)
        wanted = seconds / max(self.ended_s / self.n_ended, 1e-4)
        fair = len(self.waiting) / (2 * self.threads)
        return max(1, int(min(wanted, fair, BUNDLE_MAX)))

    def _submit(self, bundle: tuple[Quantum, ...]) -> None:
        from camcal_dask.campaign.running.bundle import run_bundle

        future = self.client.submit(run_bundle, self.name, bundle, self.threads_each, self.timeout_s, pure=False)
        self.flying[future] = bundle
        future.add_done_callback(self.ended.put)

    def landed(self, patience_s: float) -> list[Result]:
        """Results of the bundles that have ended, after a short wait for the first."""
        futures = self._some_ended(patience_s)
        good = [f for f in futures if f.status == "finished"]
        results: list[Result] = []
        for future, found in zip(good, self.client.gather(good, errors="raise"), strict=True):
            results += found
            bundle = self.flying.pop(future)
            self.again.extend(bundle[len(found) :])  # those after one that hangs
        for future in futures:
            if future in self.flying:
                results += self._broken(future)
            future.release()
        if hanging := [r.outcome.worker for r in results if r.outcome.hung]:
            self.client.run_on_scheduler(_restart, hanging)
        for outcome, _ in results:
            if not outcome.hung:
                self.ended_s += outcome.seconds
                self.n_ended += 1
        return results

    def _some_ended(self, patience_s: float) -> list[Any]:
        futures = []
        try:
            futures.append(self.ended.get(timeout=patience_s))
            while True:
                futures.append(self.ended.get_nowait())
        except Empty:
            return futures

    def _broken(self, future: Future) -> list[Result]:
        """Sort the quanta of a bundle that did not come back: again, or failed."""
        error = _error(future)
        results = []
        for quantum in self.flying.pop(future):
            self.lost[quantum] = self.lost.get(quantum, 0) + 1
            if faults.can_pass(error) and self.lost[quantum] < LOST_MAX:
                self.again.append(quantum)
                continue
            tries = self.lost[quantum]
            text = faults.reason(error)
            if type(error).__name__ == "KilledWorker":
                text = f"its worker died each of {tries} times; does it need more memory than the worker has? ({text})"
            results.append(
                Result(
                    QuantumOutcome(quantum, "failed", reason=text, tries=tries, can_pass=faults.can_pass(error)), None
                )
            )
        return results

    def cancel(self) -> None:
        """Take back what has not begun."""
        if self.flying and self.client.status == "running":
            self.client.cancel(list(self.flying), force=True)
        self.flying.clear()


async def _restart(addresses: Sequence[str], dask_scheduler: Any) -> None:
    """Start workers anew in which a thread hangs, if a nanny can; runs on the scheduler."""
    known = dask_scheduler.workers
    can = [address for address in addresses if address in known and known[address].nanny]
    if can:
        await dask_scheduler.restart_workers(can, wait_for_workers=False, on_error="return", stimulus_id="camcal-hung")


def _error(future: Future) -> BaseException:
    """Return why a bundle ended; dask raises instead of returning it when the future was lost."""
    try:
        error: BaseException | None = future.exception(timeout=10)
    except Exception as raised:  # noqa: BLE001 -- whatever it is, the quanta of the bundle must be accounted for
        error = raised
    return error or ConnectionError("the cluster lost the task")


def _forget(client: Client, name: str) -> None:
    try:
        client.unregister_worker_plugin(name)
    except Exception as error:  # noqa: BLE001 -- the run is over; a scheduler that is gone needs no tidying
        if not faults.can_pass(error) and client.status == "running":
            raise


def _threads_each(client: Client, n_quanta: int, task_bytes: int) -> int:
    """Threads of one quantum: one, unless there are fewer quanta than threads and memory for more."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    threads = sum(w["nthreads"] for w in workers)
    if n_quanta >= threads:
        return 1
    hosts: dict[str, int] = {}
    for worker in workers:
        hosts[worker["host"]] = hosts.get(worker["host"], 0) + worker["nthreads"]
    room = min(w["memory_limit"] for w in workers) // max(2 * task_bytes, 1) or 1
    return int(max(1, min(threads // n_quanta, *hosts.values(), room)))

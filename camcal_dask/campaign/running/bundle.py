"""The worker's side of a run: one quantum after the other, each with its own log, cost and outcome.

A bundle is one task of dask, so that the scheduler's work does not grow with the number of quanta.
A quantum's graph is made and computed inside the task: no pixel travels between workers, and
memory is that of one block after the other.
"""

from __future__ import annotations

import contextlib
import logging
import random
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import dask
from distributed import WorkerPlugin, get_worker

from camcal_dask.campaign.past.record import now
from camcal_dask.campaign.planning.quanta import Quantum, QuantumOutcome, Result
from camcal_dask.campaign.running import faults
from camcal_dask.repo.cubes.products import forget_opened

Work = Callable[[Quantum], Any]
"""Makes the graph of a quantum, or does it and returns a value; travels to the workers once."""
TRIES = 4
"""Tries of a quantum on its worker when the storage fails."""
PAUSE_S = 0.5
"""Pause before the second try, doubled before each further one."""
LOG_LINES = 500
"""Lines kept of one quantum."""
_log = logging.getLogger("camcal_dask.quantum")


class Shipped(WorkerPlugin):
    """Carries the work of a run to every worker, also to those that join later.

    Parameters
    ----------
    name : str
        Of the run on this cluster.
    work : Work
        What is done with each quantum.
    """

    def __init__(self, name: str, work: Work) -> None:
        self.name, self.work = name, work

    def setup(self, worker: Any) -> None:
        """Send warnings to the log, where a quantum's are told apart; leave Ctrl-C to the client.

        A terminal sends it to the workers that the client started, too: there they would die with tracebacks while
        the client ends the run in order.  What stops a worker is its nanny.  What an earlier run left here, its client
        killed, may have been made again since.
        """
        forget_opened()
        logging.captureWarnings(True)
        if worker.nanny and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def teardown(self, worker: Any) -> None:
        """Give warnings and memory back: the worker may be the user's own process."""
        forget_opened()
        logging.captureWarnings(False)


def run_bundle(name: str, quanta: Sequence[Quantum], threads: int, timeout_s: float | None = None) -> list[Result]:
    """Carry out quanta on this worker, up to the first that hangs, as the next may hang for the same reason.

    Parameters
    ----------
    name : str
        Of the `Shipped` work.
    quanta : sequence of Quantum
        In order.
    threads : int
        Threads that one quantum may use.
    timeout_s : float, optional
        Patience with one quantum.
    """
    worker = get_worker()
    work, address = worker.plugins[name].work, str(worker.address)
    results: list[Result] = []
    for quantum in quanta:
        if timeout_s is None:
            results.append(run_quantum(work, quantum, threads, address))
        else:
            results.append(_run_in_time(timeout_s, work, quantum, threads, address))
        if results[-1].outcome.hung:
            break
    return results


def _run_in_time(timeout_s: float, work: Work, quantum: Quantum, threads: int, worker: str) -> Result:
    """Do one quantum in a thread of its own, which is left behind if it hangs: nothing can end a thread."""
    ended: SimpleQueue[Result] = SimpleQueue()
    thread = threading.Thread(target=lambda: ended.put(run_quantum(work, quantum, threads, worker)), daemon=True)
    began = now()
    thread.start()
    try:
        return ended.get(timeout=timeout_s)
    except Empty:
        frame = sys._current_frames().get(thread.ident or 0)
        outcome = QuantumOutcome(
            quantum,
            "failed",
            seconds=timeout_s,
            reason=f"no result for {timeout_s:g} s",
            can_pass=True,
            hung=True,
            began=began,
            worker=worker,
            host=socket.gethostname(),
            trace="".join(["It was here (most recent call last):\n", *traceback.format_stack(frame)]),
        )
        return Result(outcome)


def run_quantum(work: Work, quantum: Quantum, threads: int = 1, worker: str = "") -> Result:
    """Do one quantum; whatever it raises becomes its outcome."""
    began, started, before, value, tries = now(), time.perf_counter(), _cpu(threads), None, 0
    _reset_peak()
    error: Exception | None = None
    with _captured(threads) as (lines, pool):
        while tries < TRIES:
            tries += 1
            try:
                value, error = _compute(work(quantum), pool), None
                break
            except Exception as caught:  # noqa: BLE001 -- a quantum's failure is its own, whatever it is
                error = caught
                if faults.storage_full(error) or not faults.can_pass(error) or tries == TRIES:
                    break
                _log.warning("%s: try %d: %s; trying again", quantum, tries, faults.reason(error))
                time.sleep(PAUSE_S * 2 ** (tries - 1) * random.uniform(0.5, 1.0))
    outcome = QuantumOutcome(
        quantum,
        "done" if error is None else "failed",
        seconds=time.perf_counter() - started,
        reason="" if error is None else faults.reason(error),
        can_pass=error is not None and faults.can_pass(error),
        storage_full=error is not None and faults.storage_full(error),
        tries=tries,
        cpu_s=_cpu(threads) - before,
        peak_mib=_peak_mib(),
        began=began,
        worker=worker,
        host=socket.gethostname(),
        trace="" if error is None else "".join(traceback.format_exception(error)),
        log=tuple(lines),
    )
    return Result(outcome, value)


def _compute(made: Any, pool: ThreadPoolExecutor | None) -> Any:
    if not dask.is_dask_collection(made):
        return made
    if pool is None:
        return dask.compute(made, scheduler="sync")[0]
    return dask.compute(made, scheduler="threads", pool=pool)[0]


# ---------------------------------------------------------------------------- log


class _Capture(logging.Handler):
    """Collects what some threads log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self.threads = {threading.get_ident()}
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def join(self) -> None:
        """Listen to the calling thread as well."""
        self.threads.add(threading.get_ident())

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        if record.thread in self.threads and len(self.lines) < LOG_LINES:
            self.lines.append(self.format(record))


@contextlib.contextmanager
def _captured(threads: int) -> Iterator[tuple[list[str], ThreadPoolExecutor | None]]:
    """Collect the log lines of this thread and of the quantum's pool."""
    capture, loggers = _Capture(), [logging.getLogger(n) for n in ("camcal_dask", "py.warnings")]
    for logger in loggers:
        logger.addHandler(capture)
    if logging.getLogger("camcal_dask").level == logging.NOTSET:
        logging.getLogger("camcal_dask").setLevel(logging.INFO)
    pool = ThreadPoolExecutor(threads, initializer=capture.join) if threads > 1 else None
    try:
        yield capture.lines, pool
    finally:
        if pool is not None:
            pool.shutdown()
        for logger in loggers:
            logger.removeHandler(capture)


# ---------------------------------------------------------------------------- cost


def _cpu(threads: int) -> float:
    """CPU seconds of this thread, or of the process if a quantum has several."""
    return time.thread_time() if threads == 1 else time.process_time()


def _reset_peak() -> None:
    """Let Linux measure the peak of the resident memory anew; elsewhere it is that of the process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    """Return the largest resident memory since `_reset_peak` [MiB]."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

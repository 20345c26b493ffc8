"""Quanta on workers: outcomes, retries, logs, bundles, limits; with work that needs no pixels."""

import errno
import logging
import os
import signal
import threading
import time
from functools import partial
from types import SimpleNamespace

import dask
import numpy as np
import pytest

from camcal_dask.campaign.cluster.workers import Profile, connect
from camcal_dask.campaign.past import attempts
from camcal_dask.campaign.planning.quanta import Quantum
from camcal_dask.campaign.running import bundle, faults
from camcal_dask.campaign.running.bundle import run_quantum
from camcal_dask.campaign.running.dispatch import run_quanta
from camcal_dask.campaign.running.tracker import Limits, Snapshot, Tracker
from camcal_dask.errors import DataError
from camcal_dask.repo.storage import kept


@pytest.fixture(scope="module")
def client():
    with connect(Profile(kind="threads", workers=2)) as client:
        yield client


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(bundle, "PAUSE_S", 0.001)


def quanta(n):
    return [Quantum("test", d) for d in range(n)]


def square(quantum):
    return dask.delayed(pow)(quantum.detector, 2)


def odd_ones_fail(quantum):
    if quantum.detector % 2:
        raise DataError(f"detector {quantum.detector}: bad raw")
    return quantum.detector


def hiccup(folder, quantum):
    """Fails twice, then works."""
    tries = len(list(folder.iterdir()))
    (folder / str(tries)).touch()
    if tries < 2:
        raise OSError(errno.ESTALE, "stale file handle")
    return tries


def full(quantum):
    raise OSError(errno.ENOSPC, "no space left on device")


def chatty(quantum):
    logging.getLogger("camcal_dask.isr").warning("amp C10 of detector %d is odd", quantum.detector)


def tracker(**options):
    return Tracker("", Snapshot("u/x", "test"), **options)


def test_every_quantum_returns_its_value(client):
    follow = tracker()
    results = list(run_quanta(client, square, quanta(300), follow))
    assert {r.outcome.quantum: r.value for r in results} == {q: q.detector**2 for q in quanta(300)}
    assert follow.count() == {"done": 300, "skipped": 0, "failed": 0, "not tried": 0}
    assert all(r.outcome.peak_mib > 10 and r.outcome.worker and r.outcome.began for r in results)
    assert not [name for name in client.run(lambda dask_worker: list(dask_worker.plugins)) if name.startswith("camcal")]


def test_a_failure_costs_nobody_else(client):
    results = {r.outcome.detector: r.outcome for r in run_quanta(client, odd_ones_fail, quanta(20), tracker())}
    assert len(results) == 20
    assert {d for d, o in results.items() if o.status == "failed"} == set(range(1, 20, 2))
    assert results[3].reason == "DataError: detector 3: bad raw"
    assert "odd_ones_fail" in results[3].trace
    assert results[3].tries == 1


def test_storage_hiccups_are_tried_again(tmp_path, client):
    (result,) = run_quanta(client, partial(hiccup, tmp_path), quanta(1), tracker())
    assert result.outcome.status == "done"
    assert result.outcome.tries == 3
    assert any("trying again" in line for line in result.outcome.log)


def test_a_full_storage_stops_the_run(client):
    follow = tracker()
    results = list(run_quanta(client, full, quanta(500), follow))
    assert 1 <= len(results) < 50
    assert results[0].outcome.tries == 1
    assert "nothing more can be stored" in follow.stopped


@pytest.mark.parametrize(("limits", "most"), [(Limits(fail_fast=True), 20), (Limits(max_failures=5), 40)])
def test_limits_on_failures(client, limits, most):
    follow = tracker(limits=limits)
    results = list(run_quanta(client, odd_ones_fail, quanta(2000), follow))
    assert len(results) < 2000
    assert follow.snapshot.failed >= 1
    assert follow.stopped


def test_an_interrupt_ends_the_run_in_order(client):
    def press(outcome):
        raise KeyboardInterrupt

    follow = tracker(progress=press)
    assert list(run_quanta(client, square, quanta(100), follow)) == []
    assert (follow.stopped, follow.signal) == ("interrupted by SIGINT", signal.SIGINT)
    assert len(follow.outcomes) == 1


def test_log_lines_belong_to_their_quantum(client):
    results = list(run_quanta(client, chatty, quanta(8), tracker()))
    for outcome, _ in results:
        assert [line for line in outcome.log if "is odd" in line] == [
            line for line in outcome.log if f"amp C10 of detector {outcome.detector} is odd" in line
        ]
        assert len([line for line in outcome.log if "is odd" in line]) == 1


MEETING = threading.Barrier(2)


def meet(quantum):
    return dask.delayed(sorted)([dask.delayed(MEETING.wait)(30, dask_key_name=f"wait-{i}") for i in range(2)])


def test_few_quanta_use_the_spare_threads(client):
    (result,) = run_quanta(client, meet, quanta(1), tracker())  # would wait for ever on one thread
    assert result.value == [0, 1], result.outcome.reason


def test_an_outcome_survives_its_file(tmp_path):
    failed = run_quantum(odd_ones_fail, Quantum("test", 1, (2026081200001, 2026081200002))).outcome
    done = run_quantum(odd_ones_fail, Quantum("test", 2)).outcome
    attempts.write_outcomes(str(tmp_path), 1, [failed, done])
    assert list(attempts.read_outcomes(str(tmp_path))) == [failed, done]


@pytest.mark.parametrize(
    ("error", "passing", "is_full"),
    [
        (OSError(errno.EIO, "x"), True, False),
        (OSError(errno.ENOSPC, "x"), False, True),
        (FileNotFoundError(errno.ENOENT, "x"), False, False),
        (RuntimeError("write failed: No space left on device (os error 28)"), False, True),
        (RuntimeError("read failed: Input/output error (os error 5)"), True, False),
        (ConnectionResetError(), True, False),
        (MemoryError(), True, False),
        (DataError("shard is damaged"), False, False),
        (ValueError("fit does not converge"), False, False),
    ],
)
def test_kinds_of_failures(error, passing, is_full):
    assert (faults.can_pass(error), faults.storage_full(error)) == (passing, is_full)
    outer = DataError("cannot be read")
    outer.__cause__ = error
    assert (faults.can_pass(outer), faults.storage_full(outer)) == (passing, is_full)


# ---------------------------------------------------------------------------- quanta that hang


def some_hang(folder, quantum):
    """Detector 3 never returns; the others say in which process they were."""
    if quantum.detector == 3:
        (folder / f"hangs-{os.getpid()}").touch()
        threading.Event().wait()
    time.sleep(0.01)
    return os.getpid()


@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_a_quantum_that_hangs_is_given_up_and_its_worker_restarted(tmp_path):
    with connect(Profile(workers=2, memory_per_worker="1 GiB")) as processes:
        follow = tracker(limits=Limits(quantum_timeout_s=8.0))
        before = processes.run(os.getpid).values()
        results = {
            r.outcome.detector: r for r in run_quanta(processes, partial(some_hang, tmp_path), quanta(60), follow)
        }
        processes.wait_for_workers(2, timeout=120)
        after = processes.run(os.getpid).values()
    hung = results.pop(3).outcome
    assert (hung.status, hung.reason, hung.can_pass, hung.hung) == ("failed", "no result for 8 s", True, True)
    assert "some_hang" in hung.trace, "it says where"
    assert {d for d, r in results.items() if r.outcome.status == "done"} == set(range(60)) - {3}
    (place,) = [int(f.name.removeprefix("hangs-")) for f in tmp_path.iterdir()]
    assert place in before
    assert place not in after


def test_a_hanging_thread_is_left_behind(tmp_path, client):
    """Without a nanny the worker cannot be restarted: it goes on with another thread."""
    follow = tracker(limits=Limits(quantum_timeout_s=4.0))
    results = list(run_quanta(client, partial(some_hang, tmp_path), quanta(20), follow))
    assert [r.outcome.detector for r in results if r.outcome.status == "failed"] == [3]
    assert len(results) == 20


def test_a_run_begins_and_ends_without_what_another_read():
    plugin, worker = bundle.Shipped("run", print), SimpleNamespace(nanny=None)
    for change in (plugin.setup, plugin.teardown):
        kept.kept("bias.zarr/image", 0, lambda: np.zeros(3))
        change(worker)
        assert not kept._kept

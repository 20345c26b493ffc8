"""What clusters do to a run: nothing is lost, nothing half-visible, and the resumed product is the same to the bit."""

import datetime
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

from camcal_dask.campaign.cluster.workers import Profile, connect
from camcal_dask.campaign.past import record
from camcal_dask.campaign.running import bundle, dispatch, exclusive
from camcal_dask.campaign.running.run import Options, execute
from camcal_dask.errors import CamcalError, RunError
from camcal_dask.repo.butler.repository import open_repo
from camcal_dask.repo.cubes import products
from camcal_dask.repo.storage import files, shards
from tests.campaign.conftest import assert_same, bias_plan, held_camcal, make_bias, markers_of
from tests.services import wait_until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(bundle, "PAUSE_S", 0.01)


def run_arguments(root, output):
    return ["run", "-b", root, "-p", "TinyCam/bias.yaml", "-i", "TinyCam/raw/all", "-o", output, "--cluster", "threads"]


def assert_nothing_half_visible(root, run):
    """Whatever the registry shows of a run can be read and is right."""
    with open_repo(root) as repo:
        refs = repo.datasets("bias", run) if repo.collections(run) else []
        for ref in refs:
            one = repo.open("bias", run=run, detector=ref.detector).load()
            two = repo.open("bias", run="u/clean", detector=ref.detector).load()
            np.testing.assert_array_equal(one["image"].values, two["image"].values)
    return len(refs)


def hold(folder):
    """In a worker: every shard is announced and then waits, half the run done, for the process to be killed."""

    def waiting(*_):
        (folder / str(os.getpid())).touch()
        threading.Event().wait()

    products.write_shard = waiting


@pytest.mark.cluster
def test_workers_killed_while_they_write(repo, tmp_path):
    """Every worker dies with a shard in its hands; those that take their places do the work."""
    with connect(Profile(workers=2, memory_per_worker="1 GiB")) as client:
        first = set(client.run(os.getpid).values())
        client.run(hold, tmp_path)
        killed = set()

        def writing():
            return {int(f.name) for f in tmp_path.iterdir()} - killed

        def murder():
            for _ in first:
                wait_until(writing, "worker that writes")
                victim = min(writing())
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)

        with ThreadPoolExecutor(1) as pool:
            murders = pool.submit(murder)
            outcome = execute(repo, bias_plan(repo, "u/killed-workers"), client)
            murders.result()
        after = set(client.run(os.getpid).values())
    assert killed == first
    assert not after & first
    assert outcome.complete, outcome.text()
    assert_same(repo, "u/killed-workers")


def test_client_killed_while_another_waits_and_resumed(biases, repo, threads):
    """One client works, a second is refused, the first gets SIGKILL in the middle, the second does the rest."""
    run = "u/killed-client"
    markers = markers_of(biases, run)
    program = held_camcal(markers, markers.parent / "never")
    arguments = [sys.executable, "-c", program, *run_arguments(biases, run)]
    first = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: first.poll() is not None or files.names(str(markers)), "detector that is whole")
        assert first.poll() is None, "the first client ended before a detector was whole"
        with pytest.raises(RunError, match=f"process {first.pid} on"):
            make_bias(repo, run, threads)
    finally:
        first.kill()
        first.wait()
    assert assert_nothing_half_visible(biases, run) < 4
    outcome = make_bias(repo, run, threads)
    assert outcome.complete
    assert "skipped" in outcome.text()
    assert_same(repo, run)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root to mount a small tmpfs")
def test_disk_full(repo, threads):
    folder = Path(repo.root, "cubes", "u", "full")
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        try:
            text = make_bias(repo, "u/full", threads).text()
        except (CamcalError, OSError) as error:
            text = str(error)
        assert "No space left" in text or "nothing more can be stored" in text
        assert assert_nothing_half_visible(repo.root, "u/full") < 4
        subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
        assert make_bias(repo, "u/full", threads).complete
        assert_same(repo, "u/full")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_storage_that_errs_and_stalls_now_and_then(repo, threads, monkeypatch):
    """A third of all writings fails in the middle of the shard, another stalls."""
    rng, write, failures = random.Random(3), shards.write_shard, []

    def unreliable(array_uri, index, block):
        dice = rng.random()
        if dice < 0.33:
            target = files.local_path(shards.shard_path(array_uri, index))
            target.parent.mkdir(parents=True, exist_ok=True)
            (target.parent / ".part").write_bytes(b"half a shard")
            failures.append(target)
            raise OSError(errno.EIO, "Input/output error", str(target))
        if dice < 0.5:
            time.sleep(0.2)
        write(array_uri, index, block)

    monkeypatch.setattr(products, "write_shard", unreliable)
    outcome = make_bias(repo, "u/unreliable", threads)
    for _ in range(20):
        if outcome.complete:
            break
        assert_nothing_half_visible(repo.root, "u/unreliable")
        assert all(o.can_pass for o in outcome.failed)
        outcome = make_bias(repo, "u/unreliable", threads)
    assert len(failures) > 3
    assert_same(repo, "u/unreliable")


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        pytest.param(lambda shard: shard.write_bytes(shard.read_bytes()[:4000]), "damaged", id="truncated"),
        pytest.param(lambda shard: shard.write_bytes(shard.read_bytes()[:-9] + bytes(9)), "damaged", id="flipped"),
        pytest.param(Path.unlink, "ingest", id="lost"),
    ],
)
def test_a_spoilt_raw_shard_fails_its_detector_only(request, repo, threads, damage, word):
    """Never a smaller stack in silence."""
    run = f"u/spoilt-{request.node.callspec.id}"
    (uri,) = Path(repo.root, "cubes", "raw", "TinyCam").glob("*.zarr")
    shard = next(p for p in Path(uri, "raw", "c", "2", "1").rglob("*") if p.is_file())
    whole = shard.read_bytes()
    damage(shard)
    try:
        outcome = make_bias(repo, run, threads)
    finally:
        shard.write_bytes(whole)
    assert [o.detector for o in outcome.failed] == [1]
    assert word in outcome.failed[0].reason
    assert assert_nothing_half_visible(repo.root, run) == 3
    assert "1 done, 3 skipped" in make_bias(repo, run, threads).text()
    assert_same(repo, run)


@pytest.mark.parametrize("days", [3, -3])
def test_clock_skew(repo, threads, monkeypatch, days):
    """This host's clock is days from the file server's: the run is the same, and ages are told by one clock."""

    class Skewed(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.now(tz) + datetime.timedelta(days=days)

    run = f"u/skew{days}"
    folder = Path(repo.root, "cubes", *run.split("/"))
    young, old = (folder / f".bias.zarr.{digit * 32}" for digit in "ab")
    for scratch in (young, old):
        scratch.mkdir(parents=True)
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    monkeypatch.setattr(record, "datetime", Skewed)
    with monkeypatch.context() as patch:
        clock = time.time
        patch.setattr(time, "time", lambda: clock() + 86400 * days)
        files.sweep(str(folder / "bias.zarr"))
    assert (young.exists(), old.exists()) == (True, False)
    outcome = make_bias(repo, run, threads)
    assert outcome.complete
    assert 0 < outcome.seconds < 300
    assert_same(repo, run)


def test_two_clients_at_once_do_no_harm(repo, threads, monkeypatch):
    """Even when each takes the other for dead, both write the same shards, whole."""
    monkeypatch.setattr(exclusive, "lives", lambda *_: False)
    plan = bias_plan(repo, "u/both")
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: execute(open_repo(repo.root, writeable=True), plan, threads), range(2)))
    assert all(outcome.complete for outcome in both)
    assert_same(repo, "u/both")


@pytest.mark.cluster
def test_scheduler_lost(repo, threads, monkeypatch):
    """The scheduler goes away: the run stops with a reason, and another cluster does the rest."""
    monkeypatch.setattr(dispatch, "PATIENCE_S", 2.0)
    plan = bias_plan(repo, "u/lost")
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        client = Client(cluster.scheduler_address)
        gone = threading.Thread(target=cluster.close)

        def one_ended(outcome):
            if gone.ident is None:
                gone.start()
                gone.join()

        outcome = execute(repo, plan, client, options=Options(progress=one_ended))
        client.close(timeout=1)
    assert "scheduler" in outcome.stopped
    assert 1 <= assert_nothing_half_visible(repo.root, "u/lost") < 4
    assert execute(repo, plan, threads).complete
    assert_same(repo, "u/lost")

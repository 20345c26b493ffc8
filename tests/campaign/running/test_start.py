"""A cluster that has trouble at its start, and signals that come just then."""

import os
import signal
import subprocess
import sys
import time

import dask
import distributed  # noqa: F401 -- before its settings are changed
import pytest

from camcal_dask.campaign.cluster import workers
from camcal_dask.campaign.cluster.workers import Profile, connect
from camcal_dask.campaign.running.signals import Held
from camcal_dask.errors import ConfigError, RunError
from tests.services import wait_until

pytestmark = pytest.mark.timeout(240)

DIES = """
import os, signal, sys
from pathlib import Path
folder = Path({folder!r})
if "spawn_main" in Path("/proc/self/cmdline").read_text() and len(list(folder.iterdir())) < {times}:
    (folder / str(os.getpid())).touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def dying(tmp_path):
    """Make the first so many workers die as they start; return the folder of those that did."""

    def prepare(times):
        folder = tmp_path / "died"
        folder.mkdir()
        script = tmp_path / "dies.py"
        script.write_text(DIES.format(folder=str(folder), times=times))
        return folder, str(script)

    return prepare


@pytest.mark.cluster
def test_a_worker_lost_at_the_start_costs_a_try(dying):
    folder, script = dying(1)
    with (
        dask.config.set({"distributed.worker.preload": [script]}),
        connect(Profile(workers=1, memory_per_worker="1 GiB")) as client,
    ):
        assert client.submit(sum, [1, 2]).result() == 3
    assert len(list(folder.iterdir())) == 1


def test_workers_that_die_at_every_start_are_named(monkeypatch):
    tries = []

    def dying(**_):
        tries.append(1)
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr("distributed.LocalCluster", dying)
    with pytest.raises(RunError, match="one died at each of 3 attempts .*Nanny failed to start"), connect(Profile()):
        pass
    assert len(tries) == workers.START_TRIES


def test_memory_too_small_to_start_is_refused_before():
    with (
        pytest.raises(ConfigError, match=r"60 MiB for each of 1 workers are not enough .* 400 MiB are needed"),
        connect(Profile(workers=1, memory_per_worker="60 MiB")),
    ):
        pass


@pytest.mark.cluster
@pytest.mark.parametrize(("number", "to_group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_a_signal_during_the_start_ends_in_order(biases, dying, number, to_group):
    folder, script = dying(100)
    code = (
        "import signal, sys; from camcal_dask.cli import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); main(sys.argv[1:])"  # ignored behind a shell's &
    )
    arguments = ["run", "-b", biases, "-p", "TinyCam/bias.yaml", "-i", "TinyCam/raw/all",
                 "-o", f"u/start.{number.name}", "--cluster", "local", "-j", "1"]  # fmt: skip
    environment = {**os.environ, "DASK_DISTRIBUTED__WORKER__PRELOAD": repr([script])}
    started = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: list(folder.iterdir()) or started.poll() is not None, "worker that starts", 120)
        assert started.poll() is None, started.communicate()[0]
        (os.killpg if to_group else os.kill)(started.pid, number)
        text, _ = started.communicate(timeout=90)
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 128 + number, text
    assert f"interrupted by {number.name}" in text
    assert "Traceback" not in text
    assert "never retrieved" not in text


def test_signals_wait_and_come():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with Held() as held:
            os.kill(os.getpid(), signal.SIGTERM)
            assert (held.waiting, seen) == ([signal.SIGTERM], [])
            with held.let_through():
                assert seen == [signal.SIGTERM]
                os.kill(os.getpid(), signal.SIGTERM)
                assert seen == [signal.SIGTERM] * 2
            os.kill(os.getpid(), signal.SIGTERM)
            assert len(seen) == 2
        assert len(seen) == 3
    finally:
        signal.signal(signal.SIGTERM, before)


def test_processes_started_meanwhile_do_not_see_ctrl_c():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('lives')"
    with Held():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "lives"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "and we see it again"


def test_ctrl_c_is_held_too():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted(Held())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_library_of_a_batch_system_does_not_take_ctrl_c():
    code = (
        "import signal; from camcal_dask.campaign.cluster import backends; before = signal.getsignal(signal.SIGINT); "
        "backends._library('dask_jobqueue'); print(signal.getsignal(signal.SIGINT) is before)"
    )
    pytest.importorskip("dask_jobqueue", reason="pip install 'camcal_dask[jobqueue]'")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def interrupted(held):
    with held:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)  # where an interrupt would be seen
        with held.let_through():
            pytest.fail("must not get here")

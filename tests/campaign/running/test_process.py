"""Whose claim it is: a number of a process alone says nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from camcal_dask.campaign.past import attempts
from camcal_dask.campaign.running import exclusive, process
from camcal_dask.campaign.running.process import Process
from camcal_dask.errors import RunError
from camcal_dask.repo.storage import files

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux' /proc")


def stranger():
    """A process that lives, and is none of ours."""
    return Process(process.here().host, os.getppid(), "")


def test_text_is_read_back():
    me = process.here()
    assert process.parse(me.text) == me
    assert process.parse(f"12:{me.host}") == Process(me.host, 12)  # of earlier versions
    for garbage in ("", "x", "12", "12:", "x:y", "-1::host", ":::", "\x00"):
        assert process.parse(garbage) is None


def test_a_process_lives_only_if_it_is_the_same():
    me = process.here()
    assert me.lives() is True
    boot, namespace, start = me.mark.split("/")
    assert Process(me.host, me.pid, f"{boot}/{namespace}/{int(start) + 1}").lives() is False, "number used again"
    assert Process(me.host, me.pid, f"other/{namespace}/{start}").lives() is None, "another boot, or another machine"
    assert Process(me.host, me.pid, f"{boot}/1/{start}").lives() is None, "another container of the same name"
    assert Process("elsewhere", me.pid, me.mark).lives() is None


def test_a_zombie_does_not_live():
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    one = Process(process.here().host, child.pid)
    assert one.lives() is True
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, nobody has asked yet
    assert one.lives() is False
    child.communicate()
    assert one.lives() is False


@pytest.fixture
def attempt(tmp_path):
    return attempts.open_attempt(str(tmp_path), "u/run", "bias")


def stand(attempt, text):
    files.seize(claim_of(attempt), text)


def claim_of(attempt):
    return files.join(files.parent(attempt), "claim-bias")


def test_a_number_used_again_locks_nothing(attempt):
    me = process.here()
    where = me.mark.rpartition("/")[0]
    stand(attempt, "0001-bias-x:" + Process(me.host, os.getppid(), f"{where}/1").text)
    with exclusive.alone(attempt, "bias"):
        pass


def test_another_boot_is_judged_by_its_progress(attempt, monkeypatch):
    monkeypatch.setattr(exclusive, "PATIENCE_S", 0.05)
    monkeypatch.setattr(exclusive, "WRITE_S", 0.04)
    me = process.here()
    other = files.join(files.parent(attempt), "0001-bias-x")
    stand(attempt, "0001-bias-x:" + Process(me.host, me.pid, "boot/1/2").text)
    beats = iter(range(100))

    def progress(asked):
        assert asked == other
        return {"beat": next(beats)}

    monkeypatch.setattr(attempts, "read_progress", progress)
    with pytest.raises(RunError, match="another client works"), exclusive.alone(attempt, "bias"):
        pass
    monkeypatch.setattr(attempts, "read_progress", lambda _: None)  # silent, or its file is damaged
    with exclusive.alone(attempt, "bias"):
        pass


def test_the_refusal_names_the_remedy(attempt):
    stand(attempt, "0001-bias-x:" + stranger().text)
    with pytest.raises(RunError) as caught, exclusive.alone(attempt, "bias"):
        pass
    text = str(caught.value)
    assert f"process {os.getppid()} on {process.here().host}" in text
    assert f"remove {claim_of(attempt)}" in text
    files.remove(claim_of(attempt))
    with exclusive.alone(attempt, "bias"):
        pass


@pytest.mark.parametrize("garbage", ["", "garbage", "0001-bias-x:pid:host", "a:b", "0001-bias-x:7"])
def test_a_claim_that_cannot_be_read_is_nobodys(attempt, garbage):
    path = Path(claim_of(attempt))
    path.parent.mkdir(parents=True)
    if garbage:
        path.symlink_to(garbage)
    else:
        path.write_bytes(b"\xff\x00")  # not even a link
    with exclusive.alone(attempt, "bias"):
        assert process.parse(files.claimed(str(path)).partition(":")[2]) == process.here()
    assert files.claimed(str(path)) is None

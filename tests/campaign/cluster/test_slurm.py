"""A calibration on a real SLURM (`tests.services`): jobs are submitted, run, and end with the command."""

import ipaddress
import os
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import yaml
from click.testing import CliRunner
from distributed.utils import get_ip_interface

from camcal_dask.campaign.cluster.profile import LOOPBACK
from camcal_dask.campaign.cluster.workers import connect, load_profile
from camcal_dask.cli import main
from camcal_dask.repo.butler.repository import open_repo
from camcal_dask.simulation import bias_set, simulate
from tests.services import wait_until

DAY = 20260812

pytestmark = pytest.mark.cluster


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def queue():
    """Jobs that run or wait."""
    found = subprocess.run(["squeue", "-h", "-t", "RUNNING,PENDING"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


@pytest.fixture
def profile(slurm, tmp_path):
    values = {
        "kind": "slurm", "workers": 2, "memory_per_worker": "2 GiB", "scratch_directory": str(tmp_path / "scratch"),
        "startup_timeout": "3 minutes",
        "jobs": {
            "queue": "test", "walltime": "00:30:00", "retire_before": "2 minutes", "workers_per_job": 2,
            "log_directory": str(tmp_path / "logs"), "interface": "lo",
            "prologue": [f"export PYTHONPATH={Path(__file__).parents[3]}"],
            "options": {"job_directives_skip": ["--mem"]},
        },
    }  # fmt: skip
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_bias_through_slurm(profile, tmp_path):
    simulate(tmp_path / "raw", "TinyCam", bias_set(4, DAY, contaminated_first=True), [0, 1])
    root = tmp_path / "repo"
    camcal("create", root, "--instrument", "TinyCam")
    camcal("ingest", root, tmp_path / "raw", "--cluster", "threads")
    run = ["run", "-b", root, "-p", "TinyCam/bias.yaml", "-i", "TinyCam/raw/all", "-d", "exposure.seq_num > 1"]
    assert "2 done" in camcal(*run, "-o", "u/slurm", "--cluster", profile)
    camcal(*run, "-o", "u/here", "--cluster", "threads")
    with open_repo(root) as repo:
        for name in ("image", "variance", "mask"):
            there, here = (repo.open("bias", run=r)[name].values for r in ("u/slurm", "u/here"))
            np.testing.assert_array_equal(there, here)
    logs = list((tmp_path / "logs").glob("*.out"))
    assert logs
    assert not queue()
    checked = camcal("cluster", "check", profile, root)
    assert "2 of 2 are there" in checked
    assert "MB/s read" in checked


def other_interface():
    """Name of a network interface that is not the loopback one; "" if there is none."""
    there = {
        name: [a.address for a in found if a.family == socket.AF_INET] for name, found in psutil.net_if_addrs().items()
    }
    return next(
        (n for n, found in sorted(there.items()) if found and not ipaddress.ip_address(found[0]).is_loopback), ""
    )


def test_without_an_interface_the_scheduler_listens_at_one_address(profile):
    profile.write_text(profile.read_text().replace("  interface: lo\n", ""))
    before = listeners(os.getpid())
    with connect(load_profile(str(profile))) as client:
        client.wait_for_workers(2, timeout=180)
        scheduler = urlsplit(client.scheduler.address)
        found = listeners(os.getpid()) - before
    assert {ip for ip, port in found if port == scheduler.port} == {scheduler.hostname}, found
    assert {ip for ip, _ in found} <= {scheduler.hostname, LOOPBACK}, found


@pytest.mark.parametrize("interface", ["lo", "another"])
def test_everything_listens_on_the_interface_of_the_profile(profile, interface):
    """Scheduler, workers and nannies there, HTTP servers on the loopback interface, on this host and in the jobs."""
    if interface == "another":
        if not (interface := other_interface()):
            pytest.skip("this machine has no other interface than the loopback one")
        profile.write_text(profile.read_text().replace("interface: lo", f"interface: {interface}"))
    before = listeners(os.getpid())
    with connect(load_profile(str(profile))) as client:
        client.wait_for_workers(2, timeout=180)
        kinds = {"scheduler": {client.scheduler.address}, "HTTP": {client.dashboard_link}}
        info = client.scheduler_info(n_workers=-1)["workers"]
        kinds |= {"workers": set(info), "nannies": {worker["nanny"] for worker in info.values()}}
        ports = {kind: {urlsplit(address).port for address in found} for kind, found in kinds.items()}
        ports["HTTP"] |= {worker["services"]["dashboard"] for worker in info.values()}
        jobs = client.run(os.getpid, nanny=True)
        pids = [os.getpid(), *jobs.values()]
        found = set().union(*map(listeners, pids)) - before
    assert {port for _, port in found} >= set().union(*ports.values()), (ports, found)
    here = get_ip_interface(interface)
    assert {port for ip, port in found if ip == here} >= set().union(*(ports[k] for k in ("scheduler", "workers")))
    assert {ip for ip, port in found if port in ports["HTTP"]} == {LOOPBACK}, (ports, found)
    assert {ip for ip, _ in found} <= {here, LOOPBACK}, found


def listeners(pid):
    """Addresses and ports on which a process and its children listen."""
    process = psutil.Process(pid)
    every = [c for p in (process, *process.children(recursive=True)) for c in p.net_connections("inet")]
    return {(c.laddr.ip, c.laddr.port) for c in every if c.status == psutil.CONN_LISTEN}


def test_a_job_that_dies_at_its_start_is_explained(profile, tmp_path):
    values = yaml.safe_load(profile.read_text())
    values["startup_timeout"] = "10 s"
    values["jobs"]["prologue"] = ["exit 1"]
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(main, ["cluster", "check", str(path)])
    assert result.exit_code == 1
    assert "no worker of the slurm cluster came within 10 s" in result.output + result.stderr
    # the client goes on, and nothing of the broken cluster is left in the queue
    wait_until(lambda: not queue(), "empty queue")
    assert "2 of 2 are there" in camcal("cluster", "check", profile)

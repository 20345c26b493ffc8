"""Who listens where: everything on the loopback interface, unless a profile says otherwise."""

import ipaddress
import socket
import urllib.request

import psutil
import pytest

from camcal_dask.campaign.cluster.backends import job_arguments
from camcal_dask.campaign.cluster.check import local_findings
from camcal_dask.campaign.cluster.profile import LOOPBACK, JobsConfig, Profile
from camcal_dask.campaign.cluster.workers import connect


def listeners():
    """Addresses on which this process and its children listen."""
    me = psutil.Process()
    found = [(p.pid, c) for p in (me, *me.children(recursive=True)) for c in p.net_connections("inet")]
    return {(pid, c.laddr.ip, c.laddr.port) for pid, c in found if c.status == psutil.CONN_LISTEN}


def started_by(profile):
    before = listeners()
    with connect(profile) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        with urllib.request.urlopen(client.dashboard_link, timeout=20) as answer:  # it is where it is said to be
            assert answer.status == 200
        return {ip for _, ip, _ in listeners() - before}


@pytest.mark.parametrize("kind", ["threads", pytest.param("local", marks=pytest.mark.cluster)])
def test_local_profiles_listen_on_the_loopback_interface_only(kind):
    found = started_by(Profile(kind=kind, workers=1, memory_per_worker="1 GiB"))
    assert found
    assert all(ipaddress.ip_address(ip).is_loopback for ip in found), found


def test_a_profile_may_say_otherwise():
    assert "0.0.0.0" in started_by(Profile(kind="threads", workers=1, memory_per_worker="1 GiB", listen="0.0.0.0"))


def test_the_dashboard_of_a_repository_is_announced_where_it_listens():
    serve = pytest.importorskip("camcal_dask.dashboard.serve", reason="needs bokeh")
    assert serve.host_of("127.0.0.1") == "127.0.0.1"
    assert serve.host_of("::1") == "[::1]"
    assert serve.host_of("0.0.0.0") == socket.gethostname()


def test_batch_jobs_keep_their_http_servers_to_themselves():
    jobs = JobsConfig(walltime="01:00:00")
    profile = Profile(kind="slurm", workers=2, memory_per_worker="4 GiB", jobs=jobs)
    arguments = job_arguments(profile)
    assert arguments["scheduler_options"]["dashboard_address"] == f"{LOOPBACK}:0"
    extra = arguments["worker_extra_args"]
    assert extra[extra.index("--dashboard-address") + 1] == f"{LOOPBACK}:0"
    assert "--lifetime" in extra
    assert "workers listen on all interfaces: set jobs.interface" in " ".join(
        f.text for f in local_findings(profile, None)
    )
    narrow = profile.model_copy(update={"jobs": JobsConfig(walltime="01:00:00", interface="lo")})
    assert "interfaces" not in " ".join(f.text for f in local_findings(narrow, None))

"""Real servers for the tests, each private to the session and skipped with a reason where it is not installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    """Port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], patience_s: float = 60.0) -> None:
    """Return when something listens there."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        assert process.poll() is None, f"{process.args}: ended with {process.returncode}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{process.args}: nothing listens on port {port} after {patience_s} s")


@contextlib.contextmanager
def as_nobody(*folders: Path) -> Iterator[None]:
    """Be a user without rights while the block lasts, who may look into the folders; import beforehand."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user, which only root may")
    prefix = Path(sys.prefix).resolve()
    if closed := [path for path in (prefix, *prefix.parents) if not path.stat().st_mode & 0o001]:
        pytest.skip(f"the Python environment lies in {closed[0]}, which other users may not enter")
    for folder in folders:
        for path in (folder, *folder.parents):
            path.chmod(path.stat().st_mode | 0o011)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# ---------------------------------------------------------------------------- PostgreSQL


def _postgres_binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
    if not found:
        pytest.skip("no PostgreSQL server in /usr/lib/postgresql (Debian: apt-get install postgresql)")
    return found[-1].parent


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[tuple[str, list[str]]]:
    """(socket folder, command prefix of the server's user) of a running PostgreSQL."""
    pytest.importorskip("psycopg2", reason="pip install 'camcal_dask[postgres]'")
    binaries = _postgres_binaries()
    prefix: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        if shutil.which("runuser") is None or subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("running as root without runuser or a user 'postgres'")
        prefix = ["runuser", "-u", "postgres", "--"]
    # Socket paths are limited to 107 characters and the user must reach the folder: not below tmp_path.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    if prefix:
        shutil.chown(folder, "postgres")

    def run(*command: str | Path) -> None:
        subprocess.run([*prefix, *map(str, command)], check=True, capture_output=True, cwd="/", timeout=60)

    control = binaries / "pg_ctl"
    options = f"-c listen_addresses='' -k {folder} -c fsync=off"
    try:
        run(binaries / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust")
        run(control, "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
        yield str(folder), [*prefix, str(binaries / "psql"), "-h", str(folder), "-U", "postgres"]
    finally:
        subprocess.run(
            [*prefix, str(control), "-D", str(folder / "data"), "-m", "immediate", "stop"], capture_output=True, cwd="/"
        )
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_database(postgres_server: tuple[str, list[str]]) -> Callable[..., str]:
    """Make a database of a name and return its URL; ``extension=False`` leaves btree_gist out."""
    folder, psql = postgres_server

    def make(name: str, *, extension: bool = True) -> str:
        subprocess.run([*psql, "-c", f"CREATE DATABASE {name}"], check=True, capture_output=True, cwd="/")
        if extension:
            command = [*psql, "-d", name, "-c", "CREATE EXTENSION btree_gist"]
            subprocess.run(command, check=True, capture_output=True, cwd="/")
        return f"postgresql://postgres@/{name}?host={folder}"

    return make


# ---------------------------------------------------------------------------- S3


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Endpoint of a server process that speaks S3 (moto)."""
    for module in ("moto", "flask", "obstore", "boto3"):
        pytest.importorskip(module, reason="pip install 'camcal_dask[test]'")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """``s3://bucket`` of a fresh bucket; the endpoint is in the environment, the credentials in the standard file."""
    import boto3

    from camcal_dask.repo.storage import objects

    for name in [n for n in os.environ if n.startswith(("AWS_", "S3_"))]:
        monkeypatch.delenv(name)
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = camcal\naws_secret_access_key = not-to-be-seen\n")
    values = {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (values | dict.fromkeys(("AWS_ENDPOINT_URL", "S3_ENDPOINT_URL"), s3_server)).items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{free_port()}"
    boto3.client("s3").create_bucket(Bucket=name)
    objects._store.cache_clear()
    yield f"s3://{name}"
    objects._store.cache_clear()


# ---------------------------------------------------------------------------- SLURM

_SLURM_CONF = """
ClusterName=camcal
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def slurm() -> Iterator[Path]:
    """Folder of a private single-node SLURM; ``SLURM_CONF`` points to it while the fixture lives."""
    for program in ("slurmctld", "slurmd", "munged", "sbatch"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            pytest.skip(f"no {program} (Debian: apt-get install slurm-wlm munge)")
    if os.getuid() != 0:
        pytest.skip("a SLURM of its own needs root")
    pytest.importorskip("dask_jobqueue", reason="pip install 'camcal_dask[jobqueue]'")
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    conf.write_text(
        _SLURM_CONF.format(host=host, folder=folder, port=free_port(), node_port=free_port(), cpus=os.cpu_count())
    )
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    folder.chmod(0o755)
    munge = [
        "munged", "--force", "--foreground", f"--socket={folder}/munge.socket", f"--key-file={key}",
        f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed",
    ]  # fmt: skip
    env = {**os.environ, "SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    started = []

    def start(*command: str) -> None:
        log = (folder / f"{command[0]}.out").open("w")
        started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))

    before = os.environ.get("SLURM_CONF")
    try:
        start(*munge)
        wait_until(lambda: (folder / "munge.socket").exists(), "munged")
        start("slurmctld", "-D", "-f", str(conf))
        start("slurmd", "-D", "-f", str(conf), "-N", host)
        os.environ["SLURM_CONF"] = str(conf)
        wait_until(lambda: "idle" in _sinfo(env), f"node of SLURM in {folder}")
        yield folder
    finally:
        os.environ.pop("SLURM_CONF", None)
        if before is not None:
            os.environ["SLURM_CONF"] = before
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _sinfo(env: dict[str, str]) -> str:
    return subprocess.run(["sinfo", "-h", "-o", "%T"], env=env, capture_output=True, text=True, check=False).stdout


def wait_until(condition: Callable[[], object], what: str, patience_s: float = 60.0) -> None:
    """Return when the condition holds."""
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} after {patience_s} s")
        time.sleep(0.2)


# ---------------------------------------------------------------------------- Dask Gateway

_GATEWAY_CONF = """
from dask_gateway_server.options import Integer, Options
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.DaskGateway.address = "127.0.0.1:{api}"
c.Proxy.address = "127.0.0.1:{http}"
c.Backend.cluster_options = Options(Integer("threads", 1, target="worker_cores"))
c.LocalBackend.clusters_directory = "{folder}/clusters"
c.ClusterConfig.scheduler_cmd = ["{python}", "-m", "distributed.cli.dask_scheduler"]
c.ClusterConfig.worker_cmd = ["{python}", "-m", "distributed.cli.dask_worker"]
"""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def dask_gateway_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Dask Gateway that starts its workers as processes of this machine."""
    for module in ("dask_gateway", "dask_gateway_server", "sqlalchemy"):
        pytest.importorskip(module, reason="pip install 'camcal_dask[test]'")
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "clusters").mkdir(mode=0o700)
    http, api = free_port(), free_port()
    (folder / "config.py").write_text(_GATEWAY_CONF.format(folder=folder, python=sys.executable, http=http, api=api))
    command = [sys.executable, "-m", "dask_gateway_server", "-f", str(folder / "config.py")]
    log = (folder / "log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        wait_for_port(http, process)
        wait_until(lambda: _answers(f"http://127.0.0.1:{http}/api/health"), "gateway")
        yield f"http://127.0.0.1:{http}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()

"""Cluster profiles as data (``cluster/*.yaml``): what kind of workers, how many, how large, for how long."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from dask.utils import parse_bytes, parse_timedelta
from pydantic import Field

from camcal_dask.campaign.planning.shipped import shipped
from camcal_dask.config import Config, UserPath, expanded, load_config, read_yaml
from camcal_dask.errors import ConfigError, nearest
from camcal_dask.redact import SECRET, redacted

MEMORY_SHARE = 0.8
"""Part of the machine's memory that workers may use together."""
SITE_PROFILES = "CAMCAL_CLUSTER_PATH"
"""Variable that names folders of a site's or user's own profiles; ``~/.config/camcal/cluster`` is searched too."""
LOOPBACK = "127.0.0.1"
JOB_QUEUES = ("slurm", "pbs", "lsf", "htcondor")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Freed buffers of an amp are used again, in large pages (glibc; ignored elsewhere).  dask's nanny would give all above
128 kB back at once; measured on the simulation of 20 files: 14 s of system time instead of 3, a third longer."""


def seconds(text: str) -> float:
    """Seconds of a time: ``10 minutes``, ``1 h``, or a walltime ``HH:MM``, ``HH:MM:SS``, ``D-HH:MM:SS``.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    try:
        if ":" not in text:
            return float(parse_timedelta(text))
        days, _, clock = text.rpartition("-")
        hours, minutes, *rest = (int(part) for part in clock.split(":"))
        return 86400.0 * int(days or 0) + 3600.0 * hours + 60.0 * minutes + sum(rest[:1])
    except (KeyError, ValueError):
        raise ValueError("expected a time such as 10 minutes, 1 h or 04:00:00") from None


def _time(text: str) -> str:
    seconds(text)
    return text


Time = Annotated[str, pydantic.AfterValidator(_time)]
"""A time as people write it; `seconds` reads it."""


class AdaptiveConfig(Config):
    """Follow the work: workers come and go between these numbers."""

    minimum: int = Field(0, ge=0)
    maximum: int = Field(ge=1)


class JobsConfig(Config):
    """One job of a batch system (dask-jobqueue)."""

    queue: str | None = None
    """Queue or partition."""
    account: str | None = None
    """Account or project that is charged."""
    walltime: Time | None = None
    """Longest life of a job, ``HH:MM:SS``; not for htcondor."""
    retire_before: Time = "10 minutes"
    """Workers hand their work over and leave this long before the walltime ends."""
    workers_per_job: int = Field(1, ge=1)
    interface: str | None = None
    """Network interface of the workers, such as ``ib0``."""
    scheduler_interface: str | None = None
    """Network interface of the scheduler, which runs beside the client; default: that of the workers."""
    directives: tuple[str, ...] = ()
    """More lines of the job script, such as ``--constraint=milan``."""
    prologue: tuple[str, ...] = ()
    """Shell lines that run before the workers start, such as ``module load python``."""
    log_directory: UserPath | None = None
    python: UserPath | None = None
    """Interpreter of the workers; default: that of the client."""
    options: dict[str, Any] = {}
    """Further arguments of the dask-jobqueue class, by its names."""


class KubernetesConfig(Config):
    """Pods of the dask-kubernetes operator."""

    image: str
    """Container image in which this package is installed."""
    namespace: str = "default"
    name: str = "camcal"
    idle_timeout: Time = "1 h"
    """The scheduler ends the cluster after this time without work."""
    scratch_size: str = "20Gi"
    """Of the volume that each pod gets for ``scratch_directory``."""
    service_account: str | None = None
    """Gives the pods access to object storage."""


class GatewayConfig(Config):
    """Clusters of a Dask Gateway."""

    address: str
    proxy_address: str | None = None
    auth: Literal["basic", "kerberos", "jupyterhub"] = "basic"
    """Passwords and tokens come from the environment, as dask-gateway documents."""
    options: dict[str, Any] = {}
    """Cluster options that the gateway's administrators offer."""


class Profile(Config):
    """A cluster profile; all kinds have the same keys, and a section of their own."""

    kind: Literal["threads", "local", "address", "slurm", "pbs", "lsf", "htcondor", "kubernetes", "gateway"] = "local"
    workers: int | Literal["auto"] = "auto"
    """Number of workers; ``auto`` is one a core of this machine (threads, local)."""
    adaptive: AdaptiveConfig | None = None
    """Let the number of workers follow the work, instead of ``workers``."""
    threads_per_worker: int = Field(1, ge=1)
    memory_per_worker: str = "auto"
    """Limit of one worker, such as ``"4 GiB"``; ``auto`` shares 80 % of this machine (threads, local)."""
    scratch_directory: UserPath | None = None
    """Local folder of each worker, for what it spills."""
    kernel_cache_directory: UserPath | None = None
    """Where compiled kernels are kept (numba); default: beside the package, or in the home of the user."""
    environment: dict[str, str] = {}
    """Variables of the workers; no secrets: workers take these from their own environment or files."""
    startup_timeout: Time = "10 minutes"
    """Patience with the first worker."""
    address: str | None = None
    """Scheduler of a running cluster, for ``kind: address``."""
    listen: str = LOOPBACK
    """Address on which dashboards and the HTTP servers of workers listen, and with ``local`` scheduler and workers too.
    Whoever reaches a scheduler can run programs as you: anything but the loopback address is for closed networks."""
    jobs: JobsConfig | None = None
    kubernetes: KubernetesConfig | None = None
    gateway: GatewayConfig | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> Profile:
        section = "jobs" if self.kind in JOB_QUEUES else self.kind
        for name in ("jobs", "kubernetes", "gateway", "address"):
            given = getattr(self, name) is not None
            if given and name != section:
                raise ValueError(f"{name} is given, but kind is {self.kind}")
            if not given and name == section:
                raise ValueError(f"kind {self.kind} needs the key {name}")
        if self.adaptive is not None and self.kind in ("threads", "address"):
            raise ValueError(f"kind {self.kind} has a fixed number of workers; leave adaptive out")
        if self.remote:
            self._check_remote()
        if secret := next((n for n in self.environment if SECRET.search(n)), None):
            raise ValueError(
                f"environment.{secret} looks like a credential, which would be written to provenance; set it where "
                "the workers start (job prologue, image, pod secret) or use the standard files"
            )
        return self

    def _check_remote(self) -> None:
        if self.workers == "auto" and self.adaptive is None:
            raise ValueError(f"kind {self.kind} needs workers: a number, or adaptive: {{minimum, maximum}}")
        if self.kind != "gateway" and self.memory_per_worker == "auto":
            raise ValueError(f"kind {self.kind} needs memory_per_worker, such as 8 GiB")
        lifetime = self.lifetime_s()
        if lifetime is not None and lifetime <= 0:
            assert self.jobs is not None
            raise ValueError(
                f"jobs.retire_before ({self.jobs.retire_before}) leaves nothing of the walltime {self.jobs.walltime}"
            )

    @property
    def remote(self) -> bool:
        """Whether the workers run on other machines that this profile starts."""
        return self.kind not in ("threads", "local", "address")

    def n_workers(self) -> int:
        """Return the number of workers, the largest if it follows the work."""
        if self.adaptive is not None:
            return self.adaptive.maximum
        return cores() if self.workers == "auto" else self.workers

    def worker_memory_bytes(self) -> int:
        """Return the memory limit of one worker [byte]."""
        if self.memory_per_worker != "auto":
            return int(parse_bytes(self.memory_per_worker))
        processes = 1 if self.kind == "threads" else self.n_workers()
        return int(MEMORY_SHARE * _machine_memory_bytes() / processes)

    def task_memory_bytes(self) -> int:
        """Return the memory that one task may use [byte]: tasks of a worker run side by side."""
        threads = self.n_workers() if self.kind == "threads" else self.threads_per_worker
        return self.worker_memory_bytes() // threads

    def lifetime_s(self) -> float | None:
        """Seconds after which a worker of a batch job retires; None if it has no walltime."""
        if self.jobs is None or self.jobs.walltime is None:
            return None
        return seconds(self.jobs.walltime) - seconds(self.jobs.retire_before)

    def worker_environment(self) -> dict[str, str]:
        """Variables that every worker gets: one thread per library, memory, compiled kernels, the profile's own."""
        variables = dict.fromkeys(_ONE_THREAD, "1") | _MEMORY
        if self.kernel_cache_directory:
            variables["NUMBA_CACHE_DIR"] = self.kernel_cache_directory
        return {**variables, **self.environment}


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine_memory_bytes() -> int:
    from distributed.system import MEMORY_LIMIT  # honours cgroup limits

    return int(MEMORY_LIMIT)


def profile_folders() -> list[Path]:
    """Folders that are searched for profiles, in order: the site's, the user's, the package's."""
    folders = [Path(expanded(text)) for text in os.environ.get(SITE_PROFILES, "").split(os.pathsep) if text]
    folders.append(Path(expanded(os.environ.get("XDG_CONFIG_HOME", "~/.config"))) / "camcal" / "cluster")
    package = shipped("cluster", "")
    return [folder for folder in (*folders, package) if folder is not None and _is_folder(folder)]


def _is_folder(path: Path) -> bool:
    """Whether it is one that may be looked into: the home of another user (su, containers) may not."""
    try:
        return path.is_dir()
    except OSError:
        return False


def profile_names() -> dict[str, Path]:
    """All profiles by name; the first folder that has a name wins."""
    found: dict[str, Path] = {}
    for folder in profile_folders():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def load_profile(spec: str, processes: int | None = None) -> Profile:
    """Read a profile: a name, a YAML file, or the address of a scheduler.

    Parameters
    ----------
    spec : str
        ``"local"``, ``"threads"``, another name in `profile_folders`, a path, or ``tcp://host:port``.
    processes : int, optional
        Number of workers, replacing the profile's.

    Raises
    ------
    ConfigError
        If there is no such profile or its keys are not valid.
    """
    if "://" in spec:
        return Profile(kind="address", address=spec)
    spec, names = expanded(spec), profile_names()
    path = Path(spec) if spec.endswith((".yaml", ".yml")) and Path(spec).exists() else names.get(_stem(spec))
    if path is None:
        raise ConfigError(
            f"no cluster profile {redacted(spec)!r}{nearest(spec, names)} (or give a YAML file or tcp://host:port)"
        )
    values = read_yaml(path)
    if processes is not None:
        values = {**values, "workers": processes, "adaptive": None}
    return load_config(Profile, values, str(path))


def _stem(spec: str) -> str:
    return Path(spec).name.removesuffix(".yaml").removesuffix(".yml")

"""Where a run is run: cluster profiles (``cluster/*.yaml``) and the dask client they make."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from dask.utils import parse_bytes

from camcal_dask.campaign.shipped import shipped
from camcal_dask.config import Config, load_config
from camcal_dask.errors import ConfigError, nearest

if TYPE_CHECKING:
    from distributed import Client

CONNECT_TIMEOUT_S = 10
"""Patience with a scheduler that does not answer."""
MEMORY_SHARE = 0.8
"""Part of the machine's memory that workers may use together."""


class Profile(Config):
    """A cluster profile: what kind of workers, how many, how large."""

    kind: Literal["threads", "local", "address"] = "local"
    workers: int | Literal["auto"] = "auto"
    """Number of workers; ``auto`` is one a core."""
    threads_per_worker: int = 1
    memory_per_worker: str = "auto"
    """Limit of one worker, such as ``"4 GiB"``; ``auto`` shares 80 % of the machine."""
    scratch_directory: str | None = None
    address: str | None = None
    """Scheduler of a running cluster, for ``kind: address``."""

    def n_workers(self) -> int:
        """Return the number of workers."""
        return _cores() if self.workers == "auto" else self.workers

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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine_memory_bytes() -> int:
    from distributed.system import MEMORY_LIMIT  # honours cgroup limits

    return int(MEMORY_LIMIT)


def load_profile(spec: str, processes: int | None = None) -> Profile:
    """Read a profile: a shipped name, a YAML file, or the address of a scheduler.

    Parameters
    ----------
    spec : str
        ``"local"``, ``"threads"``, a path, or ``tcp://host:port``.
    processes : int, optional
        Number of workers, replacing the profile's.

    Raises
    ------
    ConfigError
        If there is no such profile or its keys are not valid.
    """
    if "://" in spec:
        return Profile(kind="address", address=spec)
    path = shipped("cluster", spec if spec.endswith((".yaml", ".yml")) else f"{spec}.yaml")
    if path is None:
        folder = shipped("cluster", "")
        names = [p.stem for p in folder.glob("*.yaml")] if folder else []
        raise ConfigError(f"no cluster profile {spec!r}{nearest(spec, names)} (or give a YAML file or tcp://host:port)")
    values: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    profile = load_config(Profile, values, str(path))
    return profile if processes is None else profile.model_copy(update={"workers": processes})


@contextlib.contextmanager
def connect(profile: Profile) -> Iterator[Client]:
    """Start (or reach) the workers of a profile and yield a client; local workers end with the block.

    Raises
    ------
    ConfigError
        If the scheduler of an ``address`` profile does not answer.
    """
    import dask
    from distributed import Client, LocalCluster

    settings: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": 3,
        # Large pages for the buffers of a detector: ingest spends 9 % less.  glibc only; ignored elsewhere.
        "distributed.nanny.pre-spawn-environ.GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
    if profile.scratch_directory:
        Path(profile.scratch_directory).mkdir(parents=True, exist_ok=True)
    with dask.config.set(settings):
        if profile.kind == "address":
            with _reach(profile) as client:
                yield client
            return
        threads = profile.kind == "threads"
        with (
            LocalCluster(
                n_workers=1 if threads else profile.n_workers(),
                threads_per_worker=profile.n_workers() if threads else profile.threads_per_worker,
                processes=not threads,
                memory_limit=profile.worker_memory_bytes(),
                local_directory=profile.scratch_directory,
                dashboard_address="127.0.0.1:0",
                host=None if threads else "127.0.0.1",
                silence_logs=logging.CRITICAL,  # quanta report their own failures; shutdown is not one
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client


def _reach(profile: Profile) -> Client:
    from distributed import Client

    try:
        return Client(profile.address, timeout=CONNECT_TIMEOUT_S)
    except OSError as error:
        raise ConfigError(f"no dask scheduler answers at {profile.address} ({error}); is the cluster up?") from None

"""The dask client of a profile (`camcal_dask.campaign.cluster.profile`)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camcal_dask.campaign.cluster import backends
from camcal_dask.campaign.cluster.profile import JOB_QUEUES, LOOPBACK, Profile, load_profile, seconds
from camcal_dask.campaign.running import faults
from camcal_dask.campaign.running.signals import Held
from camcal_dask.errors import ConfigError, RunError
from camcal_dask.redact import redacted

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

__all__ = ["Profile", "connect", "load_profile"]

START_TRIES = 3
"""Starts of a cluster on this machine, in which a worker may be lost."""
LEAST_WORKER_BYTES = 400 * 2**20
"""Below this, dask holds a worker back (80 % in use) or kills it (95 %) before it does anything: 270 MiB are measured
for one that has imported what it needs."""
CONNECT_TIMEOUT_S = 10
"""Patience with a scheduler that does not answer."""


@contextlib.contextmanager
def connect(profile: Profile) -> Iterator[Client]:
    """Start (or reach) the workers of a profile and yield a client; what was started ends with the block.

    Raises
    ------
    ConfigError
        If the cluster cannot be started, or the scheduler of an ``address`` profile does not answer.
    RunError
        If no worker comes within ``startup_timeout``, or local ones die at every start.
    """
    import dask
    import distributed  # noqa: F401 -- its defaults must be there first: what is set before them is lost with the block

    settings: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": 3,
        **{f"distributed.nanny.pre-spawn-environ.{n}": v for n, v in profile.worker_environment().items()},
    }
    if profile.listen == LOOPBACK and profile.kind in ("threads", "local", *JOB_QUEUES):
        # dask would name the scheduler's host, where the dashboard does not listen.
        link = dask.config.get("distributed.dashboard.link")
        settings["distributed.dashboard.link"] = link.replace("{host}", LOOPBACK)
    makers = {"address": _reach, "threads": _local, "local": _local}
    with dask.config.set(settings), makers.get(profile.kind, _started)(profile) as client:
        yield client


@contextlib.contextmanager
def _local(profile: Profile) -> Iterator[Client]:
    from distributed import Client

    if profile.scratch_directory:
        Path(profile.scratch_directory).mkdir(parents=True, exist_ok=True)
    if profile.kind == "local" and profile.worker_memory_bytes() < LEAST_WORKER_BYTES:
        raise ConfigError(
            f"{profile.worker_memory_bytes() / 2**20:.0f} MiB for each of {profile.n_workers()} workers are not enough "
            f"to start one: {LEAST_WORKER_BYTES / 2**20:.0f} MiB are needed; use fewer workers (-j) or set "
            "memory_per_worker"
        )
    if profile.kind == "local":
        resource_tracker.ensure_running()  # now: when it starts, it unblocks what `Held` blocks
    with Held() as held, _cluster(profile, held) as cluster:
        if profile.adaptive is not None:
            cluster.adapt(minimum=profile.adaptive.minimum, maximum=profile.adaptive.maximum)
        with Client(cluster) as client, held.let_through():
            yield client


def _cluster(profile: Profile, held: Held) -> LocalCluster:
    """Cluster on this machine; a worker that dies at its start costs a try."""
    from distributed import LocalCluster

    threads = profile.kind == "threads"
    n_workers = profile.adaptive.minimum if profile.adaptive else profile.n_workers()
    for attempt in range(1, START_TRIES + 1):
        try:
            return LocalCluster(
                n_workers=1 if threads else n_workers,
                threads_per_worker=profile.n_workers() if threads else profile.threads_per_worker,
                processes=not threads,
                memory_limit=profile.worker_memory_bytes(),
                local_directory=profile.scratch_directory,
                dashboard_address=f"{profile.listen}:0",
                worker_dashboard_address=f"{profile.listen}:0",
                host=None if threads else profile.listen,
                silence_logs=logging.CRITICAL,  # quanta report their own failures; shutdown is not one
            )
        except (RuntimeError, OSError, TimeoutError) as error:
            if attempt == START_TRIES or held.waiting:
                raise RunError(
                    f"no workers: one died at each of {attempt} attempts to start them ({faults.reason(error)}); is "
                    f"there enough memory for "
                    f"{n_workers} workers, and can they write to their scratch folder (scratch_directory)? fewer: -j"
                ) from error
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _started(profile: Profile) -> Iterator[Client]:
    """Client of a cluster elsewhere, when its first worker has come."""
    from distributed import Client

    with backends.start(profile) as cluster, Client(cluster) as client:
        try:
            if profile.adaptive is None or profile.adaptive.minimum > 0:
                client.wait_for_workers(1, timeout=seconds(profile.startup_timeout))
        except TimeoutError:
            raise RunError(
                f"no worker of the {profile.kind} cluster came within {profile.startup_timeout}: is the queue full, or "
                "does a worker die when it starts?  camcal cluster render shows the job; the job's log says why; "
                "startup_timeout in the profile says how long to wait"
            ) from None
        yield client


@contextlib.contextmanager
def _reach(profile: Profile) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(profile.address, timeout=CONNECT_TIMEOUT_S)
    except OSError as error:
        raise ConfigError(
            f"no dask scheduler answers at {redacted(str(profile.address))} ({error}); is the cluster up?"
        ) from None
    with client:
        yield client

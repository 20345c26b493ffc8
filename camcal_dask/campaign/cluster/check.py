"""``camcal cluster check``: start a profile, run a small job on every worker, say what would go wrong in a run."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from camcal_dask.campaign.cluster.profile import Profile, seconds
from camcal_dask.campaign.cluster.workers import LEAST_WORKER_BYTES
from camcal_dask.campaign.past.record import versions
from camcal_dask.instruments import Instrument
from camcal_dask.isr.cost import exposure_bytes
from camcal_dask.kernels.statistics.moments import clipped_mean_stack
from camcal_dask.repo.storage import files

if TYPE_CHECKING:
    from distributed import Client

Level = Literal["ok", "warning", "failure"]
PROBE_BYTES = 64 * 2**20
"""Written to and read from the repository by each worker."""
CLOCK_TOLERANCE_S = 5.0
LEAST_TASK_BYTES = 600 * 2**20
"""A stack block of one full-size detector, and the libraries."""
SLOW_MB_PER_S = 50.0
SLOW_START_S = 60.0


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    what: str
    text: str


def check(client: Client, profile: Profile, root: str | None = None, camera: Instrument | None = None) -> list[Finding]:
    """Ask every worker what it is, what it reaches and how fast.

    Parameters
    ----------
    client : distributed.Client
        Of the started profile.
    profile : Profile
        What was asked for.
    root : str, optional
        Repository whose storage is measured from every worker; a scratch file is written there and removed.
    camera : Instrument, optional
        Its detectors must fit into the memory of the workers; default: full-size ones.

    Returns
    -------
    list of Finding
        Failures stop a run, warnings spoil it.
    """
    wanted = profile.n_workers() if profile.kind not in ("address", "threads") else 1
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(wanted, timeout=seconds(profile.startup_timeout))
    there = len(client.scheduler_info(n_workers=-1)["workers"])
    findings = [
        Finding("ok", "scheduler", f"{client.scheduler.address}, dashboard {client.dashboard_link}"),
        Finding("ok" if there >= wanted else "warning", "workers", f"{there} of {wanted} are there"),
    ]
    began = time.time()
    answers: Mapping[str, Any] = client.run(_probe, root, on_error="return")
    ended = time.time()
    for worker, answer in answers.items():
        if isinstance(answer, BaseException):
            findings.append(Finding("failure", worker, f"{type(answer).__name__}: {answer}"))
        else:
            findings += _judge(answer, profile, (began, ended), root, camera)
    return findings


def _probe(root: str | None, dask_worker: Any = None) -> dict[str, Any]:
    """What one worker is, measured on it; ``dask_worker`` is distributed's name for it."""
    report: dict[str, Any] = {
        "worker": f"{socket.gethostname()} {dask_worker.name}",
        "time": time.time(),
        "versions": versions(),
        "memory": dask_worker.memory_manager.memory_limit,
        "threads": dask_worker.state.nthreads,
        "kernel_s": _kernel_seconds(),
        "scratch": _scratch_error(dask_worker.local_directory),
    }
    return report | ({} if root is None else _storage(root))


def _kernel_seconds() -> float:
    """Seconds until a compiled kernel has run: long where it was compiled anew."""
    begin = time.perf_counter()
    clipped_mean_stack(np.ones((3, 8), np.float32), None, sigma=3.0, iterations=3)
    return time.perf_counter() - begin


def _scratch_error(folder: str) -> str:
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"camcal")
    except OSError as error:
        return str(error)
    return ""


def _storage(root: str) -> dict[str, Any]:
    """Write and read a file in the repository; MB/s, or the error."""
    uri = files.join(root, "cubes", f".camcal-check-{uuid.uuid4().hex}")
    content = np.random.default_rng(0).bytes(PROBE_BYTES)
    try:
        with files.staging(uri) as stage:
            path = Path(stage) / "probe"
            begin = time.perf_counter()
            path.write_bytes(content)
            files.move_in(path, uri)
            written = time.perf_counter()
        back = files.read_bytes(uri)
        read = time.perf_counter()
        files.remove(uri)
    except OSError as error:
        return {"storage": str(error)}
    if back != content:
        return {"storage": f"{uri}: what was read is not what was written"}
    mega = PROBE_BYTES / 1e6
    return {"storage": "", "write_MB_per_s": mega / (written - begin), "read_MB_per_s": mega / (read - written)}


def _least_memory(camera: Instrument | None, threads: int) -> int:
    """Memory [byte] without which a worker can do nothing: it starts, and its tasks take a detector of an exposure."""
    task = LEAST_TASK_BYTES if camera is None else exposure_bytes(camera.raw_shape[2], camera)
    return max(task * threads, LEAST_WORKER_BYTES)


def _judge(
    answer: Mapping[str, Any],
    profile: Profile,
    window: tuple[float, float],
    root: str | None,
    camera: Instrument | None,
) -> list[Finding]:
    who, found = str(answer["worker"]), []

    def say(level: Level, text: str) -> None:
        found.append(Finding(level, who, text))

    limit = answer["memory"] or 0
    say("ok", f"{answer['threads']} thread(s), {limit / 2**30:.1f} GiB, first kernel after {answer['kernel_s']:.1f} s")
    ours = versions()
    if differ := [f"{n} {v} here, {answer['versions'].get(n)} there" for n, v in ours.items()
                  if answer["versions"].get(n) != v]:  # fmt: skip
        say("failure", f"other versions: {'; '.join(differ)}; install the same environment on the workers")
    if 0 < limit < (least := _least_memory(camera, answer["threads"])):
        detectors = "full-size detectors" if camera is None else f"detectors of {camera.name}"
        say(
            "failure",
            f"{limit / 2**20:.0f} MiB are too little for {detectors}: memory_per_worker: {least / 2**20:.0f} MiB",
        )
    if answer["kernel_s"] > SLOW_START_S / 10:
        say("warning", "kernels were compiled anew: set kernel_cache_directory to a folder that workers keep")
    if answer["scratch"]:
        say("failure", f"scratch folder cannot be written ({answer['scratch']}); set scratch_directory")
    skew = max(window[0] - answer["time"], answer["time"] - window[1])
    if skew > CLOCK_TOLERANCE_S:
        say("warning", f"its clock is {skew:.0f} s off: times in records and logs will be too; run NTP there")
    if answer.get("storage"):
        say("failure", f"repository cannot be used from there: {answer['storage']}; mount {root} on the workers")
    elif root is not None:
        slow = min(answer["write_MB_per_s"], answer["read_MB_per_s"]) < SLOW_MB_PER_S
        say("warning" if slow else "ok", f"repository: {answer['write_MB_per_s']:.0f} MB/s written, "
            f"{answer['read_MB_per_s']:.0f} MB/s read")  # fmt: skip
    return found


def local_findings(profile: Profile, root: str | None) -> list[Finding]:
    """What can be said before anything is started."""
    found = []
    if profile.remote and root is not None and "://" not in root and Path(root).resolve().is_relative_to("/tmp"):
        found.append(Finding("warning", "repository", f"{root} lies in /tmp, which other hosts do not share"))
    lifetime = profile.lifetime_s()
    if lifetime is not None and lifetime < 600:
        found.append(
            Finding("warning", "walltime", f"workers retire after {lifetime:.0f} s: most time goes into starts")
        )
    if profile.jobs is not None and profile.jobs.interface is None:
        found.append(Finding("warning", "interface", "workers listen on all interfaces: set jobs.interface to one"))
    if profile.remote and profile.kernel_cache_directory is None and not os.access(Path(__file__).parent, os.W_OK):
        found.append(Finding("warning", "kernels", "the package is not writable: set kernel_cache_directory"))
    return found

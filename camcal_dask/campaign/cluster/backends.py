"""Clusters that run elsewhere: batch systems, Kubernetes, Dask Gateway, each started by its library."""

from __future__ import annotations

import importlib
import shlex
import signal
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import dask.config
from distributed.utils import get_ip

from camcal_dask.campaign.cluster.profile import JOB_QUEUES, Profile, seconds
from camcal_dask.errors import ConfigError

STAGGER_S = 60
"""Workers of one start retire spread over this time, not all at once."""
_CLASSES: Mapping[str, str] = MappingProxyType(
    {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "htcondor": "HTCondorCluster"}
)
_EXTRAS: Mapping[str, str] = MappingProxyType(
    {"dask_jobqueue": "jobqueue", "dask_kubernetes": "kubernetes", "dask_gateway": "gateway"}
)


def start(profile: Profile) -> Any:
    """Start the cluster of a remote profile; the caller closes it.

    Returns
    -------
    A cluster object of distributed's kind, scaled as the profile says.

    Raises
    ------
    ConfigError
        If its library is not installed or refuses the settings.
    """
    maker: Callable[[Profile], Any] = {"kubernetes": _kubernetes, "gateway": _gateway}.get(profile.kind, job_queue)
    try:
        cluster = maker(profile)
    except (TypeError, ValueError, OSError) as error:
        raise ConfigError(f"cluster of kind {profile.kind} cannot be started: {error}") from error
    _scale(cluster, profile)
    return cluster


def render(profile: Profile) -> str:
    """Text that a profile hands to its system: job script, manifest, or options.

    Raises
    ------
    ConfigError
        If the kind has none, or its library is not installed.
    """
    import yaml

    if profile.kind in JOB_QUEUES:
        with job_queue(profile) as cluster:
            return str(cluster.job_script())
    if profile.kind == "kubernetes":
        return str(yaml.safe_dump(kubernetes_manifest(profile), sort_keys=False))
    if profile.kind == "gateway":
        assert profile.gateway is not None
        return str(yaml.safe_dump({"address": profile.gateway.address, "cluster_options": gateway_options(profile)}))
    raise ConfigError(f"kind {profile.kind} starts its workers itself: there is nothing to render")


def _scale(cluster: Any, profile: Profile) -> None:
    """Ask for workers.  A batch job ends by its walltime, so there a fixed number is kept up too."""
    if profile.adaptive is not None:
        cluster.adapt(minimum=profile.adaptive.minimum, maximum=profile.adaptive.maximum)
    elif profile.lifetime_s() is not None:
        cluster.adapt(minimum=profile.n_workers(), maximum=profile.n_workers())
    else:
        cluster.scale(profile.n_workers())


def _library(name: str) -> Any:
    before = signal.getsignal(signal.SIGINT)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"{error}; run: pip install 'camcal_dask[{_EXTRAS[name.partition('.')[0]]}]'") from None
    finally:
        # dask_jobqueue makes Ctrl-C end the process at once, without the order that a run ends in.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


# ---------------------------------------------------------------------------- batch systems


def job_queue(profile: Profile) -> Any:
    """Cluster of a batch system, not scaled yet (dask-jobqueue).

    Where neither profile nor the site's dask configuration names an interface, the scheduler listens at the one address
    that it tells its workers.
    """
    library = _library("dask_jobqueue")
    arguments = job_arguments(profile)
    scheduler = arguments["scheduler_options"]
    named = arguments.get("interface") or dask.config.get(f"jobqueue.{profile.kind}.interface", None)
    if not named and not {"interface", "host"} & set(scheduler):
        arguments["scheduler_options"] = {**scheduler, "host": get_ip()}
    return getattr(library, _CLASSES[profile.kind])(**arguments)


def job_arguments(profile: Profile) -> dict[str, Any]:
    """Arguments of the dask-jobqueue class: one job holds ``workers_per_job`` workers.

    Memory and cores are those of a job; the threads of kernels and libraries are limited in the job script.
    """
    jobs = profile.jobs
    assert jobs is not None
    n = jobs.workers_per_job
    exports = [f"export {name}={shlex.quote(value)}" for name, value in profile.worker_environment().items()]
    arguments: dict[str, Any] = {
        "cores": n * profile.threads_per_worker,
        "processes": n,
        "memory": f"{n * profile.worker_memory_bytes()} B",
        "interface": jobs.interface,
        "local_directory": profile.scratch_directory,
        "log_directory": jobs.log_directory,
        "job_extra_directives": list(jobs.directives),
        "job_script_prologue": [*exports, *jobs.prologue],
        "python": jobs.python,
        "job_name": "camcal",
        "death_timeout": int(seconds(profile.startup_timeout)),
        "scheduler_options": {"dashboard_address": f"{profile.listen}:0"}
        | ({"interface": jobs.scheduler_interface} if jobs.scheduler_interface else {}),
    }
    extra = ["--dashboard-address", f"{profile.listen}:0"]
    if (lifetime := profile.lifetime_s()) is not None:
        stagger = int(min(STAGGER_S, lifetime / 10))
        extra += ["--lifetime", f"{int(lifetime - stagger)}s", "--lifetime-stagger", f"{stagger}s"]
    arguments["worker_extra_args"] = extra
    if profile.kind != "htcondor":
        arguments |= {"queue": jobs.queue, "account": jobs.account, "walltime": jobs.walltime}
    if profile.kind == "lsf":
        arguments["project"] = arguments.pop("account")
    return {name: value for name, value in {**arguments, **jobs.options}.items() if value is not None}


# ---------------------------------------------------------------------------- Kubernetes


def kubernetes_manifest(profile: Profile) -> dict[str, Any]:
    """``DaskCluster`` resource of the dask-kubernetes operator."""
    make_cluster_spec = _library("dask_kubernetes.operator").make_cluster_spec
    settings = profile.kubernetes
    assert settings is not None
    memory = profile.worker_memory_bytes()
    limits = {"cpu": str(profile.threads_per_worker), "memory": str(memory)}
    manifest: dict[str, Any] = make_cluster_spec(
        name=settings.name,
        image=settings.image,
        n_workers=profile.adaptive.minimum if profile.adaptive else profile.n_workers(),
        resources={"requests": limits, "limits": limits},
        env=profile.worker_environment(),
        idle_timeout=int(seconds(settings.idle_timeout)),
        worker_command="dask worker",
    )
    manifest["metadata"]["namespace"] = settings.namespace
    spec = manifest["spec"]
    scheduler, worker = spec["scheduler"]["spec"], spec["worker"]["spec"]
    # The scripts dask-scheduler and dask-worker, which the library still names, have left distributed.
    scheduler["containers"][0]["args"] = ["dask", "scheduler", *scheduler["containers"][0]["args"][1:]]
    container = worker["containers"][0]
    container["args"] += ["--nthreads", str(profile.threads_per_worker), "--memory-limit", str(memory)]
    if profile.scratch_directory:
        container["args"] += ["--local-directory", profile.scratch_directory]
        container["volumeMounts"] = [{"name": "scratch", "mountPath": profile.scratch_directory}]
        worker["volumes"] = [{"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch_size}}]
    if settings.service_account:
        for pod in (scheduler, worker):
            pod["serviceAccountName"] = settings.service_account
    return manifest


def _kubernetes(profile: Profile) -> Any:
    settings = profile.kubernetes
    assert settings is not None
    cluster = _library("dask_kubernetes.operator").KubeCluster
    return cluster(custom_cluster_spec=kubernetes_manifest(profile), namespace=settings.namespace, quiet=True)


# ---------------------------------------------------------------------------- Gateway


def gateway_options(profile: Profile) -> dict[str, Any]:
    """Cluster options asked of the gateway: the profile's own, and the environment if the gateway offers it."""
    assert profile.gateway is not None
    return {"environment": profile.worker_environment(), **profile.gateway.options}


def _gateway(profile: Profile) -> Any:
    settings = profile.gateway
    assert settings is not None
    library = _library("dask_gateway")
    # closed here: what the garbage collector closes in a starting thread waits for that thread for ever
    with library.Gateway(settings.address, proxy_address=settings.proxy_address, auth=settings.auth) as gateway:
        offered = dict(gateway.cluster_options())
        unknown = sorted(set(settings.options) - set(offered))
        if unknown:
            raise ConfigError(
                f"{settings.address} offers no cluster option {', '.join(unknown)}; it has {sorted(offered)}"
            )
        wanted = {name: value for name, value in gateway_options(profile).items() if name in offered}
        try:
            return gateway.new_cluster(**wanted)
        except library.GatewayClusterError as error:
            raise ConfigError(f"{settings.address}: {error}; the gateway's log says why") from None

"""Carry out a plan: quanta on a cluster, even if some of them fail.

A quantum that makes a product writes one shard; others return the statistics of their detector.
Pixels stay in the tasks; the registry hears of a detector when its shard is whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import dask

from camcal_dask.campaign.past import attempts
from camcal_dask.campaign.past.record import RunRecord, now, open_record
from camcal_dask.campaign.planning.plan import Plan
from camcal_dask.campaign.planning.quanta import Outcome
from camcal_dask.campaign.planning.recipe import task_of
from camcal_dask.campaign.running import exclusive, faults
from camcal_dask.campaign.running.job import Job, Place
from camcal_dask.campaign.running.tracker import Limits, Progress, Snapshot, Tracker
from camcal_dask.errors import CamcalError, RunError
from camcal_dask.redact import redacted
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.repo.cubes import products, usable
from camcal_dask.repo.storage import files, naming

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Limits", "Options", "Outcome", "Progress", "Snapshot", "count_tasks", "execute"]


@dataclass(frozen=True)
class Options:
    """How a plan is carried out; nothing here changes a pixel."""

    cluster: str = "local"
    """Name of the cluster, for the record."""
    limits: Limits = Limits()
    progress: Progress | None = None
    """Called with the outcome of each quantum."""
    watch: Callable[[Snapshot], None] | None = None
    """Called with the state of the run every two seconds."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Pipeline and overrides as the user gave them, for the record."""


def execute(
    repo: Repo,
    plan: Plan,
    client: Client,
    *,
    cluster: str = "local",
    progress: Progress | None = None,
    options: Options | None = None,
) -> Outcome:
    """Run a plan on a client's workers and register what is whole.

    Safe to repeat: quanta that are done already are skipped, half-written ones redone.

    Parameters
    ----------
    repo : Repo
        Opened for writing.
    plan : Plan
        From :func:`camcal_dask.campaign.planning.request.make_plan`.
    client : distributed.Client
        Where the tasks run.
    cluster, progress
        As in `Options`.
    options : Options, optional
        How to carry it out.

    Raises
    ------
    RepoError
        If the output cannot be a RUN, or holds products of another recipe or other exposures.
    RunError
        If another client works on it, or the storage takes no more.
    """
    options = options or Options(cluster=cluster, progress=progress)
    uri = naming.product_uri(repo.root, plan.output, plan.recipe.product)
    repo.check_output(plan.output)
    repo.register_dataset_type(plan.recipe.product, plan.product_dimensions, plan.is_calibration)
    repo.register_run(plan.output)
    attempt = attempts.open_attempt(repo.root, plan.output, plan.recipe.product)
    try:
        with exclusive.alone(attempt, plan.recipe.product):
            if options.limits.clobber:
                repo.forget_product(plan.output, plan.recipe.product)
                products.discard(uri)
            return _attempt(repo, plan, client, options, attempt, uri)
    except OSError as error:
        if faults.storage_full(error):
            remedy = "make room or mount the storage again, and repeat the run"
            raise RunError(f"{plan.output}: nothing more can be stored ({error}); {remedy}") from error
        raise


def _attempt(repo: Repo, plan: Plan, client: Client, options: Options, attempt: str, uri: str) -> Outcome:
    """Carry out one attempt between the two writings of its record."""
    record = open_record(plan, options.cluster, options.asked)
    record.uri, record.scheduler = uri.removeprefix(f"{repo.root}/"), redacted(str(client.scheduler.address))
    files.write_json(attempts.record_uri(attempt), record.plain())
    start = Snapshot(plan.output, plan.recipe.product)
    tracker = Tracker(attempt, start, options.limits, options.progress, options.watch, plan.task_bytes)
    tracker.expect(plan.quanta)
    tracker.tick(client)
    job = Job(repo, client, Place(repo.root, plan, uri), record.provenance_id, tracker)
    try:
        outcome: Outcome = task_of(plan.recipe.task).carry_out(job)
    except KeyboardInterrupt as interrupt:
        tracker.interrupt(interrupt)
        raise
    except BaseException as error:
        tracker.stop(f"{type(error).__name__}: {error}")
        raise
    finally:
        unusable = _unusable(uri, plan)
        tracker.unusable(unusable)
        record.unusable = {str(d): reasons for d, reasons in unusable.items()}
        tracker.close()
        _close(repo, plan, attempt, record, tracker)
    return replace(
        outcome, seconds=tracker.seconds, stopped=tracker.stopped, signal=tracker.signal, total=tracker.snapshot.total,
        unusable=unusable,
    )  # fmt: skip


def _unusable(uri: str, plan: Plan) -> dict[int, dict[str, str]]:
    """Amps that the product is no use for; what cannot be read says nothing, and is told of where it is used."""
    with contextlib.suppress(OSError, CamcalError):
        return usable.unusable(uri, plan.detectors)
    return {}


def _close(repo: Repo, plan: Plan, attempt: str, record: RunRecord, tracker: Tracker) -> None:
    """Complete the record of an attempt, and that of the run: the list of all attempts."""
    outcomes = tracker.outcomes.values()
    record.state, record.stopped, record.ended = tracker.snapshot.state, tracker.stopped, now()
    record.seconds, record.counts = tracker.seconds, tracker.count()
    record.workers, record.threads = tracker.snapshot.workers, tracker.snapshot.threads
    record.cpu_s = sum(o.cpu_s for o in outcomes)
    record.peak_mib = max((o.peak_mib for o in outcomes), default=0.0)
    failed = [o for o in outcomes if o.status == "failed"]
    record.failed = [{"quantum": str(o.quantum), "reason": o.reason} for o in failed[:100]]
    files.write_json(attempts.record_uri(attempt), record.plain())
    whole = attempts.write_run_record(repo.root, plan.output)
    if any(o.status != "failed" for o in outcomes):
        repo.register_product(plan.output, "runRecord", whole, [{"instrument": plan.instrument.name}])


def count_tasks(repo: Repo, plan: Plan) -> int:
    """Blocks that will be computed: of every step those of one quantum, times its quanta."""
    if not plan.able:
        return 0
    place, graph = Place(repo.root, plan, ""), task_of(plan.recipe.task).graph
    count = 0
    for step in plan.steps:
        quanta = list(plan.quanta_of(step, plan.able[0]))
        count += len(plan.able) * len(quanta) * (_size(graph(place, quanta[0])) if quanta else 0)
    return count


def _size(work: Any) -> int:
    return len(dict(work.__dask_graph__())) if dask.is_dask_collection(work) else 1

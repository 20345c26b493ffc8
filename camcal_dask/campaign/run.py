"""Carry out a plan: one quantum a detector, whatever happens to the others.

A quantum that makes a product writes one shard; a verification's returns the statistics of its
detector.  Pixels stay in the tasks; the registry hears of a detector when its shard is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from camcal_dask.campaign.plan import Plan
from camcal_dask.campaign.quanta import Outcome, Progress
from camcal_dask.campaign.recipe import FlatRecipe
from camcal_dask.campaign.record import open_record
from camcal_dask.campaign.tasks.defects import defects_quantum, run_defects
from camcal_dask.campaign.tasks.flat import level_quantum, run_flat
from camcal_dask.campaign.tasks.product import Job
from camcal_dask.campaign.tasks.stack import run_stack, stack_quantum
from camcal_dask.campaign.tasks.verify import run_verify, verify_quantum
from camcal_dask.repo import files
from camcal_dask.repo.registry import Repo

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Outcome", "Progress", "count_tasks", "execute"]
_TASKS: dict[str, Callable[[Job], Outcome]] = {
    "stack": run_stack,
    "flat": run_flat,
    "defects": run_defects,
    "verify": run_verify,
}


def execute(
    repo: Repo, plan: Plan, client: Client, *, cluster: str = "local", progress: Progress | None = None
) -> Outcome:
    """Run a plan on a client's workers and register what is whole.

    Safe to repeat: detectors that are registered already are skipped, half-written ones redone.

    Parameters
    ----------
    repo : Repo
        Opened for writing.
    plan : Plan
        From :func:`camcal_dask.campaign.plan.make_plan`.
    client : distributed.Client
        Where the tasks run.
    cluster : str
        Name of the cluster, for the record.
    progress : callable, optional
        Called with the outcome of each quantum.

    Raises
    ------
    RepoError
        If the output RUN holds products of another recipe or other exposures.
    """
    started = time.perf_counter()
    record = open_record(plan, cluster)
    repo.register_dataset_type(plan.recipe.product, plan.product_dimensions, plan.is_calibration)
    uri = files.join(repo.root, "cubes", plan.output, f"{plan.recipe.product}.zarr")
    job = Job(repo, plan, client, uri, record.provenance_id, progress or (lambda _: None))
    outcome = _TASKS[plan.recipe.task](job)
    path = files.join(repo.root, "cubes", plan.output, f"{plan.recipe.product}-{record.provenance_id}.json")
    files.write_json(path, record.close(outcome.quanta))
    if len(outcome.failed) < len(outcome.quanta):
        repo.register_product(plan.output, "runRecord", path, [{"instrument": plan.instrument.name}])
    return replace(outcome, seconds=time.perf_counter() - started)


def count_tasks(repo: Repo, plan: Plan) -> int:
    """Tasks that dask will schedule: those of one quantum, times the quanta."""
    able = [d for d in plan.detectors if d not in plan.lacking]
    return len(able) * _tasks_of_one(repo, plan, able[0]) if able else 0


def _tasks_of_one(repo: Repo, plan: Plan, detector: int) -> int:
    def size(graph: Any) -> int:
        return len(dict(graph.__dask_graph__()))

    if plan.recipe.task == "verify":
        return size(verify_quantum(plan, detector))
    if plan.recipe.task == "defects":
        return size(defects_quantum(plan, "", 0, detector))
    if isinstance(plan.recipe, FlatRecipe):
        ones = [1.0] * len(plan.exposures)
        return size(level_quantum(plan, detector)) + size(stack_quantum(repo, plan, "", 0, detector, ones))
    return size(stack_quantum(repo, plan, "", 0, detector))

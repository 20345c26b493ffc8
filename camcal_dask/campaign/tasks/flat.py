"""Flat: levels of every (exposure, detector), one small table solved here, then a stack with its scales."""

from __future__ import annotations

from typing import Any

from camcal_dask.calibs.levels import measure, solve
from camcal_dask.campaign.plan import Plan
from camcal_dask.campaign.quanta import Outcome, run_quanta
from camcal_dask.campaign.recipe import FlatRecipe
from camcal_dask.campaign.record import QuantumOutcome
from camcal_dask.campaign.tasks.product import Job, open_calibs
from camcal_dask.campaign.tasks.stack import stack_quantum
from camcal_dask.isr.blocks import isr
from camcal_dask.repo import products


def run_flat(job: Job) -> Outcome:
    """Combine the flats of one filter; a resumed run keeps the scales that it began with."""
    plan = job.plan
    existing = job.existing()
    failed: dict[int, QuantumOutcome] = {}
    if existing is None:
        scales, failed = _solve(job)
        if scales is None:
            return Outcome(plan.output, plan.recipe.product, job.uri, failed, 0.0)
    else:
        scales = list(existing["exposure_scale"])
    job.begin({"exposure_scale": scales})
    return job.carry_out(lambda d, index: stack_quantum(job.repo, plan, job.uri, index, d, scales), failed)


def level_quantum(plan: Plan, detector: int) -> Any:
    """Graph of the levels of one detector."""
    recipe = plan.recipe
    assert isinstance(recipe, FlatRecipe)
    corrected = isr(plan.pixels.sel(detector=[detector]), open_calibs(plan, detector), recipe.isr)
    return measure(corrected, recipe.levels)


def _solve(job: Job) -> tuple[list[float] | None, dict[int, QuantumOutcome]]:
    """Measure all detectors, solve the table and keep it beside the product."""
    plan, recipe = job.plan, job.plan.recipe
    assert isinstance(recipe, FlatRecipe)
    failed, levels = {}, {}
    for result in run_quanta(job.client, ((d, level_quantum(plan, d)) for d in job.todo())):
        detector = result.outcome.detector
        if result.outcome.status == "failed":
            failed[detector] = result.outcome
        else:
            levels[detector] = result.value
    if not levels:
        lacking = {d: QuantumOutcome(d, "failed", reason=reason) for d, reason in plan.lacking.items()}
        return None, lacking | failed
    table = solve(levels, plan.exposures, plan.instrument.amp_names, recipe.levels)
    table.attrs = {"provenance_id": job.provenance, "physical_filter": plan.physical_filter or ""}
    products.write_dataset(job.uri.removesuffix(".zarr") + "-levels.zarr", table, overwrite=True)
    return table["exposure_scale"].values.tolist(), failed

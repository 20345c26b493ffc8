"""Flat as a task: levels of every (exposure, detector), one small table solved on the client, then a stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import dask
import numpy as np
import xarray as xr

from camcal_dask.calibs.combined.finish import Finished
from camcal_dask.calibs.combined.task import plan_combined, stack_quantum
from camcal_dask.calibs.flat.choose import choose_flats
from camcal_dask.calibs.flat.levels import VignetteConfig, measure, solve, vignette
from camcal_dask.calibs.flat.recipe import FlatRecipe
from camcal_dask.campaign.planning.plan import Plan
from camcal_dask.campaign.planning.quanta import Outcome, Quantum, Step
from camcal_dask.campaign.planning.request import Request, one_filter
from camcal_dask.campaign.running.job import Job, Place, open_calibs
from camcal_dask.campaign.task import Task
from camcal_dask.instruments import get_instrument
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.light.flat_scale import Levels
from camcal_dask.repo.cubes import small

LEVELS = Step("levels")
COMBINE = Step("stack", after=((LEVELS.name, "all"),))


def plan_flat(request: Request) -> Plan:
    """Plan the flat of one filter; of the flats selected those of one illumination, if nobody chose before."""
    raws = request.raws()
    if request.exposures is None:
        one_filter(raws)
        picked = choose_flats(request.repo, request.recipe, raws, request.inputs)
        request = replace(request, exposures=picked.exposures, choice=picked.reasons)
        raws = raws.sel(exposure=list(picked.exposures))
    plan = plan_combined(request, raws, whole_exposures=True)
    return replace(plan, physical_filter=one_filter(raws))


def run_flat(job: Job) -> Outcome:
    """Combine the flats of one filter; a resumed run keeps the scales that it began with."""
    existing = job.existing()
    failed: set[int] = set()
    if existing is None:
        scales, failed = _solve(job)
        if scales is None:
            job.lack(COMBINE.name)
            return job.outcome()
    else:
        job.tracker.expect(q for q in job.plan.quanta if q.task == COMBINE.name)
        scales = list(existing["exposure_scale"])
    job.begin({"exposure_scale": scales})
    job.parts().clear()
    return job.carry_out(partial(combine_quantum, job.place, levels=scales), COMBINE.name, sorted(failed))


def level_quantum(place: Place, quantum: Quantum) -> Any:
    """Graph of the levels of one detector, a Dataset (exposure, amp)."""
    plan, detector = place.plan, quantum.detector
    recipe: FlatRecipe = plan.recipe
    corrected = isr(plan.pixels.sel(detector=[detector]), open_calibs(plan, detector), recipe.isr)
    return dask.delayed(_as_dataset)(measure(corrected, recipe.levels))


def combine_quantum(place: Place, quantum: Quantum, levels: Sequence[float]) -> Any:
    """Graph of the combination of one detector, with the levels of its exposures."""
    field = place.plan.recipe.vignette
    finish = partial(_vignetted, field=field) if field.enabled else None
    return stack_quantum(place, quantum, levels, finish=finish, divides=True)


def flat_quantum(place: Place, quantum: Quantum) -> Any:
    """Graph of one quantum of either step; before there are levels they are taken as 1."""
    if quantum.task == LEVELS.name:
        return level_quantum(place, quantum)
    return combine_quantum(place, quantum, [1.0] * len(place.plan.exposures))


def _vignetted(product: Finished, camera: str, detector: int, *, field: VignetteConfig) -> Finished:
    return Finished(**vignette(product._asdict(), get_instrument(camera).detectors[detector], field))


def _solve(job: Job) -> tuple[list[float] | None, set[int]]:
    """Measure all detectors, solve the table and keep it beside the product; None if it must not be solved yet."""
    plan, recipe = job.plan, job.plan.recipe
    quanta = [Quantum(LEVELS.name, d) for d in job.todo()]
    levels = {q.detector: _from_dataset(part) for q, part in job.collect(partial(level_quantum, job.place), quanta)}
    failed = [job.tracker.outcomes[q] for q in quanta if q.detector not in levels and q in job.tracker.outcomes]
    # A detector that a lost worker or the storage keeps from the table would change everybody's scale.
    if not levels or job.tracker.stopped or any(q.can_pass for q in failed):
        return None, set()
    table = solve(levels, plan.exposures, plan.instrument.amp_names, recipe.levels)
    table.attrs = {"provenance_id": job.provenance, "physical_filter": plan.physical_filter or ""}
    small.write_dataset(job.uri.removesuffix(".zarr") + "-levels.zarr", table, overwrite=True)
    return table["exposure_scale"].values.tolist(), {q.detector for q in failed}


def _as_dataset(levels: list[Levels]) -> xr.Dataset:
    columns = {name: np.stack([np.asarray(getattr(x, name)) for x in levels]) for name in Levels._fields}
    return xr.Dataset({name: (("exposure", "amp")[: v.ndim], v) for name, v in columns.items()})


def _from_dataset(part: xr.Dataset) -> list[Levels]:
    return [Levels(*(part[name].values[e] for name in Levels._fields)) for e in range(part.sizes["exposure"])]


FLAT = Task(
    "flat",
    FlatRecipe,
    flat_quantum,
    plan=plan_flat,
    run=run_flat,
    steps=lambda recipe: (LEVELS, COMBINE),
    chained="by_filter",
)

"""Flat: levels of every (exposure, detector), one small table solved here, then a stack with its scales."""

from __future__ import annotations

from functools import partial
from typing import Any

import dask
import numpy as np
import xarray as xr

from camcal_dask.calibs.flat.levels import measure, solve
from camcal_dask.campaign.planning.quanta import Outcome, Quantum
from camcal_dask.campaign.planning.recipe import FlatRecipe
from camcal_dask.campaign.running.job import Job, Place, open_calibs
from camcal_dask.campaign.tasks.stack import stack_quantum
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.light.flat_scale import Levels
from camcal_dask.repo.cubes import products


def run_flat(job: Job) -> Outcome:
    """Combine the flats of one filter; a resumed run keeps the scales that it began with."""
    existing = job.existing()
    failed: set[int] = set()
    if existing is None:
        scales, failed = _solve(job)
        if scales is None:
            job.lack("stack")
            return job.outcome()
    else:
        job.tracker.expect(q for q in job.plan.quanta if q.task != "levels")
        scales = list(existing["exposure_scale"])
    job.begin({"exposure_scale": scales})
    job.parts().clear()
    return job.carry_out(partial(stack_quantum, job.place, levels=scales), "stack", sorted(failed))


def level_quantum(place: Place, quantum: Quantum) -> Any:
    """Graph of the levels of one detector, a Dataset (exposure, amp)."""
    plan, detector = place.plan, quantum.detector
    recipe = plan.recipe
    assert isinstance(recipe, FlatRecipe)
    corrected = isr(plan.pixels.sel(detector=[detector]), open_calibs(plan, detector), recipe.isr)
    return dask.delayed(_as_dataset)(measure(corrected, recipe.levels))


def _solve(job: Job) -> tuple[list[float] | None, set[int]]:
    """Measure all detectors, solve the table and keep it beside the product; None if it must not be solved yet."""
    plan, recipe = job.plan, job.plan.recipe
    assert isinstance(recipe, FlatRecipe)
    quanta = [Quantum("levels", d) for d in job.todo()]
    levels = {q.detector: _from_dataset(part) for q, part in job.collect(partial(level_quantum, job.place), quanta)}
    failed = [job.tracker.outcomes[q] for q in quanta if q.detector not in levels and q in job.tracker.outcomes]
    # A detector that a lost worker or the storage keeps from the table would change everybody's scale.
    if not levels or job.tracker.stopped or any(q.can_pass for q in failed):
        return None, set()
    table = solve(levels, plan.exposures, plan.instrument.amp_names, recipe.levels)
    table.attrs = {"provenance_id": job.provenance, "physical_filter": plan.physical_filter or ""}
    products.write_dataset(job.uri.removesuffix(".zarr") + "-levels.zarr", table, overwrite=True)
    return table["exposure_scale"].values.tolist(), {q.detector for q in failed}


def _as_dataset(levels: list[Levels]) -> xr.Dataset:
    columns = {name: np.stack([np.asarray(getattr(x, name)) for x in levels]) for name in Levels._fields}
    return xr.Dataset({name: (("exposure", "amp")[: v.ndim], v) for name, v in columns.items()})


def _from_dataset(part: xr.Dataset) -> list[Levels]:
    return [Levels(*(part[name].values[e] for name in Levels._fields)) for e in range(part.sizes["exposure"])]

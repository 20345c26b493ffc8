"""Verification of a calibration that is a table: its own statistics are judged, and no exposure is read."""

from __future__ import annotations

from functools import partial
from typing import Any

import dask
import numpy as np
import xarray as xr

from camcal_dask.campaign.past.record import made_as
from camcal_dask.campaign.planning.plan import Plan
from camcal_dask.campaign.planning.quanta import Outcome, Quantum, Step
from camcal_dask.campaign.planning.request import TABLE_BYTES, Request
from camcal_dask.campaign.running.job import Job, Place
from camcal_dask.campaign.task import Task
from camcal_dask.campaign.verification.recipe import TableRecipe
from camcal_dask.errors import RepoError
from camcal_dask.repo.cubes import products, small
from camcal_dask.verify.judging.account import failures
from camcal_dask.verify.judging.tables import judge_table
from camcal_dask.verify.verdict import verdict_of


def plan_table(request: Request) -> Plan:
    """Find the candidate of every detector: of the first type that the inputs hold."""
    recipe: TableRecipe = request.recipe
    for dataset_type in recipe.candidates:
        found = request.repo.first_of(dataset_type, list(request.inputs), instrument=request.instrument.name)
        if found:
            break
    else:
        raise RepoError(
            f"no {' or '.join(recipe.candidates)} in {request.searched}; name the RUN of the candidate in -i"
        )
    refs = {int(data_id["detector"]): ref for data_id, ref in found}
    chosen = request.detectors(refs)
    calibs = {recipe.kind: {d: refs[d] for d in chosen}}
    return request.plan(detectors=chosen, calibs=calibs, task_bytes=TABLE_BYTES, candidate=recipe.kind)


def run_verify_table(job: Job) -> Outcome:
    """Judge the candidate of every detector; numbers and verdict become one cube."""
    plan, recipe = job.plan, job.plan.recipe
    quanta = [Quantum(recipe.task, d) for d in plan.detectors]
    tables = {q.detector: table for q, table in job.collect(partial(table_quantum, job.place), quanta)}
    if not tables or job.tracker.stopped:
        return job.outcome()
    table = _join([tables[d] for d in sorted(tables)])
    settings, refs = recipe.verify, plan.candidates
    tests = settings.tests or recipe.kind
    verdict = judge_table(table, tests, thresholds=settings.thresholds, known_bad=settings.known_bad)
    verdict = verdict.assign_attrs(
        provenance_id=job.provenance,
        candidate=sorted({ref.dataset_type for ref in refs.values()}),
        candidate_ids={str(d): ref.uuid for d, ref in refs.items()},
        candidate_provenance={str(d): made_as(ref) for d, ref in refs.items()},
        recipe=recipe.model_dump(mode="json"),
    )
    small.write_dataset(job.uri, verdict, overwrite=True)
    job.repo.register_product(plan.output, recipe.product, job.uri, [{"instrument": plan.instrument.name}])
    job.parts().clear()
    return job.outcome(verdict=verdict, failures=failures(verdict))


def _join(tables: list[xr.Dataset]) -> xr.Dataset:
    """Put the tables of the detectors together; a row that a detector lacks counts as amps that are not there."""
    if not any("exposure" in table.dims for table in tables):
        return xr.concat(tables, "detector", data_vars="minimal", coords="minimal", join="outer")
    known: dict[str, dict[int, Any]] = {}
    bare = []
    for table in tables:
        names = [str(n) for n, c in table.coords.items() if c.dims == ("exposure",) and n != "exposure"]
        for name in names:
            known.setdefault(name, {}).update(zip(table["exposure"].values, table[name].values, strict=True))
        rows = table.drop_vars(names)
        bare.append(rows.assign(n_pixel=rows["n_pixel"] + xr.zeros_like(rows["exposure"])))
    joined = xr.concat(bare, "detector", data_vars="minimal", coords="minimal", join="outer")
    places = {n: ("exposure", [values[e] for e in joined["exposure"].values]) for n, values in known.items()}
    return joined.assign_coords(places).assign(n_pixel=joined["n_pixel"].fillna(0).astype(np.int64))


def table_quantum(place: Place, quantum: Quantum) -> Any:
    """Graph of one detector: one task."""
    recipe = place.plan.recipe
    return dask.delayed(_table)(place.plan.candidates[quantum.detector].uri, quantum.detector, recipe.kind)


def _table(uri: str, detector: int, kind: str) -> xr.Dataset:
    table = verdict_of(kind).table
    assert table is not None
    return table(products.open_products([(uri, detector)]).load())


VERIFY_TABLE = Task(
    "verify_table",
    TableRecipe,
    table_quantum,
    plan=plan_table,
    run=run_verify_table,
    steps=lambda recipe: (Step("verify_table", raws=False),),
    chained="never",
    certified=False,
)

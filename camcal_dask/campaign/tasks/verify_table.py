"""Verification of a calibration that is a table: its own numbers are judged, no exposure is read."""

from __future__ import annotations

from functools import partial
from typing import Any

import dask
import numpy as np
import xarray as xr

from camcal_dask.campaign.past.record import made_as
from camcal_dask.campaign.planning.quanta import Outcome, Quantum
from camcal_dask.campaign.planning.recipe import TableRecipe
from camcal_dask.campaign.running.job import Job, Place
from camcal_dask.repo.cubes import products, small
from camcal_dask.verify.judging.judge import failures
from camcal_dask.verify.tables import TABLES, judge_table


def run_verify_table(job: Job) -> Outcome:
    """Judge the candidate of every detector; numbers and verdict become one cube."""
    plan, recipe = job.plan, job.plan.recipe
    assert isinstance(recipe, TableRecipe)
    quanta = [Quantum(recipe.task, d) for d in plan.detectors]
    tables = {q.detector: table for q, table in job.collect(partial(table_quantum, job.place), quanta)}
    if not tables or job.tracker.stopped:
        return job.outcome()
    table = _join([tables[d] for d in sorted(tables)])
    settings, refs = recipe.verify, plan.calibs[recipe.kind]
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
    assert isinstance(recipe, TableRecipe)
    return dask.delayed(_table)(place.plan.calibs[recipe.kind][quantum.detector].uri, quantum.detector, recipe.kind)


def _table(uri: str, detector: int, kind: str) -> xr.Dataset:
    return TABLES[kind](products.open_products([(uri, detector)]).load())

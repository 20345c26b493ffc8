"""Verification: apply a candidate to exposures, measure what is left, judge it."""

from __future__ import annotations

import dask
import xarray as xr

from camcal_dask.campaign.plan import Plan
from camcal_dask.campaign.quanta import Outcome, run_quanta
from camcal_dask.campaign.recipe import VerifyRecipe
from camcal_dask.campaign.record import QuantumOutcome
from camcal_dask.campaign.tasks.product import Job
from camcal_dask.isr.blocks import isr
from camcal_dask.repo import products
from camcal_dask.repo.shards import check_format
from camcal_dask.verify.judge import failures, judge
from camcal_dask.verify.statistics import measure


def run_verify(job: Job) -> Outcome:
    """Measure and judge every detector; statistics and verdict become one cube."""
    plan, recipe, uri = job.plan, job.plan.recipe, job.uri
    assert isinstance(recipe, VerifyRecipe)
    outcomes: dict[int, QuantumOutcome] = {}
    parts: dict[int, xr.Dataset] = {}
    graphs = ((d, verify_quantum(plan, d)) for d in plan.detectors)
    for result in run_quanta(job.client, graphs):
        outcomes[result.outcome.detector] = result.outcome
        if result.value is not None:
            parts[result.outcome.detector] = result.value
        job.progress(result.outcome)
    if not parts:
        return Outcome(plan.output, recipe.product, uri, outcomes, 0.0)
    statistics = xr.concat([parts[d] for d in sorted(parts)], "detector", data_vars="minimal", coords="minimal")
    settings = recipe.verify
    verdict = judge(
        statistics,
        settings.tests,
        thresholds=settings.thresholds,
        known_bad=settings.known_bad,
        role=_roles(plan),
        first_in_set=_first_in_set(plan),
    )
    verdict = statistics.merge(verdict, compat="override", join="exact").assign_attrs(
        **verdict.attrs,
        provenance_id=job.provenance,
        candidate=sorted({ref.dataset_type for ref in plan.calibs["bias"].values()}),
        candidate_ids={str(d): ref.uuid for d, ref in plan.calibs["bias"].items()},
        recipe=recipe.model_dump(mode="json"),
    )
    products.write_dataset(uri, verdict, overwrite=True)
    job.repo.register_product(plan.output, recipe.product, uri, [{"instrument": plan.instrument.name}])
    return Outcome(plan.output, recipe.product, uri, outcomes, 0.0, verdict, failures(verdict))


def verify_quantum(plan: Plan, detector: int) -> xr.Dataset:
    """Graph of one detector: its statistics."""
    recipe = plan.recipe
    assert isinstance(recipe, VerifyRecipe)
    ref = plan.calibs["bias"][detector]
    candidate = products.open_products([(ref.uri, detector)])
    gains = "none" if candidate.attrs["units"] == "adu" else "nominal"
    config = recipe.isr.model_copy(update={"gains": gains})
    corrected = isr(plan.pixels.sel(detector=[detector]), {"bias": candidate}, config, block="exposure")
    statistics: xr.Dataset
    (statistics,) = dask.optimize(measure(corrected, config=recipe.verify.measure))
    return statistics


def _roles(plan: Plan) -> dict[int, str]:
    """Say which exposures made the candidate and which are independent of it (verification.md 1.1)."""
    cubes_used = {ref.uri for ref in plan.calibs["bias"].values()}
    made = {int(e) for uri in cubes_used for e in check_format(uri, "product").get("exposures", ())}
    return {e: "construction" if e in made else "verification" for e in plan.exposures}


def _first_in_set(plan: Plan) -> list[int]:
    first = plan.pixels["seq_num"].values == plan.pixels["seq_start"].values
    return [e for e, is_first in zip(plan.exposures, first, strict=True) if is_first]

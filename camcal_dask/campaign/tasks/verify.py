"""Verification: apply a candidate to exposures, measure what is left, judge it."""

from __future__ import annotations

from functools import partial

import dask
import xarray as xr

from camcal_dask.campaign.past.record import calib_ids, made_as
from camcal_dask.campaign.planning.plan import Plan, made_from
from camcal_dask.campaign.planning.quanta import Outcome, Quantum, QuantumOutcome
from camcal_dask.campaign.planning.recipe import VerifyRecipe
from camcal_dask.campaign.planning.selection import first_in_set
from camcal_dask.campaign.running.job import Job, Place, open_calibs
from camcal_dask.isr.corrected import isr
from camcal_dask.repo.cubes import products
from camcal_dask.repo.storage.shards import check_format, cube_exists
from camcal_dask.verify.judging.judge import failures, judge
from camcal_dask.verify.measuring.raft import raft_correlations
from camcal_dask.verify.measuring.readout import measure_readout
from camcal_dask.verify.measuring.series import series
from camcal_dask.verify.measuring.statistics import measure
from camcal_dask.verify.product import hot_mask, measure_product


def run_verify(job: Job) -> Outcome:
    """Measure and judge every detector; statistics and verdict become one cube."""
    plan, recipe, uri = job.plan, job.plan.recipe, job.uri
    assert isinstance(recipe, VerifyRecipe)
    if (verdict := _earlier(job)) is not None:
        for d in plan.detectors:
            job.tracker.note(QuantumOutcome(Quantum("verify", d), "skipped"))
        return job.outcome(verdict=verdict, failures=failures(verdict))
    lacking = job.lack("verify")
    quanta = [q for d in plan.detectors if (q := Quantum("verify", d)) not in lacking]
    parts = {q.detector: part for q, part in job.collect(partial(verify_quantum, job.place), quanta)}
    if not parts or job.tracker.stopped:
        return job.outcome()
    statistics = xr.concat([parts[d] for d in sorted(parts)], "detector", data_vars="minimal", coords="minimal")
    if recipe.kind == "flat":
        charge = job.repo.photodiode(plan.exposures, instrument=plan.instrument.name)
        statistics = statistics.assign_coords(photo_charge=("exposure", charge.sel(exposure=plan.exposures).values))
    statistics = statistics.merge(series(statistics))
    settings = recipe.verify
    verdict = judge(
        statistics,
        settings.tests or recipe.kind,
        thresholds=settings.thresholds,
        known_bad=settings.known_bad,
        role=_roles(plan),
        first_in_set=first_in_set(plan.pixels),
    )
    verdict = statistics.merge(verdict, compat="override", join="exact").assign_attrs(
        **verdict.attrs,
        provenance_id=job.provenance,
        candidate=sorted({ref.dataset_type for ref in plan.candidates.values()}),
        candidate_ids={str(d): ref.uuid for d, ref in plan.candidates.items()},
        candidate_provenance={str(d): made_as(ref) for d, ref in plan.candidates.items()},
        calibs=calib_ids(plan),
        references=_references(plan, statistics),
        recipe=recipe.model_dump(mode="json"),
    )
    products.write_dataset(uri, verdict, overwrite=True)
    job.repo.register_product(plan.output, recipe.product, uri, [{"instrument": plan.instrument.name}])
    if not any(o.status == "failed" for o in job.tracker.outcomes.values()):
        job.parts().clear()
    return job.outcome(verdict=verdict, failures=failures(verdict))


def _earlier(job: Job) -> xr.Dataset | None:
    """Verdict of an earlier run, if it has all detectors and nothing that decides it has changed."""
    if not cube_exists(job.uri) or check_format(job.uri, "dataset").get("provenance_id") != job.provenance:
        return None
    verdict = products.open_dataset(job.uri)
    return verdict if set(verdict["detector"].values.tolist()) >= set(job.plan.detectors) else None


def verify_quantum(place: Place, quantum: Quantum) -> xr.Dataset:
    """Graph of one detector: the statistics of its exposures, of their overscans, and of the candidate itself."""
    plan, detector = place.plan, quantum.detector
    recipe = plan.recipe
    assert isinstance(recipe, VerifyRecipe)
    settings, raw, calibs = recipe.verify, plan.pixels.sel(detector=[detector]), open_calibs(plan, detector)
    candidate, config = calibs[recipe.kind], recipe.isr
    if recipe.kind == "dark" and not config.defects:  # these are found in it: what will be one is no fault of the dark
        calibs, config = calibs | {"defects": hot_mask(candidate)}, config.model_copy(update={"defects": True})
    corrected = isr(raw, calibs, config)
    parts = [
        measure(corrected, config=settings.measure, calib=candidate, calibs=calibs),
        measure_product(recipe.kind, candidate),
    ]
    if settings.readout.enabled:
        parts.append(measure_readout(raw, settings.readout))
    if settings.raft != "none":
        parts.append(raft_correlations(_raft(plan, detector), [detector], settings.raft).to_dataset())
    merged = xr.merge(parts, compat="override", join="left", combine_attrs="override")
    statistics: xr.Dataset
    (statistics,) = dask.optimize(merged)
    return statistics


def _references(plan: Plan, statistics: xr.Dataset) -> str:
    """Say where the gains and read noise that the tests compare with are from."""
    known = statistics["from_ptc"].where(statistics["n_pixel"].max("exposure") > 0)
    n, n_nominal = int(known.count()), int((known == 0).sum())
    if n_nominal == n:
        return "camera model"
    runs = ", ".join(sorted({ref.run for ref in plan.calibs["ptc"].values()}))
    return f"ptc of {runs}" + (f", camera model for {n_nominal} of {n} amps" if n_nominal else "")


def _raft(plan: Plan, detector: int) -> xr.DataArray:
    """Raws of the detectors of the run that are in the raft of one."""
    known = plan.instrument.detectors
    return plan.pixels.sel(detector=[d for d in plan.detectors if known[d].raft == known[detector].raft])


def _roles(plan: Plan) -> dict[int, str]:
    """Say which exposures made the calibrations applied and which are independent of them (verification.md 1.1)."""
    made = made_from(ref for refs in plan.calibs.values() for ref in refs.values())
    return {e: "construction" if e in made else "verification" for e in plan.exposures}

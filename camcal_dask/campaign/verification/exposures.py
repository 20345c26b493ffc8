"""Verification on exposures: apply a candidate, measure what is left, judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import dask
import xarray as xr

from camcal_dask import rooms
from camcal_dask.campaign.past.record import calib_ids, made_as
from camcal_dask.campaign.planning.plan import Plan, made_from
from camcal_dask.campaign.planning.quanta import Outcome, Quantum, QuantumOutcome
from camcal_dask.campaign.planning.request import (
    Refs,
    Request,
    if_any,
    one_each,
    one_filter,
    plan_raws,
)
from camcal_dask.campaign.planning.selection import first_in_set
from camcal_dask.campaign.running.job import Job, Place, open_calibs
from camcal_dask.campaign.task import Task
from camcal_dask.campaign.verification.recipe import VerifyRecipe
from camcal_dask.errors import PlanError, RepoError
from camcal_dask.isr.applied import GAINS
from camcal_dask.isr.corrected import isr
from camcal_dask.repo.butler.lookup import CalibRef
from camcal_dask.repo.cubes import small
from camcal_dask.repo.storage.shards import check_format, cube_exists
from camcal_dask.verify.judging.account import failures
from camcal_dask.verify.judging.judge import judge
from camcal_dask.verify.measuring.raft import raft_correlations
from camcal_dask.verify.measuring.readout import measure_readout
from camcal_dask.verify.measuring.series import series
from camcal_dask.verify.measuring.statistics import measure
from camcal_dask.verify.verdict import Calibs, verdict_of


def plan_verify(request: Request) -> Plan:
    """Find the candidate of each detector, the calibrations beside it, and the exposures."""
    raws = request.raws()
    recipe, refs = _candidates(request, raws)
    raws = raws.sel(detector=list(refs), exposure=_of_role(raws, refs, recipe.verify.exposures))
    plan = plan_raws(replace(request, recipe=recipe), raws)
    calibs = {recipe.kind: refs, **plan.calibs}
    if GAINS not in plan.calibs:  # for the references, though the ISR has no use for it
        calibs |= {GAINS: found} if (found := if_any(request, GAINS, raws)) else {}
    return replace(plan, calibs=calibs, candidate=recipe.kind)


def _candidates(request: Request, raws: xr.DataArray) -> tuple[VerifyRecipe, Refs]:
    """Find the candidate of each detector: of the first type that the inputs hold, one for all exposures."""
    recipe: VerifyRecipe = request.recipe
    for dataset_type in recipe.candidates:
        if "physical_filter" in rooms.product(dataset_type).dimensions:
            one_filter(raws)
        if refs := one_each(request, dataset_type, raws):
            return recipe.chosen(dataset_type, _beside(request, dataset_type, raws)), refs
    raise RepoError(
        f"no {' or '.join(recipe.candidates)} for exposure {raws['exposure'].values[0]} in {request.searched}; "
        "name the RUN of the candidate first: -i RUN_OF_THE_CALIBRATION,..."
    )


def _beside(request: Request, candidate: str, raws: xr.DataArray) -> dict[str, str]:
    """Calibrations beside a candidate: the first set that the inputs hold, else the last one."""
    *better, last = request.recipe.alternatives(candidate)
    for beside in better:
        if all(if_any(request, name, raws) for name in beside.values()):
            found: dict[str, str] = beside
            return found
    return dict(last)


def _of_role(raws: xr.DataArray, refs: Mapping[int, CalibRef], wanted: str) -> list[int]:
    """Exposures that made the candidate (internal), that did not (external), or all."""
    exposures, made = [int(e) for e in raws["exposure"].values], made_from(refs.values())
    chosen = [e for e in exposures if wanted == "all" or (e in made) == (wanted == "internal")]
    if not chosen:
        raise PlanError(
            f"verify.exposures={wanted}: of the {len(exposures)} exposures selected, {len(made & set(exposures))} made "
            "the candidate and none is left; select others with -d, or take -c verify.exposures=all"
        )
    return chosen


def run_verify(job: Job) -> Outcome:
    """Measure and judge every detector; statistics and verdict become one cube."""
    plan, recipe, uri = job.plan, job.plan.recipe, job.uri
    if (verdict := _earlier(job)) is not None:
        for d in plan.detectors:
            job.tracker.note(QuantumOutcome(Quantum(VERIFY.name, d), "skipped"))
        return job.outcome(verdict=verdict, failures=failures(verdict))
    lacking = job.lack(VERIFY.name)
    quanta = [q for d in plan.detectors if (q := Quantum(VERIFY.name, d)) not in lacking]
    parts = {q.detector: part for q, part in job.collect(partial(verify_quantum, job.place), quanta)}
    if not parts or job.tracker.stopped:
        return job.outcome()
    statistics = xr.concat([parts[d] for d in sorted(parts)], "detector", data_vars="minimal", coords="minimal")
    if verdict_of(recipe.kind).photodiode:
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
    small.write_dataset(uri, verdict, overwrite=True)
    job.repo.register_product(plan.output, recipe.product, uri, [{"instrument": plan.instrument.name}])
    if not any(o.status == "failed" for o in job.tracker.outcomes.values()):
        job.parts().clear()
    return job.outcome(verdict=verdict, failures=failures(verdict))


def _earlier(job: Job) -> xr.Dataset | None:
    """Verdict of an earlier run, if it has all detectors and nothing that decides it has changed."""
    if not cube_exists(job.uri) or check_format(job.uri, "dataset").get("provenance_id") != job.provenance:
        return None
    verdict = small.open_dataset(job.uri)
    return verdict if set(verdict["detector"].values.tolist()) >= set(job.plan.detectors) else None


def verify_quantum(place: Place, quantum: Quantum) -> xr.Dataset:
    """Graph of one detector: the statistics of its exposures, of their overscans, and of the candidate itself."""
    plan, detector = place.plan, quantum.detector
    recipe: VerifyRecipe = plan.recipe
    settings, raw = recipe.verify, plan.pixels.sel(detector=[detector])
    calibs: Calibs = open_calibs(plan, detector)
    candidate, verdict = calibs[recipe.kind], verdict_of(recipe.kind)
    config = recipe.isr
    if verdict.before is not None:
        calibs, config = verdict.before(candidate, calibs, config)
    corrected = isr(raw, calibs, config)
    parts = [measure(corrected, config=settings.measure, calib=candidate, calibs=calibs)]
    if verdict.numbers is not None:
        parts.append(verdict.numbers(candidate))
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
    runs = ", ".join(sorted({ref.run for ref in plan.calibs[GAINS].values()}))
    return f"ptc of {runs}" + (f", camera model for {n_nominal} of {n} amps" if n_nominal else "")


def _raft(plan: Plan, detector: int) -> xr.DataArray:
    """Raws of the detectors of the run that are in the raft of one."""
    known = plan.instrument.detectors
    return plan.pixels.sel(detector=[d for d in plan.detectors if known[d].raft == known[detector].raft])


def _roles(plan: Plan) -> dict[int, str]:
    """Say which exposures made the applied calibrations and which are independent (reference/verification.md 1.1)."""
    made = made_from(ref for refs in plan.calibs.values() for ref in refs.values())
    return {e: "construction" if e in made else "verification" for e in plan.exposures}


VERIFY = Task(
    "verify", VerifyRecipe, verify_quantum, plan=plan_verify, run=run_verify, chained="never", certified=False
)

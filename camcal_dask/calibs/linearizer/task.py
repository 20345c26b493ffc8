"""Linearizers as a task: amp ratios of every detector, fits by turns with a normalisation over all of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import dask
import numpy as np
import xarray as xr

from camcal_dask.calibs.linearizer import ratios as linearity_ratios
from camcal_dask.calibs.linearizer.fit import fit
from camcal_dask.calibs.linearizer.lengthen import concat
from camcal_dask.calibs.linearizer.normalize import normalize
from camcal_dask.calibs.linearizer.product import arrays_of, shared
from camcal_dask.calibs.linearizer.recipe import LinearityRecipe
from camcal_dask.campaign.planning.plan import Plan
from camcal_dask.campaign.planning.quanta import Outcome, Quantum, Step
from camcal_dask.campaign.planning.request import Request, first_of, plan_raws
from camcal_dask.campaign.running.job import Job, Place, open_calibs
from camcal_dask.campaign.task import Task
from camcal_dask.isr.corrected import isr
from camcal_dask.repo.cubes import products, small, usable
from camcal_dask.repo.storage import files

CURVES = "curves"
"""Under this name a plan holds the photon transfer curves."""
RATIOS, FIT = "ratios", "linearity"
_FIT_BYTES = 2**28
"""Memory of a fit of one detector [byte]."""
_TABLE = (
    "raw_mean",
    "raw_delta",
    "used",
    "gain",
    "noise",
    "turnoff",
    "bad",
    "photo_charge",
    "photo_charge_delta",
)
"""Variables of a curve that the linearizer reads, besides coordinates and auxiliary values."""


def trial_name(i: int) -> str:
    """Step of the fits before the i-th normalisation."""
    return f"fit{i}"


def steps(recipe: LinearityRecipe) -> tuple[Step, ...]:
    """Ratios if the fit needs them, fits before each normalisation, and the final fit."""
    single = recipe.linearity.single_exposures
    found = [Step(RATIOS)] if single else []
    own: tuple[Any, ...] = ((RATIOS, "own"),) if single else ()
    before: tuple[Any, ...] = ()
    for name in (*map(trial_name, range(recipe.linearity.normalization.rounds)), FIT):
        found.append(Step(name, raws=False, calibs=(CURVES,), after=(*own, *before)))
        before = ((name, "all"),)
    return tuple(found)


def plan_linearizer(request: Request) -> Plan:
    """Find the curves of every detector and, for a double spline, their exposures."""
    recipe: LinearityRecipe = request.recipe
    curves = {int(data_id["detector"]): ref for data_id, ref in first_of(request, recipe.curves, "is made from")}
    if not recipe.linearity.single_exposures:
        chosen = request.detectors(curves)
        refs = {CURVES: {d: curves[d] for d in chosen}}
        return request.plan(
            detectors=chosen, calibs=refs, task_bytes=_FIT_BYTES, bytes_per_detector=_bytes_written(request, 0)
        )
    raws = request.raws()
    pairs = products.open_products([(ref.uri, d) for d, ref in list(curves.items())[:1]])
    wanted = np.concatenate([pairs["exposure_1"].values, pairs["exposure_2"].values])
    raws = raws.sel(exposure=np.isin(raws["exposure"].values, wanted))
    plan = plan_raws(request, raws, bytes_per_detector=_bytes_written(request, raws.sizes["exposure"]))
    without = {d: f"no {recipe.curves} in {', '.join(request.inputs)}" for d in plan.detectors if d not in curves}
    return replace(plan, calibs={CURVES: curves, **plan.calibs}, lacking={**plan.lacking, **without})


def _bytes_written(request: Request, n_exposure: int) -> int:
    return len(request.instrument.amp_names) * (80 * n_exposure + 2000)


def run_linearity(job: Job) -> Outcome:
    """Make the linearizer of all detectors; the normalisation couples them, so it waits for those still to come."""
    recipe = job.plan.recipe
    if not job.todo():
        job.tracker.expect(q for q in job.plan.quanta if q.task == FIT)
        return job.carry_out(partial(fit_quantum, job.place), FIT)
    job.lack(FIT)
    able = [d for d in job.plan.detectors if d not in job.plan.lacking]
    if recipe.linearity.single_exposures:
        ratios = _collected(job, RATIOS, able, partial(ratio_quantum, job.place))
        able = [] if ratios is None else sorted(ratios)
        for d in able:
            small.write_dataset(_ratios_uri(job.place, d), ratios[d], overwrite=True)  # type: ignore[index]
    factors: xr.DataArray | None = None
    for i in range(recipe.linearity.normalization.rounds):
        trial = _collected(job, trial_name(i), able, partial(fit_quantum, job.place, factors=factors, trial=i))
        if not trial:
            return job.outcome()
        factors, able = normalize(concat([trial[d] for d in sorted(trial)]), recipe.linearity), sorted(trial)
    fits = _collected(job, FIT, able, partial(fit_quantum, job.place, factors=factors))
    if not fits:
        return job.outcome()
    _write(job, concat([fits[d] for d in sorted(fits)]))
    outcome = job.outcome()
    if outcome.complete:
        job.parts().clear()
        files.remove_folder(files.parent(_ratios_uri(job.place, 0)))
    return outcome


def ratio_quantum(place: Place, quantum: Quantum) -> Any:
    """Graph of the amp ratios of all exposures of one detector: one task per exposure."""
    plan, recipe, detector = place.plan, place.plan.recipe, quantum.detector
    calibs = {name: c for name, c in open_calibs(plan, detector).items() if name != CURVES}
    corrected = isr(plan.pixels.sel(detector=[detector]), calibs, recipe.isr)
    reference = linearity_ratios.choose(_curves(plan, detector), detector, recipe.linearity)
    measured = linearity_ratios.measure(corrected, reference, recipe.linearity.double)
    return dask.delayed(_ratio_table)(measured, detector, plan.exposures, list(plan.instrument.amp_names))


def fit_quantum(place: Place, quantum: Quantum, factors: xr.DataArray | None = None, trial: int | None = None) -> Any:
    """Graph of the fit of one detector: one task; ``trial`` counts the fits before the final one."""
    return dask.delayed(_fit)(place, quantum.detector, factors, trial)


def linearizer_quantum(place: Place, quantum: Quantum) -> Any:
    """Graph of one quantum of any step, as far as it is known before the run."""
    return ratio_quantum(place, quantum) if quantum.task == RATIOS else fit_quantum(place, quantum)


def _ratio_table(
    measured: linearity_ratios.DetectorRatios, detector: int, exposures: list[int], amps: list[str]
) -> xr.Dataset:
    return linearity_ratios.table({detector: measured}, exposures, amps)


def _fit(place: Place, detector: int, factors: xr.DataArray | None, trial: int | None) -> xr.Dataset:
    recipe = place.plan.recipe
    ratios = small.open_dataset(_ratios_uri(place, detector)) if recipe.linearity.single_exposures else None
    curves = _curves(place.plan, detector)
    made = fit(
        curves, recipe.linearity, normalization=factors, ratios=ratios, first_pass=trial == 0, final=trial is None
    )
    usable.with_reasons({}, place.plan.instrument.detectors[detector], made.attrs["problems"].get(str(detector), {}))
    return made


def _curves(plan: Plan, detector: int) -> xr.Dataset:
    """What the linearizer needs of the curves of a detector, in memory."""
    curves = products.open_products([(plan.calibs[CURVES][detector].uri, detector)])
    names = [str(n) for n in curves.data_vars if n in _TABLE or str(n).startswith("aux_")]
    return curves[names].load()


def _ratios_uri(place: Place, detector: int) -> str:
    return files.join(f"{place.uri.removesuffix('.zarr')}.ratios", f"{detector}.zarr")


def _collected(job: Job, task: str, detectors: list[int], work: Any) -> dict[int, xr.Dataset] | None:
    """Results of a step by detector; None if it stopped, or if a detector failed for a reason that may pass."""
    quanta = [Quantum(task, d) for d in detectors]
    found = {q.detector: part for q, part in job.collect(work, quanta)}
    failed = [job.tracker.outcomes[q] for q in quanta if q.detector not in found and q in job.tracker.outcomes]
    if job.tracker.stopped or any(outcome.can_pass for outcome in failed):
        return None
    return found


def _write(job: Job, linearizer: xr.Dataset) -> None:
    """Write and register all detectors; they share the lengths of their rows."""
    described = {name: linearizer.attrs[name] for name in ("linearity_type", "abscissa")}
    job.begin(described, shared(linearizer))
    detectors = linearizer["detector"].values.tolist()
    for d in detectors:
        reasons = linearizer.attrs["problems"].get(str(d), {})
        record = usable.with_reasons({}, job.plan.instrument.detectors[d], reasons)
        products.write_product(job.uri, job.place.index(d), arrays_of(linearizer, d), record)
    job.register(detectors)


LINEARITY_TASK = Task(
    "linearity",
    LinearityRecipe,
    linearizer_quantum,
    plan=plan_linearizer,
    run=run_linearity,
    steps=steps,
    chained="all",
)

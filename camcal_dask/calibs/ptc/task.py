"""Photon transfer curves as a task: a quantum measures one pair of a detector, another one fits the detector's amps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import dask
import numpy as np
import xarray as xr

from camcal_dask.calibs.ptc.extract import EXTRACTED, extract
from camcal_dask.calibs.ptc.pairing import Paired, find_pairs
from camcal_dask.calibs.ptc.product import arrays_of, join_pairs, shared
from camcal_dask.calibs.ptc.recipe import PtcRecipe
from camcal_dask.calibs.ptc.solve import reasons_of, solve
from camcal_dask.campaign.planning.plan import Found, Plan
from camcal_dask.campaign.planning.quanta import Outcome, Quantum, Step
from camcal_dask.campaign.planning.request import Request, plan_raws
from camcal_dask.campaign.running.job import Job, Place, open_calibs
from camcal_dask.campaign.task import Task
from camcal_dask.errors import RepoError
from camcal_dask.isr.corrected import isr
from camcal_dask.repo.cubes import products, usable
from camcal_dask.repo.storage import files
from camcal_dask.repo.storage.parts import bind, unbind, unpack

PAIRS = Step("pairs", each="group")
SOLVE = Step("ptc", raws=False, calibs=(), after=((PAIRS.name, "own"),))


def plan_ptc(request: Request) -> Plan:
    """Plan the curves from all selected flats that pair."""
    recipe: PtcRecipe = request.recipe
    raws, camera = request.raws(), request.instrument
    paired = find_pairs(request.repo, recipe, raws)
    pairs = paired.pairs
    return plan_raws(
        request,
        raws.sel(exposure=pairs.exposures),
        # the first exposure of the pair, corrected, while the second one is
        beside_bytes=8 * len(camera.amp_names) * int(np.prod(camera.trimmed_shape)),
        bytes_per_detector=len(camera.amp_names) * len(pairs.pairs) * (4 * recipe.extract.lags**2 + 20) * 8,
        found=Found(paired, tuple(pairs.pairs), paired.digest(), pairs.text()),
    )


def run_ptc(job: Job) -> Outcome:
    """Make the curves of every detector; one that lacks a pair for a passing reason is left for the next attempt."""
    plan, recipe = job.plan, job.plan.recipe
    job.existing()  # refuses another run's curves even if nothing is left to do
    todo = job.todo()
    job.tracker.expect(q for q in plan.quanta if q.task == SOLVE.name or q.detector in todo)
    if todo:
        common = shared(_measure(plan, todo[0], paired(plan)), recipe.n_parameter)
        described = {"pairs": paired(plan), **recipe.solve.described()}
        job.begin(described | {"covariance_lags": recipe.solve.covariance_lags or recipe.extract.lags}, common)
    measured = []
    for detector, parts in _pairs_of_detectors(job, todo):
        bound = bind({tuple(map(str, pair)): part for pair, part in parts.items()})
        files.write_bytes(pairs_uri(job.place, detector), bound)  # joined by the worker that fits them
        measured.append(detector)
    if job.tracker.stopped:
        return job.outcome()
    outcome = job.carry_out(partial(solve_quantum, job.place), SOLVE.name, [d for d in todo if d not in measured])
    if outcome.complete:
        job.parts().clear()
        files.remove_folder(files.parent(pairs_uri(job.place, 0)))
    return outcome


def paired(plan: Plan) -> list[tuple[int, int]]:
    """Pairs of a run."""
    light: Paired = plan.found.value
    return light.pairs.pairs


def pairs_uri(place: Place, detector: int) -> str:
    """Where the measured pairs of a detector wait for the fit."""
    return files.join(f"{place.uri.removesuffix('.zarr')}.pairs", f"{detector}.parts")


def pair_quantum(place: Place, quantum: Quantum) -> xr.Dataset:
    """Graph of one pair of one detector: its statistics."""
    first, second = quantum.exposures
    found: xr.Dataset
    (found,) = dask.optimize(_measure(place.plan, quantum.detector, [(first, second)])[list(EXTRACTED)])
    return found.reset_coords(drop=True)


def solve_quantum(place: Place, quantum: Quantum) -> Any:
    """Graph of the fit of one detector: one task."""
    return dask.delayed(_solve)(place, quantum.detector)


def ptc_quantum(place: Place, quantum: Quantum) -> Any:
    """Graph of one quantum of either step."""
    return pair_quantum(place, quantum) if quantum.task == PAIRS.name else solve_quantum(place, quantum)


def _measure(plan: Plan, detector: int, pairs: list[tuple[int, int]]) -> xr.Dataset:
    """Statistics of pairs of one detector, lazy."""
    recipe: PtcRecipe = plan.recipe
    light: Paired = plan.found.value
    raw = plan.pixels.sel(detector=[detector], exposure=[e for pair in pairs for e in pair])
    corrected = isr(raw, open_calibs(plan, detector), recipe.isr)
    return extract(corrected, pairs, recipe.extract, photo_charge=light.photo_charge, aux=light.aux)


def _pairs_of_detectors(job: Job, detectors: list[int]) -> Iterator[tuple[int, dict[tuple[int, int], bytes]]]:
    """Measured pairs (packed) of each detector once all have been tried; not of one that another try may complete."""
    pairs = paired(job.plan)
    quanta = [Quantum(PAIRS.name, d, pair) for d in detectors for pair in pairs]
    found: dict[int, dict[tuple[int, int], bytes]] = {d: {} for d in detectors}
    for quantum, part in job.collect_packed(partial(pair_quantum, job.place), quanta):
        mine = found[quantum.detector]
        mine[quantum.exposures[0], quantum.exposures[1]] = part
        if len(mine) == len(pairs):
            yield quantum.detector, found.pop(quantum.detector)
    for detector, mine in found.items():
        failed = [job.tracker.outcomes.get(Quantum(PAIRS.name, detector, pair)) for pair in pairs if pair not in mine]
        if mine and all(outcome is not None and not outcome.can_pass for outcome in failed):
            yield detector, mine


def _solve(place: Place, detector: int) -> None:
    """Fit and write one detector; runs on a worker."""
    recipe: PtcRecipe = place.plan.recipe
    waiting = pairs_uri(place, detector)
    bound = files.read_bytes(waiting)
    if bound is None:
        raise RepoError(f"{waiting}: no longer there, although the pairs were measured; run the pipeline again")
    measured = {(int(first), int(second)): unpack(part) for (first, second), part in unbind(bound, waiting)}
    pairs = join_pairs(measured, paired(place.plan)).assign_attrs(extract_config=recipe.extract.model_dump_json())
    camera = place.plan.instrument
    solved = solve(pairs.assign_coords(detector=[detector], amp=list(camera.amp_names)), recipe.solve)
    bad, lost = solved["bad"].isel(detector=0), ~pairs["valid"].isel(detector=0).any("amp")
    record = {
        "bad_amps": bad["amp"].values[bad.values].tolist(),
        "lost_pairs": [pair for pair, is_lost in zip(paired(place.plan), lost.values, strict=True) if is_lost],
    }
    record = usable.with_reasons(record, camera.detectors[detector], reasons_of(solved, detector))
    products.write_product(place.uri, place.index(detector), arrays_of(solved, recipe.n_parameter), record)


PTC_TASK = Task(
    "ptc",
    PtcRecipe,
    ptc_quantum,
    plan=plan_ptc,
    run=run_ptc,
    steps=lambda recipe: (PAIRS, SOLVE),
    chained="all",
)

"""Bias and dark as a task: read, correct, combine and write one detector; a dark looks for cosmic rays first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import dask
import numpy as np
import xarray as xr

from camcal_dask.calibs.combined.combine import combined_blocks
from camcal_dask.calibs.combined.cosmic_rays import find_hits
from camcal_dask.calibs.combined.finish import Finished, unusable_amps
from camcal_dask.calibs.combined.recipe import StackRecipe
from camcal_dask.campaign.planning.plan import Plan
from camcal_dask.campaign.planning.quanta import Outcome, Quantum
from camcal_dask.campaign.planning.request import Request, image_bytes, plan_raws
from camcal_dask.campaign.running.job import Job, Place, open_calibs
from camcal_dask.campaign.task import Task
from camcal_dask.instruments import Detector, get_instrument
from camcal_dask.instruments.state import check_powered, common_state
from camcal_dask.isr.applied import n_planes
from camcal_dask.isr.corrected import SLAB_ROWS, isr
from camcal_dask.isr.cost import peak_bytes, slab_rows_for
from camcal_dask.repo.cubes import products, usable
from camcal_dask.repo.cubes import raw as cubes

Finish = Callable[[Finished, str, int], Finished]
"""Last touch to a combined detector: product, camera, detector id."""


def plan_stack(request: Request) -> Plan:
    """Plan the combination of all selected exposures."""
    return plan_combined(request, request.raws(), whole_exposures=request.recipe.find_cosmic_rays)


def plan_combined(request: Request, raws: xr.DataArray, *, whole_exposures: bool) -> Plan:
    """Plan the combination of chosen exposures in slabs as high as memory allows.

    Parameters
    ----------
    request : Request
        The recipe is a `StackRecipe`.
    raws : DataArray
        From ``Request.raws``.
    whole_exposures : bool
        Whether exposures are corrected as a whole before: a task must be allowed that much memory.
    """
    plan = plan_raws(request, raws, check_memory=whole_exposures)
    recipe: StackRecipe = plan.recipe
    n_exposure, planes, halves = raws.sizes["exposure"], n_planes(recipe.isr), recipe.combine.compare_halves
    rows = slab_rows_for(request.budget_bytes, n_exposure, request.instrument, planes, halves=halves)
    cost = peak_bytes(rows, n_exposure, request.instrument, planes, halves=halves)
    return replace(plan, slab_rows=rows, task_bytes=cost, bytes_per_detector=image_bytes(request.instrument))


def run_stack(job: Job) -> Outcome:
    """Combine the exposures of every detector."""
    job.begin(_times(job.plan))
    return job.carry_out(partial(stack_quantum, job.place), STACK.name)


def _times(plan: Plan) -> dict[str, float]:
    """Dark time of the inputs of a dark [s]: by it the bias that was subtracted from them is part of the dark."""
    if plan.recipe.combine.scale != "dark_time":
        return {}
    return {"input_dark_time_s": float(1 / np.mean(1 / plan.pixels["dark_time"].values.astype(np.float64)))}


def stack_quantum(
    place: Place,
    quantum: Quantum,
    levels: Sequence[float] | None = None,
    *,
    finish: Finish | None = None,
    divides: bool = False,
) -> Any:
    """Graph of one detector.

    Parameters
    ----------
    place, quantum
        Where and what.
    levels : sequence of float, optional
        Of the exposures; they are divided by them.
    finish : callable, optional
        See `Finish`.
    divides : bool
        Whether exposures are divided by the product: an amp of zeros is then no use.
    """
    plan, detector = place.plan, quantum.detector
    recipe: StackRecipe = plan.recipe
    raw, calibs = plan.pixels.sel(detector=[detector]), open_calibs(plan, detector)
    corrected = isr(raw, calibs, recipe.isr)
    hits = find_hits(corrected, recipe.cosmic_rays) if recipe.find_cosmic_rays else None
    (blocks,) = dask.optimize(
        combined_blocks(corrected, recipe.combine, slab_rows=plan.slab_rows or SLAB_ROWS, levels=levels, hits=hits)
    )
    product = blocks.to_delayed()[0]
    if finish is not None:
        product = dask.delayed(finish)(product, plan.instrument.name, detector)
    record = dask.delayed(_record)(
        product,
        plan.instrument.name,
        detector,
        place.root,
        plan.exposures,
        divides=divides,
        what=f"{recipe.product}, detector {plan.instrument.detector(detector).name}",
        strict=not recipe.mixed_state,
        powered=recipe.check_powered,
    )
    return written(place.uri, place.index(detector), product, record)


def written(uri: str, index: int, product: Any, record: Any) -> Any:
    """Graph that writes one combined detector: a quantum with two threads compresses its two large planes at once.

    Parameters
    ----------
    uri, index : str, int
        See `camcal_dask.repo.cubes.products.write_product`.
    product : Delayed
        Of a `Finished`.
    record : Delayed
        Of what the marker keeps; nothing is written before it is known.
    """
    large = ("variance",)
    parts = (large, tuple(name for name in Finished._fields if name not in large))
    done = [dask.delayed(_write)(uri, index, product, names, record) for names in parts]
    return dask.delayed(_finish)(uri, index, record, done)


def _write(uri: str, index: int, product: Finished, names: Sequence[str], record: Mapping[str, Any]) -> None:
    products.write_variables(uri, index, {name: getattr(product, name) for name in names})


def _finish(uri: str, index: int, record: Mapping[str, Any], done: Sequence[None]) -> None:
    products.mark_finished(uri, index, record)


def _record(product: Finished, camera: str, detector: int, *args: Any, divides: bool, **kwargs: Any) -> Any:
    """What the marker keeps: inputs, their state (as `_inputs` is given them), amps that correct nothing."""
    place = get_instrument(camera).detectors[detector]
    reasons = unusable_amps(product, place, divides=divides)
    return usable.with_reasons(_inputs(*args, place=place, camera=camera, **kwargs), place, reasons)


def _inputs(
    root: str, exposures: Sequence[int], *, place: Detector, camera: str, what: str, strict: bool, powered: bool
) -> dict[str, Any]:
    """Exposures that one detector has, and the camera state they share."""
    headers = cubes.headers(root, camera, exposures, [place.id])
    instrument = get_instrument(camera)
    if powered:
        check_powered(headers, instrument, what=what)
    state = common_state(headers, instrument.settings.state_keywords, what=what, strict=strict)
    return {"exposures": [e for e, header in headers.items() if header is not None], "camera_state": state}


STACK = Task("stack", StackRecipe, stack_quantum, plan=plan_stack, run=run_stack)

"""Stack: read, correct, combine and write one detector; a dark looks for cosmic rays first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dask
import numpy as np

from camcal_dask.calibs.combined.combine import combined_blocks
from camcal_dask.calibs.combined.cosmic_rays import find_hits
from camcal_dask.calibs.combined.finish import Finished, unusable_amps
from camcal_dask.calibs.combined.state import check_powered, common_state
from camcal_dask.calibs.flat.levels import VignetteConfig, vignette
from camcal_dask.campaign.planning.plan import Plan
from camcal_dask.campaign.planning.quanta import Outcome, Quantum
from camcal_dask.campaign.planning.recipe import FlatRecipe, StackRecipe
from camcal_dask.campaign.running.job import Job, Place, open_calibs
from camcal_dask.instruments import get_instrument
from camcal_dask.isr.corrected import isr
from camcal_dask.repo.cubes import products, usable
from camcal_dask.repo.cubes import raw as cubes


def run_stack(job: Job) -> Outcome:
    """Combine the exposures of every detector."""
    job.begin(_times(job.plan))
    return job.carry_out(partial(stack_quantum, job.place), "stack")


def _times(plan: Plan) -> dict[str, float]:
    """Dark time of the inputs of a dark [s]: by it the bias that was subtracted from them is part of the dark."""
    assert isinstance(plan.recipe, StackRecipe)
    if plan.recipe.combine.scale != "dark_time":
        return {}
    return {"input_dark_time_s": float(1 / np.mean(1 / plan.pixels["dark_time"].values.astype(np.float64)))}


def stack_quantum(place: Place, quantum: Quantum, levels: Sequence[float] | None = None) -> Any:
    """Graph of one detector; ``levels`` of the exposures divide them, for a flat."""
    plan, detector = place.plan, quantum.detector
    recipe = plan.recipe
    assert isinstance(recipe, StackRecipe)
    raw, calibs = plan.pixels.sel(detector=[detector]), open_calibs(plan, detector)
    corrected = isr(raw, calibs, recipe.isr)
    hits = find_hits(corrected, recipe.cosmic_rays) if recipe.find_cosmic_rays else None
    (blocks,) = dask.optimize(
        combined_blocks(corrected, recipe.combine, slab_rows=plan.slab_rows, levels=levels, hits=hits)
    )
    product = blocks.to_delayed()[0]
    if isinstance(recipe, FlatRecipe) and recipe.vignette.enabled:
        product = dask.delayed(_vignetted)(product, plan.instrument.name, detector, recipe.vignette)
    record = dask.delayed(_record)(
        product,
        plan.instrument.name,
        detector,
        recipe.product,
        {e: (cubes.raw_cube_uri(place.root, plan.instrument.name, e), detector) for e in plan.exposures},
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


def _vignetted(product: Finished, camera: str, detector: int, field: VignetteConfig) -> Finished:
    return Finished(**vignette(product._asdict(), get_instrument(camera).detectors[detector], field))


def _record(product: Finished, camera: str, detector: int, dataset_type: str, *args: Any, **kwargs: Any) -> Any:
    """What the marker keeps: inputs, their state (as `_inputs` is given them), amps that correct nothing."""
    place = get_instrument(camera).detectors[detector]
    reasons = unusable_amps(product, place, divides=dataset_type.startswith("flat"))
    return usable.with_reasons(_inputs(*args, camera=camera, **kwargs), place, reasons)


def _inputs(
    manifests: Mapping[int, tuple[str, int]], *, camera: str, what: str, strict: bool, powered: bool
) -> dict[str, Any]:
    """Exposures that one detector has, and the camera state they share."""
    headers = {}
    for exposure, (cube, detector) in manifests.items():
        manifest = cubes.read_raw_manifest(cube, cubes.raw_slot(exposure), detector)
        headers[exposure] = None if manifest is None else manifest["header"]
    instrument = get_instrument(camera)
    if powered:
        check_powered(headers, instrument, what=what)
    state = common_state(headers, instrument.settings.state_keywords, what=what, strict=strict)
    return {"exposures": [e for e, header in headers.items() if header is not None], "camera_state": state}

"""Stack: read, correct, combine and write one detector; a dark looks for cosmic rays first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dask

from camcal_dask.calibs.cosmic_rays import find_hits
from camcal_dask.calibs.levels import VignetteConfig, vignette
from camcal_dask.calibs.stack import Finished, combine, finished_of
from camcal_dask.calibs.state import check_powered, common_state
from camcal_dask.campaign.quanta import Outcome, Quantum
from camcal_dask.campaign.recipe import FlatRecipe, StackRecipe
from camcal_dask.campaign.tasks.product import Job, Place, open_calibs
from camcal_dask.instruments import get_instrument
from camcal_dask.isr.blocks import isr
from camcal_dask.repo import cubes, products


def run_stack(job: Job) -> Outcome:
    """Combine the exposures of every detector."""
    job.begin()
    return job.carry_out(partial(stack_quantum, job.place), "stack")


def stack_quantum(place: Place, quantum: Quantum, levels: Sequence[float] | None = None) -> Any:
    """Graph of one detector; ``levels`` of the exposures divide them, for a flat."""
    plan, detector = place.plan, quantum.detector
    recipe = plan.recipe
    assert isinstance(recipe, StackRecipe)
    raw, calibs = plan.pixels.sel(detector=[detector]), open_calibs(plan, detector)
    corrected = isr(raw, calibs, recipe.isr, block="slab", slab_rows=plan.slab_rows)
    hits = find_hits(isr(raw, calibs, recipe.isr), recipe.cosmic_rays) if recipe.find_cosmic_rays else None
    (blocks,) = dask.optimize(finished_of(combine(corrected, recipe.combine, levels=levels, hits=hits)))
    return dask.delayed(_write_detector)(
        place.uri,
        place.index(detector),
        blocks.to_delayed()[0],
        place=(plan.instrument.name, detector),
        manifests={e: (cubes.raw_cube_uri(place.root, plan.instrument.name, e), detector) for e in plan.exposures},
        keywords=plan.instrument.settings.state_keywords,
        what=f"{recipe.product}, detector {plan.instrument.detector(detector).name}",
        strict=not recipe.mixed_state,
        powered=recipe.check_powered,
        field=recipe.vignette if isinstance(recipe, FlatRecipe) else None,
    )


def _write_detector(
    uri: str,
    index: int,
    product: Finished,
    *,
    place: tuple[str, int],
    manifests: Mapping[int, tuple[str, int]],
    keywords: Sequence[str],
    what: str,
    strict: bool,
    powered: bool,
    field: VignetteConfig | None,
) -> None:
    """Write one detector's shard with the camera state of its inputs; runs on a worker."""
    headers = {}
    for exposure, (cube, detector) in manifests.items():
        manifest = cubes.read_raw_manifest(cube, cubes.raw_slot(exposure), detector)
        headers[exposure] = None if manifest is None else manifest["header"]
    if powered:
        check_powered(headers, get_instrument(place[0]), what=what)
    state = common_state(headers, keywords, what=what, strict=strict)
    present = [exposure for exposure, header in headers.items() if header is not None]
    arrays = product._asdict()
    if field is not None and field.enabled:
        arrays = vignette(arrays, get_instrument(place[0]).detectors[place[1]], field)
    products.write_product(uri, index, arrays, {"exposures": present, "camera_state": state})

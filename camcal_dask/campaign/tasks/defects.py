"""Defects: search the combined images of one detector and write why which pixel is bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dask

from camcal_dask.calibs.defects.config import DefectConfig
from camcal_dask.calibs.defects.find import Box, dead_amps, find_defects
from camcal_dask.campaign.planning.quanta import Outcome, Quantum
from camcal_dask.campaign.planning.recipe import DefectsRecipe
from camcal_dask.campaign.running.job import Job, Place
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.cubes import products, usable


def run_defects(job: Job) -> Outcome:
    """Search every detector."""
    job.begin()
    return job.carry_out(partial(defects_quantum, job.place), "defects")


def defects_quantum(place: Place, quantum: Quantum) -> Any:
    """Graph of one detector: one task."""
    plan, detector = place.plan, quantum.detector
    recipe = plan.recipe
    assert isinstance(recipe, DefectsRecipe)
    sources = {name: ref.uri for name, ref in plan.refs(detector).items()}
    manual = recipe.manual.get(plan.instrument.detectors[detector].full_name, ())
    return dask.delayed(_search)(
        place.uri, place.index(detector), plan.instrument.name, detector, sources, recipe.defects, manual
    )


def _search(
    uri: str,
    index: int,
    instrument: str,
    detector_id: int,
    sources: Mapping[str, str],
    config: DefectConfig,
    manual: Sequence[Box],
) -> None:
    """Find and write the defects of one detector; runs on a worker."""
    camera = get_instrument(instrument)
    images = {
        name: products.open_products([(source, detector_id)]).isel(detector=0) for name, source in sources.items()
    }
    shape = (len(camera.amp_names), *camera.trimmed_shape)
    found = find_defects(images, camera.detectors[detector_id], shape, config, manual)
    detector = camera.detectors[detector_id]
    record = {"boxes": found.boxes.tolist(), "n_source": found.n_source, "n_alone": found.n_alone}
    record = usable.with_reasons(record, detector, dead_amps(found, detector))
    products.write_product(uri, index, found.arrays, record)

"""Defects as a task: search the combined images of one detector and write why which pixel is bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask

from camcal_dask.calibs.defects.config import DefectConfig
from camcal_dask.calibs.defects.find import Box, dead_amps, find_defects
from camcal_dask.calibs.defects.recipe import DefectsRecipe
from camcal_dask.campaign.planning.plan import Plan
from camcal_dask.campaign.planning.quanta import Quantum, Step
from camcal_dask.campaign.planning.request import Refs, Request, first_of, image_bytes
from camcal_dask.campaign.running.job import Place
from camcal_dask.campaign.task import Task
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.cubes import products, usable


def plan_defects(request: Request) -> Plan:
    """Find the combined images; a detector that lacks one of the kinds cannot be done."""
    calibs: dict[str, Refs] = {}
    for kind, dataset_type in request.recipe.images.items():
        for data_id, ref in first_of(request, dataset_type, "is made from"):
            name = f"{kind} {data_id['physical_filter']}" if "physical_filter" in data_id else kind
            calibs.setdefault(name, {})[int(data_id["detector"])] = ref
    detectors = request.detectors({d for refs in calibs.values() for d in refs})
    return request.plan(
        detectors=detectors,
        calibs=calibs,
        task_bytes=image_bytes(request.instrument, 40),
        bytes_per_detector=image_bytes(request.instrument, 1),
        lacking={d: f"no {name} image" for name, refs in calibs.items() for d in detectors if d not in refs},
    )


def defects_quantum(place: Place, quantum: Quantum) -> Any:
    """Graph of one detector: one task."""
    plan, detector = place.plan, quantum.detector
    recipe: DefectsRecipe = plan.recipe
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


DEFECTS_TASK = Task(
    "defects",
    DefectsRecipe,
    defects_quantum,
    plan=plan_defects,
    steps=lambda recipe: (Step("defects", raws=False),),
    chained="none",
)

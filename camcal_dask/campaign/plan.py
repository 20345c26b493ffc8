"""A run before it starts: its inputs, quanta, tasks, bytes and memory.  Nothing is read from the pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from camcal_dask.calibs.products import PRODUCTS
from camcal_dask.calibs.stack import peak_bytes, slab_rows_for
from camcal_dask.campaign.recipe import AnyRecipe, DefectsRecipe, FlatRecipe, StackRecipe, VerifyRecipe
from camcal_dask.errors import PlanError, RepoError
from camcal_dask.instruments import Instrument
from camcal_dask.repo.lookup import CalibRef
from camcal_dask.repo.registry import Repo

TASK_BUDGET_BYTES = 1_400 * 2**20
"""Memory a task is planned for when the worker would allow more: beyond it nothing gets faster."""


@dataclass(frozen=True)
class Plan:
    """What a run will do; one quantum a detector."""

    recipe: AnyRecipe
    output: str
    inputs: tuple[str, ...]
    where: str
    instrument: Instrument
    raws: xr.DataArray | None
    """Lazy raw pixels (exposure, detector, amp, y, x) int32 [adu]; None for a task that reads products only."""
    detectors: tuple[int, ...]
    """Ids of the detectors: one quantum each."""
    calibs: Mapping[str, Mapping[int, CalibRef]]
    """Calibrations of each detector id, by the ISR's name, or the images searched (``"flat r_57"``)."""
    slab_rows: int
    """Rows in one block of a stack; all rows in a block of one exposure."""
    task_bytes: int
    """Peak memory of the largest task [byte]."""
    lacking: Mapping[int, str] = field(default_factory=dict)
    """Detectors that cannot be done, with the reason."""
    physical_filter: str | None = None
    """Of a flat."""

    @property
    def exposures(self) -> list[int]:
        """Ids of the input exposures."""
        return [] if self.raws is None else [int(e) for e in self.raws["exposure"].values]

    @property
    def pixels(self) -> xr.DataArray:
        """The raw pixels of a task that reads them."""
        assert self.raws is not None
        return self.raws

    def refs(self, detector: int) -> dict[str, CalibRef]:
        """Calibrations of one detector."""
        return {name: refs[detector] for name, refs in self.calibs.items() if detector in refs}

    def data_id(self, detector: int) -> dict[str, Any]:
        """Butler data id of the product of one detector."""
        values = {"instrument": self.instrument.name, "detector": detector, "physical_filter": self.physical_filter}
        return {name: values[name] for name in self.product_dimensions}

    @property
    def product_dimensions(self) -> tuple[str, ...]:
        """Butler dimensions of the product."""
        return PRODUCTS[self.recipe.product].dimensions if self.is_calibration else ("instrument",)

    @property
    def is_calibration(self) -> bool:
        """Whether the product can be certified."""
        return not isinstance(self.recipe, VerifyRecipe)

    @property
    def bytes_read(self) -> int:
        """Raw int32 bytes; the overscan pass and the pixel pass read them once each."""
        return 0 if self.raws is None else int(self.raws.nbytes)

    @property
    def bytes_written(self) -> int:
        """Bytes of the product before compression."""
        if isinstance(self.recipe, VerifyRecipe):
            return 0
        height, width = self.instrument.trimmed_shape
        per_pixel = 1 if isinstance(self.recipe, DefectsRecipe) else 12
        return len(self.detectors) * len(self.instrument.amp_names) * height * width * per_pixel

    def rows(self, tasks: int) -> list[tuple[str, str]]:
        """Return the lines of the dry-run table; ``tasks`` from :func:`camcal_dask.campaign.run.count_tasks`."""
        exposures, detectors = self.exposures, self.detectors
        lines = [
            ("pipeline", f"{self.recipe.task} -> {self.recipe.product} ({self.recipe.description})"),
            ("inputs", f"{', '.join(self.inputs)} where {self.where or 'everything'}"),
            ("output", self.output),
            ("exposures", f"{len(exposures)}: {_span(exposures)}" if exposures else "none"),
            ("detectors (quanta)", f"{len(detectors)}: {_span(detectors)}"),
            ("dask tasks", f"{tasks:,}"),
            ("raw pixels", f"{self.bytes_read / 1e9:.2f} GB int32"),
            ("product", f"{self.bytes_written / 1e9:.2f} GB before compression"),
            ("block", f"{self.slab_rows} rows" if isinstance(self.recipe, StackRecipe) else "one exposure or detector"),
            ("peak memory a task", f"{self.task_bytes / 2**20:.0f} MiB"),
        ]
        lines += [("filter", self.physical_filter)] if self.physical_filter else []
        for name, refs in self.calibs.items():
            runs = sorted({f"{ref.dataset_type} of {ref.run}" for ref in refs.values()})
            lines.append(("candidate" if isinstance(self.recipe, VerifyRecipe) else name, ", ".join(runs)))
        lines += [("cannot be done", f"detector {d}: {reason}") for d, reason in self.lacking.items()]
        return lines


def _span(ids: Sequence[int]) -> str:
    return "none" if not ids else f"{ids[0]}" if len(ids) == 1 else f"{ids[0]} .. {ids[-1]}"


def make_plan(
    repo: Repo,
    recipe: AnyRecipe,
    *,
    inputs: Sequence[str],
    output: str,
    where: str = "",
    exposures: Sequence[int] | None = None,
    task_memory_bytes: int = TASK_BUDGET_BYTES,
) -> Plan:
    """Resolve a recipe's inputs in one pass over the registry and cost the run.

    Parameters
    ----------
    repo : Repo
        The repository.
    recipe : Recipe
        What to make.
    inputs : sequence of str
        Collections searched for raws and calibrations, in order.
    output : str
        RUN collection to write.
    where : str
        Butler expression, ANDed with the recipe's.
    exposures : sequence of int, optional
        Of what it selects, take these only.
    task_memory_bytes : int
        Memory that one task may take [byte].

    Raises
    ------
    RepoError
        If nothing matches, or the candidate of a verification is not in ``inputs``.
    PlanError
        If no block of the run fits ``task_memory_bytes``.
    """
    instrument = repo.instrument(recipe.instrument)
    both = " AND ".join(f"({part})" for part in (recipe.where, where) if part)
    base: dict[str, Any] = {
        "recipe": recipe, "output": output, "inputs": tuple(inputs), "where": both, "instrument": instrument,
    }  # fmt: skip
    if isinstance(recipe, DefectsRecipe):
        return _plan_defects(repo, recipe, base)
    raws = repo.raws(both, instrument=instrument.name, collections=list(inputs) or None)
    if exposures is not None:
        raws = raws.sel(exposure=list(exposures))
    if isinstance(recipe, VerifyRecipe):
        calibs = {"bias": _candidates(repo, recipe, raws, inputs)}
        raws = raws.sel(detector=list(calibs["bias"]))
        lacking: dict[int, str] = {}
    else:
        calibs, lacking = _applied(repo, recipe, raws, inputs)
    rows, cost = _cost(recipe, raws, instrument, task_memory_bytes)
    return Plan(
        **base,
        raws=raws,
        detectors=tuple(raws["detector"].values.tolist()),
        calibs=calibs,
        slab_rows=rows,
        task_bytes=cost,
        lacking=lacking,
        physical_filter=_one_filter(raws) if isinstance(recipe, FlatRecipe) else None,
    )


def _cost(recipe: AnyRecipe, raws: xr.DataArray, instrument: Instrument, task_memory_bytes: int) -> tuple[int, int]:
    """Rows of a block and peak memory of a task."""
    budget = min(task_memory_bytes, TASK_BUDGET_BYTES)
    cost = peak_bytes(raws.sizes["y"], 1, instrument)
    blocks_of_exposures = not isinstance(recipe, StackRecipe) or isinstance(recipe, FlatRecipe)
    if (blocks_of_exposures or getattr(recipe, "find_cosmic_rays", False)) and cost > task_memory_bytes:
        raise PlanError(
            f"one exposure of one detector takes {cost / 2**20:.0f} MiB, a task may use "
            f"{task_memory_bytes / 2**20:.0f} MiB; start fewer workers (-j) or give them more memory"
        )
    if not isinstance(recipe, StackRecipe):
        return raws.sizes["y"], cost
    planes = 3 * sum((recipe.isr.bias, recipe.isr.dark, recipe.isr.flat)) + recipe.isr.defects
    rows = slab_rows_for(budget, raws.sizes["exposure"], instrument, planes)
    return rows, peak_bytes(rows, raws.sizes["exposure"], instrument, planes)


def _one_filter(raws: xr.DataArray) -> str:
    names, counts = np.unique(raws["physical_filter"].values, return_counts=True)
    if len(names) > 1:
        listed = ", ".join(f"{name} ({n})" for name, n in zip(names, counts, strict=True))
        raise PlanError(
            f"the exposures were taken through {len(names)} filters: {listed}; one run makes the flat of one filter: "
            f"select it with -d \"physical_filter='{names[0]}'\""
        )
    return str(names[0])


def _applied(
    repo: Repo, recipe: AnyRecipe, raws: xr.DataArray, inputs: Sequence[str]
) -> tuple[dict[str, dict[int, CalibRef]], dict[int, str]]:
    """Calibrations that the ISR applies, and the detectors that lack one."""
    calibs: dict[str, dict[int, CalibRef]] = {}
    lacking: dict[int, str] = {}
    detectors = [int(d) for d in raws["detector"].values]
    for name, dataset_type in recipe.calibs.items():
        calibs[name] = _one_each(repo, dataset_type, recipe.instrument, raws, inputs)
        if not calibs[name]:
            raise RepoError(
                f"no {dataset_type}, which {recipe.product} needs for its ISR, in "
                f"{', '.join(inputs) or 'no collection'}; make it first and name its RUN in -i"
            )
        lacking |= {d: f"no {dataset_type} in {', '.join(inputs)}" for d in detectors if d not in calibs[name]}
    return calibs, lacking


def _candidates(repo: Repo, recipe: VerifyRecipe, raws: xr.DataArray, inputs: Sequence[str]) -> dict[int, CalibRef]:
    """Find the candidate of each detector: of the first type that the inputs hold, one for all exposures."""
    for dataset_type in recipe.candidates:
        if refs := _one_each(repo, dataset_type, recipe.instrument, raws, inputs):
            return refs
    raise RepoError(
        f"no {' or '.join(recipe.candidates)} for exposure {raws['exposure'].values[0]} in "
        f"{', '.join(inputs) or 'no collection'}; "
        "name the RUN of the candidate first: -i RUN_OF_THE_CALIBRATION,..."
    )


def _one_each(
    repo: Repo, dataset_type: str, instrument: str, raws: xr.DataArray, inputs: Sequence[str]
) -> dict[int, CalibRef]:
    """Calibration of each detector that has one; all exposures must have the same."""
    exposures = [int(e) for e in raws["exposure"].values]
    detectors = [int(d) for d in raws["detector"].values]
    found = repo.find_calibs(dataset_type, exposures, detectors, list(inputs), instrument=instrument, required=False)
    refs = {detector: ref for (_, detector), ref in found.items()}
    for (exposure, detector), ref in found.items():
        if ref.uuid != refs[detector].uuid:
            raise RepoError(
                f"{dataset_type} of detector {detector}: {ref.run} is valid for exposure {exposure}, "
                f"{refs[detector].run} for others; "
                "use one at a time: name its RUN first in -i, or select fewer exposures with -d"
            )
    return dict(sorted(refs.items()))


def _plan_defects(repo: Repo, recipe: DefectsRecipe, base: dict[str, Any]) -> Plan:
    """Find the combined images; a detector that lacks one of the kinds cannot be done."""
    instrument, inputs = base["instrument"], list(base["inputs"])
    calibs: dict[str, dict[int, CalibRef]] = {}
    for kind, dataset_type in recipe.images.items():
        found = repo.first_of(dataset_type, inputs, instrument=instrument.name)
        if not found:
            raise RepoError(
                f"no {dataset_type}, which {recipe.product} is made from, in {', '.join(inputs) or 'no collection'}; "
                "make it first and name its RUN in -i"
            )
        for data_id, ref in found:
            name = f"{kind} {data_id['physical_filter']}" if "physical_filter" in data_id else kind
            calibs.setdefault(name, {})[int(data_id["detector"])] = ref
    detectors = repo.detectors(base["where"], instrument.name) & {d for refs in calibs.values() for d in refs}
    lacking = {d: f"no {name} image" for name, refs in calibs.items() for d in detectors if d not in refs}
    height, width = instrument.trimmed_shape
    cost = 40 * len(instrument.amp_names) * height * width
    return Plan(
        **base, raws=None, detectors=tuple(sorted(detectors)), calibs=calibs, slab_rows=height, task_bytes=cost,
        lacking=lacking,
    )  # fmt: skip

"""A run before it starts: its inputs, quanta, tasks, bytes and memory.  Nothing is read from the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from camcal_dask.calibs.stack import peak_bytes, slab_rows_for
from camcal_dask.campaign.recipe import AnyRecipe, StackRecipe, VerifyRecipe
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
    raws: xr.DataArray
    """Lazy raw pixels (exposure, detector, amp, y, x) int32 [adu]."""
    calibs: dict[int, CalibRef]
    """Calibration used for each detector id (a verification's candidate)."""
    slab_rows: int
    """Rows in one block of a stack; all rows in a block of one exposure."""
    task_bytes: int
    """Peak memory of the largest task [byte]."""

    @property
    def exposures(self) -> list[int]:
        """Ids of the input exposures."""
        return [int(e) for e in self.raws["exposure"].values]

    @property
    def detectors(self) -> list[int]:
        """Ids of the detectors: one quantum each."""
        return [int(d) for d in self.raws["detector"].values]

    @property
    def product_dimensions(self) -> tuple[str, ...]:
        """Butler dimensions of the product."""
        return ("instrument", "detector") if isinstance(self.recipe, StackRecipe) else ("instrument",)

    @property
    def is_calibration(self) -> bool:
        """Whether the product can be certified."""
        return isinstance(self.recipe, StackRecipe)

    @property
    def bytes_read(self) -> int:
        """Raw int32 bytes; the overscan pass and the pixel pass read them once each."""
        return int(self.raws.nbytes)

    @property
    def bytes_written(self) -> int:
        """Bytes of the product before compression."""
        if isinstance(self.recipe, VerifyRecipe):
            return 0
        height, width = self.instrument.trimmed_shape
        return len(self.detectors) * self.raws.sizes["amp"] * height * width * 12

    def rows(self, tasks: int) -> list[tuple[str, str]]:
        """Return the lines of the dry-run table; ``tasks`` from :func:`camcal_dask.campaign.run.count_tasks`."""
        exposures, detectors = self.exposures, self.detectors
        lines = [
            ("pipeline", f"{self.recipe.task} -> {self.recipe.product} ({self.recipe.description})"),
            ("inputs", f"{', '.join(self.inputs)} where {self.where or 'everything'}"),
            ("output", self.output),
            ("exposures", f"{len(exposures)}: {_span(exposures)}"),
            ("detectors (quanta)", f"{len(detectors)}: {_span(detectors)}"),
            ("dask tasks", f"{tasks:,}"),
            ("raw pixels", f"{self.bytes_read / 1e9:.2f} GB int32"),
            ("product", f"{self.bytes_written / 1e9:.2f} GB before compression"),
            ("block", f"{self.slab_rows} rows" if isinstance(self.recipe, StackRecipe) else "one exposure"),
            ("peak memory a task", f"{self.task_bytes / 2**20:.0f} MiB"),
        ]
        lines += [("candidate", f"{ref.dataset_type} of {ref.run}") for ref in list(self.calibs.values())[:1]]
        return lines


def _span(ids: Sequence[int]) -> str:
    return f"{ids[0]}" if len(ids) == 1 else f"{ids[0]} .. {ids[-1]}"


def make_plan(
    repo: Repo,
    recipe: AnyRecipe,
    *,
    inputs: Sequence[str],
    output: str,
    where: str = "",
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
    raws = repo.raws(both, instrument=instrument.name, collections=list(inputs) or None)
    calibs: dict[int, CalibRef] = {}
    if isinstance(recipe, VerifyRecipe):
        calibs = _candidates(repo, recipe, raws, inputs)
        raws = raws.sel(detector=list(calibs))
    budget = min(task_memory_bytes, TASK_BUDGET_BYTES)
    if isinstance(recipe, StackRecipe):
        rows = slab_rows_for(budget, raws.sizes["exposure"], instrument)
        cost = peak_bytes(rows, raws.sizes["exposure"], instrument)
    else:
        rows, cost = raws.sizes["y"], peak_bytes(raws.sizes["y"], 1, instrument)
        if cost > task_memory_bytes:
            raise PlanError(
                f"one exposure of one detector takes {cost / 2**20:.0f} MiB, a task may use "
                f"{task_memory_bytes / 2**20:.0f} MiB; start fewer workers (-j) or give them more memory"
            )
    return Plan(recipe, output, tuple(inputs), both, instrument, raws, calibs, rows, cost)


def _candidates(repo: Repo, recipe: VerifyRecipe, raws: xr.DataArray, inputs: Sequence[str]) -> dict[int, CalibRef]:
    """Find the candidate of each detector: of the first type that the inputs hold, one for all exposures."""
    exposures = [int(e) for e in raws["exposure"].values]
    detectors = [int(d) for d in raws["detector"].values]
    for dataset_type in recipe.candidates:
        found = repo.find_calibs(
            dataset_type, exposures, detectors, list(inputs), instrument=recipe.instrument, required=False
        )
        refs = {detector: ref for (_, detector), ref in found.items()}
        for (exposure, detector), ref in found.items():
            if ref.uuid != refs[detector].uuid:
                raise RepoError(
                    f"detector {detector}: {ref.run} is valid for exposure {exposure}, "
                    f"{refs[detector].run} for others; "
                    "verify one candidate at a time: name its RUN first in -i, or select fewer exposures with -d"
                )
        if refs:
            return dict(sorted(refs.items()))
    raise RepoError(
        f"no {' or '.join(recipe.candidates)} for exposure {exposures[0]} in {', '.join(inputs) or 'no collection'}; "
        "name the RUN of the candidate first: -i RUN_OF_THE_CALIBRATION,..."
    )

"""What a plan is made from, and the questions that tasks ask of the registry, in one pass, before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr

from camcal_dask.campaign.planning.plan import Found, Plan
from camcal_dask.campaign.planning.recipe import IsrRecipe, Recipe, task_of
from camcal_dask.errors import PlanError, RepoError
from camcal_dask.instruments import Instrument
from camcal_dask.instruments.arguments import integers
from camcal_dask.isr.applied import divides_by_flat
from camcal_dask.isr.cost import exposure_bytes
from camcal_dask.repo.butler.lookup import CalibRef
from camcal_dask.repo.storage.naming import check_dataset_type

if TYPE_CHECKING:
    from camcal_dask.repo.butler.repository import Repo

A = TypeVar("A", bound=IsrRecipe)
Refs = dict[int, CalibRef]
"""Calibrations by detector id."""
TASK_BUDGET_BYTES = 1_400 * 2**20
"""Memory a task is planned for when the worker would allow more: beyond it nothing gets faster."""
TABLE_BYTES = 2**26
"""Memory that a task takes which reads a table of one detector."""


@dataclass(frozen=True)
class Request:
    """What was asked for, with the camera and the repository at hand."""

    repo: Repo
    recipe: Any
    inputs: tuple[str, ...]
    output: str
    where: str
    """Butler expression, that of the recipe included."""
    instrument: Instrument
    exposures: Sequence[int] | None = None
    """Of what ``where`` selects, take these only."""
    choice: tuple[str, ...] = ()
    """Why these exposures."""
    task_memory_bytes: int = TASK_BUDGET_BYTES

    @property
    def searched(self) -> str:
        """The collections that are searched, for messages."""
        return ", ".join(self.inputs) or "no collection"

    @property
    def budget_bytes(self) -> int:
        """Memory that a task is planned for [byte]."""
        return min(self.task_memory_bytes, TASK_BUDGET_BYTES)

    def raws(self) -> xr.DataArray:
        """Select raw pixels, lazily: what ``where`` selects, and of it ``exposures`` if they are given."""
        raws = self.repo.raws(self.where, instrument=self.instrument.name, collections=list(self.inputs) or None)
        return raws if self.exposures is None else raws.sel(exposure=integers(self.exposures, "exposure"))

    def detectors(self, having: Iterable[int]) -> tuple[int, ...]:
        """Ids of the selected detectors among ``having``."""
        return tuple(sorted(set(having) & self.repo.detectors(self.where, self.instrument.name)))

    def plan(self, **found: Any) -> Plan:
        """Plan with what was found out; what is asked for is in it."""
        base: dict[str, Any] = {
            "recipe": self.recipe, "output": self.output, "inputs": self.inputs, "where": self.where,
            "instrument": self.instrument, "choice": self.choice, "raws": None, "calibs": {},
        }  # fmt: skip
        return Plan(**(base | found))


def make_plan(
    repo: Repo,
    recipe: Recipe,
    *,
    inputs: Sequence[str],
    output: str,
    where: str = "",
    exposures: Sequence[int] | None = None,
    choice: Sequence[str] = (),
    task_memory_bytes: int = TASK_BUDGET_BYTES,
) -> Plan:
    """Resolve the inputs of a recipe in one pass over the registry, and estimate the cost of the run.

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
        Of what it selects, take these only; default: those that the task chooses.
    choice : sequence of str
        Why these exposures, for the record.
    task_memory_bytes : int
        Memory that one task may take [byte].

    Raises
    ------
    RepoError
        If ``output`` cannot be a RUN, nothing matches, or what the task needs is not in ``inputs``.
    PlanError
        If no block of the run fits ``task_memory_bytes``, or none of the exposures will do.
    """
    repo.check_output(output)
    check_dataset_type(recipe.product)
    both = " AND ".join(f"({part})" for part in (recipe.where, where) if part)
    request = Request(
        repo, recipe, tuple(inputs), output, both, repo.instrument(recipe.instrument), exposures, tuple(choice),
        task_memory_bytes,
    )  # fmt: skip
    plan: Plan = task_of(recipe.task).plan(request)
    return plan


# ---------------------------------------------------------------------------- products of earlier runs


def first_of(request: Request, dataset_type: str, use: str) -> Sequence[tuple[Mapping[str, Any], CalibRef]]:
    """Products of a type that the inputs hold, each data id once, of the first collection that has it.

    Raises
    ------
    RepoError
        If there is none; ``use`` says what it is for.
    """
    found = request.repo.first_of(dataset_type, list(request.inputs), instrument=request.instrument.name)
    if not found:
        raise RepoError(
            f"no {dataset_type}, which {request.recipe.product} {use}, in {request.searched}; "
            "make it first and name its RUN in -i"
        )
    return found


def plan_from(request: Request, **sources: str) -> Plan:
    """Plan a table that is made from products alone, one quantum a detector; ``calibs`` has each under its name.

    The first source says which detectors there are; one that lacks another source is recorded with the reason.

    Raises
    ------
    RepoError
        If a source is in none of the inputs.
    """
    calibs = {
        name: {int(data_id["detector"]): ref for data_id, ref in first_of(request, dataset_type, "is made from")}
        for name, dataset_type in sources.items()
    }
    chosen = request.detectors(next(iter(calibs.values())))
    lacking = {
        d: f"no {sources[name]} in {request.searched}" for name, refs in calibs.items() for d in chosen if d not in refs
    }
    return request.plan(
        detectors=chosen,
        calibs={name: {d: refs[d] for d in chosen if d in refs} for name, refs in calibs.items()},
        task_bytes=TABLE_BYTES,
        lacking=lacking,
    )


def one_each(request: Request, dataset_type: str, raws: xr.DataArray) -> Refs:
    """Calibration of each detector that has one; all exposures must have the same.

    Raises
    ------
    RepoError
        If exposures have different ones.
    """
    exposures, detectors = ([int(i) for i in raws[name].values] for name in ("exposure", "detector"))
    found = request.repo.find_calibs(
        dataset_type, exposures, detectors, list(request.inputs), instrument=request.instrument.name, required=False
    )
    refs = {detector: ref for (_, detector), ref in found.items()}
    for (exposure, detector), ref in found.items():
        if ref.uuid != refs[detector].uuid:
            raise RepoError(
                f"{dataset_type} of detector {detector}: {ref.run} is valid for exposure {exposure}, "
                f"{refs[detector].run} for others; "
                "use one at a time: name its RUN first in -i, or select fewer exposures with -d"
            )
    return dict(sorted(refs.items()))


def if_any(request: Request, dataset_type: str, raws: xr.DataArray) -> Refs:
    """Return the same as `one_each`, of a type that nobody may have made yet."""
    return one_each(request, dataset_type, raws) if request.repo.dataset_types(dataset_type) else {}


def applied(request: Request, recipe: A, raws: xr.DataArray) -> tuple[A, dict[str, Refs], dict[int, str]]:
    """Calibrations that the ISR applies, the recipe that applies no others, and the detectors that lack one.

    Raises
    ------
    RepoError
        If a needed calibration is in none of the inputs.
    """
    calibs: dict[str, Refs] = {}
    lacking: dict[int, str] = {}
    detectors = [int(d) for d in raws["detector"].values]
    registered = {n for n, dataset_type in recipe.if_there.items() if request.repo.dataset_types(dataset_type)}
    wanted = recipe.calibs | {n: recipe.if_there[n] for n in recipe.applied if n in registered}
    found = {name: one_each(request, dataset_type, raws) for name, dataset_type in wanted.items()}
    recipe = recipe.resolved([name for name, refs in found.items() if refs])
    for name, dataset_type in recipe.calibs.items():
        calibs[name] = found[name]
        if not calibs[name]:
            raise RepoError(
                f"no {dataset_type}, which {recipe.product} needs for its ISR, in {request.searched}; "
                "make it first and name its RUN in -i"
            )
        lacking |= {d: f"no {dataset_type} in {', '.join(request.inputs)}" for d in detectors if d not in calibs[name]}
    return recipe, calibs, lacking


def absent(wanted: IsrRecipe, recipe: IsrRecipe) -> tuple[str, ...]:
    """Dataset types that a recipe would apply and that its resolved form does not."""
    return tuple(dataset_type for dataset_type in wanted.uses if dataset_type not in recipe.needs)


def one_filter(raws: xr.DataArray) -> str:
    """Filter of all exposures.

    Raises
    ------
    PlanError
        If they were taken through several.
    """
    names, counts = np.unique(raws["physical_filter"].values, return_counts=True)
    if len(names) > 1:
        listed = ", ".join(f"{name} ({n})" for name, n in zip(names, counts, strict=True))
        raise PlanError(
            f"the exposures were taken through {len(names)} filters: {listed}; one run makes the flat of one filter: "
            f"select it with -d \"physical_filter='{names[0]}'\""
        )
    return str(names[0])


def filter_of(recipe: IsrRecipe, raws: xr.DataArray) -> str | None:
    """Filter of exposures that are divided by a flat; None if they are not."""
    return one_filter(raws) if divides_by_flat(recipe.isr) else None


def plan_exposures(request: Request) -> Plan:
    """Plan a task whose blocks are exposures: the raws selected, and the calibrations that the ISR applies."""
    return plan_raws(request, request.raws())


def plan_raws(
    request: Request,
    raws: xr.DataArray,
    *,
    beside_bytes: int = 0,
    bytes_per_detector: int = 0,
    found: Found | None = None,
    check_memory: bool = True,
) -> Plan:
    """Plan the correction of exposures that were chosen already.

    Parameters
    ----------
    request : Request
        The recipe is an `IsrRecipe`.
    raws : DataArray
        From ``Request.raws``.
    beside_bytes : int
        Memory of a task beside that of one exposure [byte].
    bytes_per_detector : int
        Bytes of the product of one detector before compression.
    found : Found, optional
        What else was found out.
    check_memory : bool
        Refuse an exposure that takes more memory than a task may use; not where blocks are slabs of exposures.
    """
    recipe, calibs, lacking = applied(request, request.recipe, raws)
    cost = exposure_cost(request, raws, beside_bytes) if check_memory else 0
    return request.plan(
        recipe=recipe,
        raws=raws,
        detectors=tuple(raws["detector"].values.tolist()),
        calibs=calibs,
        task_bytes=cost,
        lacking=lacking,
        bytes_per_detector=bytes_per_detector,
        physical_filter=filter_of(recipe, raws),
        absent=absent(request.recipe, recipe),
        found=found or Found(),
    )


def exposure_cost(request: Request, raws: xr.DataArray, beside_bytes: int = 0) -> int:
    """Peak memory of a task that corrects one exposure of one detector [byte].

    Raises
    ------
    PlanError
        If a task may not use so much.
    """
    cost = exposure_bytes(raws.sizes["y"], request.instrument) + beside_bytes
    if cost > request.task_memory_bytes:
        raise PlanError(
            f"one exposure of one detector takes {cost / 2**20:.0f} MiB, a task may use "
            f"{request.task_memory_bytes / 2**20:.0f} MiB; start fewer workers (-j) or give them more memory"
        )
    return cost


def image_bytes(instrument: Instrument, per_pixel: int = 12) -> int:
    """Bytes of the image of one detector before compression; of a combined one 12 a pixel."""
    height, width = instrument.trimmed_shape
    return len(instrument.amp_names) * height * width * per_pixel

"""A run before it starts: its inputs, quanta, tasks, bytes and memory.  Nothing is read from the pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr

from camcal_dask.calibs.combined.combine import peak_bytes, slab_rows_for
from camcal_dask.calibs.products import PRODUCTS
from camcal_dask.campaign.flats import choose_flats
from camcal_dask.campaign.pairing import Paired, find_pairs
from camcal_dask.campaign.planning.quanta import Quantum
from camcal_dask.campaign.planning.recipe import (
    CURVES,
    AnyRecipe,
    DefectsRecipe,
    FlatRecipe,
    LinearityRecipe,
    PtcRecipe,
    Recipe,
    StackRecipe,
    TableRecipe,
    VerifyRecipe,
)
from camcal_dask.errors import PlanError, RepoError
from camcal_dask.instruments import Instrument
from camcal_dask.instruments.arguments import integers
from camcal_dask.repo.butler.lookup import CalibRef
from camcal_dask.repo.cubes import products
from camcal_dask.repo.storage.naming import check_dataset_type
from camcal_dask.repo.storage.shards import check_format

if TYPE_CHECKING:  # workers unpickle a plan, and they have no use for the Butler
    from camcal_dask.repo.butler.repository import Repo

A = TypeVar("A", bound=Recipe)
PTC = "ptc"
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
    """Of a flat, or of exposures that are divided by one."""
    paired: Paired | None = None
    """Pairs of a photon transfer curve."""
    choice: tuple[str, ...] = ()
    """How the exposures were chosen among those selected, a line each."""
    absent: tuple[str, ...] = ()
    """Calibrations that would be applied if the inputs held them (`Recipe.if_there`)."""
    elsewhere: Mapping[int, str] = field(default_factory=dict)
    """Detectors left out because their product is there already, with its RUN (`without_existing`)."""

    @property
    def exposures(self) -> list[int]:
        """Ids of the input exposures."""
        return [] if self.raws is None else [int(e) for e in self.raws["exposure"].values]

    @property
    def pixels(self) -> xr.DataArray:
        """The raw pixels of a task that reads them."""
        assert self.raws is not None
        return self.raws

    @property
    def quanta(self) -> tuple[Quantum, ...]:
        """Everything that will be done, in order."""
        if self.paired is not None:
            able = [d for d in self.detectors if d not in self.lacking]
            pairs = [Quantum("pairs", d, pair) for d in able for pair in self.paired.pairs.pairs]
            return (*pairs, *(Quantum("ptc", d) for d in self.detectors))
        *before, last = _steps(self.recipe)
        able = [d for d in self.detectors if d not in self.lacking]
        return (*(Quantum(task, d) for task in before for d in able), *(Quantum(last, d) for d in self.detectors))

    def refs(self, detector: int) -> dict[str, CalibRef]:
        """Calibrations of one detector."""
        return {name: refs[detector] for name, refs in self.calibs.items() if detector in refs}

    @property
    def candidates(self) -> Mapping[int, CalibRef]:
        """What a verification tests, by detector."""
        assert isinstance(self.recipe, VerifyRecipe)
        return self.calibs[self.recipe.kind]

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
        return not isinstance(self.recipe, VerifyRecipe | TableRecipe)

    @property
    def bytes_read(self) -> int:
        """Raw int32 bytes; the overscan pass and the pixel pass read them once each."""
        return 0 if self.raws is None else int(self.raws.nbytes)

    @property
    def bytes_written(self) -> int:
        """Bytes of the product before compression."""
        if not self.is_calibration:
            return 0
        if isinstance(self.recipe, LinearityRecipe):
            return len(self.detectors) * len(self.instrument.amp_names) * (80 * len(self.exposures) + 2000)
        if isinstance(self.recipe, PtcRecipe):
            per_amp = len(self.exposures) // 2 * (4 * self.recipe.extract.lags**2 + 20) * 8
            return len(self.detectors) * len(self.instrument.amp_names) * per_amp
        height, width = self.instrument.trimmed_shape
        per_pixel = 1 if isinstance(self.recipe, DefectsRecipe) else 12
        return len(self.detectors) * len(self.instrument.amp_names) * height * width * per_pixel

    def _runs_of_calibs(self) -> list[tuple[str, str]]:
        runs = {
            name: sorted({f"{r.dataset_type} of {r.run}" for r in refs.values()}) for name, refs in self.calibs.items()
        }
        return [(name, ", ".join(texts)) for name, texts in runs.items()]

    def calibs_text(self) -> str:
        """Say which calibrations are applied."""
        return ", ".join(dict.fromkeys(runs for _, runs in self._runs_of_calibs()))

    def absent_text(self) -> str:
        """Say which calibrations are not applied because the inputs lack them; empty if none."""
        gains = ": gains are the camera model's" if "ptc" in self.absent and self.recipe.isr.gains == "nominal" else ""
        return f"no {', '.join(self.absent)} in the inputs{gains}" if self.absent else ""

    def rows(self, tasks: int) -> list[tuple[str, str]]:
        """Return the lines of the dry-run table; ``tasks`` from `campaign.running.run.count_tasks`."""
        exposures, detectors = self.exposures, self.detectors
        lines = [
            ("pipeline", f"{self.recipe.task} -> {self.recipe.product} ({self.recipe.description})"),
            ("inputs", f"{', '.join(self.inputs)} where {self.where or 'everything'}"),
            ("output", self.output),
            ("exposures", f"{len(exposures)}: {span(exposures)}" if exposures else "none"),
            ("detectors (quanta)", f"{len(detectors)}: {span(detectors)}"),
            ("dask tasks", f"{tasks:,}"),
            ("raw pixels", f"{self.bytes_read / 1e9:.2f} GB int32"),
            ("product", f"{self.bytes_written / 1e9:.2f} GB before compression"),
            ("block", f"{self.slab_rows} rows" if isinstance(self.recipe, StackRecipe) else "one exposure or detector"),
            ("peak memory a task", f"{self.task_bytes / 2**20:.0f} MiB"),
        ]
        lines += [("pairs", self.paired.pairs.text())] if self.paired else []
        lines += [("filter", self.physical_filter)] if self.physical_filter else []
        lines += [("choice", line) for line in self.choice]
        for name, runs in self._runs_of_calibs():
            is_candidate = isinstance(self.recipe, VerifyRecipe | TableRecipe) and name == self.recipe.kind
            lines.append(("candidate" if is_candidate else name, runs))
        lines += [("not applied", text)] if (text := self.absent_text()) else []
        for run in dict.fromkeys(self.elsewhere.values()):
            mine = [d for d, name in self.elsewhere.items() if name == run]
            lines.append(("skipped", f"{len(mine)} detectors ({span(mine)}): their {self.recipe.product} is in {run}"))
        lines += [("cannot be done", f"detector {d}: {reason}") for d, reason in self.lacking.items()]
        return lines


def _steps(recipe: AnyRecipe) -> tuple[str, ...]:
    """Kinds of quanta of a recipe, one a detector each, in order; the last one makes the product."""
    if isinstance(recipe, FlatRecipe):
        return ("levels", "stack")
    if isinstance(recipe, LinearityRecipe):
        settings = recipe.linearity
        ratios = ("ratios",) if settings.single_exposures else ()
        return (*ratios, *(f"fit{i}" for i in range(settings.normalization.rounds)), "linearity")
    return (recipe.task,)


def span(ids: Sequence[int]) -> str:
    """First and last of some ids."""
    return "none" if not ids else f"{ids[0]}" if len(ids) == 1 else f"{ids[0]} .. {ids[-1]}"


def make_plan(
    repo: Repo,
    recipe: AnyRecipe,
    *,
    inputs: Sequence[str],
    output: str,
    where: str = "",
    exposures: Sequence[int] | None = None,
    choice: Sequence[str] = (),
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
        Of what it selects, take these only; default: all, of flats those of one illumination.
    choice : sequence of str
        Why these exposures, for the record.
    task_memory_bytes : int
        Memory that one task may take [byte].

    Raises
    ------
    RepoError
        If ``output`` cannot be a RUN, nothing matches, or the candidate of a verification is not in ``inputs``.
    PlanError
        If no block of the run fits ``task_memory_bytes``, or no flat is of an illumination that will do.
    """
    repo.check_output(output)
    check_dataset_type(recipe.product)
    instrument = repo.instrument(recipe.instrument)
    both = " AND ".join(f"({part})" for part in (recipe.where, where) if part)
    base: dict[str, Any] = {
        "recipe": recipe, "output": output, "inputs": tuple(inputs), "where": both, "instrument": instrument,
        "choice": tuple(choice),
    }  # fmt: skip
    if isinstance(recipe, DefectsRecipe):
        return _plan_defects(repo, recipe, base)
    if isinstance(recipe, TableRecipe):
        return _plan_table(repo, recipe, base)
    if isinstance(recipe, LinearityRecipe):
        return _plan_linearity(repo, recipe, base, task_memory_bytes)
    raws = repo.raws(both, instrument=instrument.name, collections=list(inputs) or None)
    if exposures is None and isinstance(recipe, FlatRecipe):
        _one_filter(raws)
        exposures, base["choice"] = choose_flats(repo, recipe.select, raws, inputs, recipe.product)
    if exposures is not None:
        raws = raws.sel(exposure=integers(exposures, "exposure"))
    paired = find_pairs(repo, recipe, raws) if isinstance(recipe, PtcRecipe) else None
    if paired is not None:
        raws = raws.sel(exposure=paired.pairs.exposures)
    candidates: dict[str, dict[int, CalibRef]] = {}
    if isinstance(recipe, VerifyRecipe):
        recipe, refs = _candidates(repo, recipe, raws, inputs)
        chosen = _of_role(raws, refs, recipe.verify.exposures)
        candidates, raws = {recipe.kind: refs}, raws.sel(detector=list(refs), exposure=chosen)
    wanted = recipe
    one_filter = isinstance(recipe, FlatRecipe) or recipe.isr.flat
    physical_filter = _one_filter(raws) if one_filter else None
    recipe, calibs, lacking = _applied(repo, recipe, raws, inputs)
    if isinstance(recipe, VerifyRecipe) and PTC not in calibs:  # for the references, though the ISR has no use for it
        calibs |= {PTC: refs} if (refs := _if_any(repo, PTC, recipe.instrument, raws, inputs)) else {}
    rows, cost = _cost(recipe, raws, instrument, task_memory_bytes)
    return Plan(
        **{**base, "recipe": recipe, "absent": _absent(wanted, recipe)},
        raws=raws,
        detectors=tuple(raws["detector"].values.tolist()),
        calibs={**candidates, **calibs},
        slab_rows=rows,
        task_bytes=cost,
        lacking=lacking,
        physical_filter=physical_filter,
        paired=paired,
    )


def without_existing(repo: Repo, plan: Plan, collections: Sequence[str]) -> Plan:
    """Leave out the detectors whose product one of some collections has; the plan is then as if they were not selected.

    Parameters
    ----------
    repo : Repo
        The repository.
    plan : Plan
        From `make_plan`.
    collections : sequence of str
        RUN or CHAINED collections, in the order they are searched.

    Raises
    ------
    PlanError
        For a verification: its product is one table of all detectors.
    RepoError
        If a collection does not exist, or is one that only an exposure can be looked up in.
    """
    if not collections:
        return plan
    product = plan.recipe.product
    if not plan.is_calibration:
        raise PlanError(
            f"{product} is one table of all detectors, of which none can be left out because another run has it; leave "
            "--skip-existing-in out (the same command skips a verification that is there), or select detectors with -d"
        )
    known = product in repo.dataset_types(product)  # of a type that nobody made yet there is nothing
    found = repo.first_of(product, list(collections), instrument=plan.instrument.name) if known else []
    runs = {int(data_id["detector"]): ref.run for data_id, ref in found if _is_of(plan, data_id)}
    left = [d for d in plan.detectors if d not in runs]
    return replace(
        plan,
        raws=None if plan.raws is None else plan.raws.sel(detector=left),
        detectors=tuple(left),
        calibs={name: {d: ref for d, ref in refs.items() if d not in runs} for name, refs in plan.calibs.items()},
        lacking={d: reason for d, reason in plan.lacking.items() if d not in runs},
        elsewhere={d: runs[d] for d in plan.detectors if d in runs},
    )


def _is_of(plan: Plan, data_id: Mapping[str, Any]) -> bool:
    return dict(data_id) == plan.data_id(int(data_id["detector"]))


def made_from(refs: Iterable[CalibRef]) -> set[int]:
    """Exposures that calibrations were made from."""
    return {int(e) for uri in {ref.uri for ref in refs} for e in check_format(uri, "product").get("exposures", ())}


def _of_role(raws: xr.DataArray, refs: Mapping[int, CalibRef], wanted: str) -> list[int]:
    """Exposures that made the candidate (internal), that did not (external), or all."""
    exposures, made = [int(e) for e in raws["exposure"].values], made_from(refs.values())
    chosen = [e for e in exposures if wanted == "all" or (e in made) == (wanted == "internal")]
    if not chosen:
        raise PlanError(
            f"verify.exposures={wanted}: of the {len(exposures)} exposures selected, {len(made & set(exposures))} made "
            "the candidate and none is left; select others with -d, or take -c verify.exposures=all"
        )
    return chosen


def _cost(recipe: AnyRecipe, raws: xr.DataArray, instrument: Instrument, task_memory_bytes: int) -> tuple[int, int]:
    """Rows of a block and peak memory of a task."""
    budget = min(task_memory_bytes, TASK_BUDGET_BYTES)
    cost = peak_bytes(raws.sizes["y"], 1, instrument)
    if isinstance(recipe, PtcRecipe):  # the first exposure of the pair, corrected, while the second one is
        cost += 8 * len(instrument.amp_names) * int(np.prod(instrument.trimmed_shape))
    blocks_of_exposures = not isinstance(recipe, StackRecipe) or isinstance(recipe, FlatRecipe)
    if (blocks_of_exposures or getattr(recipe, "find_cosmic_rays", False)) and cost > task_memory_bytes:
        raise PlanError(
            f"one exposure of one detector takes {cost / 2**20:.0f} MiB, a task may use "
            f"{task_memory_bytes / 2**20:.0f} MiB; start fewer workers (-j) or give them more memory"
        )
    if not isinstance(recipe, StackRecipe):
        return raws.sizes["y"], cost
    planes = 3 * sum((recipe.isr.bias, recipe.isr.dark, recipe.isr.flat)) + recipe.isr.defects
    halves = recipe.combine.compare_halves
    rows = slab_rows_for(budget, raws.sizes["exposure"], instrument, planes, halves=halves)
    return rows, peak_bytes(rows, raws.sizes["exposure"], instrument, planes, halves=halves)


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
    repo: Repo, recipe: A, raws: xr.DataArray, inputs: Sequence[str]
) -> tuple[A, dict[str, dict[int, CalibRef]], dict[int, str]]:
    """Calibrations that the ISR applies, the recipe that applies no others, and the detectors that lack one."""
    calibs: dict[str, dict[int, CalibRef]] = {}
    lacking: dict[int, str] = {}
    detectors = [int(d) for d in raws["detector"].values]
    registered = {n for n, dataset_type in recipe.if_there.items() if repo.dataset_types(dataset_type)}
    wanted = recipe.calibs | {n: recipe.if_there[n] for n in recipe.applied if n in registered}
    found = {n: _one_each(repo, dataset_type, recipe.instrument, raws, inputs) for n, dataset_type in wanted.items()}
    recipe = recipe.resolved([name for name, refs in found.items() if refs])
    for name, dataset_type in recipe.calibs.items():
        calibs[name] = found[name]
        if not calibs[name]:
            raise RepoError(
                f"no {dataset_type}, which {recipe.product} needs for its ISR, in "
                f"{', '.join(inputs) or 'no collection'}; make it first and name its RUN in -i"
            )
        lacking |= {d: f"no {dataset_type} in {', '.join(inputs)}" for d in detectors if d not in calibs[name]}
    return recipe, calibs, lacking


def _absent(wanted: Recipe, recipe: Recipe) -> tuple[str, ...]:
    return tuple(dataset_type for dataset_type in wanted.uses if dataset_type not in recipe.needs)


def _candidates(
    repo: Repo, recipe: VerifyRecipe, raws: xr.DataArray, inputs: Sequence[str]
) -> tuple[VerifyRecipe, dict[int, CalibRef]]:
    """Find the candidate of each detector: of the first type that the inputs hold, one for all exposures."""
    for dataset_type in recipe.candidates:
        if "physical_filter" in PRODUCTS[dataset_type].dimensions:
            _one_filter(raws)
        if refs := _one_each(repo, dataset_type, recipe.instrument, raws, inputs):
            return recipe.chosen(dataset_type, _beside(repo, recipe, dataset_type, raws, inputs)), refs
    raise RepoError(
        f"no {' or '.join(recipe.candidates)} for exposure {raws['exposure'].values[0]} in "
        f"{', '.join(inputs) or 'no collection'}; "
        "name the RUN of the candidate first: -i RUN_OF_THE_CALIBRATION,..."
    )


def _beside(
    repo: Repo, recipe: VerifyRecipe, candidate: str, raws: xr.DataArray, inputs: Sequence[str]
) -> dict[str, str]:
    """Calibrations beside a candidate: the first set that the inputs hold, else the last one."""
    *better, last = recipe.alternatives(candidate)
    for beside in better:
        if all(_if_any(repo, name, recipe.instrument, raws, inputs) for name in beside.values()):
            return beside
    return last


def _if_any(
    repo: Repo, dataset_type: str, instrument: str, raws: xr.DataArray, inputs: Sequence[str]
) -> dict[int, CalibRef]:
    """Return the same as `_one_each`, of a type that nobody may have made yet."""
    return _one_each(repo, dataset_type, instrument, raws, inputs) if repo.dataset_types(dataset_type) else {}


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


def _plan_table(repo: Repo, recipe: TableRecipe, base: dict[str, Any]) -> Plan:
    """Find the candidate of every detector: of the first type that the inputs hold."""
    instrument, inputs = base["instrument"], list(base["inputs"])
    for dataset_type in recipe.candidates:
        found = repo.first_of(dataset_type, inputs, instrument=instrument.name)
        if found:
            break
    else:
        raise RepoError(
            f"no {' or '.join(recipe.candidates)} in {', '.join(inputs) or 'no collection'}; "
            "name the RUN of the candidate in -i"
        )
    refs = {int(data_id["detector"]): ref for data_id, ref in found}
    chosen = sorted(set(refs) & repo.detectors(base["where"], instrument.name))
    calibs = {recipe.kind: {d: refs[d] for d in chosen}}
    return Plan(**base, raws=None, detectors=tuple(chosen), calibs=calibs, slab_rows=0, task_bytes=2**26)


def _plan_linearity(repo: Repo, recipe: LinearityRecipe, base: dict[str, Any], task_memory_bytes: int) -> Plan:
    """Find the curves of every detector and, for a double spline, their exposures."""
    instrument, inputs = base["instrument"], list(base["inputs"])
    found = repo.first_of(recipe.curves, inputs, instrument=instrument.name)
    if not found:
        raise RepoError(
            f"no {recipe.curves}, which {recipe.product} is made from, in {', '.join(inputs) or 'no collection'}; "
            "make it first and name its RUN in -i"
        )
    curves = {int(data_id["detector"]): ref for data_id, ref in found}
    if not recipe.linearity.single_exposures:
        chosen = sorted(set(curves) & repo.detectors(base["where"], instrument.name))
        refs = {CURVES: {d: curves[d] for d in chosen}}
        return Plan(**base, raws=None, detectors=tuple(chosen), calibs=refs, slab_rows=0, task_bytes=2**28)
    raws = repo.raws(base["where"], instrument=instrument.name, collections=inputs or None)
    pairs = products.open_products([(ref.uri, d) for d, ref in list(curves.items())[:1]])
    wanted = np.concatenate([pairs["exposure_1"].values, pairs["exposure_2"].values])
    raws = raws.sel(exposure=np.isin(raws["exposure"].values, wanted))
    base["recipe"], calibs, lacking = _applied(repo, recipe, raws, inputs)
    base["absent"] = _absent(recipe, base["recipe"])
    detectors = tuple(raws["detector"].values.tolist())
    lacking |= {d: f"no {recipe.curves} in {', '.join(inputs)}" for d in detectors if d not in curves}
    rows, cost = _cost(base["recipe"], raws, instrument, task_memory_bytes)
    return Plan(
        **base, raws=raws, detectors=detectors, calibs={CURVES: curves, **calibs}, slab_rows=rows, task_bytes=cost,
        lacking=lacking,
    )  # fmt: skip

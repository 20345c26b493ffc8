"""A run before it starts: its inputs, quanta, tasks, bytes and memory.  No pixels are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import xarray as xr

from camcal_dask import rooms
from camcal_dask.campaign.planning.quanta import Quantum, Step
from camcal_dask.campaign.planning.recipe import task_of
from camcal_dask.errors import PlanError
from camcal_dask.instruments import Instrument
from camcal_dask.isr.applied import GAINS
from camcal_dask.repo.butler.lookup import CalibRef
from camcal_dask.repo.storage.shards import check_format
from camcal_dask.schema import OF_INSTRUMENT

if TYPE_CHECKING:  # workers unpickle a plan, and they have no use for the Butler
    from camcal_dask.repo.butler.repository import Repo


@dataclass(frozen=True)
class Found:
    """What a task found out when it planned, beside exposures and calibrations.

    Attributes
    ----------
    value : picklable; for the task alone.
    groups : exposures that are one quantum in a step of groups, such as the pairs of a ramp.
    digest : goes into the provenance, if the product depends on it; empty: it does not.
    text : of the groups, for people.
    """

    value: Any = None
    groups: tuple[tuple[int, ...], ...] = ()
    digest: str = ""
    text: str = ""


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    recipe: Any
    """Of the class that its task names, a `camcal_dask.campaign.planning.recipe.Recipe`."""
    output: str
    inputs: tuple[str, ...]
    where: str
    instrument: Instrument
    raws: xr.DataArray | None
    """Lazy raw pixels (exposure, detector, amp, y, x) int32 [adu]; None for a task that reads products only."""
    detectors: tuple[int, ...]
    """Ids of the detectors: one quantum each in every step."""
    calibs: Mapping[str, Mapping[int, CalibRef]]
    """Calibrations of each detector id, by the ISR's name, or what else is read (``"flat r_57"``)."""
    task_bytes: int
    """Peak memory of the largest task [byte]."""
    bytes_per_detector: int = 0
    """Bytes of the product of one detector before compression."""
    slab_rows: int | None = None
    """Rows in one block of a stack; None: a block is one exposure or detector."""
    lacking: Mapping[int, str] = field(default_factory=dict)
    """Detectors that cannot be done, with the reason."""
    physical_filter: str | None = None
    """Of a product that every filter has its own of, or of exposures that are divided by one."""
    found: Found = field(default_factory=Found)
    choice: tuple[str, ...] = ()
    """How the exposures were chosen among those selected, a line each."""
    absent: tuple[str, ...] = ()
    """Calibrations that would be applied if the inputs held them (`IsrRecipe.if_there`)."""
    candidate: str = ""
    """Of a verification: the name in ``calibs`` of what it tests."""
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
    def steps(self) -> tuple[Step, ...]:
        """Kinds of quanta, in order; the last one makes the product."""
        return tuple(task_of(self.recipe.task).steps_of(self.recipe))

    @property
    def able(self) -> list[int]:
        """Detectors that can be done."""
        return [d for d in self.detectors if d not in self.lacking]

    @property
    def quanta(self) -> tuple[Quantum, ...]:
        """Everything that will be done, in order; the last step has those too that cannot."""
        *before, last = self.steps
        return (
            *(q for step in before for d in self.able for q in self.quanta_of(step, d)),
            *(q for d in self.detectors for q in self.quanta_of(last, d)),
        )

    def quanta_of(self, step: Step, detector: int) -> Iterator[Quantum]:
        """Quanta of one step and detector."""
        return (Quantum(step.name, detector, group) for group in self._groups(step))

    def _groups(self, step: Step) -> Sequence[tuple[int, ...]]:
        """Exposures of each quantum of a detector; none stands for all."""
        if step.each == "detector":
            return ((),)
        return self.found.groups if step.each == "group" else [(e,) for e in self.exposures]

    def refs(self, detector: int) -> dict[str, CalibRef]:
        """Calibrations of one detector."""
        return {name: refs[detector] for name, refs in self.calibs.items() if detector in refs}

    @property
    def candidates(self) -> Mapping[int, CalibRef]:
        """What a verification tests, by detector."""
        return self.calibs[self.candidate]

    def data_id(self, detector: int) -> dict[str, Any]:
        """Butler data id of the product of one detector."""
        values = {"instrument": self.instrument.name, "detector": detector, "physical_filter": self.physical_filter}
        return {name: values[name] for name in self.product_dimensions}

    @property
    def product_dimensions(self) -> tuple[str, ...]:
        """Butler dimensions of the product."""
        return rooms.product(self.recipe.product).dimensions if self.is_calibration else OF_INSTRUMENT

    @property
    def is_calibration(self) -> bool:
        """Whether the product can be certified."""
        return bool(task_of(self.recipe.task).certified)

    @property
    def bytes_read(self) -> int:
        """Raw int32 bytes; the overscan pass and the pixel pass read them once each."""
        return 0 if self.raws is None else int(self.raws.nbytes)

    @property
    def bytes_written(self) -> int:
        """Bytes of the product before compression."""
        return len(self.detectors) * self.bytes_per_detector

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
        if not self.absent:
            return ""
        nominal = GAINS in self.absent and self.recipe.isr.gains == "nominal"
        return f"no {', '.join(self.absent)} in the inputs" + (": gains are the camera model's" if nominal else "")

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
            ("block", f"{self.slab_rows} rows" if self.slab_rows else "one exposure or detector"),
            ("peak memory per task", f"{self.task_bytes / 2**20:.0f} MiB"),
        ]
        lines += [("pairs", self.found.text)] if self.found.text else []
        lines += [("filter", self.physical_filter)] if self.physical_filter else []
        lines += [("choice", line) for line in self.choice]
        for name, runs in self._runs_of_calibs():
            lines.append(("candidate" if name == self.candidate else name, runs))
        lines += [("not applied", text)] if (text := self.absent_text()) else []
        for run in dict.fromkeys(self.elsewhere.values()):
            mine = [d for d, name in self.elsewhere.items() if name == run]
            lines.append(("skipped", f"{len(mine)} detectors ({span(mine)}): their {self.recipe.product} is in {run}"))
        lines += [("cannot be done", f"detector {d}: {reason}") for d, reason in self.lacking.items()]
        return lines


def span(ids: Sequence[int]) -> str:
    """First and last of some ids."""
    return "none" if not ids else f"{ids[0]}" if len(ids) == 1 else f"{ids[0]} .. {ids[-1]}"


def without_existing(repo: Repo, plan: Plan, collections: Sequence[str]) -> Plan:
    """Leave out detectors whose product is in one of some collections, as if they had not been selected.

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

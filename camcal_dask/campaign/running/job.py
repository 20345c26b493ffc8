"""What all tasks share: begin or resume a product, run its quanta, keep their results, register what is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import dask
import xarray as xr

from camcal_dask.campaign.past.record import calib_ids, calib_provenance, versions
from camcal_dask.campaign.planning.plan import Plan
from camcal_dask.campaign.planning.quanta import Outcome, Quantum, QuantumOutcome, missing
from camcal_dask.campaign.running.dispatch import run_quanta
from camcal_dask.campaign.running.tracker import Tracker
from camcal_dask.errors import RepoError
from camcal_dask.repo.cubes import products
from camcal_dask.repo.cubes.layout import template
from camcal_dask.repo.storage import files
from camcal_dask.repo.storage.parts import Parts, pack, unpack
from camcal_dask.repo.storage.shards import check_format, cube_exists

if TYPE_CHECKING:  # of the Butler's modules: workers unpickle a `Place`, and never open the registry
    from distributed import Client

    from camcal_dask.repo.butler.repository import Repo

REGISTER_EVERY = 50
"""Detectors told to the registry at once."""


@dataclass(frozen=True)
class Place:
    """What a quantum needs on its worker: the plan, and where the product is."""

    root: str
    plan: Plan
    uri: str

    def __post_init__(self) -> None:
        files.guard(self.root)

    def __setstate__(self, state: dict[str, Any]) -> None:  # as it arrives on a worker
        self.__dict__.update(state)
        files.guard(self.root)

    def index(self, detector: int) -> int:
        """Position of a detector in the product cube."""
        return list(self.plan.instrument.detectors).index(detector)


@dataclass(frozen=True)
class Job:
    """One attempt of a run on the client."""

    repo: Repo
    client: Client
    place: Place
    provenance: str
    tracker: Tracker

    @property
    def plan(self) -> Plan:
        """The plan that is carried out."""
        return self.place.plan

    @property
    def uri(self) -> str:
        """Product cube."""
        return self.place.uri

    def existing(self) -> Mapping[str, Any] | None:
        """Attributes of the product that an earlier run began; None if there is none.

        Raises
        ------
        RepoError
            If it was started with other settings, exposures, calibrations or software.
        """
        if not cube_exists(self.uri):
            return None
        attrs = check_format(self.uri, "product")
        there = attrs.get("provenance_id")
        if there != self.provenance and not (self.tracker.limits.extend and not self.differences(attrs)):
            raise RepoError(
                f"{self.uri} was started with other {', '.join(self.differences(attrs)) or 'detectors'} "
                f"(provenance {there}, this run is {self.provenance}); choose another output collection with -o"
                + ("" if self.differences(attrs) else ", or add to this one with --extend-run")
            )
        return attrs

    def differences(self, attrs: Mapping[str, Any]) -> list[str]:
        """Say how an existing product differs from that of this run; other detectors do not count as a difference."""
        mine = self.attributes()
        names = {"recipe": "settings", "exposures": "exposures", "software": "software"}
        found = [word for key, word in names.items() if attrs.get(key) != mine[key]]
        if attrs.get("calibs", {}).keys() != mine["calibs"].keys() or any(
            attrs.get(key, {}).get(name, {}).get(d, value) != value
            for key in ("calibs", "calib_provenance")
            for name, refs in mine[key].items()
            for d, value in refs.items()
        ):
            found.append("calibrations")
        return found

    def attributes(self) -> dict[str, Any]:
        """What the product says about itself."""
        plan = self.plan
        attrs = {
            "provenance_id": self.provenance,
            "exposures": plan.exposures,
            "calibs": calib_ids(plan),
            "calib_provenance": calib_provenance(plan),
            "recipe": plan.recipe.model_dump(mode="json"),
            "software": versions(),
        }
        return attrs | ({"physical_filter": plan.physical_filter} if plan.physical_filter else {})

    def begin(self, extra: Mapping[str, Any] | None = None, shared: xr.Dataset | None = None) -> None:
        """Lay out the product, or check that the existing one belongs to the same run.

        Parameters
        ----------
        extra : mapping, optional
            Attributes besides those of every product.
        shared : Dataset, optional
            See `camcal_dask.repo.cubes.layout.template`.
        """
        there = self.existing()
        if there is not None and self.tracker.limits.extend:
            mine = {"calibs": calib_ids(self.plan), "calib_provenance": calib_provenance(self.plan)}
            merged = {
                key: {name: {**there.get(key, {}).get(name, {}), **ids} for name, ids in refs.items()}
                for key, refs in mine.items()
            }
            products.amend(self.uri, merged)
        attrs = {**self.attributes(), **(extra or {})}
        products.create_product(self.uri, template(self.plan.recipe.product, self.plan.instrument, attrs, shared))
        self.existing()

    def finished(self) -> set[int]:
        """Ids of the detectors that are complete: written, and not damaged since."""
        if not cube_exists(self.uri):
            return set()
        written = products.finished(self.uri)
        ids, bad = list(self.plan.instrument.detectors), set(products.damaged(self.uri, written))
        return {ids[index] for index in written if index not in bad}

    def todo(self) -> list[int]:
        """Ids of the detectors that can be done and are not."""
        there = self.finished()
        return [d for d in self.plan.detectors if d not in there and d not in self.plan.lacking]

    def lack(self, task: str) -> set[Quantum]:
        """Record the quanta that cannot be done, and return them."""
        lacking = {Quantum(task, d): reason for d, reason in self.plan.lacking.items()}
        for quantum, reason in lacking.items():
            self.tracker.note(missing(quantum, reason))
        return set(lacking)

    def carry_out(self, work: Callable[[Quantum], Any], task: str, failed: Sequence[int] = ()) -> Outcome:
        """Make every missing detector of the product, and register what is complete.

        Parameters
        ----------
        work : callable
            Picklable; makes the graph that writes the detector of a quantum.
        task : str
            Name of the quanta.
        failed : sequence of int
            Detectors that failed in an earlier step of this run.
        """
        lacking = self.lack(task)
        there = self.finished()
        skipped = [d for d in self.plan.detectors if d in there]
        for d in skipped:
            self.tracker.note(QuantumOutcome(Quantum(task, d), "skipped"))
        self.register(skipped)
        quanta = [Quantum(task, d) for d in self.todo() if d not in failed]
        whole: list[int] = []
        try:
            for result in run_quanta(self.client, work, [q for q in quanta if q not in lacking], self.tracker):
                whole += [result.outcome.detector] if result.outcome.status == "done" else []
                if len(whole) >= REGISTER_EVERY:
                    self.register(whole)
                    whole = []
        finally:
            self.register(whole)
            self.register(self._unheard(quanta))
        return self.outcome()

    def _unheard(self, quanta: Sequence[Quantum]) -> list[int]:
        """Detectors that are whole, but whose worker could not say so before the run stopped; notes them as done."""
        silent = [q for q in quanta if q not in self.tracker.outcomes]
        there = self.finished() if silent else set()
        found = [q for q in silent if q.detector in there]
        for quantum in found:
            self.tracker.note(QuantumOutcome(quantum, "done"))
        return [q.detector for q in found]

    def register(self, detectors: Sequence[int]) -> None:
        """Register detectors that are complete."""
        if detectors:
            data_ids = [self.plan.data_id(d) for d in detectors]
            self.repo.register_product(self.plan.output, self.plan.recipe.product, self.uri, data_ids)

    def collect(
        self, work: Callable[[Quantum], Any], quanta: Sequence[Quantum]
    ) -> Iterator[tuple[Quantum, xr.Dataset]]:
        """Small Datasets that quanta return, kept on disk until the product is written: a resumed run has them.

        Parameters
        ----------
        work : callable
            Picklable; makes a lazy Dataset, or one.
        quanta : sequence of Quantum
            Those wanted; what failed is noted and not yielded.
        """
        for quantum, packed in self.collect_packed(work, quanta):
            yield quantum, unpack(packed)

    def collect_packed(
        self, work: Callable[[Quantum], Any], quanta: Sequence[Quantum]
    ) -> Iterator[tuple[Quantum, bytes]]:
        """The same, packed, for others to `unpack`."""
        parts = self.parts()
        wanted, there = set(quanta), set()
        for key, value in parts.read():
            quantum = Quantum(key[0], int(key[1]), tuple(int(e) for e in key[2:]))
            if quantum in wanted and quantum not in there:
                there.add(quantum)
                self.tracker.note(QuantumOutcome(quantum, "skipped"))
                yield quantum, value
        left = [q for q in quanta if q not in there]
        try:
            for outcome, value in run_quanta(self.client, partial(_packed, work), left, self.tracker):
                if outcome.status == "done":
                    task, detector, exposures = outcome.quantum
                    parts.add((task, str(detector), *map(str, exposures)), value)
                    yield outcome.quantum, value
        finally:
            parts.flush()

    def parts(self) -> Parts:
        """Where `collect` keeps what quanta returned."""
        return Parts(f"{self.uri.removesuffix('.zarr')}-{self.provenance}.parts")

    def outcome(self, **more: Any) -> Outcome:
        """Return how it went."""
        return Outcome(self.plan.output, self.plan.recipe.product, self.uri, self.tracker.outcomes, **more)


def _packed(work: Callable[[Quantum], Any], quantum: Quantum) -> Any:
    """Graph of a quantum with its Dataset packed; runs on a worker."""
    return dask.delayed(pack)(work(quantum))


def open_calibs(plan: Plan, detector: int) -> dict[str, xr.Dataset]:
    """Open the calibrations of one detector, lazily; the quanta of a detector on one worker share their planes."""
    refs = plan.refs(detector).items()
    return {name: products.open_products([(ref.uri, detector)], keep=True) for name, ref in refs}

"""What all tasks that write a product cube share: begin or resume it, run its quanta, register what is whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr

from camcal_dask.calibs.products import template
from camcal_dask.campaign.plan import Plan
from camcal_dask.campaign.quanta import Outcome, Progress, run_quanta
from camcal_dask.campaign.record import QuantumOutcome, calib_ids, versions
from camcal_dask.errors import RepoError
from camcal_dask.repo import files, products
from camcal_dask.repo.registry import Repo
from camcal_dask.repo.shards import check_format

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class Job:
    """One run of a task that writes a product: where, for whom, and whom to tell."""

    repo: Repo
    plan: Plan
    client: Client
    uri: str
    provenance: str
    progress: Progress

    def existing(self) -> Mapping[str, Any] | None:
        """Attributes of the product that an earlier run began; None if there is none.

        Raises
        ------
        RepoError
            If it was begun with other settings, exposures, calibrations or software.
        """
        if not files.exists(self.uri):
            return None
        attrs = check_format(self.uri, "product")
        there = attrs.get("provenance_id")
        if there != self.provenance:
            raise RepoError(
                f"{self.uri} was begun with other settings, exposures or software "
                f"(provenance {there}, this run is {self.provenance}); choose another output collection with -o"
            )
        return attrs

    def begin(self, extra: Mapping[str, Any] | None = None) -> None:
        """Lay the product out, or check that the one there is of the same run."""
        plan = self.plan
        self.existing()
        attrs = {
            "provenance_id": self.provenance,
            "exposures": plan.exposures,
            "calibs": calib_ids(plan),
            "recipe": plan.recipe.model_dump(mode="json"),
            "software": versions(),
        }
        attrs |= {"physical_filter": plan.physical_filter} if plan.physical_filter else {}
        products.create_product(self.uri, template(plan.recipe.product, plan.instrument, {**attrs, **(extra or {})}))
        self.existing()

    def finished(self) -> set[int]:
        """Ids of the detectors that are whole."""
        return set(products.finished_detectors(self.uri)) if files.exists(self.uri) else set()

    def todo(self) -> list[int]:
        """Ids of the detectors that can be done and are not."""
        there = self.finished()
        return [d for d in self.plan.detectors if d not in there and d not in self.plan.lacking]

    def carry_out(
        self, quantum: Callable[[int, int], Any], failed: Mapping[int, QuantumOutcome] | None = None
    ) -> Outcome:
        """Run ``quantum(detector, index)`` for all that is to do, and register what is whole.

        Parameters
        ----------
        quantum : callable
            Makes the graph of one detector at its index in the cube.
        failed : mapping, optional
            Detectors that failed before.
        """
        plan, ids = self.plan, list(self.plan.instrument.detectors)
        outcomes = {d: QuantumOutcome(d, "failed", reason=reason) for d, reason in plan.lacking.items()}
        outcomes |= dict(failed or {})
        outcomes |= {d: QuantumOutcome(d, "skipped") for d in plan.detectors if d in self.finished()}
        for known in outcomes.values():
            self.progress(known)
        graphs = ((d, quantum(d, ids.index(d))) for d in self.todo() if d not in outcomes)
        for result in run_quanta(self.client, graphs):
            outcomes[result.outcome.detector] = result.outcome
            self.progress(result.outcome)
        whole = [plan.data_id(d) for d, q in outcomes.items() if q.status != "failed"]
        if whole:
            self.repo.register_product(plan.output, plan.recipe.product, self.uri, whole)
        return Outcome(plan.output, plan.recipe.product, self.uri, outcomes, 0.0)


def open_calibs(plan: Plan, detector: int) -> dict[str, xr.Dataset]:
    """Open the calibrations of one detector, lazily."""
    return {name: products.open_products([(ref.uri, detector)]) for name, ref in plan.refs(detector).items()}

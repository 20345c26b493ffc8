"""What every quantum of a plan reads and writes, known before the run starts."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcal_dask.campaign.planning.plan import Plan, span
from camcal_dask.campaign.planning.quanta import Quantum, Step
from camcal_dask.config import expanded
from camcal_dask.errors import ConfigError
from camcal_dask.repo.butler.lookup import CalibRef

KEPT = "numbers for later quanta"
"""What a quantum writes that is not the last of its detector; removed when the product is whole."""
ROW = "a row of the statistics"
"""What a quantum of a verification writes: its product is one table of all detectors."""
FORMATS = (".json", ".csv")
_COLUMNS = ("task", "detector", "exposures", "calibs", "earlier", "writes", "run", "data_id")


@dataclass(frozen=True)
class Flow:
    """Inputs and outputs of one quantum."""

    quantum: Quantum
    exposures: tuple[int, ...]
    """Raws of its detector; of an exposure that lacks the detector nothing is read."""
    calibs: Mapping[str, CalibRef]
    """Calibrations by the names that the plan has for them."""
    earlier: tuple[str, ...]
    """Results of earlier quanta, such as ``"levels of all detectors"``."""
    writes: str
    """Dataset type of the product, `ROW` or `KEPT`."""
    run: str
    data_id: Mapping[str, Any]
    """Of the dataset that it makes; empty if it makes none of its own."""

    def text(self) -> str:
        """One line for people."""
        raws = [f"{len(self.exposures)} raws ({span(self.exposures)})"] if self.exposures else []
        calibs = [f"{ref.dataset_type} of {ref.run} ({ref.uuid})" for ref in self.calibs.values()]
        target = " ".join([self.writes, *(f"{name}={value}" for name, value in self.data_id.items())])
        return f"{self.quantum}: {', '.join([*raws, *calibs, *self.earlier])} -> {target} in {self.run}"

    def plain(self) -> dict[str, Any]:
        """JSON values; the calibrations by id."""
        task, detector, _ = self.quantum
        values = (task, detector, list(self.exposures), {name: ref.uuid for name, ref in self.calibs.items()},
                  list(self.earlier), self.writes, self.run, dict(self.data_id))  # fmt: skip
        return dict(zip(_COLUMNS, values, strict=True))


def flows(plan: Plan) -> Iterator[Flow]:
    """Inputs and outputs of all quanta in the order of the plan, without detectors that cannot be done."""
    steps, exposures = plan.steps, tuple(plan.exposures)
    refs = {d: plan.refs(d) for d in plan.detectors}
    for step in steps:
        is_last = step is steps[-1]
        for detector in plan.able:
            calibs = _calibs(step, refs[detector])
            for quantum in plan.quanta_of(step, detector):
                yield Flow(
                    quantum,
                    (quantum.exposures or exposures) if step.raws else (),
                    calibs,
                    tuple(_EARLIER[how].format(name) for name, how in step.after),
                    KEPT if not is_last else plan.recipe.product if plan.is_calibration else ROW,
                    plan.output,
                    plan.data_id(detector) if is_last and plan.is_calibration else {},
                )


_EARLIER = {"own": "{} of this detector", "all": "{} of all detectors"}


def _calibs(step: Step, refs: dict[str, CalibRef]) -> dict[str, CalibRef]:
    return {name: ref for name, ref in refs.items() if step.calibs is None or name in step.calibs}


def save(plan: Plan, path: str) -> None:
    """Write the plan of a run with all its quanta.

    Parameters
    ----------
    plan : Plan
        From :func:`camcal_dask.campaign.planning.request.make_plan`.
    path : str
        ``.json``: the recipe, the calibrations by id (dataset type, RUN, detector) and the quanta;
        ``.csv``: one row per quantum, each calibration as ``name=type@RUN#id``.

    Raises
    ------
    ConfigError
        If the name ends otherwise, or the file cannot be written.
    """
    path = expanded(path)
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        raise ConfigError(f"{path}: a plan is saved as {' or '.join(FORMATS)}; choose one of these endings")
    try:
        with Path(path).open("w", newline="") as file:
            if suffix == ".csv":
                csv.writer(file).writerows([_COLUMNS, *map(_cells, flows(plan))])
            else:
                json.dump(_plain(plan), file)
    except OSError as error:
        raise ConfigError(f"{path}: the plan cannot be saved there: {error.strerror}") from None


def _plain(plan: Plan) -> dict[str, Any]:
    refs = {ref.uuid: ref for mine in plan.calibs.values() for ref in mine.values()}
    return {
        "run": plan.output,
        "product": plan.recipe.product,
        "recipe": plan.recipe.model_dump(mode="json"),
        "inputs": list(plan.inputs),
        "where": plan.where,
        "calibs": {
            uuid: {"dataset_type": ref.dataset_type, "run": ref.run, "detector": ref.detector}
            for uuid, ref in refs.items()
        },
        "lacking": {str(d): reason for d, reason in plan.lacking.items()},
        "quanta": [flow.plain() for flow in flows(plan)],
    }


def _cells(flow: Flow) -> list[Any]:
    row = flow.plain()
    row["exposures"] = " ".join(map(str, flow.exposures))
    row["calibs"] = " ".join(f"{n}={ref.dataset_type}@{ref.run}#{ref.uuid}" for n, ref in flow.calibs.items())
    row["earlier"] = "; ".join(flow.earlier)
    row["data_id"] = " ".join(f"{name}={value}" for name, value in flow.data_id.items())
    return list(row.values())

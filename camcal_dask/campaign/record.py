"""What a run did: command, recipe, inputs, calibrations, versions, host, times, outcome of every quantum."""

from __future__ import annotations

import getpass
import hashlib
import json
import platform
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from camcal_dask.campaign.plan import Plan

PACKAGES = ("camcal_dask", "numpy", "numba", "dask", "distributed", "xarray", "zarr", "zarrs", "lsst-daf-butler")


@dataclass(frozen=True)
class QuantumOutcome:
    """How one quantum (a detector of the run) ended."""

    detector: int
    status: str
    """``"done"``, ``"skipped"`` (was there already) or ``"failed"``."""
    seconds: float = 0.0
    reason: str = ""


@dataclass
class RunRecord:
    """Provenance of one run, written beside its products."""

    run: str
    provenance_id: str
    command: list[str]
    recipe: dict[str, Any]
    where: str
    inputs: list[str]
    exposures: list[int]
    calibs: dict[str, dict[str, str]]
    versions: dict[str, str]
    host: str
    user: str
    cluster: str
    started: str
    ended: str = ""
    quanta: list[dict[str, Any]] = field(default_factory=list)

    def close(self, outcomes: Mapping[int, QuantumOutcome]) -> dict[str, Any]:
        """Add the outcomes and the time; return the whole as plain values."""
        self.ended = now()
        self.quanta = [asdict(outcomes[detector]) for detector in sorted(outcomes)]
        return asdict(self)


def now() -> str:
    """Return the present UTC time, ISO."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance_id(plan: Plan) -> str:
    """Name what decides the pixels: recipe, exposures, calibrations and version; the same for the same product."""
    what = {
        "recipe": plan.recipe.model_dump(mode="json"),
        "exposures": plan.exposures,
        "calibs": calib_ids(plan),
        "version": version("camcal_dask"),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def calib_ids(plan: Plan) -> dict[str, dict[str, str]]:
    """Dataset ids of the calibrations: by name, then detector."""
    return {name: {str(d): ref.uuid for d, ref in refs.items()} for name, refs in plan.calibs.items()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that touch pixels."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def open_record(plan: Plan, cluster: str) -> RunRecord:
    """Begin the record of a run."""
    return RunRecord(
        run=plan.output,
        provenance_id=provenance_id(plan),
        command=list(sys.argv),
        recipe=plan.recipe.model_dump(mode="json"),
        where=plan.where,
        inputs=list(plan.inputs),
        exposures=plan.exposures,
        calibs=calib_ids(plan),
        versions=versions(),
        host=socket.gethostname(),
        user=_user(),
        cluster=cluster,
        started=now(),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no passwd entry, as in some containers
        return "unknown"

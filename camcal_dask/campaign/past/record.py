"""What a run did: command, recipe, inputs, calibrations, versions, host, cluster, times, outcomes."""

from __future__ import annotations

import hashlib
import json
import platform
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from camcal_dask.campaign.planning.plan import Plan
from camcal_dask.redact import redacted, redacted_command, redacted_values
from camcal_dask.repo.butler.lookup import CalibRef
from camcal_dask.repo.storage.shards import check_format
from camcal_dask.repo.user import user_name

PACKAGES = ("camcal_dask", "numpy", "numba", "dask", "distributed", "xarray", "zarr", "zarrs", "lsst-daf-butler")


@dataclass
class RunRecord:
    """Provenance of one attempt of a run, written when it begins and again when it ends."""

    run: str
    provenance_id: str
    command: list[str]
    recipe: dict[str, Any]
    """Resolved: with all imports, overrides and defaults."""
    where: str
    inputs: list[str]
    exposures: list[int]
    detectors: list[int]
    calibs: dict[str, dict[str, str]]
    """Ids of the calibrations: by name, then detector."""
    versions: dict[str, str]
    host: str
    user: str
    cluster: str
    started: str
    asked: dict[str, Any] = field(default_factory=dict)
    """Pipeline and overrides as the user gave them."""
    groups: list[tuple[int, ...]] = field(default_factory=list)
    """Exposures that were measured together, such as pairs of flats."""
    choice: list[str] = field(default_factory=list)
    """How the exposures were chosen among those selected."""
    absent: list[str] = field(default_factory=list)
    """Calibrations that were not applied because the inputs had none."""
    elsewhere: dict[str, str] = field(default_factory=dict)
    """Detectors that were left out because a RUN has their product."""
    product: str = ""
    uri: str = ""
    folder: str = ""
    """Working directory of the command."""
    scheduler: str = ""
    workers: int = 0
    threads: int = 0
    state: str = "running"
    """running (or killed), done, failed (finished with failures), stopped, interrupted."""
    stopped: str = ""
    ended: str = ""
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    cpu_s: float = 0.0
    peak_mib: float = 0.0
    failed: list[dict[str, Any]] = field(default_factory=list)
    """The first failed quanta; all are in the files of outcomes."""
    unusable: dict[str, dict[str, str]] = field(default_factory=dict)
    """Amps that the product is no use for, and why: by detector and amp."""

    def plain(self) -> dict[str, Any]:
        """Return the record as JSON values."""
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
        "made": calib_provenance(plan),
        "version": version("camcal_dask"),
    }
    what |= {"found": plan.found.digest} if plan.found.digest else {}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def calib_ids(plan: Plan) -> dict[str, dict[str, str]]:
    """Dataset ids of the calibrations: by name, then detector."""
    return {name: {str(d): ref.uuid for d, ref in refs.items()} for name, refs in plan.calibs.items()}


def calib_provenance(plan: Plan) -> dict[str, dict[str, str]]:
    """Provenance of the calibrations, as `calib_ids`: one that was made again in its RUN keeps its dataset id."""
    return {name: {str(d): made_as(ref) for d, ref in refs.items()} for name, refs in plan.calibs.items()}


def made_as(ref: CalibRef) -> str:
    """Provenance of a product; empty if it has none."""
    return str(check_format(ref.uri, "product").get("provenance_id", ""))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that touch pixels."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def open_record(plan: Plan, cluster: str, asked: Mapping[str, Any]) -> RunRecord:
    """Begin the record of an attempt."""
    return RunRecord(
        run=plan.output,
        provenance_id=provenance_id(plan),
        command=redacted_command(sys.argv),
        recipe=plan.recipe.model_dump(mode="json"),
        where=plan.where,
        inputs=list(plan.inputs),
        exposures=plan.exposures,
        detectors=list(plan.detectors),
        calibs=calib_ids(plan),
        versions=versions(),
        host=socket.gethostname(),
        user=user_name(),
        cluster=redacted(cluster),
        started=now(),
        asked=redacted_values(asked),
        groups=list(plan.found.groups),
        choice=list(plan.choice),
        absent=list(plan.absent),
        elsewhere={str(d): run for d, run in plan.elsewhere.items()},
        product=plan.recipe.product,
        folder=str(Path.cwd()),
    )

"""Repeat a run exactly: with the recorded recipe, exposures, detectors and calibrations, newer ones or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from camcal_dask.campaign.past.history import reference_record
from camcal_dask.campaign.past.record import versions
from camcal_dask.campaign.planning.plan import Plan
from camcal_dask.campaign.planning.recipe import task_of
from camcal_dask.campaign.planning.request import TASK_BUDGET_BYTES, make_plan
from camcal_dask.errors import RepoError
from camcal_dask.repo.butler.lookup import CalibRef
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.repo.schema import raw_run


def replan(
    repo: Repo, run: str, output: str, *, product: str | None = None, task_memory_bytes: int = TASK_BUDGET_BYTES
) -> Plan:
    """Plan what a recorded run did, for another output.

    Parameters
    ----------
    repo : Repo
        Where it was recorded.
    run : str
        RUN collection.
    output : str
        RUN to write.
    product : str, optional
        Needed if the RUN holds several.
    task_memory_bytes : int
        Memory that a task may use.

    Raises
    ------
    RepoError
        If exposures, detectors or calibrations of the record are no longer there.
    """
    repo.check_output(output)
    record = reference_record(repo.root, run, product)
    recipe = _recipe(record["recipe"])
    calibs = {name: _refs(repo, name, ids) for name, ids in record["calibs"].items()}
    sources = {ref.run for refs in calibs.values() for ref in refs.values()}
    detectors = ", ".join(map(str, record["detectors"]))
    try:
        plan = make_plan(
            repo,
            recipe,
            inputs=[*sorted(sources), raw_run(recipe.instrument)],
            output=output,
            where=f"instrument = '{recipe.instrument}' AND detector IN ({detectors})",
            exposures=record["exposures"] or None,
            task_memory_bytes=task_memory_bytes,
        )
    except KeyError as error:
        raise RepoError(f"{run} was made from exposures that the repository no longer has: {error}") from None
    if lacking := sorted(set(record["detectors"]) - set(plan.detectors)):
        raise RepoError(f"{run} was made from detectors {lacking}, whose raws the repository no longer has")
    return replace(plan, calibs=calibs)


def differences(repo: Repo, run: str, product: str | None = None) -> list[str]:
    """Software that differs from that of the recorded run: ``"numpy 2.1 -> 2.2"``."""
    then: Mapping[str, Any] = reference_record(repo.root, run, product)["versions"]
    return [f"{name} {then.get(name)} -> {here}" for name, here in versions().items() if then.get(name) != here]


def _recipe(recorded: Mapping[str, Any]) -> Any:
    """Recorded settings; earlier versions wrote some that the task never used."""
    model = task_of(recorded["task"]).recipe
    return model.model_validate({name: value for name, value in recorded.items() if name in model.model_fields})


def _refs(repo: Repo, name: str, ids: Mapping[str, str]) -> dict[int, CalibRef]:
    found = repo.by_id(ids.values())
    lacking = {d: uuid for d, uuid in ids.items() if uuid not in found}
    if lacking:
        detector, uuid = next(iter(lacking.items()))
        raise RepoError(
            f"{name} {uuid} of detector {detector} ({len(lacking)} in all) is no longer in {repo.root}: "
            "the run cannot be repeated exactly"
        )
    return {int(d): found[uuid] for d, uuid in ids.items()}

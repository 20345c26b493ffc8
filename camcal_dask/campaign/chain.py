"""A list of calibrations in the order of what they need, each visible to the next (reference/construction.md 15)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import xarray as xr

from camcal_dask.campaign.plan import TASK_BUDGET_BYTES, Plan, make_plan
from camcal_dask.campaign.recipe import (
    AnyRecipe,
    DefectsRecipe,
    FlatRecipe,
    LinearityRecipe,
    PtcRecipe,
    TableRecipe,
    VerifyRecipe,
    load_recipe,
)
from camcal_dask.campaign.run import Outcome, execute
from camcal_dask.campaign.selection import Chosen, camera_states, choose
from camcal_dask.campaign.shipped import shipped
from camcal_dask.errors import CamcalError, PlanError, RepoError, RunError, nearest
from camcal_dask.repo.naming import check_collection, component
from camcal_dask.repo.registry import Repo
from camcal_dask.repo.schema import raw_run

if TYPE_CHECKING:
    from distributed import Client

R = TypeVar("R", VerifyRecipe, TableRecipe)
AT_MOST = 20
"""Exposures that a calibration is made from."""
Bar = Callable[[str, int], AbstractContextManager[Callable[[str], None]]]


@dataclass(frozen=True)
class ChainSettings:
    """What holds for all steps of a chain."""

    prefix: str
    """Each product goes to the RUN ``prefix/<product>`` (flats: ``prefix/<product>/<filter>``)."""
    inputs: tuple[str, ...] = ()
    """Collections searched for raws and for what the chain does not make; default: the raws."""
    where: str = ""
    """Butler expression that all input exposures satisfy."""
    at_most: int = AT_MOST
    strict: bool = False
    """Stop when a verification fails, not only when a product does."""
    unverified: tuple[str, ...] = ()
    """Products whose verification is left out."""
    cluster: str = "local"
    task_memory_bytes: int = TASK_BUDGET_BYTES

    def __post_init__(self) -> None:
        check_collection(self.prefix)


def in_order(recipes: Sequence[AnyRecipe]) -> list[AnyRecipe]:
    """Sort recipes so that each comes after those that make what it needs.

    Raises
    ------
    PlanError
        If two make the same product, or they need each other.
    """
    makers = {recipe.product: recipe for recipe in recipes}
    if len(makers) < len(recipes):
        raise PlanError(f"chain: a product is made twice in {', '.join(r.product for r in recipes)}")
    graph = {r.product: [need for need in r.needs if need in makers] for r in recipes}
    try:
        return [makers[product] for product in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        raise PlanError(f"chain: {' needs '.join(reversed(error.args[1]))}: none can be first") from None


class Chain:
    """A chain on one repository and cluster.

    Parameters
    ----------
    repo, client
        Opened for writing; where the tasks run.
    settings : ChainSettings
    say : callable
        Takes one line of the account.
    bar : callable
        Progress bar: label and total to a context with a function that advances it.
    """

    def __init__(self, repo: Repo, client: Client, settings: ChainSettings, say: Callable[[str], None], bar: Bar):
        self.repo, self.client, self.settings, self.say, self.bar = repo, client, settings, say, bar
        self.made: list[str] = []

    def run(self, names: Iterable[str], instrument: str | None = None) -> list[Outcome]:
        """Make all, in the order of their needs.

        Parameters
        ----------
        names : iterable of str
            Pipelines, by name (``bias``) or file.
        instrument : str, optional
            Needed if the repository has several.

        Raises
        ------
        RunError
            If a step failed: what is done, what failed and why, what was not tried.
        PlanError
            If something is needed that neither the chain makes nor the inputs hold.
        """
        camera = self.repo.instrument(instrument).name
        recipes = in_order([_load(name, camera) for name in names])
        self.settings = replace(self.settings, inputs=self.settings.inputs or (raw_run(camera),))
        self._check_names(recipes)
        self._check_needs(recipes)
        self.say("order: " + ", ".join(_needs_text(r) for r in recipes))
        outcomes: list[Outcome] = []
        for i, recipe in enumerate(recipes):
            try:
                outcomes += self._step(recipe)
            except CamcalError as error:
                rest = ", ".join(r.product for r in recipes[i + 1 :]) or "nothing"
                done = ", ".join(self.made) or "nothing"
                raise RunError(
                    f"chain stopped at {recipe.product}: {error}\n  done: {done}\n  not tried: {rest}"
                ) from error
        return outcomes

    def _check_names(self, recipes: Sequence[AnyRecipe]) -> None:
        """Refuse a prefix with which a step, or its verification, could not name its RUN."""
        for recipe in recipes:
            names = [f"{self.settings.prefix}/{recipe.product}"]
            if isinstance(recipe, FlatRecipe):
                with contextlib.suppress(RepoError):  # without flats the step itself says why
                    names = [f"{names[0]}/{component(name)}" for name in self._filters(recipe)]
            for suffix in [v.product for v in _verifications(recipe, TableRecipe)] or ["verify"]:
                for name in names:
                    self.repo.check_output(name)
                    self.repo.check_output(f"{name}.{suffix}")

    def _check_needs(self, recipes: Sequence[AnyRecipe]) -> None:
        made = {r.product for r in recipes}
        if unknown := sorted(set(self.settings.unverified) - made):
            raise PlanError(f"chain: {unknown[0]} is to be left unverified, but is not made{nearest(unknown[0], made)}")
        for recipe in recipes:
            for need in recipe.needs:
                if need not in made and not self.repo.datasets(need, list(self.settings.inputs)):
                    raise PlanError(
                        f"chain: {recipe.product} needs {need}, which is neither in -p nor in "
                        f"{', '.join(self.settings.inputs)}; add it to -p or name its RUN in -i"
                    )

    def _step(self, recipe: AnyRecipe) -> list[Outcome]:
        self.say(f"{recipe.product}: {recipe.description}")
        run = f"{self.settings.prefix}/{recipe.product}"
        if isinstance(recipe, DefectsRecipe):
            return [self._make(recipe, run, "", None), *self._verify_on_commonest_filter(recipe, run)]
        if isinstance(recipe, PtcRecipe | LinearityRecipe):  # all flats that pair: a curve has no use for a few
            return [self._make(recipe, run, self.settings.where, None), *self._judge(recipe, run)]
        if not isinstance(recipe, FlatRecipe):
            return self._from_exposures(recipe, run, self.settings.where)
        outcomes, runs = [], []
        for name in sorted(self._filters(recipe)):
            runs.append(f"{run}/{component(name)}")
            outcomes += self._from_exposures(recipe, runs[-1], self._of_filter(name))
        self.repo.chain(run, runs)
        return outcomes

    def _filters(self, recipe: AnyRecipe) -> dict[str, int]:
        """Exposures of each filter."""
        names, counts = np.unique(self._raws(recipe, self.settings.where)["physical_filter"].values, return_counts=True)
        return {str(name): int(n) for name, n in zip(names, counts, strict=True)}

    def _of_filter(self, name: str) -> str:
        return _both(self.settings.where, f"physical_filter = '{name}'")

    def _raws(self, recipe: AnyRecipe, where: str) -> xr.DataArray:
        return self.repo.raws(
            _both(recipe.where, where), instrument=recipe.instrument, collections=list(self.settings.inputs)
        )

    def _from_exposures(self, recipe: AnyRecipe, run: str, where: str) -> list[Outcome]:
        chosen = self._choose(recipe, where)
        outcomes = [self._make(recipe, run, where, chosen.exposures)]
        found = self._verification(recipe)
        exposures = sorted({*chosen.exposures, *chosen.kept_out})
        return outcomes if found is None else [*outcomes, self._verify(found, run, where, exposures)]

    def _verify_on_commonest_filter(self, recipe: AnyRecipe, run: str) -> list[Outcome]:
        """Verify what was made from no exposures on those that its verification asks for, through one filter."""
        found = self._verification(recipe)
        if found is None:
            return []
        filters = self._filters(found)
        where = self._of_filter(max(filters, key=lambda name: filters[name]))
        return [self._verify(found, run, where, self._choose(found, where).exposures)]

    def _choose(self, recipe: AnyRecipe, where: str) -> Chosen:
        raws = self._raws(recipe, where)
        camera = self.repo.instrument(recipe.instrument)
        states = camera_states(self.repo, raws, camera)
        chosen = choose(raws, states, camera.settings.state_keywords, self.settings.at_most)
        for reason in chosen.reasons:
            self.say(f"  {reason}")
        if not chosen.exposures:
            raise PlanError(f"{recipe.product}: no exposure is left: {'; '.join(chosen.reasons)}")
        return chosen

    def _verification(self, recipe: AnyRecipe) -> VerifyRecipe | None:
        """Shipped verification whose candidates include the product, for this product only."""
        found = None if recipe.product in self.settings.unverified else next(_verifications(recipe, VerifyRecipe), None)
        return None if found is None else found.chosen(recipe.product)

    def _judge(self, recipe: AnyRecipe, run: str) -> list[Outcome]:
        """Judge a product by its own numbers."""
        outcomes = []
        left_out = recipe.product in self.settings.unverified
        for found in () if left_out else _verifications(recipe, TableRecipe):
            plan = self._plan(found, f"{run}.{found.product}", "", None, (run,))
            outcomes.append(self._execute(plan))
            if not outcomes[-1].complete or (self.settings.strict and not outcomes[-1].passed):
                raise RunError(f"verification of {run}: {outcomes[-1].text()}")
        return outcomes

    def _make(self, recipe: AnyRecipe, run: str, where: str, exposures: Sequence[int] | None) -> Outcome:
        outcome = self._execute(self._plan(recipe, run, where, exposures, tuple(reversed(self.made))))
        if not outcome.complete:
            raise RunError(outcome.text())
        self.made.append(run)
        return outcome

    def _verify(self, recipe: VerifyRecipe, run: str, where: str, exposures: Sequence[int]) -> Outcome:
        outcome = self._execute(self._plan(recipe, f"{run}.verify", where, exposures, (run, *reversed(self.made))))
        if not outcome.complete or (self.settings.strict and not outcome.passed):
            raise RunError(f"verification of {run}: {outcome.text()}")
        return outcome

    def _plan(
        self, recipe: AnyRecipe, run: str, where: str, exposures: Sequence[int] | None, first: tuple[str, ...]
    ) -> Plan:
        return make_plan(
            self.repo,
            recipe,
            inputs=list(dict.fromkeys((*first, *self.settings.inputs))),
            output=run,
            where=where,
            exposures=exposures,
            task_memory_bytes=self.settings.task_memory_bytes,
        )

    def _execute(self, plan: Plan) -> Outcome:
        with self.bar(plan.recipe.product, len(plan.quanta)) as advance:
            outcome = execute(
                self.repo, plan, self.client, cluster=self.settings.cluster, progress=lambda q: advance(str(q.detector))
            )
        for line in outcome.text().splitlines():
            self.say(f"  {line}")
        if outcome.signal is not None:
            raise KeyboardInterrupt(outcome.signal)
        return outcome


def _load(name: str, instrument: str) -> AnyRecipe:
    recipe = load_recipe(name if name.endswith((".yaml", ".yml")) else f"{instrument}/{name}.yaml")
    if recipe.instrument != instrument:
        raise PlanError(f"chain: {name} is for {recipe.instrument}, the repository's camera is {instrument}")
    if isinstance(recipe, VerifyRecipe | TableRecipe):
        raise PlanError(f"chain: {name} is a verification; these run by themselves after the product they verify")
    return recipe


def _verifications(recipe: AnyRecipe, kind: type[R]) -> Iterator[R]:
    """Shipped verifications of one kind whose candidates include the product."""
    folder = shipped("pipelines", recipe.instrument)
    for path in sorted(folder.glob("verify*.yaml")) if folder else ():
        found = load_recipe(str(path))
        if isinstance(found, kind) and recipe.product in found.candidates:
            yield found


def _both(*conditions: str) -> str:
    return " AND ".join(f"({c})" for c in conditions if c)


def _needs_text(recipe: AnyRecipe) -> str:
    return f"{recipe.product} (needs {', '.join(recipe.needs)})" if recipe.needs else recipe.product

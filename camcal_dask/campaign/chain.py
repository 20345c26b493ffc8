"""A list of calibrations in the order of what they need, each visible to the next (reference/construction.md 15)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import numpy as np

from camcal_dask.campaign.plan import TASK_BUDGET_BYTES, Plan, make_plan
from camcal_dask.campaign.recipe import AnyRecipe, DefectsRecipe, FlatRecipe, VerifyRecipe, load_recipe
from camcal_dask.campaign.run import Outcome, execute
from camcal_dask.campaign.selection import Chosen, camera_states, choose
from camcal_dask.campaign.shipped import shipped
from camcal_dask.errors import CamcalError, PlanError, RunError
from camcal_dask.repo.registry import Repo
from camcal_dask.repo.schema import raw_run

if TYPE_CHECKING:
    from distributed import Client

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
    cluster: str = "local"
    task_memory_bytes: int = TASK_BUDGET_BYTES


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

    def _check_needs(self, recipes: Sequence[AnyRecipe]) -> None:
        made = {r.product for r in recipes}
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
            return [self._make(recipe, run, "", None)]
        if not isinstance(recipe, FlatRecipe):
            return self._from_exposures(recipe, run, self.settings.where)
        outcomes, runs = [], []
        for name in self._filters(recipe):
            where = " AND ".join(f"({w})" for w in (self.settings.where, f"physical_filter = '{name}'") if w)
            runs.append(f"{run}/{name}")
            outcomes += self._from_exposures(recipe, runs[-1], where)
        self.repo.chain(run, runs)
        return outcomes

    def _filters(self, recipe: AnyRecipe) -> list[str]:
        where = " AND ".join(f"({w})" for w in (recipe.where, self.settings.where) if w)
        raws = self.repo.raws(where, instrument=recipe.instrument, collections=list(self.settings.inputs))
        return [str(name) for name in np.unique(raws["physical_filter"].values)]

    def _from_exposures(self, recipe: AnyRecipe, run: str, where: str) -> list[Outcome]:
        both = " AND ".join(f"({w})" for w in (recipe.where, where) if w)
        raws = self.repo.raws(both, instrument=recipe.instrument, collections=list(self.settings.inputs))
        camera = self.repo.instrument(recipe.instrument)
        states = camera_states(self.repo, raws, camera)
        chosen = choose(raws, states, camera.settings.state_keywords, self.settings.at_most)
        for reason in chosen.reasons:
            self.say(f"  {reason}")
        if not chosen.exposures:
            raise PlanError(f"{recipe.product}: no exposure is left: {'; '.join(chosen.reasons)}")
        outcomes = [self._make(recipe, run, where, chosen.exposures)]
        return outcomes + self._verify(recipe, run, where, chosen)

    def _make(self, recipe: AnyRecipe, run: str, where: str, exposures: Sequence[int] | None) -> Outcome:
        outcome = self._execute(self._plan(recipe, run, where, exposures, tuple(reversed(self.made))))
        if outcome.failed:
            raise RunError(outcome.text())
        self.made.append(run)
        return outcome

    def _verify(self, recipe: AnyRecipe, run: str, where: str, chosen: Chosen) -> list[Outcome]:
        found = _verification(recipe)
        if found is None:
            return []
        exposures = sorted({*chosen.exposures, *chosen.kept_out})
        outcome = self._execute(self._plan(found, f"{run}.verify", where, exposures, (run, *reversed(self.made))))
        if outcome.failed or (self.settings.strict and not outcome.passed):
            raise RunError(f"verification of {run}: {outcome.text()}")
        return [outcome]

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
        with self.bar(plan.recipe.product, len(plan.detectors)) as advance:
            outcome = execute(
                self.repo, plan, self.client, cluster=self.settings.cluster, progress=lambda q: advance(str(q.detector))
            )
        for line in outcome.text().splitlines():
            self.say(f"  {line}")
        return outcome


def _load(name: str, instrument: str) -> AnyRecipe:
    recipe = load_recipe(name if name.endswith((".yaml", ".yml")) else f"{instrument}/{name}.yaml")
    if recipe.instrument != instrument:
        raise PlanError(f"chain: {name} is for {recipe.instrument}, the repository's camera is {instrument}")
    if isinstance(recipe, VerifyRecipe):
        raise PlanError(f"chain: {name} is a verification; these run by themselves after the product they verify")
    return recipe


def _verification(recipe: AnyRecipe) -> VerifyRecipe | None:
    """Shipped verification whose candidates include the product, for this product only."""
    folder = shipped("pipelines", recipe.instrument)
    for path in sorted(folder.glob("verify*.yaml")) if folder else ():
        found = load_recipe(str(path))
        if isinstance(found, VerifyRecipe) and recipe.product in found.candidates:
            return found.model_copy(update={"candidates": (recipe.product,)})
    return None


def _needs_text(recipe: AnyRecipe) -> str:
    return f"{recipe.product} (needs {', '.join(recipe.needs)})" if recipe.needs else recipe.product

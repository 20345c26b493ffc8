"""A list of calibrations in the order of their needs, each visible to the next (reference/construction.md 15)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from camcal_dask import rooms
from camcal_dask.campaign.planning.pipelines import pipeline_names
from camcal_dask.campaign.planning.plan import Plan
from camcal_dask.campaign.planning.recipe import Recipe, load_recipe, task_of
from camcal_dask.campaign.planning.request import TASK_BUDGET_BYTES, make_plan
from camcal_dask.campaign.planning.selection import Chosen, camera_states, choose
from camcal_dask.campaign.running.run import Outcome, execute
from camcal_dask.errors import CamcalError, ConfigError, PlanError, RepoError, RunError, nearest
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.repo.schema import raw_run
from camcal_dask.repo.storage.naming import check_collection, component

if TYPE_CHECKING:
    from distributed import Client

AT_MOST = 20
"""Exposures that a calibration is made from."""
Bar = Callable[[str, int], AbstractContextManager[Callable[[str], None]]]


@dataclass(frozen=True)
class ChainSettings:
    """What holds for all steps of a chain."""

    prefix: str
    """What a pipeline makes goes to the RUN ``prefix/<pipeline>`` (flats: ``prefix/<pipeline>/<filter>``)."""
    inputs: tuple[str, ...] = ()
    """Collections searched for raws and for what the chain does not make; default: the raws."""
    where: str = ""
    """Butler expression that all input exposures satisfy."""
    at_most: int = AT_MOST
    strict: bool = False
    """Stop when a verification fails, not only when a product does."""
    unverified: tuple[str, ...] = ()
    """Pipelines whose products are not verified."""
    overrides: tuple[str, ...] = ()
    """Settings of pipelines, ``product:step.key=value``; verifications too (``verifyBias:...``)."""
    cluster: str = "local"
    task_memory_bytes: int = TASK_BUDGET_BYTES

    def __post_init__(self) -> None:
        check_collection(self.prefix)


class Step(NamedTuple):
    """A pipeline of a chain: its name, by which ``-c`` and the RUN call it, and what it makes."""

    name: str
    recipe: Any

    @property
    def wants(self) -> tuple[str, ...]:
        """Dataset types that it needs, or uses where they are there."""
        return (*self.recipe.needs, *self.recipe.uses)


def in_order(steps: Sequence[Step]) -> list[Step]:
    """Sort steps so that each comes after those that make what it needs or uses.

    A product may be made once more from what was made with it (``defectsAfterFlats``); the others then use the first.

    Raises
    ------
    PlanError
        If two make the same product from the same things, or they need each other.
    """
    makers = _first_makers(steps)
    graph = {step.name: [makers[want].name for want in step.wants if want in makers] for step in steps}
    named = {step.name: step for step in steps}
    try:
        return [named[name] for name in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        raise PlanError(f"chain: {' needs '.join(reversed(error.args[1]))}: none of them can be first") from None


def _first_makers(steps: Sequence[Step]) -> dict[str, Step]:
    """Say which step makes each product first."""
    makers: dict[str, list[Step]] = {}
    for step in steps:
        makers.setdefault(step.recipe.product, []).append(step)

    def rests_on(step: Step, product: str) -> bool:
        seen, stack = set[str](), list(step.wants)
        while stack:
            want = stack.pop()
            if want not in seen:
                seen.add(want)
                stack += [more for maker in makers.get(want, ()) for more in maker.wants]
        return product in seen

    found = {}
    for product, several in makers.items():
        first = several if len(several) == 1 else [step for step in several if not rests_on(step, product)]
        if len(first) != 1 or len({step.name for step in several}) < len(several):
            raise PlanError(f"chain: a product is made twice in {', '.join(step.name for step in steps)}: {product}")
        found[product] = first[0]
    return found


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
        self.incomplete: list[str] = []
        self.overrides: dict[str, list[str]] = {}

    def run(self, names: Iterable[str] = (), instrument: str | None = None) -> list[Outcome]:
        """Make all of them, in the order of their needs.

        Parameters
        ----------
        names : iterable of str
            Pipelines, by name (``bias``) or file; default: those that the rooms name (`camcal_dask.rooms.chain`).
        instrument : str, optional
            Needed if the repository has several.

        Raises
        ------
        RunError
            If a step made nothing: what is done, what failed and why, what was not tried.  If some detectors failed in
            a step: at the end, when the others are through.
        PlanError
            If something is needed that neither the chain makes nor the inputs hold.
        ConfigError
            If a setting is for a pipeline that the chain does not run, or not valid.
        """
        camera = self.repo.instrument(instrument).name
        self.settings = replace(self.settings, inputs=self.settings.inputs or (raw_run(camera),))
        names = tuple(names) or tuple(rooms.chain())
        self.overrides = _by_pipeline(self.settings.overrides, [Path(name).stem for name in names], camera)
        steps = in_order([self._load(name, camera) for name in names])
        self._check_names(steps)
        self._check_needs(steps)
        self.say("order: " + ", ".join(_needs_text(step) for step in steps))
        outcomes: list[Outcome] = []
        for i, step in enumerate(steps):
            try:
                outcomes += self._step(step)
            except CamcalError as error:
                rest = ", ".join(left.name for left in steps[i + 1 :]) or "nothing"
                done = ", ".join(self.made) or "nothing"
                raise RunError(f"chain stopped at {step.name}: {error}\n  done: {done}\n  not tried: {rest}") from error
        if self.incomplete:
            raise RunError("the chain finished, but not for every detector:\n  " + "\n  ".join(self.incomplete))
        return outcomes

    def _check_names(self, steps: Sequence[Step]) -> None:
        """Refuse a prefix with which a step, or its verification, could not name its RUN."""
        for step in steps:
            names = [f"{self.settings.prefix}/{step.name}"]
            if task_of(step.recipe.task).chained == "by_filter":
                with contextlib.suppress(RepoError):  # without flats the step itself says why
                    names = [f"{names[0]}/{component(name)}" for name in self._filters(step.recipe)]
            for suffix in ("verify", *(found.product for found in self._verifications(step, raws=False))):
                for name in names:
                    self.repo.check_output(name)
                    self.repo.check_output(f"{name}.{suffix}")

    def _load(self, name: str, instrument: str) -> Step:
        stem = Path(name).stem
        recipe = load_recipe(name, self.overrides.get(stem, ()), instrument)
        if recipe.instrument != instrument:
            raise PlanError(f"chain: {name} is for {recipe.instrument}, the repository's camera is {instrument}")
        if task_of(recipe.task).chained == "never":
            raise PlanError(
                f"chain: {name} is a verification; verifications run automatically after the product that they verify"
            )
        return Step(stem, recipe)

    def _check_needs(self, steps: Sequence[Step]) -> None:
        names, made = {step.name for step in steps}, {step.recipe.product for step in steps}
        if unknown := sorted(set(self.settings.unverified) - names):
            raise PlanError(
                f"chain: {unknown[0]} is not to be verified, but is not made either{nearest(unknown[0], names)}"
            )
        for step in steps:
            for need in step.recipe.needs:
                if need not in made and not self.repo.datasets(need, list(self.settings.inputs)):
                    raise PlanError(
                        f"chain: {step.name} needs {need}, which is neither in -p nor in "
                        f"{', '.join(self.settings.inputs)}; add it to -p or name its RUN in -i"
                    )

    def _step(self, step: Step) -> list[Outcome]:
        name, recipe = step
        self.say(f"{name}: {recipe.description}")
        run = f"{self.settings.prefix}/{name}"
        how = task_of(recipe.task).chained
        if how == "by_filter":
            return self._each_filter(step, run)
        where = "" if how == "none" else self.settings.where
        return self._one(step, run, where, self._choose(recipe, where) if how == "chosen" else None)

    def _each_filter(self, step: Step, run: str) -> list[Outcome]:
        """Make the product of every filter that has exposures which will do; name the others."""
        outcomes, runs, refused = [], [], []
        for physical_filter in sorted(self._filters(step.recipe)):
            where = self._of_filter(physical_filter)
            try:
                chosen = self._choose(step.recipe, where)
            except PlanError as error:
                refused.append(str(error))
                self.say(f"  not made: {error}")
                continue
            runs.append(f"{run}/{component(physical_filter)}")
            outcomes += self._one(step, runs[-1], where, chosen)
        if not runs:
            raise PlanError("; ".join(refused))
        self.repo.chain(run, runs)
        return outcomes

    def _one(self, step: Step, run: str, where: str, chosen: Chosen | None) -> list[Outcome]:
        """Make a product, apply it to exposures if a verification says so, and judge its own numbers."""
        outcomes = [self._make(step.recipe, run, where, chosen)]
        if step.name in self.settings.unverified:
            return outcomes
        for found in self._verifications(step, raws=True):
            if chosen is None:
                outcomes.append(self._verify_on_commonest_filter(found, run))
            else:
                tested = replace(chosen, exposures=tuple(sorted({*chosen.exposures, *chosen.kept_out})))
                outcomes.append(self._verify(found, run, where, tested))
        tables = self._verifications(step, raws=False)
        outcomes += [self._judged(self._plan(t, f"{run}.{t.product}", "", None, (run,)), run) for t in tables]
        return outcomes

    def _filters(self, recipe: Recipe) -> dict[str, int]:
        """Exposures of each filter."""
        names, counts = np.unique(self._raws(recipe, self.settings.where)["physical_filter"].values, return_counts=True)
        return {str(name): int(n) for name, n in zip(names, counts, strict=True)}

    def _of_filter(self, name: str) -> str:
        return _both(self.settings.where, f"physical_filter = '{name}'")

    def _raws(self, recipe: Recipe, where: str) -> xr.DataArray:
        return self.repo.raws(
            _both(recipe.where, where), instrument=recipe.instrument, collections=list(self.settings.inputs)
        )

    def _verify_on_commonest_filter(self, found: Any, run: str) -> Outcome:
        """Verify what nobody chose exposures for on those that its verification asks for, through one filter."""
        filters = self._filters(found)
        refused = []
        for physical_filter in sorted(filters, key=lambda name: -filters[name]):
            where = self._of_filter(physical_filter)
            try:
                return self._verify(found, run, where, self._choose(found, where))
            except PlanError as error:
                refused.append(str(error))
        raise PlanError("; ".join(refused))

    def _choose(self, recipe: Recipe, where: str) -> Chosen:
        """Choose exposures of one camera state, and of those what the room of their observation type chooses."""
        raws = self._raws(recipe, where)
        camera = self.repo.instrument(recipe.instrument)
        reasons: tuple[str, ...] = ()
        kinds = {str(kind) for kind in raws["observation_type"].values}
        if len(kinds) == 1 and (chooser := rooms.chooser(*kinds)) is not None:
            picked = chooser(self.repo, recipe, raws, self._inputs())
            raws, reasons = raws.sel(exposure=list(picked.exposures)), picked.reasons
        states = camera_states(self.repo, raws, camera)
        chosen = choose(raws, states, camera.settings.state_keywords, self.settings.at_most)
        chosen = replace(chosen, reasons=(*reasons, *chosen.reasons))
        for reason in chosen.reasons:
            self.say(f"  {reason}")
        if not chosen.exposures:
            raise PlanError(f"{recipe.product}: no exposure is left: {'; '.join(chosen.reasons)}")
        return chosen

    def _verifications(self, step: Step, *, raws: bool) -> Iterator[Any]:
        """Shipped verifications of a product, for this product only: on exposures, or of its own numbers."""
        product = step.recipe.product
        for name in _verification_names(step.recipe.instrument):
            found: Any = load_recipe(name, self.overrides.get(name, ()), step.recipe.instrument)
            reads_raws = task_of(found.task).steps_of(found)[-1].raws
            if reads_raws == raws and product in found.candidates:
                yield found.of_candidate(product)

    def _make(self, recipe: Recipe, run: str, where: str, chosen: Chosen | None = None) -> Outcome:
        plan = self._plan(recipe, run, where, chosen)
        outcome = self._execute(plan)
        self._accept(plan, outcome, "")
        self.made.append(run)
        return outcome

    def _verify(self, recipe: Recipe, run: str, where: str, chosen: Chosen) -> Outcome:
        return self._judged(self._plan(recipe, f"{run}.verify", where, chosen, (run,)), run)

    def _judged(self, plan: Plan, run: str) -> Outcome:
        outcome = self._execute(plan)
        self._accept(plan, outcome, f"verification of {run}: ")
        return outcome

    def _accept(self, plan: Plan, outcome: Outcome, what: str) -> None:
        """Stop the chain if nothing was made; what failed for some detectors does not cost the others."""
        if not outcome.complete:
            if outcome.stopped or not self.repo.datasets(plan.recipe.product, plan.output):
                raise RunError(f"{what}{outcome.text()}")
            lost = sorted({str(one.quantum.detector) for one in outcome.failed}, key=int)
            self.incomplete.append(f"{plan.output} without detector {', '.join(lost)}")
            self.say(f"  goes on without detector {', '.join(lost)}")
        elif what and self.settings.strict and not outcome.passed:
            raise RunError(f"{what}{outcome.text()}")

    def _inputs(self, first: tuple[str, ...] = ()) -> list[str]:
        """Collections searched: what the chain made, the latest first, then the user's."""
        return list(dict.fromkeys((*first, *reversed(self.made), *self.settings.inputs)))

    def _plan(self, recipe: Recipe, run: str, where: str, chosen: Chosen | None, first: tuple[str, ...] = ()) -> Plan:
        plan = make_plan(
            self.repo,
            recipe,
            inputs=self._inputs(first),
            output=run,
            where=where,
            exposures=None if chosen is None else chosen.exposures,
            choice=() if chosen is None else chosen.reasons,
            task_memory_bytes=self.settings.task_memory_bytes,
        )
        if plan.calibs:
            self.say(f"  with {plan.calibs_text()}")
        if text := plan.absent_text():
            self.say(f"  {text}")
        return plan

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


def _verification_names(instrument: str) -> list[str]:
    """Shipped pipelines of verifications that a chain runs."""
    return [name for name in pipeline_names(instrument) if name.startswith("verify")]


def _by_pipeline(overrides: Sequence[str], names: Sequence[str], instrument: str) -> dict[str, list[str]]:
    """Settings ``product:step.key=value`` by pipeline; those of verifications are tried at once."""
    verifications = _verification_names(instrument)
    found: dict[str, list[str]] = {}
    for override in overrides:
        name, colon, setting = override.partition(":")
        if not colon or "=" in name:
            raise ConfigError(f"-c {override!r}: expected product:step.key=value, such as flat:select.ramps=true")
        if name not in (known := (*names, *verifications)):
            raise ConfigError(f"-c {override!r}: the chain does not run {name!r}{nearest(name, known)}")
        found.setdefault(name, []).append(setting)
    for name in found.keys() & set(verifications):
        load_recipe(name, found[name], instrument)
    return found


def _both(*conditions: str) -> str:
    return " AND ".join(f"({c})" for c in conditions if c)


def _needs_text(step: Step) -> str:
    parts = [
        f"{verb} {', '.join(what)}" for verb, what in (("needs", step.recipe.needs), ("uses", step.recipe.uses)) if what
    ]
    return f"{step.name} ({'; '.join(parts)})" if parts else step.name

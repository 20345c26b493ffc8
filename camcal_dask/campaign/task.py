"""How a room tells the engine to plan and carry out a recipe.

The least a task needs is a name, a class of settings and a graph:

    Task("sky", SkyRecipe, graph=sky_graph)

Its plan is then the raws that were selected with the calibrations that the ISR applies, its only step a quantum a
detector, and ``graph(place, quantum)`` writes that detector into the product.  A task that reads no raws says so by a
plan of its own, one of several steps by `Task.steps` and `Task.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from camcal_dask.campaign.planning.plan import Plan
from camcal_dask.campaign.planning.quanta import Outcome, Quantum, Step
from camcal_dask.campaign.planning.recipe import Recipe
from camcal_dask.campaign.planning.request import Request, plan_exposures
from camcal_dask.campaign.running.job import Job, Place

Chained = Literal["chosen", "by_filter", "all", "none", "never"]
"""How a chain makes a product: from exposures of one camera state and illumination, the same for every filter, from all
exposures, from products alone; or not at all."""


def each_detector(graph: Callable[[Place, Quantum], Any], task: str, job: Job) -> Outcome:
    """Lay the product out and make every detector that is not there."""
    job.begin()
    return job.carry_out(partial(graph, job.place), task)


@dataclass(frozen=True)
class Task:
    """One task of a room; see the module.

    Attributes
    ----------
    name : the word after ``task:`` in a pipeline.
    recipe : its settings.
    graph : ``graph(place, quantum)`` is the work of one quantum: a lazy object, or a Dataset; for ``--dry-run`` it is
        asked for before there are results of earlier steps.
    plan : resolves the recipe's inputs and says what a task costs.
    run : carries the plan out; default: `each_detector`.
    steps : kinds of quanta of a recipe; default: one, a detector each, that reads raws.
    chained : see `Chained`.
    certified : whether the product is a calibration that can be certified; statistics of a verification cannot.
    """

    name: str
    recipe: type[Recipe]
    graph: Callable[[Place, Quantum], Any]
    plan: Callable[[Request], Plan] = plan_exposures
    run: Callable[[Job], Outcome] | None = None
    steps: Callable[[Any], Sequence[Step]] | None = None
    chained: Chained = "chosen"
    certified: bool = True

    def steps_of(self, recipe: Recipe) -> Sequence[Step]:
        """Kinds of quanta of a recipe, in order; the last one makes the product."""
        return (Step(self.name),) if self.steps is None else self.steps(recipe)

    def carry_out(self, job: Job) -> Outcome:
        """Carry a plan out."""
        return each_detector(self.graph, self.name, job) if self.run is None else self.run(job)

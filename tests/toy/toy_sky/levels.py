"""A table: levels of the amps of a sky; its verdict and its figures."""

from typing import Literal

import dask
import numpy as np

from camcal_dask.campaign.planning.quanta import Step
from camcal_dask.campaign.planning.recipe import Recipe
from camcal_dask.campaign.planning.request import plan_from
from camcal_dask.campaign.task import Task
from camcal_dask.repo.cubes import products
from camcal_dask.rooms import Curve, Figures
from toy_sky import kernel

PERCENT = (5, 25, 50, 75, 95)


class LevelsRecipe(Recipe):
    """Measure the sky of each amp; no exposures."""

    task: Literal["toy_levels"]
    sky: str = "toySky"

    @property
    def needs(self):
        """Dataset types that must be there before this recipe runs."""
        return (self.sky,)


def plan(request):
    """Find the sky of every detector."""
    return plan_from(request, sky=request.recipe.sky)


def graph(place, quantum):
    """Measure and write one detector: one task."""
    uri = place.plan.calibs["sky"][quantum.detector].uri
    return dask.delayed(_measure)(place.uri, place.index(quantum.detector), uri, quantum.detector)


def _measure(uri, index, source, detector):
    image = products.open_products([(source, detector)])["sky"].isel(detector=0).transpose("amp", "y", "x").values
    products.write_product(uri, index, kernel.levels(image, PERCENT), {})


def table(levels):
    """Numbers that are judged."""
    return levels[["level", "scatter", "n_pixel"]]


def chart(amp):
    """Percentiles of one amp."""
    y = amp["percentile"].values
    return Curve(np.array(PERCENT, np.float64), y, np.ones(y.shape, bool)) if np.isfinite(y).all() else None


def write(levels, detector, folder):
    """Write the levels of all amps as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3))
    one = levels.sel(detector=detector)
    figure.subplots().plot(one["level"].values, "o")
    path = folder / f"levels_{detector:03d}.png"
    figure.savefig(path, dpi=40)
    return [path]


FIGURES = Figures(
    needs=("percentile",),
    chart=chart,
    words="Percentiles of the sky [electron].",
    title="Levels of the sky",
    axes=("percent", "sky [electron]"),
    write=write,
)
TASK = Task(
    "toy_levels", LevelsRecipe, graph, plan=plan, steps=lambda recipe: (Step("toy_levels", raws=False),), chained="none"
)

"""An image: the median of corrected exposures."""

from typing import Literal

import dask
import numpy as np
import pydantic
import xarray as xr

from camcal_dask.campaign.planning.recipe import IsrRecipe
from camcal_dask.campaign.running.job import open_calibs
from camcal_dask.campaign.task import Task
from camcal_dask.config import Config
from camcal_dask.isr.corrected import isr
from camcal_dask.repo.cubes import products
from toy_sky import kernel


class SkyConfig(Config):
    """How exposures become a sky."""

    most: int = pydantic.Field(100, ge=1)
    """Exposures at most."""


class SkyRecipe(IsrRecipe):
    """Combine the exposures of each detector."""

    task: Literal["toy_sky"]
    sky: SkyConfig = SkyConfig()


def graph(place, quantum):
    """Correct the exposures of one detector, one block each, and write their median."""
    plan, recipe = place.plan, place.plan.recipe
    raw = plan.pixels.sel(detector=[quantum.detector]).isel(exposure=slice(recipe.sky.most))
    corrected = isr(raw, open_calibs(plan, quantum.detector), recipe.isr)
    images = corrected.dataset()["image"].data.to_delayed().ravel().tolist()
    exposures = raw["exposure"].values.tolist()
    return dask.delayed(_write)(place.uri, place.index(quantum.detector), images, exposures)


def _write(uri, index, images, exposures):
    stack = np.concatenate(images)[:, 0]
    n_input = np.isfinite(stack).any(axis=(2, 3)).sum(axis=0).astype(np.int32)
    products.write_product(uri, index, {"sky": kernel.median(stack), "n_input": n_input}, {"exposures": exposures})


def subtracted(candidate, calibs, config):
    """Take the sky off the exposures as the ISR takes a bias off."""
    sky = candidate["sky"]
    mask = sky.isnull().astype(np.int32)
    bias = xr.Dataset({"image": sky.fillna(0), "variance": xr.zeros_like(sky), "mask": mask}, attrs=candidate.attrs)
    others = {name: calibration for name, calibration in calibs.items() if name != "toy_sky"}
    return {**others, "bias": bias}, config.model_copy(update={"bias": True})


TASK = Task("toy_sky", SkyRecipe, graph)

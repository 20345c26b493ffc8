"""Settings of the search for defects."""

from __future__ import annotations

from typing import Literal

import pydantic

from camcal_dask.calibs.defects.config import DefectConfig
from camcal_dask.campaign.planning.recipe import Recipe, product_unit


class DefectsRecipe(Recipe):
    """Find the defects in combined images; no exposures."""

    task: Literal["defects"]
    images: dict[Literal["bias", "dark", "flat"], str]
    """Kind -> dataset type searched; all filters of a flat that the inputs hold."""
    defects: DefectConfig = DefectConfig()
    manual: dict[str, tuple[tuple[int, int, int, int], ...]] = {}
    """Detector name -> boxes x0, y0, width, height in the assembled CCD that are added."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Dataset types that must be there before this recipe runs."""
        return tuple(self.images.values())

    @pydantic.model_validator(mode="after")
    def _contract(self) -> DefectsRecipe:
        if self.product != "defects":
            raise ValueError(f"task defects makes the product defects, not {self.product!r}")
        for kind, dataset_type in self.images.items():
            units = product_unit(dataset_type)
            allowed = {"bias": ("adu", "electron"), "dark": ("adu/s", "electron/s"), "flat": ("1",)}[kind]
            if units not in allowed:
                raise ValueError(f"images.{kind} = {dataset_type} is in {units}, needs {' or '.join(allowed)}")
        return self

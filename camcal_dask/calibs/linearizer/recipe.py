"""Settings of linearizers."""

from __future__ import annotations

from typing import Literal

import pydantic

from camcal_dask import rooms
from camcal_dask.calibs.linearizer.config import LinearityConfig
from camcal_dask.calibs.linearizer.product import LINEARIZER
from camcal_dask.campaign.planning.recipe import IsrRecipe, product_unit


class LinearityRecipe(IsrRecipe):
    """Make linearizers from photon transfer curves, and for a double spline from the exposures of these."""

    task: Literal["linearity"]
    curves: str = "linearizerPtc"
    """Dataset type of the photon transfer curves."""
    linearity: LinearityConfig = LinearityConfig()

    @property
    def needs(self) -> tuple[str, ...]:
        """Dataset types that must be there before this recipe runs."""
        return (self.curves, *super().needs)

    @pydantic.model_validator(mode="after")
    def _contract(self) -> LinearityRecipe:
        self.check_calibs()
        product_unit(self.product)
        if rooms.product(self.product).variables is not LINEARIZER:
            raise ValueError(f"task linearity makes the product linearizer, not {self.product!r}")
        if self.isr.units != "adu" or self.isr.linearity:
            raise ValueError(
                "amp ratios are measured in adu and without linearity; set isr.gains=none, linearity=false"
            )
        return self

"""Settings of a combined image."""

from __future__ import annotations

from typing import Literal

import pydantic

from camcal_dask.calibs.combined.combine import CombineConfig, scaled_units
from camcal_dask.calibs.combined.cosmic_rays import CosmicRayConfig
from camcal_dask.campaign.planning.recipe import IsrRecipe, product_unit


class StackRecipe(IsrRecipe):
    """Combine the exposures of each detector into one image."""

    task: Literal["stack"]
    combine: CombineConfig = CombineConfig()
    mixed_state: bool = False
    """Combine exposures although they were read out in different camera states."""
    check_powered: bool = False
    """Refuse exposures of sensors whose back-side bias was off (cameras that tell)."""
    find_cosmic_rays: bool = False
    """Search every exposure for cosmic rays first; they get the plane CR."""
    cosmic_rays: CosmicRayConfig = CosmicRayConfig()

    @pydantic.model_validator(mode="after")
    def _contract(self) -> StackRecipe:
        self.check_calibs()
        made, units = scaled_units(self.isr.units, self.combine.scale), product_unit(self.product)
        if made != units:
            raise ValueError(
                f"product {self.product} is in {units}, but isr.gains={self.isr.gains} and "
                f"combine.scale={self.combine.scale} make {made}; change one of them"
            )
        if self.find_cosmic_rays and "CR" not in self.combine.reject_mask:
            raise ValueError(
                "find_cosmic_rays is on, but combine.reject_mask lacks CR, so the cosmic rays would not be rejected"
            )
        return self

"""Settings of a combined flat."""

from __future__ import annotations

from typing import Literal

from camcal_dask.calibs.combined.combine import CombineConfig
from camcal_dask.calibs.combined.recipe import StackRecipe
from camcal_dask.calibs.flat.illumination import SelectConfig
from camcal_dask.calibs.flat.levels import LevelConfig, VignetteConfig


class FlatRecipe(StackRecipe):
    """Combine the flats of one filter, each divided by its level."""

    task: Literal["flat"]  # type: ignore[assignment]
    combine: CombineConfig = CombineConfig(scale="levels")
    select: SelectConfig = SelectConfig()
    levels: LevelConfig = LevelConfig()
    vignette: VignetteConfig = VignetteConfig()

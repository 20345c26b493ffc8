"""Settings of photon transfer curves."""

from __future__ import annotations

from typing import Literal

import pydantic

from camcal_dask import rooms
from camcal_dask.calibs.ptc.extract import PtcExtractConfig
from camcal_dask.calibs.ptc.pairs import PairConfig
from camcal_dask.calibs.ptc.product import PTC
from camcal_dask.calibs.ptc.solve_config import PtcSolveConfig
from camcal_dask.campaign.planning.recipe import IsrRecipe, product_unit
from camcal_dask.config import Config
from camcal_dask.kernels.light.photodiode import Method


class PhotodiodeConfig(Config):
    """How photodiode readings become charges."""

    method: Method = "trimmed_sum"
    scale: float | None = None
    """Factor of the current, -1 upstream; None: the sign that makes light positive."""


class PtcRecipe(IsrRecipe):
    """Measure pairs of flats and fit photon transfer curves."""

    task: Literal["ptc"]
    pairing: PairConfig = PairConfig()
    stride: int = pydantic.Field(1, ge=1)
    """Take every so many-th pair only, for a quick look."""
    photodiode: PhotodiodeConfig = PhotodiodeConfig()
    aux: tuple[str, ...] = ()
    """Header keywords kept with the pairs as ``aux_<KEYWORD>``."""
    extract: PtcExtractConfig = PtcExtractConfig()
    solve: PtcSolveConfig = PtcSolveConfig()

    @property
    def n_parameter(self) -> int:
        """Parameters of the fit of the variance."""
        return self.solve.polynomial_degree + 1 if self.solve.fit_type == "POLYNOMIAL" else 3

    @pydantic.model_validator(mode="after")
    def _contract(self) -> PtcRecipe:
        self.check_calibs()
        product_unit(self.product)
        if rooms.product(self.product).variables is not PTC:
            raise ValueError(f"task ptc makes linearizerPtc or ptc, not {self.product!r}")
        if self.isr.units != "adu":
            raise ValueError(f"pairs are measured in adu, but isr.gains={self.isr.gains}; set isr.gains=none")
        return self

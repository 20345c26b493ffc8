"""Settings of the instrument signature removal (defaults: reference/isr.md sections 2.1, 2.2 and 4)."""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic import Field

from camcal_dask.config import Config


class OverscanConfig(Config):
    """Correction by one strip of overscan.  "Line" is a row of the serial, a column of the parallel overscan."""

    enabled: bool = True
    fit_type: Literal["MEDIAN_PER_ROW", "MEAN_PER_ROW"] = "MEDIAN_PER_ROW"
    """One level per line: median or mean of the surviving pixels."""
    skip_leading: int = Field(3, ge=0)
    """Pixels of each line left out next to the data (they hold deferred charge)."""
    skip_trailing: int = Field(3, ge=0)
    """Pixels of each line left out at the far end."""
    sigma_clip: float = Field(3.0, gt=0)
    """A pixel further from the median of its line, in robust sigma, is rejected."""
    max_deviation_adu: float = Field(1000.0, gt=0)
    """A pixel further than this from the median of the strip is BAD."""
    two_sided: bool = True
    """Whether ``max_deviation_adu`` also applies below the median."""
    max_fraction: float = 1.0
    """No correction if median(strip) / median(data) exceeds this and median(data) exceeds ``image_threshold``."""
    image_threshold: float = float("inf")
    """In the unit of the image, adu or electron, as upstream."""
    grow: int = Field(0, ge=0)
    """Bad lines also spoil this many neighbours on each side."""
    smoothing: int = Field(0, ge=0)
    """Width of the median filter along the lines; 0 = no smoothing test."""
    smoothing_threshold_adu: float = 5.0
    """A line this much above the filtered lines is bad."""
    saturation_adu: float = float("inf")
    """Pixels of the strip at or above this are SAT before the fit."""
    saturation_grow: int = Field(7, ge=0)
    """Radius (Manhattan distance) by which SAT grows inside the strip [pixel]."""


class ParallelOverscanConfig(OverscanConfig):
    """Parallel overscan: as :class:`OverscanConfig`, with the defaults of that strip."""

    max_deviation_adu: float = Field(100.0, gt=0)
    two_sided: bool = False
    max_fraction: float = 0.5
    image_threshold: float = 10000.0
    grow: int = Field(2, ge=0)
    smoothing: int = Field(5, ge=0)
    saturation_adu: float = 20000.0


class IsrConfig(Config):
    """Which steps run, and how."""

    dither: Literal["symmetric", "positive", "negative", "none"] = "symmetric"
    """Uniform noise added to the integers: [-0.5, 0.5), [0, 1), [-1, 0) adu, or nothing."""
    serial_overscan: OverscanConfig = OverscanConfig()
    parallel_overscan: ParallelOverscanConfig = ParallelOverscanConfig()
    gains: Literal["none", "nominal"] = "none"
    """``none``: bootstrap, the result is in adu.  ``nominal``: gains of the camera model, the result is in electron."""
    read_noise: Literal["empirical", "nominal"] = "empirical"
    """Read noise of the variance: scatter of the corrected serial overscan (times the gain), or the camera model's."""
    bias: bool = False
    """Subtract the combined bias given as ``calibs["bias"]``."""

    @pydantic.model_validator(mode="after")
    def _check(self) -> IsrConfig:
        if self.read_noise == "empirical" and not self.serial_overscan.enabled:
            raise ValueError(
                "read_noise=empirical is measured in the serial overscan: enable that, or read_noise=nominal"
            )
        return self

    @property
    def units(self) -> str:
        """Unit of the corrected image."""
        return "adu" if self.gains == "none" else "electron"

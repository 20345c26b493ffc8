"""Settings of the defects (reference/construction.md 5 and Appendix A); the defaults are those of LSSTCam."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from camcal_dask.config import Config
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.pixels.defects import Columns, Flatness, Gradient, Kind, Search


class ColumnConfig(Config):
    """Rules that fill whole or part columns; -1 switches a rule off."""

    blinking_count: int = Field(50, ge=-1)
    """Bad pixels in a column of the detector from which gaps between them are filled."""
    blinking_gap: int = Field(30, ge=1)
    """Gaps of at least so many rows stay open."""
    fill_count: int = Field(1000, ge=-1)
    """Bad pixels in a column of an amp from which all of it is bad."""
    saturated_dilation: int = Field(0, ge=0)
    """Neighbours on each side in the row of a saturated pixel that are bad too."""
    saturated_count: int = Field(-1, ge=-1)
    """Saturated pixels in a column of an amp from which all of it is bad."""

    def rules(self) -> Columns:
        """Return the same for the kernel."""
        return Columns(**self.model_dump())


class ImageConfig(Config):
    """How one kind of combined image is searched."""

    method: Literal["VALUE", "STDEV"] = "VALUE"
    """``VALUE``: the threshold below.  ``STDEV``: multiples of the clipped standard deviation of the amp."""
    threshold: float
    """Bias: adu above the mean of the amp.  Dark: electron/s above it.  Flat: fraction of it."""
    n_sigma_hot: float = Field(4.8, gt=0)
    n_sigma_cold: float = Field(-5.0, lt=0)
    border_rows: int = Field(0, ge=0)
    """Rows at bottom and top of each amp that are not searched."""
    border_columns: int = Field(0, ge=0)
    """Columns at the sides of each amp that are not searched."""
    columns: ColumnConfig = ColumnConfig()

    def search(self, kind: Kind) -> Search:
        """Return the thresholds for the kernel."""
        return Search(kind=kind, **self.model_dump(exclude=set(self.__class__.model_fields) - set(Search._fields)))


class FlatConfig(ImageConfig):
    """How a combined flat is searched."""

    threshold: float = Field(0.9, gt=0, lt=1)
    remove_gradient: bool = True
    """Divide each amp by its radial illumination first."""
    gradient_bin_size: int = Field(8, ge=1)
    gradient_border: int = Field(20, ge=0)
    gradient_nodes: int = Field(4, ge=2)
    dead_amp_fraction: float = Field(0.1, ge=0, lt=1)
    """An amp this faint, relative to the median amp of the detector, is bad as a whole."""
    e2v_midline_rows: int = Field(1, ge=0)
    """Rows of each E2V amp at the middle of the CCD that are treated by ``e2v_midline``."""
    e2v_midline: Literal["NEVERMASK", "MASK"] = "NEVERMASK"
    vampires: bool = False
    """Search for vampire pixels (ComCam)."""
    vampire_threshold: float = Field(1.9, gt=1)
    """In units of the mean of the amp."""
    vampire_radius: int = Field(8, ge=0)

    def gradient(self, affine: FloatArray) -> Gradient | None:
        """Return the gradient settings for the kernel, with the transform of CCD pixels to the focal plane."""
        if not self.remove_gradient:
            return None
        return Gradient(affine, self.gradient_bin_size, self.gradient_border, self.gradient_nodes)

    def flatness(self, physical_type: str) -> Flatness:
        """Return the other settings for the kernel, for a type of sensor."""
        return Flatness(
            dead_amp_fraction=self.dead_amp_fraction,
            midline_rows=self.e2v_midline_rows if physical_type == "E2V" else 0,
            midline_option=self.e2v_midline,
            vampire_threshold=self.vampire_threshold if self.vampires else float("inf"),
            vampire_radius=self.vampire_radius,
        )


_SATURATED = ColumnConfig(saturated_dilation=2, saturated_count=20)


class DefectConfig(Config):
    """Defects of a detector: three searches and what is added to them."""

    bias: ImageConfig = ImageConfig(threshold=1000.0, columns=_SATURATED)
    dark: ImageConfig = ImageConfig(threshold=3.0, columns=_SATURATED)
    flat: FlatConfig = FlatConfig()
    edges: bool = True
    """Mark the outer frame of the CCD."""
    edge_rows: int = Field(7, ge=0)
    edge_columns: int = Field(8, ge=0)
    manual: bool = True
    """Add the curated list ``manual_defects``."""

"""Settings of the linearizer (reference/ptc_linearity.md 12); the defaults are those of LSSTCam's dome flats."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from camcal_dask.config import Config
from camcal_dask.kernels.linearity.double import NodeSizes
from camcal_dask.kernels.linearity.spline import SplineTerms

LinearityType = Literal["DoubleSpline", "Spline", "LookupTable", "Polynomial", "Squared", "Proportional", "None"]


class TurnoffConfig(Config):
    """Up to which signal an amp counts as linear."""

    min_signal: float = Field(1000.0, ge=0)
    """Least signal that takes part [adu]."""
    max_residual: float = Field(0.01, gt=0)
    """Relative residual of a linear point."""
    ptc_factor: float = Field(1.3, gt=0)
    """A double spline never reaches beyond this multiple of the PTC turnoff."""


class PolynomialConfig(Config):
    """Types Polynomial, Squared and LookupTable."""

    order: int = Field(3, ge=2)
    """Of the polynomial; Squared takes 2 at least and keeps the quadratic term."""
    min_linear: float = 30.0
    """Range of the straight line [adu]."""
    max_linear: float = 20000.0
    n_sigma: float = Field(5.0, gt=0)
    """Points further than this from the line, in units of the root of the signal, are left out."""
    n_column: int = Field(1 << 18, ge=2)
    """Columns of a lookup table [adu]."""


class TermsConfig(Config):
    """Nuisance terms of a spline, and the rejection of outliers."""

    offset: bool = False
    """A constant signal that does not depend on the light [adu]."""
    temperature: str = ""
    """Auxiliary value of the PTC (``aux_<name>``) to which the signal is proportional in first order; empty: none."""
    temporal: bool = False
    """A drift proportional to time (of the lamp or the photodiode)."""
    weights: bool = False
    """Fit w0 and w1 of the weights 1 / sqrt(w0^2 + w1^2 / signal)."""
    weight_start: tuple[float, float] = (1.0, 0.0)
    n_sigma: float = Field(5.0, gt=0)
    min_rounds: int = Field(3, ge=1)
    max_rounds: int = Field(20, ge=1)
    outer_rounds: int = Field(1, ge=1)
    """How often the nuisance terms are folded into the data and all is fitted anew."""

    def terms(self, max_correction: float | None = None) -> SplineTerms:
        """Return the same for the kernel."""
        names = ("offset", "temporal", "weights", "weight_start", "n_sigma", "min_rounds", "max_rounds")
        values = {name: getattr(self, name) for name in names}
        return SplineTerms(**values, temperature=bool(self.temperature), max_correction=max_correction)


class SplineConfig(TermsConfig):
    """Type Spline."""

    n_node: int = Field(10, ge=3)
    """Nodes wanted; fewer are taken where the flats have too few distinct levels."""


class DoubleSplineConfig(Config):
    """Type DoubleSpline."""

    max_noise: float = 12.0
    """Most read noise of the reference amp [electron]."""
    reference_signal: float = 10000.0
    """The reference exposure is the one nearest to this level [adu]."""
    bin_size: int = Field(8, ge=1)
    border: int = Field(20, ge=0)
    """Pixels left out around each amp."""
    reject_mask: tuple[str, ...] = ("BAD", "SAT", "SUSPECT", "NO_DATA")
    low_node: float = Field(750.0, gt=0)
    """Distance of nodes [adu] up to ``low_end``, ``middle_node`` up to the PTC turnoff, ``high_node`` beyond."""
    middle_node: float = Field(5000.0, gt=0)
    high_node: float = Field(2000.0, gt=0)
    low_end: float = Field(5000.0, ge=0)
    max_relative: float = Field(10000.0, gt=0)
    """Largest relative correction [adu]."""
    absolute_node: float = Field(3000.0, gt=0)
    first_absolute_node: float = Field(10000.0, gt=0)
    """The same in the first solution, before the focal plane is normalised."""
    absolute: TermsConfig = TermsConfig(offset=True, temporal=True, outer_rounds=2)
    relative: TermsConfig = TermsConfig()

    def sizes(self) -> NodeSizes:
        """Return the node distances for the kernel."""
        return NodeSizes(self.low_node, self.middle_node, self.high_node, self.low_end)


class NormalizationConfig(Config):
    """Normalisation of exposures over the focal plane (jitter of shutter and lamp)."""

    rounds: int = Field(2, ge=0)
    """Solutions before the final one; 0 switches it off."""
    detectors: tuple[int, ...] = ()
    """Detectors that decide; empty: all."""
    min_valid: float = Field(0.5, ge=0, le=1)
    """An exposure with a smaller fraction of valid detectors is not normalised."""
    min_detectors: int = Field(2, ge=1)
    """With fewer detectors that decide, none is: one cannot tell jitter from its own non-linearity."""


class LinearityConfig(Config):
    """How a linearizer is made from the flat pairs of a PTC."""

    type: LinearityType = "DoubleSpline"
    abscissa: Literal["exposure_time", "photodiode"] = "exposure_time"
    min_photodiode_charge: float = 0.0
    """Readings below are not used [C]."""
    grouping: str = "none"
    """``none``, ``auto``, or the auxiliary value (``aux_<name>``) whose values are the groups."""
    min_flats_to_group: int = Field(100, ge=1)
    """Fewest pairs for groups by an auxiliary value."""
    turnoff: TurnoffConfig = TurnoffConfig()
    polynomial: PolynomialConfig = PolynomialConfig()
    spline: SplineConfig = SplineConfig()
    double: DoubleSplineConfig = DoubleSplineConfig()
    normalization: NormalizationConfig = NormalizationConfig()
    folds: int = Field(5, ge=2)
    """Cross-validation: every n-th level is left out of the fit at a time."""

    @property
    def single_exposures(self) -> bool:
        """Whether the exposures of a pair count one by one."""
        return self.type == "DoubleSpline"

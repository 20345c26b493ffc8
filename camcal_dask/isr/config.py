"""Settings of the instrument signature removal (defaults: reference/isr.md 2.1, 2.2 and 4)."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from camcal_dask.config import Config
from camcal_dask.errors import nearest
from camcal_dask.instruments.facts import itl_dips
from camcal_dask.kernels.pixels.masks import MASK_PLANES


def _known_planes(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in MASK_PLANES:
            raise ValueError(f"unknown mask plane {name!r}{nearest(name, MASK_PLANES)}")
    return names


PlaneNames = Annotated[tuple[str, ...], pydantic.AfterValidator(_known_planes)]
"""Names of mask planes."""


class OverscanConfig(Config):
    """Correction by one strip of overscan.  "Line" is a row of the serial, a column of the parallel overscan."""

    enabled: bool = True
    fit_type: Literal[
        "MEDIAN_PER_ROW",
        "MEAN_PER_ROW",
        "MEAN",
        "MEANCLIP",
        "MEDIAN",
        "POLY",
        "CHEB",
        "LEG",
        "NATURAL_SPLINE",
        "CUBIC_SPLINE",
        "AKIMA_SPLINE",
    ] = "MEDIAN_PER_ROW"
    """One level per line (median or mean of the surviving pixels), one for the strip, or a curve over the lines."""
    order: int = Field(1, ge=0)
    """Degree of a polynomial, or number of bins of a spline."""
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
    saturation_factor: float = Field(0.75, gt=0)
    """With saturation masked (``IsrConfig.saturation``), the level is this fraction of the amp's own instead."""
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


class SaturationConfig(Config):
    """From which level on pixels are saturated, or suspect (reference/isr.md 2.3)."""

    saturated: Literal["none", "turnoff", "camera"] = "none"
    """Level of SAT: turnoff of the gains' calibration (ptc or linearizer), the camera model's, or nothing."""
    suspect: Literal["none", "turnoff", "camera"] = "none"
    """Level of SUSPECT, from the same sources."""
    saturated_adu: dict[str, float] = {}
    """Levels [adu] that replace those of single amps (``R22_S11_C00``, ``C00``) or of all (``*``)."""
    suspect_adu: dict[str, float] = {}
    """As ``saturated_adu``, for SUSPECT."""

    @property
    def masks_saturated(self) -> bool:
        """Whether any amp may have a saturation level."""
        return self.saturated != "none" or bool(self.saturated_adu)

    @property
    def enabled(self) -> bool:
        """Whether anything is flagged."""
        return self.masks_saturated or self.suspect != "none" or bool(self.suspect_adu)


class CrosstalkConfig(Config):
    """Crosstalk between the amps of a detector (reference/isr.md 2.5), by ``calibs["crosstalk"]``."""

    terms: Literal["none", "linear", "quadratic"] = "none"
    """``quadratic`` takes the linear terms too, and these alone of a calibration that has no others."""
    iterations: Literal[1, 2] = 1
    """1: sources from the uncorrected image, as upstream; 2: once more from the corrected one."""
    mask: bool = True
    """Set CROSSTALK where much was subtracted."""
    mask_above_e: float = Field(1.0, gt=0)
    """Least distance of the subtracted value from its median over the amp [electron]."""


class MorphologyConfig(Config):
    """Shapes that saturation leaves on E2V and ITL sensors (reference/isr.md 2.9); whole CCDs, in electron."""

    e2v_edge_bleed: bool = False
    """SAT on the rows nearest the readout of E2V amps whose bleed reaches it."""
    itl_dip: bool = False
    """SUSPECT and ITL_DIP on columns below and above bright stars, on the sensors of ``itl_dips``."""
    itl_edge_bleed: bool = False
    """SAT on the flares of bleeds at the edges of ITL sensors, and on their sagging columns."""
    itl_dips: dict[str, tuple[int, float]] = Field(default_factory=itl_dips)
    """Least width [pixel] and depth relative to the background, by detector name."""

    @property
    def enabled(self) -> bool:
        """Whether anything is flagged."""
        return self.e2v_edge_bleed or self.itl_dip or self.itl_edge_bleed


class IsrConfig(Config):
    """Which steps run, and how.  The defaults are those of a bootstrap bias."""

    dither: Literal["symmetric", "positive", "negative", "none"] = "symmetric"
    """Uniform noise added to the integers: [-0.5, 0.5), [0, 1), [-1, 0) adu, or nothing."""
    serial_overscan: OverscanConfig = OverscanConfig()
    parallel_overscan: ParallelOverscanConfig = ParallelOverscanConfig()
    saturation: SaturationConfig = SaturationConfig()
    gains: Literal["none", "nominal", "ptc", "linearizer"] = "none"
    """``none``: bootstrap, the result is in adu.  Else it is in electron, by the gains of the camera model
    (``nominal``), of ``calibs["ptc"]``, or the input gains of ``calibs["linearizer"]``."""
    gain_correction: bool = False
    """Multiply the gains by the adjustments of ``calibs["gain_correction"]``."""
    read_noise: Literal["empirical", "nominal", "ptc"] = "empirical"
    """Read noise of the variance: scatter of the corrected serial overscan (times the gain), the camera model's,
    or that of ``calibs["ptc"]``."""
    bad_amps: tuple[str, ...] = ()
    """Amps (``R42_S21_C07``) that are BAD as a whole."""
    crosstalk: CrosstalkConfig = CrosstalkConfig()
    overscan_level_threshold: float = Field(float("inf"), gt=0)
    """An amp is BAD whose serial overscan is this many sigma from the level in ``calibs["ptc"]``."""
    amp_noise_threshold_e: float = Field(float("inf"), gt=0)
    """An amp is BAD whose read noise, measured or in ``calibs["ptc"]``, exceeds this [electron] (upstream: 25)."""
    linearity: bool = False
    """Linearise by ``calibs["linearizer"]``."""
    deferred_charge: bool = False
    """Correct serial deferred charge by ``calibs["cti"]``."""
    bias: bool = False
    """Subtract the combined bias given as ``calibs["bias"]``."""
    dark: bool = False
    """Subtract the combined dark given as ``calibs["dark"]``, times the exposure's dark time over the dark's."""
    defects: bool = False
    """Flag the pixels of ``calibs["defects"]`` as BAD."""
    nan_mask: bool = True
    """Flag pixels whose image or variance is not finite as UNMASKEDNAN."""
    morphology: MorphologyConfig = MorphologyConfig()
    widen_trails: bool = False
    """Lengthen horizontal runs of SAT at both ends (whole CCDs)."""
    brighter_fatter: Literal["none", "astier23", "coulton18", "coulton18_flux_conserving"] = "none"
    """Correction by ``calibs["brighter_fatter"]`` (whole CCDs, in electron)."""
    mask_negative_variance: bool = False
    """Flag pixels with variance <= 0 as BAD."""
    flat: bool = False
    """Divide by ``flat_scale`` times the flat given as ``calibs["flat"]``."""
    flat_scale: float = Field(1.0, gt=0)
    fill_bad_regions: bool = False
    """Give BAD pixels the median of the others (whole CCDs)."""
    interpolate: bool = False
    """Interpolate SAT, BAD and UNMASKEDNAN along rows, the variance too (whole CCDs)."""
    amp_offsets: Literal["none", "measure", "apply"] = "none"
    """Pedestals of the amps from the steps at their edges: measured as ``amp_offset``, or also subtracted."""
    amp_offset_max: float = Field(10.0, gt=0)
    """A larger step between amps counts as 0 [image unit]."""

    @pydantic.model_validator(mode="after")
    def _check(self) -> IsrConfig:
        if self.read_noise == "empirical" and not self.serial_overscan.enabled:
            raise ValueError(
                "read_noise=empirical is measured in the serial overscan: enable that, or read_noise=nominal"
            )
        if self.gains == "none":
            self._check_bootstrap()
        turnoff = "turnoff" in (self.saturation.saturated, self.saturation.suspect)
        if turnoff and self.gains not in ("ptc", "linearizer"):
            raise ValueError(
                f"saturation by turnoff needs gains=ptc or gains=linearizer, whose calibration has it, not {self.gains}"
            )
        return self

    def _check_bootstrap(self) -> None:
        if self.crosstalk.terms == "quadratic":
            raise ValueError("crosstalk.terms=quadratic needs gains; without them only linear terms are meaningful")
        if min(self.amp_noise_threshold_e, self.overscan_level_threshold) < float("inf"):
            raise ValueError("amp_noise_threshold_e and overscan_level_threshold need gains=nominal, ptc or linearizer")
        if self.gain_correction:
            raise ValueError("gain_correction adjusts gains, but gains=none")
        if self.morphology.enabled or self.brighter_fatter != "none":
            raise ValueError("morphology and brighter_fatter work in electron: they need gains")

    @property
    def units(self) -> str:
        """Unit of the corrected image."""
        return "adu" if self.gains == "none" else "electron"

    @property
    def whole_ccd(self) -> bool:
        """Whether a step needs whole CCDs, so that slabs are not possible."""
        return any(
            (
                self.morphology.enabled,
                self.widen_trails,
                self.brighter_fatter != "none",
                self.fill_bad_regions,
                self.interpolate,
                self.amp_offsets != "none",
            )
        )

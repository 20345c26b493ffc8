"""Settings of the photon-transfer solver (reference/ptc_linearity.md 6-8); the defaults are upstream's.

LSSTCam's dome flats take ``fit_type: FULLCOVARIANCE``, ``max_signal: 20000``, ``max_gap: 1000``,
``levels_in_electron: false``, ``model_rolloff: true`` and ``max_rolloff_deviation: 0.005`` (pipelines/LSSTCam).
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from camcal_dask.calibs.ptc.gain_ratios import GainRatioConfig
from camcal_dask.config import Config
from camcal_dask.kernels.ptc.fit import OutlierRule
from camcal_dask.kernels.ptc.models import EQ_20

FitType = Literal["EXPAPPROXIMATION", "FULLCOVARIANCE", "FULLCOVARIANCE_NO_B", "POLYNOMIAL"]


class PtcSolveConfig(Config):
    """How the curves of a detector are cleaned and fitted."""

    fit_type: FitType = "EXPAPPROXIMATION"
    min_mean: dict[str, float] = {"ALL_AMPS": 0.0}
    """A pair takes part if its mean is above this [adu]; by amp, or of all."""
    max_mean: dict[str, float] = {"ALL_AMPS": 1e6}
    """A pair takes part if its mean is below this [adu]; by amp, or of all."""
    min_ks_pvalue: float = 0.01
    """Least probability that the difference of a pair is Gaussian."""
    max_signal: float = Field(50000.0, gt=0)
    """The first fit takes points up to this mean."""
    max_gap: float = Field(9000.0, gt=0)
    """A hole of rejected points of this width ends the curve."""
    levels_in_electron: bool = True
    """Whether ``max_signal`` and ``max_gap`` are in electron (by the median of mean / variance), not adu."""
    n_sigma: float = Field(5.0, gt=0)
    """A point further than n sqrt(variance) from the curve is an outlier."""
    max_iterations: int = Field(2, ge=0)
    """Passes of the outlier rejection; 0 keeps every point."""
    full_well_sigma: float = Field(0.0, ge=0)
    """A level is left out of the model fit if it is closer to the full well than so many standard deviations of its
    pixels, response included; the shipped ``ptc`` pipelines have 4.  The full well is known from a level above the
    turnoff whose variance has fallen by half; the turnoff stays.  0 asks nothing of the kind, as upstream, whose
    outlier rule lets 2 % of lost variance pass."""
    cap_variance: bool = True
    """The first fit also takes variances [adu^2] only up to the number ``max_signal`` [adu], as upstream."""
    start: Literal["current", "legacy", "unbounded"] = "current"
    """Start and bounds of the first fit: upstream's, those from before 2025-09, none (binned pairs)."""
    minimiser: Literal["lmdif", "lmder"] = "lmdif"
    """Final fit of Eq. 16: upstream's, which stops 1e-6 of chi2 above its minimum, or exact derivatives."""
    bootstrap: int = Field(0, ge=0)
    """Parameters and errors of Eq. 16 from so many refits with its residuals drawn anew, if not 0 (upstream: 100)."""
    polynomial_degree: int = Field(2, ge=2, le=4)
    legacy_turnoff: bool = False
    """First end each curve at two consecutive decreases of the variance."""
    legacy_turnoff_variance: float = 1e4
    """Least variance [adu^2] of the decreases."""
    model_rolloff: bool = False
    """Fit the loss of variance below the turnoff and leave the points beyond it out."""
    max_rolloff_deviation: float = Field(0.01, gt=0)
    """Relative loss of variance at which the curve is taken to roll off."""
    covariance_lags: int | None = Field(None, ge=1)
    """Side of the lag matrix in the full covariance fit.  If None all that were measured, but for each amp no more than
    it has usable pairs; upstream refuses an amp with fewer."""
    order: int = Field(EQ_20, ge=EQ_20, le=12)
    """Highest power of mu g in the model of the covariances: 3 is Eq. 20 as published and as upstream fits it; 8 is its
    solution to 1e-5 up to full well.  What Eq. 20 leaves out makes a_00 0.8 % too negative for curves up to 1e5
    electron, and the gain 1e-4 too low."""
    adjust_gains: Literal["none", "amp_offsets"] = "none"
    """Adjust the ratios of a detector's gains by the steps between amps that the pairs carry (of old; binned flats
    do it better: `camcal_dask.calibs.ptc.gain_ratios.adjust_gain_ratios`)."""
    gain_ratio: GainRatioConfig = GainRatioConfig()
    """Levels and reference amp of that adjustment."""
    subtract_long_range: bool = False
    """Take from all covariances of a pair the plane fitted to the lags outside ``long_range_start``."""
    long_range_start: int = Field(4, ge=1)

    def described(self) -> dict[str, str | int]:
        """Attributes of a product by which others know the model."""
        found: dict[str, str | int] = {"fit_type": self.fit_type}
        if self.fit_type.startswith("FULLCOVARIANCE"):
            found["covariance_order"] = self.order
        return found

    def side(self, measured: int, n_pairs: int) -> int:
        """Side of the lag matrix for an amp with so many pairs; what the user asks for stands."""
        return min(self.covariance_lags or max(n_pairs, 1), measured)

    def limits(self, amp: str) -> tuple[float, float]:
        """Means [adu] between which a pair of this amp takes part."""
        low, high = (limits.get(amp, limits.get("ALL_AMPS")) for limits in (self.min_mean, self.max_mean))
        return -math.inf if low is None else low, math.inf if high is None else high

    def outlier_rule(self) -> OutlierRule:
        """Return the outlier settings for the kernel."""
        names = {"in_electron": "levels_in_electron"}
        return OutlierRule(**{name: getattr(self, names.get(name, name)) for name in OutlierRule._fields})

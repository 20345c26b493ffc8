"""Normalisation of the light over the focal plane: one factor an exposure on which all detectors agree."""

from __future__ import annotations

import numpy as np
import xarray as xr

from camcal_dask.calibs.linearizer.config import LinearityConfig
from camcal_dask.calibs.linearizer.fit import _nanmedian, fit
from camcal_dask.schema import AMP_DIMS


def normalize(linearizer: xr.Dataset, config: LinearityConfig) -> xr.DataArray:
    """Factors of the exposures that bring the median residual of the focal plane to 0.

    Parameters
    ----------
    linearizer : Dataset
        Fit of many detectors, with the normalisation that it was made with.

    Returns
    -------
    (exposure,) float64: old factor / (1 - median over detectors of residual / model).  Of a DoubleSpline the
    reference amps count, otherwise the median amp of each detector.  Exposures where fewer than ``min_valid`` of
    the detectors are valid keep their factor; all do where fewer than ``min_detectors`` of those that decide are
    there, for a detector cannot tell the jitter of an exposure from its own non-linearity.
    """
    settings = config.normalization
    there = linearizer["detector"].values.tolist()
    old = linearizer["normalization"].isel(detector=0).values
    chosen = [d for d in settings.detectors or there if d in there]
    if len(chosen) < settings.min_detectors:
        return xr.DataArray(old, {"exposure": ("exposure", linearizer["exposure"].values)}, ("exposure",))
    table = linearizer.sel(detector=chosen)
    relative = (table["residual"] / table["model"]).transpose("detector", "amp", "flat").values
    reference = table["reference_amp"].values
    per_detector = np.array(
        [r[a] if a >= 0 else _nanmedian(r, axis=0) for r, a in zip(relative, reference, strict=True)]
    )
    valid = np.isfinite(per_detector).sum(0) >= max(settings.min_valid * len(chosen), 1)
    shift = np.where(valid, _nanmedian(per_detector, axis=0), 0.0)
    factor = old / (1 - shift)
    return xr.DataArray(factor, {"exposure": ("exposure", linearizer["exposure"].values)}, ("exposure",))


def correct_photodiode(linearizer: xr.Dataset, ptc: xr.Dataset) -> xr.Dataset:
    """Return the PTC with photodiode charges corrected by the median residual of all amps (linearizer of pairs).

    A residual of r adu at a slope of k adu/C means that the diode read r/k too little.
    """
    slope = linearizer["line"].isel(term=1)
    shift = (linearizer["residual"] / slope.where(np.abs(slope) > 1e-12)).median(AMP_DIMS, skipna=True)
    values = np.nan_to_num(shift.values)
    return ptc.assign(photo_charge=ptc["photo_charge"] + xr.DataArray(values, dims="pair"))


def solve(
    ptc: xr.Dataset, config: LinearityConfig, *, ratios: xr.Dataset | None = None
) -> tuple[xr.Dataset, xr.DataArray | None]:
    """Fit, normalise over the focal plane and fit again, ``normalization.rounds`` times; return the factors too."""
    factors: xr.DataArray | None = None
    for i in range(config.normalization.rounds):
        trial = fit(ptc, config, normalization=factors, ratios=ratios, first_pass=i == 0, final=False)
        factors = normalize(trial, config)
    return fit(ptc, config, normalization=factors, ratios=ratios), factors

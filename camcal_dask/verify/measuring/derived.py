"""What the tests compare with, derived from measured statistics (reference/verification.md 1.4, 1.5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from camcal_dask.schema import STATISTIC_DIMS, described, number_variables, union, variables
from camcal_dask.verify.judging.criterion import SIGNIFICANCE
from camcal_dask.verify.measuring.curve import shot_variance
from camcal_dask.verify.measuring.references import FEW, REFERENCES
from camcal_dask.verify.measuring.response import SAMPLE_VARIANCE_FROM, clipping_factors

BF_DEFICIT_PER_ELECTRON = 4.6e-6
"""Largest |a00| of the bands of both vendors (reference 1.7): variance = mu (1 - |a00| mu) with a00 at most this."""


_OF_EXPOSURES = number_variables(
    STATISTIC_DIMS,
    {
        "mean_per_s": ("image/s", "mean divided by the exposure time"),
        "median_per_s": ("image/s", "median divided by the exposure time"),
        "noise_per_s": ("image/s", "clipped standard deviation divided by the exposure time"),
        "mean_per_dark_s": ("image/s", "mean divided by the dark time"),
        "dark_seconds": ("s", "dark time, the exposure time where it is unknown"),
        "bias_sigma": ("image", "expected standard deviation of a bias residual"),
        "dark_sigma": ("image", "expected standard deviation of a dark residual"),
        "shot_variance": ("image^2", "Poisson variance of the mean signal, or that of the photon transfer curve"),
        "flat_spread": (
            "1",
            "relative scatter of 1 / flat over the amp: vignetting, which no single variance describes",
        ),
        "flat_variance_expected": ("image^2", "expected variance of a flat: shot noise, read noise, calibrations"),
        "response_excess": ("1", "covariance of exposure / flat with the flat, less that of the noise of the flat"),
        "response_power": ("1", "variance of the response that the flat has, its noise taken off"),
        "response_blind": ("1", "1 where a flat without any of this response would be within the noise"),
        "bf_allowance": ("1", "part of the shot variance that the brighter-fatter effect may take away"),
        "noise_error": (
            "1",
            "relative standard error of the noise of the pixels, part of which rows and columns share",
        ),
    },
)
DERIVED = union(_OF_EXPOSURES, variables(REFERENCES["reference_error"]))
"""Numbers that `complete` adds; the last to statistics of old, which lack it."""
SHOT = number_variables(
    STATISTIC_DIMS, {"ptc_variance": ("image^2", "variance of the mean signal, by the photon transfer curve")}
)
"""Numbers of `expected_shot`."""


def complete(statistics: xr.Dataset) -> xr.Dataset:
    """Add the numbers of `DERIVED` to measured statistics (computed, in memory).

    A calibration that was not given to `verify.measuring.statistics.measure` adds no variance.  With F the read
    noise of a corrected pixel (``noise_expected``), g' = ``to_electron``, t the dark time, mu the mean, f the flat
    that the exposure was divided by (1 without one; <> is the mean over the amp) and n the exposures that made the
    calibration under test:

        bias_sigma^2           = F^2 (1 - 2 m / n) + V_bias
        dark_sigma^2           = (F^2 + D t / g') (1 - 2 m / n) + t^2 V_dark + (1 - t / t_n)^2 V_bias   (reference 1.4)
        flat_variance_expected = [V(mu) <1/f> + (F^2 + V_bias) <1/f^2>] (1 - 2 m / n) + mu^2 V_flat     (1.5, 10.X')

    m is 1 for an exposure that is itself in the combined image (``in_bias``, ``in_dark``, ``in_flat``; else by
    ``role``) and 0 for another.  The mean M of n independent values has the covariance 1 / n with each, clipped or not
    (M - mean is independent of the mean), so that the residual of an input scatters less than the input: by
    sqrt(1 - 1/n), where that of another exposure scatters more: by sqrt(1 + 1/n).  V_bias, V_dark and V_flat are
    variances of clipped means, c(n) / n of that of an input (`_mean_variance`); with t_n the dark time of the inputs
    the bias is in the dark, too, and for t = t_n cancels.

    V(mu) is ``ptc_variance``, by the model that was fitted (`expected_shot`).  For an amp without a photon transfer
    curve it is Poisson, mu / g', of which the brighter-fatter effect may take up to the fraction ``bf_allowance`` =
    `BF_DEFICIT_PER_ELECTRON` mu g' (23 % at 50 000 electrons); with one the allowance is zero.
    Where n is not known (old statistics), the variance planes of the calibrations are taken as they are, with a
    minus for exposures that made them.
    """
    if not {"mean", "noise_expected"} <= set(statistics.data_vars):
        return statistics
    template, electron = statistics["mean"], _or(statistics, "to_electron", 1.0)
    exposure_time = _seconds(statistics, "exposure_time")
    dark_time = _seconds(statistics, "dark_time")
    dark_time = dark_time.where(dark_time > 0, exposure_time)
    seconds = xr.zeros_like(template) + dark_time.fillna(0.0)
    noise2 = statistics["noise_expected"] ** 2
    of_bias = _bias_variance(statistics, noise2)
    mean = template.clip(min=0.0)
    inverse, square = (_or(statistics, f"flat_{name}", 1.0) for name in ("inverse", "inverse_square"))
    shot, known = _shot_variance(statistics, mean, electron)
    shot = shot * inverse
    deficit = BF_DEFICIT_PER_ELECTRON * mean * electron / inverse
    base = shot + (noise2 + of_bias) * square
    flat = mean**2 * _or(statistics, "flat_variance", 0.0)
    derived = {
        **{f"{n}_per_s": statistics[n] / exposure_time for n in ("mean", "median", "noise") if n in statistics},
        "mean_per_dark_s": template / dark_time,
        "dark_seconds": seconds,
        "bias_sigma": np.sqrt(np.maximum(_residual(statistics, "bias", noise2, of_bias), 0.0)),
        "dark_sigma": np.sqrt(np.maximum(_dark_variance(statistics, noise2, of_bias, seconds), 0.0)),
        "shot_variance": shot,
        "flat_spread": np.sqrt(np.maximum(square / inverse**2 - 1, 0.0)),
        "flat_variance_expected": _residual(statistics, "flat", base, flat * _underestimated(statistics, "flat")),
        "bf_allowance": xr.where(known, 0.0, deficit),
    }
    derived |= {} if "reference_error" in statistics else {"reference_error": 0.0}
    if {"noise", "n_good"} <= set(statistics.data_vars):
        common = (_or(statistics, "common_error", 0.0) / statistics["noise_expected"]) ** 2 / 2
        derived["noise_error"] = np.sqrt(0.5 / statistics["n_good"] + common**2)
    if "response_covariance" in statistics:
        derived |= _response(statistics, shot / (poisson := mean / electron * inverse).where(poisson > 0))
    unit = statistics.attrs.get("units", "")
    return statistics.assign({name: _described(name, array, template, unit) for name, array in derived.items()})


def expected_shot(statistics: xr.Dataset, ptc: xr.Dataset | None) -> dict[str, xr.DataArray]:
    """Variance of the mean signal by the model of the curve, lazily.

    Parameters
    ----------
    statistics : Dataset
        ``mean`` [image unit] (exposure, detector, amp), ``to_electron`` and ``from_ptc`` of `expectations`.
    ptc : Dataset, optional
        As `camcal_dask.verify.measuring.curve.shot_variance` takes it.

    Returns
    -------
    dict of (exposure, detector, amp)
        ``ptc_variance`` [image^2], NaN for amps without a curve; nothing if the curve has no model.
    """
    if ptc is None or "a00" not in ptc:
        return {}
    electron = statistics["to_electron"]
    variance = shot_variance(ptc, statistics["mean"].clip(min=0.0) * electron) / electron**2
    known = variance.where(statistics["from_ptc"] > 0).transpose(*statistics["mean"].dims)
    return described({"ptc_variance": known}, SHOT, statistics.attrs.get("units", ""))


def _shot_variance(statistics: xr.Dataset, mean: xr.DataArray, electron: Any) -> tuple[xr.DataArray, Any]:
    """Variance of the signal [image^2], and where it is that of a photon transfer curve."""
    poisson = mean / electron
    if "ptc_variance" not in statistics:
        return poisson, False
    known = np.isfinite(statistics["ptc_variance"])
    return statistics["ptc_variance"].where(known, poisson), known


def _mean_variance(n: Any) -> Any:
    """Variance of the clipped mean of n Gaussian values (3 sigma, 3 times) of variance 1; by brute force, to 3 %."""
    return xr.where(n < FEW, 1.0, 1.04 + 0.7 / n) / n


def _underestimated(statistics: xr.Dataset, name: str) -> Any:
    """Variance of the clipped mean over the median of what n clipped values say it is; by brute force, to 3 %."""
    if f"{name}_n" not in statistics:
        return 1.0
    n = statistics[f"{name}_n"]
    told = xr.where(n < SAMPLE_VARIANCE_FROM, 1.0, 1 - 1.6 / n - 11 / n**3) / n
    return _mean_variance(n) / told


def _residual(statistics: xr.Dataset, name: str, own: Any, combined: Any) -> Any:
    """Variance of exposures of the variance ``own`` minus a calibration of the variance ``combined``."""
    inside = _inside(statistics, name)
    if f"{name}_n" in statistics:
        return own * (1 - 2 * inside / statistics[f"{name}_n"]) + combined
    return own + xr.where(inside > 0, -1.0, 1.0) * combined


def _inside(statistics: xr.Dataset, name: str) -> Any:
    """1 for exposures that are in a combined image, else 0."""
    if f"in_{name}" in statistics:
        return statistics[f"in_{name}"]
    if "role" not in statistics.coords:
        return xr.zeros_like(statistics["mean"])
    return (statistics["role"] == "construction").reset_coords(drop=True).astype(np.float64)


def _bias_variance(statistics: xr.Dataset, noise2: xr.DataArray) -> Any:
    if "bias_n" in statistics:
        return noise2 * _mean_variance(statistics["bias_n"])
    return _or(statistics, "bias_variance", 0.0)


def _dark_variance(statistics: xr.Dataset, noise2: xr.DataArray, of_bias: Any, seconds: xr.DataArray) -> Any:
    """Variance expected of a dark residual."""
    rate = np.maximum(_or(statistics, "dark_level", 0.0), 0.0) / _or(statistics, "to_electron", 1.0)
    own = noise2 + rate * seconds
    if "dark_n" not in statistics:
        combined = seconds**2 * _or(statistics, "dark_variance", 0.0)
        return _residual(statistics, "dark", own + of_bias, combined)
    of_inputs = statistics.get("dark_input_seconds", seconds)
    times = (seconds / of_inputs).where(of_inputs > 0, 1.0)
    combined = times**2 * (noise2 + rate * of_inputs) * _mean_variance(statistics["dark_n"])
    return _residual(statistics, "dark", own, combined) + (1 - times) ** 2 * of_bias


def _response(statistics: xr.Dataset, bent: xr.DataArray) -> dict[str, xr.DataArray]:
    """Numerator and denominator of the slope of `verify.measuring.response`, and whether it can be told from 0.

    ``bent`` is the variance of a signal over that of Poisson: with few inputs the variance of the flat is that of their
    variance planes, which know no brighter-fatter effect.
    """
    said = statistics["response_noise"]
    factors: list[Any] = [1.0, 1.0]
    if "flat_n" in statistics:
        n = statistics["flat_n"]
        said = said * bent.fillna(1.0).where(n < SAMPLE_VARIANCE_FROM, 1.0)
        table = np.array([clipping_factors(int(i)) for i in n.values.ravel()]).reshape(*n.shape, 2)
        factors = [n.copy(data=table[..., k]) for k in range(2)]
    noise, shared = said * factors[0], xr.where(_inside(statistics, "flat") > 0, said * factors[1], 0.0)
    excess, power = statistics["response_covariance"] + noise - shared, statistics["response_variance"] - noise
    reach = SIGNIFICANCE * statistics["response_error"]
    blind = (reach >= abs(power)) & (reach >= abs(excess))
    return {"response_excess": excess, "response_power": power, "response_blind": blind.astype(np.float64)}


def _described(name: str, array: xr.DataArray, template: xr.DataArray, unit: str) -> xr.DataArray:
    at = {} if "exposure" in DERIVED[name].dims else {"exposure": 0}
    filled: xr.DataArray = (xr.zeros_like(template) + array).transpose(*template.dims).isel(at, drop=True)
    return filled.assign_attrs(DERIVED[name].attrs(unit))


def _seconds(statistics: xr.Dataset, name: str) -> xr.DataArray:
    """Times of the exposures, NaN where unknown or not positive."""
    if name not in statistics:
        return xr.full_like(statistics["exposure"], np.nan, np.float64)
    time = statistics[name].astype(np.float64)
    return time.where(time > 0).reset_coords(drop=True)


def _or(statistics: xr.Dataset, name: str, default: float) -> Any:
    return statistics.get(name, default)

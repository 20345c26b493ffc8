"""Gains, noise and area coefficients from the measured pairs (reference/ptc_linearity.md 6-8).

`solve` fits every amp of a Dataset of pairs on its own; one detector of 340 pairs and 100 lags takes about a second.
"""

from __future__ import annotations

import json
import logging
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask.calibs.ptc.gain_ratios import adjust_by_amp_offsets
from camcal_dask.calibs.ptc.solve_config import PtcSolveConfig
from camcal_dask.calibs.ptc.variables import SOLVED, BadReason
from camcal_dask.errors import DataError
from camcal_dask.kernels.arrays import BoolArray, FloatArray
from camcal_dask.kernels.linearity.fit import SIGMA_OF_MAD
from camcal_dask.kernels.ptc.covariance_fit import fit_covariances, subtract_long_range
from camcal_dask.kernels.ptc.fit import (
    Fit,
    Rolloff,
    bootstrap_exp,
    cut_at_decrease,
    find_turnoff,
    fit_exp,
    fit_polynomial,
    fit_rolloff,
    reaches_full_well,
    reject_outliers,
)
from camcal_dask.kernels.ptc.models import covariances, exp_variance
from camcal_dask.schema import AMP_DIMS, described

__all__ = ["SOLVED", "BadReason", "PtcSolveConfig", "gain_from_flat_pairs", "reasons_of", "replace_invalid", "solve"]


_log = logging.getLogger(__name__)


_REQUIRED = ("raw_mean", "raw_var")
_COVARIANCES = ("covariance", "covariance_sqrt_weight")
_CORRECTED = 0.05
"""What the noise of corrected pixels may have more than that of their overscans, relative."""


class Curve(NamedTuple):
    """Pairs of one amp sorted by mean: (n,) and (n, r, r) float64; weights are inverse errors [1/adu^2].

    ``scatter`` [adu] is that of the pixels of one exposure, of photon noise alone if nothing else was measured.
    """

    name: str
    mean: FloatArray
    variance: FloatArray
    scatter: FloatArray
    good: BoolArray
    covariance: FloatArray
    weight: FloatArray


class _BadAmpError(Exception):
    """The amp is bad, and why: a code, and a sentence for people."""

    def __init__(self, reason: BadReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def solve(partial: xr.Dataset, config: PtcSolveConfig | None = None) -> xr.Dataset:
    """Fit the photon-transfer curves of all detectors and amps.

    Parameters
    ----------
    partial : Dataset
        Extracted pairs in adu: ``raw_mean``, ``raw_var`` (pair, detector, amp), for the covariance models and for
        weights ``covariance``, ``covariance_sqrt_weight`` (pair, detector, amp, lag_i, lag_j); ``valid``,
        ``ks_pvalue``, ``noise_adu`` and ``overscan_median`` if there are any.  Pairs in any order.
    config : PtcSolveConfig, optional
        The defaults if None.

    Returns
    -------
    Dataset
        The input and the variables of ``SOLVED``, in memory, pairs in the order of the input; attrs ``units``,
        ``fit_type``, ``covariance_order``.  An amp without a curve is ``bad``, with NaN everywhere and a ``bad_reason``
        (`BadReason`); it is named in the log, and `reasons_of` tells its reason in words.

    Raises
    ------
    DataError
        If variables are missing.
    """
    config = config or PtcSolveConfig()
    _check(partial, config)
    data = partial.transpose("detector", "amp", "pair", "lag_i", "lag_j", ..., missing_dims="ignore").load()
    out = _blank(data, config)
    reasons: dict[str, str] = {}
    for d, detector in enumerate(data["detector"].values.tolist()):
        for k, amp in enumerate(data["amp"].values.tolist()):
            values, reason = _solve_amp(data.isel(detector=d, amp=k), _name(detector, amp), str(amp), config)
            for name, value in values.items():
                out[name][d, k] = value
            if reason:
                reasons[_name(detector, amp)] = reason
    attrs = {**config.described(), "units": "adu", **_side(data, config)}
    solved = {name: (SOLVED[name].dims, v, SOLVED[name].attrs("adu")) for name, v in out.items()}
    ptc = data.assign(solved).assign_attrs(attrs)
    ptc["bad_reason"].attrs["reasons"] = reasons
    return adjust_by_amp_offsets(ptc, config.gain_ratio) if config.adjust_gains == "amp_offsets" else ptc


def reasons_of(solved: xr.Dataset, detector: int) -> dict[str, str]:
    """Why amps of one detector have no curve, by name of the amp: a sentence with the setting to change, if any.

    Only of what `solve` returns: a product carries the codes ``bad_reason``, and the sentences in its records.
    """
    reasons = solved["bad_reason"].attrs.get("reasons", {})
    named = {str(amp): reasons.get(_name(detector, amp)) for amp in solved["amp"].values.tolist()}
    return {amp: reason for amp, reason in named.items() if reason}


def _name(detector: Any, amp: Any) -> str:
    return f"detector {detector}, amp {amp}"


def replace_invalid(ptc: xr.Dataset) -> xr.Dataset:
    """Return a copy in which amps without a curve have gain 1, noise 1 and turnoff 2e19, as upstream's consumers want.

    Our own ISR flags such amps as bad instead and needs no replacement.
    """
    stand_in = {"gain": 1.0, "noise": 1.0, "turnoff": 2e19}
    return ptc.assign({name: ptc[name].where(ptc[name] > 0, value) for name, value in stand_in.items() if name in ptc})


def gain_from_flat_pairs(partial: xr.Dataset) -> xr.Dataset:
    """Gains straight from the flat pairs, a single one if need be, without a curve (section 5).

    The gain of each pair is measured by the extraction; here is its median over the valid pairs, and the overscan's
    read noise in electron.

    Returns
    -------
    Dataset
        (detector, amp): ``gain`` [electron/adu], ``gain_err`` (1.2533 standard errors of the mean, NaN for one pair),
        ``noise`` [electron] and ``bad``.

    Raises
    ------
    DataError
        If the pairs carry no ``pair_gain``.
    """
    if "pair_gain" not in partial:
        raise DataError("these pairs have no variable pair_gain: extract them again with a gain correction type")
    gains = partial["pair_gain"]
    if "valid" in partial:
        gains = gains.where(partial["valid"])
    n = gains.notnull().sum("pair")
    gain = gains.median("pair")
    spread = np.sqrt(((gains - gains.mean("pair")) ** 2).sum("pair") / (n - 1).where(n > 1))
    noise = partial["noise_adu"].median("pair") * gain if "noise_adu" in partial else gain * np.nan
    out = {"gain": gain, "gain_err": np.sqrt(np.pi / 2) * spread / np.sqrt(n), "noise": noise, "bad": gain.isnull()}
    return xr.Dataset(described(out, SOLVED, "adu"), attrs={**partial.attrs, "fit_type": "PARTIAL"}).transpose(
        *AMP_DIMS
    )


def _check(partial: xr.Dataset, config: PtcSolveConfig) -> None:
    full = config.fit_type.startswith("FULLCOVARIANCE")
    missing = [name for name in (*_REQUIRED, *(_COVARIANCES if full else ())) if name not in partial]
    if missing:
        raise DataError(
            f"the pairs have no {', '.join(missing)}, which a fit of {config.fit_type} needs; they have "
            f"{', '.join(map(str, partial.data_vars)) or 'nothing'}"
        )


def _side(data: xr.Dataset, config: PtcSolveConfig) -> dict[str, int]:
    """Lags of the full covariance fit, if there are any."""
    if "covariance" not in data:
        return {}
    measured = data.sizes["lag_i"]
    return {"covariance_lags": min(config.covariance_lags or measured, measured)}


def _blank(data: xr.Dataset, config: PtcSolveConfig) -> dict[str, NDArray[Any]]:
    sizes = {**data.sizes, "parameter": 3}
    if config.fit_type == "POLYNOMIAL":
        sizes["parameter"] = config.polynomial_degree + 1
    out: dict[str, NDArray[Any]] = {}
    for name, variable in SOLVED.items():
        if all(dim in sizes for dim in variable.dims):
            nothing = np.nan if variable.dtype == "f8" else 0
            out[name] = np.full([sizes[d] for d in variable.dims], nothing, variable.dtype)
    return out


def _curve(data: xr.Dataset, name: str, amp: str, config: PtcSolveConfig) -> tuple[Curve, NDArray[np.intp]]:
    """Curve of an amp, and the order that sorts its pairs by mean."""
    mean, variance = (np.asarray(data[v].values, np.float64) for v in _REQUIRED)
    low, high = config.limits(amp)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(mean) & np.isfinite(variance) & (mean > low) & (mean < high)
        if "ks_pvalue" in data:
            good &= ~(data["ks_pvalue"].values < config.min_ks_pvalue)
    if "valid" in data:
        good &= data["valid"].values.astype(bool)
    if "covariance" in data:
        covariance, weight = (np.asarray(data[v].values, np.float64) for v in _COVARIANCES)
    else:
        covariance = variance[:, None, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = 1 / covariance
    with np.errstate(invalid="ignore"):
        scatter = np.sqrt(variance)
    if "pixel_stdev" in data:
        scatter = np.fmax(scatter, data["pixel_stdev"].values)
    order = np.argsort(mean, kind="stable")
    ordered = Curve(name, mean[order], variance[order], scatter[order], good[order], covariance[order], weight[order])
    return ordered, order


def _solve_amp(data: xr.Dataset, name: str, amp: str, config: PtcSolveConfig) -> tuple[dict[str, Any], str]:
    """Variables of one amp by name, pairs in the order of the input; if it has no curve, that it is bad, and why."""
    curve, order = _curve(data, name, amp, config)
    try:
        if not curve.good.any():
            raise _BadAmpError(BadReason.NO_PAIRS, f"0 of {data.sizes['pair']} pairs can be used: {_why_none(data)}")
        values = _overscan(data, order, _fit(curve, config))
    except _BadAmpError as error:
        _log.warning("%s is bad: %s", name, error)
        return {"bad": True, "bad_reason": error.reason}, str(error)
    back = np.argsort(order)
    sorted_pairs = ("used", "rolloff_used", "final_var", "final_model_var", "final_mean", "covariance_model")
    values |= {key: values[key][back] for key in sorted_pairs if key in values}
    _compare_noise(data, name, values)
    return values, ""


def _why_none(data: xr.Dataset) -> str:
    """Why no pair of an amp can be used, and which setting decides."""
    extraction = json.loads(data.attrs.get("extract_config", "{}"))

    def setting(name: str) -> str:
        return f"extract.{name}" + (f" = {extraction[name]}" if name in extraction else "")

    if not np.isfinite(data["raw_mean"].values).any():
        return "it has no mean in any; all of its pixels are masked, were never written or could not be read"
    if not np.isfinite(data["raw_var"].values).any():
        pixels = f"at most {int(data['n_pixel'].max())} good pixels" if "n_pixel" in data else "too few good pixels"
        return f"{pixels} inside {setting('edge_pixel')}, fewer than {setting('min_pixels')}"
    if "n_lag" in data and not (data["n_lag"] > 0).all(("lag_i", "lag_j")).any():
        return f"not all lags of {setting('lags')} have pixels"
    return "all are outside solve.min_mean, solve.max_mean or below solve.min_ks_pvalue"


def _compare_noise(data: xr.Dataset, name: str, values: dict[str, Any]) -> None:
    """Say if the noise of the fit is not that of the overscan: by 5 % (upstream's limit) and by three errors.

    The fit's is that of corrected pixels, which have the noise of the two overscan medians, too, and all of the tails
    that the overscan's is clipped by: 4.5 % more for LSSTCam, sqrt(1 + pi / 116 + pi / 88) / 0.98658.
    """
    known = data["noise_adu"].values if "noise_adu" in data else np.zeros(0)
    if np.isfinite(known).any():
        measured = float(np.nanmedian(known)) * values["gain"]
        more = values["noise"] - measured
        if max(more - _CORRECTED * measured, -more) > np.nanmax([0.05 * measured, 3 * values["noise_err"]]):
            _log.warning("%s: noise of the fit %.2f, of the overscan %.2f electron", name, values["noise"], measured)


def _overscan(data: xr.Dataset, order: NDArray[np.intp], values: dict[str, Any]) -> dict[str, Any]:
    if "overscan_median" in data:
        levels = data["overscan_median"].values[order][values["used"]]
        if np.isfinite(levels).any():
            values["overscan_median_level"] = level = np.nanmedian(levels)
            values["overscan_median_sigma"] = SIGMA_OF_MAD * np.nanmedian(np.abs(levels - level))
    return values


def _fit(curve: Curve, config: PtcSolveConfig) -> dict[str, Any]:
    """Variables of one amp, pairs sorted by mean."""
    good = curve.good.copy()
    if config.legacy_turnoff:
        cut_at_decrease(curve.variance, good, config.legacy_turnoff_variance)
    used, fit = _fit_exp(curve, good, config)
    turnoff, sampling_error = find_turnoff(curve.mean, used)
    if config.full_well_sigma:
        touches = used & reaches_full_well(curve.mean, curve.variance, curve.scatter, used, config.full_well_sigma)
        if touches.any():
            good &= ~touches
            used, fit = _fit_exp(curve, good, config)
    values: dict[str, Any] = {"turnoff": turnoff, "turnoff_sampling_error": sampling_error, "bad": False}
    if config.model_rolloff:
        rolloff = fit_rolloff(
            curve.mean, curve.variance, good, used, fit.parameters, max_deviation=config.max_rolloff_deviation
        )
        if not np.isfinite(rolloff.level):
            raise _BadAmpError(
                BadReason.NO_FIT,
                f"the variance deviates at every mean by more than solve.max_rolloff_deviation = "
                f"{config.max_rolloff_deviation:g} from the curve without roll-off",
            )
        values |= _named(rolloff)
        used = rolloff.used
    if config.fit_type == "EXPAPPROXIMATION":
        used, fit = _fit_exp(curve, used, config)
        values |= _exp_values(curve, used, fit)
    elif config.fit_type == "POLYNOMIAL":
        values |= _polynomial_values(curve, used, config)
    else:
        values |= _covariance_values(curve, used, config)
    if not values["gain"] > 0:
        raise _BadAmpError(BadReason.GAIN, f"its gain comes out as {values['gain']:.4g} electron/adu")
    values["gain_unadjusted"] = values["gain"]
    return values


def _named(rolloff: Rolloff) -> dict[str, Any]:
    return {
        "rolloff": rolloff.level,
        "rolloff_err": rolloff.level_error,
        "rolloff_tau": rolloff.tau,
        "rolloff_tau_err": rolloff.tau_error,
        "rolloff_used": rolloff.fitted,
    }


def _fit_exp(curve: Curve, good: BoolArray, config: PtcSolveConfig) -> tuple[BoolArray, Fit]:
    """Reject outliers and fit Eq. 16; which points are left, and the fit."""
    found = reject_outliers(curve.mean, curve.variance, good, config.outlier_rule())
    n = 0 if found is None else int(found.used.sum())
    if found is None or n < 3:
        rule = f"solve.n_sigma = {config.n_sigma:g}, solve.max_signal = {config.max_signal:g}"
        why = f"; the outlier rule ({rule}) took the others" if good.sum() >= 3 else ""
        raise _BadAmpError(BadReason.FEW_PAIRS, f"{n} of {good.sum()} usable pairs are left for 3 parameters{why}")
    mean, variance, weight = (v[found.used] for v in (curve.mean, curve.variance, curve.weight[:, 0, 0]))
    fit = fit_exp(mean, variance, weight, found.parameters, minimiser=config.minimiser)
    return found.used, bootstrap_exp(mean, variance, weight, fit, config.bootstrap) if config.bootstrap else fit


def _exp_values(curve: Curve, used: BoolArray, fit: Fit) -> dict[str, Any]:
    a00, gain, noise2 = fit.parameters
    noise = np.sqrt(abs(noise2))
    return {
        "gain": gain,
        "gain_err": fit.errors[1],
        "noise": noise,
        "noise_err": fit.errors[2] / (2 * noise) if noise > 0 else np.nan,
        "a00": a00,
        "chi2": fit.chi2,
        "fit_pars": fit.parameters,
        "fit_pars_err": fit.errors,
        **_final(curve, used, curve.variance, exp_variance(fit.parameters, curve.mean)),
    }


def _polynomial_values(curve: Curve, used: BoolArray, config: PtcSolveConfig) -> dict[str, Any]:
    degree, n = config.polynomial_degree, int(used.sum())
    if n <= degree:
        raise _BadAmpError(BadReason.FEW_PAIRS, f"{n} usable pairs for a polynomial of degree {degree}")
    fit = fit_polynomial(curve.mean[used], curve.variance[used], curve.weight[used, 0, 0], degree)
    constant, slope, square = fit.parameters[:3]
    constant_err, slope_err = fit.errors[:2]
    noise2 = constant / slope**2
    noise = np.sqrt(abs(noise2))
    noise2_err = np.hypot(constant_err / slope**2, 2 * noise2 * slope_err / slope)
    return {
        "gain": 1 / slope,
        "gain_err": slope_err / slope**2,
        "noise": noise,
        "noise_err": noise2_err / (2 * noise) if noise > 0 else np.nan,
        "a00": square,
        "chi2": fit.chi2,
        "fit_pars": fit.parameters,
        "fit_pars_err": fit.errors,
        **_final(curve, used, curve.variance, np.vander(curve.mean, degree + 1, increasing=True) @ fit.parameters),
    }


def _covariance_values(curve: Curve, used: BoolArray, config: PtcSolveConfig) -> dict[str, Any]:
    measured, n = curve.covariance.shape[1], int(used.sum())
    side = config.side(measured, n)
    if n < side:
        raise _BadAmpError(
            BadReason.FEW_FOR_LAGS, f"{n} usable pairs for {side} x {side} lags, which solve.covariance_lags asks for"
        )
    covariance, weight = curve.covariance[used], curve.weight[used]
    if config.subtract_long_range:
        covariance = subtract_long_range(covariance, weight, config.long_range_start)
    with_b = config.fit_type == "FULLCOVARIANCE"
    fit = fit_covariances(
        curve.mean[used], covariance[:, :side, :side], weight[:, :side, :side], with_b=with_b, order=config.order
    )
    if fit is None:
        reason = BadReason.FEW_PAIRS if n < 4 else BadReason.NO_FIT
        raise _BadAmpError(reason, f"no covariance model of {side} x {side} lags fits its {n} pairs")
    planes = fit.planes
    model = covariances(planes, curve.mean, config.order)
    final_var = np.full_like(curve.variance, np.nan)
    final_var[used] = covariance[:, 0, 0]
    noise = float(np.sqrt(abs(planes.noise[0, 0])))
    return {
        "gain": planes.gain,
        "gain_err": fit.gain_err,
        "noise": noise,
        "noise_err": fit.noise00_err / (2 * noise) if noise > 0 else np.nan,
        "a00": planes.a[0, 0],
        "chi2": fit.chi2,
        "a_matrix": _padded(planes.a, measured),
        "a_matrix_err": _padded(fit.a_err, measured),
        "b_matrix": _padded(planes.b if with_b else np.zeros_like(planes.a), measured),
        "noise_matrix": _padded(planes.noise, measured),
        "covariance_model": _padded(model, measured),
        "lags": side,
        **_final(curve, used, final_var, model[:, 0, 0]),
    }


def _padded(planes: FloatArray, side: int) -> FloatArray:
    """Planes (..., q, q) in (..., side, side), NaN beyond."""
    missing = side - planes.shape[-1]
    return np.pad(planes, [(0, 0)] * (planes.ndim - 2) + [(0, missing)] * 2, constant_values=np.nan)


def _final(curve: Curve, used: BoolArray, variance: FloatArray, model: FloatArray) -> dict[str, Any]:
    kept = {"final_var": variance, "final_model_var": model, "final_mean": curve.mean}
    return {"used": used, **{name: np.where(used, v, np.nan) for name, v in kept.items()}}

"""What is judged of a photon transfer curve: a few numbers per amp (reference/verification.md 1.7, 1.8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.optimize import least_squares

from camcal_dask.calibs.ptc.variables import SOLVED
from camcal_dask.errors import DataError
from camcal_dask.instruments.facts import vendors
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.linearity.proportionality import Proportionality, ends_early, proportionality
from camcal_dask.raw_fits.identifiers import unpack_exposure_id
from camcal_dask.schema import (
    AMP_DIMS,
    DETECTOR_DIMS,
    STATISTIC_DIMS,
    Variable,
    described,
    number_variables,
    union,
    variables,
)
from camcal_dask.verify.measuring.block import MeasureConfig
from camcal_dask.verify.measuring.curve import shot_variance
from camcal_dask.verify.measuring.references import expectations

GAIN_RANGE_ADU = (1_000.0, 25_000.0)
"""Means of the pairs whose gains are judged [adu]."""
LINES = ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2))
"""Lags whose covariance against the mean is described by a line."""

NOMINAL = union(
    number_variables(
        AMP_DIMS,
        {
            "gain_nominal": ("electron/adu", "gain of the camera model"),
            "noise_nominal": ("electron", "read noise of a corrected pixel by the camera model"),
            "read_noise_nominal": ("electron", "read noise of the camera model, as the overscan shows it"),
            "noise_factor": ("1", "noise of a corrected pixel over that of the overscan"),
            "overscan_error": ("1", "relative standard error of the noise of the serial overscan"),
        },
    ),
    variables(Variable("n_pixel", AMP_DIMS, "i8", "pixel", "pixels of the amp; 0: it does not exist")),
)
"""Numbers of `nominal`."""
_LINE = ("lag", *AMP_DIMS)
_SOLVED = ("gain", "gain_err", "noise", "noise_err", "a00", "turnoff", "chi2")
PTC_NUMBERS = union(
    NOMINAL,
    variables(*(SOLVED[name] for name in _SOLVED)),
    number_variables(
        AMP_DIMS,
        {
            "noise_scatter": ("adu", "scatter of the overscan noise over the pairs in use"),
            "overscan_noise": ("electron", "median noise of the overscan of the pairs in use"),
            "noise_tested": (
                "electron",
                "the fitted noise; of a curve that was not linearised that of the overscan: a bend moves the "
                "intercept, not the overscan",
            ),
            "row_mean_slope": ("1", "variance of the row means over that expected of independent pixels"),
            "row_mean_slope_err": ("1", "error of row_mean_slope"),
            "a00_err": ("1/electron", "error of a00; 0 where none was noted"),
            "raw_mean_max": ("adu", "mean of the brightest pair"),
            "linearity_worst": ("1", "largest departure from proportionality to light"),
            "linearity_rms": ("1", "rms departure from proportionality to light"),
            "linearity_turnoff": ("electron", "largest signal that is proportional to light"),
            "a_sum": ("1/electron", "sum of a_ij over all four quadrants"),
            "a_sum_err": ("1/electron", "error of a_sum"),
        },
    ),
    variables(
        Variable(
            "linear_only", AMP_DIMS, "f8", "1", "0 where a00 and the sum are judged", "the curve was not linearised"
        ),
        Variable("n_used", AMP_DIMS, "i8", "1", "pairs in use"),
        Variable("short_ramp", AMP_DIMS, "f8", "1", "1 where the curve holds to the last flat, below 90 000 electron"),
        Variable("a00_centre", ("detector",), "f8", "1/electron", "centre of the vendor's band", "unknown vendor"),
        Variable(
            "a00_half_width", ("detector",), "f8", "1/electron", "half width of the vendor's band", "unknown vendor"
        ),
        Variable(
            "cov_slope", _LINE, "f8", "adu", "slope of a robust line: covariance against the mean", "not measured"
        ),
        Variable("cov_offset", _LINE, "f8", "adu^2", "offset of that line", "not measured"),
    ),
)
"""Numbers of `ptc_table`."""
GAIN_NUMBERS = union(
    NOMINAL,
    variables(SOLVED["gain"]),
    number_variables(
        STATISTIC_DIMS,
        {
            "pair_gain": ("electron/adu", "gain of the pair, its means made equal"),
            "raw_mean": ("adu", "mean of the pair"),
            "noise_adu": ("adu", "noise of the overscan of the pair"),
            "gain_flux_corrected": (
                "electron/adu",
                "pair_gain free of the brighter-fatter effect: by the curve's model, for an amp without one by the "
                "slope of its vendor",
            ),
            "gain_ptc_corrected": ("electron/adu", "the same, by the curve's model only"),
            "pair_error": ("1", "relative standard error of pair_gain"),
        },
    ),
)
"""Numbers of `gain_table`; exposure is the first of the pair."""


def ptc_table(ptc: xr.Dataset) -> xr.Dataset:
    """Numbers of each (detector, amp) that the tests ``ptc`` read, and what upstream records beside them.

    Parameters
    ----------
    ptc : Dataset
        A ``ptc`` or ``linearizerPtc`` (detector, amp, ...), attribute ``instrument``.

    Returns
    -------
    Dataset of `PTC_NUMBERS`
        ``a_sum`` only of a fit with ``a_matrix``; proportionality by `kernels.linearity.proportionality`.
    """
    used = ptc["used"]
    weighted = ptc.where(used)
    table = nominal(ptc)
    linear = _is_linearised(ptc)
    overscan = weighted["noise_adu"].median("pair") * ptc["gain"]
    table = table.assign({name: ptc[name] for name in _SOLVED})
    slope, error = _row_mean_slope(weighted, ptc["gain"], _widths(ptc))
    centre, half = _bands(table["vendor"].values)
    table = table.assign(
        noise_scatter=weighted["noise_adu"].std("pair"),
        overscan_noise=overscan,
        noise_tested=ptc["noise"] if linear else overscan * table["noise_factor"],
        linear_only=xr.full_like(ptc["gain"], 0.0 if linear else np.nan),
        row_mean_slope=slope,
        row_mean_slope_err=error,
        a00_centre=("detector", centre),
        a00_half_width=("detector", half),
        a00_err=_a00_error(ptc),
        n_used=used.sum("pair"),
        raw_mean_max=ptc["raw_mean"].max("pair"),
        short_ramp=_short_ramp(ptc),
    )
    table = table.assign(_proportionality(ptc))
    if "a_matrix" in ptc:
        table = table.assign(_sum_rule(ptc))
    lines = np.array([_lines(ptc, i, j) for i, j in LINES])
    names = [f"C{i}{j}" for i, j in LINES]
    table = table.assign_coords(lag=names)
    for k, name in enumerate(("cov_slope", "cov_offset")):
        table[name] = (("lag", "detector", "amp"), lines[:, k])
    table = table.assign_coords({name: values[0] for name, values in _exposures(ptc).items()})
    return table.assign(described(dict(table.data_vars), PTC_NUMBERS, "adu"))


def gain_table(ptc: xr.Dataset) -> xr.Dataset:
    """Gains of the single pairs of `GAIN_RANGE_ADU`: a Dataset of `GAIN_NUMBERS`.

    Raises
    ------
    DataError
        If no pair lies in the range.
    """
    low, high = GAIN_RANGE_ADU
    level = ptc["raw_mean"].median(["detector", "amp"]).values
    chosen = np.flatnonzero((level > low) & (level < high))
    if not chosen.size:
        raise DataError(f"no flat pair has a mean between {low:.0f} and {high:.0f} adu; take one there")
    pairs = ptc.isel(pair=chosen)
    table = nominal(ptc)
    slopes = xr.DataArray([_gain_slope(str(v)) for v in table["vendor"].values], dims="detector")
    mean = pairs["raw_mean"].where(pairs["valid"])
    pair_gain = 1 / (1 / pairs["pair_gain"] - pairs["raw_delta"] ** 2 / (2 * mean))  # of means made equal
    signal = mean * ptc["gain"]
    bent = shot_variance(ptc, signal) / signal  # variance over that of Poisson
    by_curve = pair_gain * bent
    table = table.assign(
        gain=ptc["gain"],
        pair_gain=pair_gain,
        raw_mean=mean,
        noise_adu=pairs["noise_adu"],
        gain_flux_corrected=by_curve.where(np.isfinite(by_curve), pair_gain * (1 - slopes * mean)),
        gain_ptc_corrected=by_curve,
        pair_error=np.sqrt(2 / pairs["n_pixel"].where(pairs["n_pixel"] > 0)),
    )
    table = table.drop_vars([c for c in table.coords if "pair" in table[c].dims]).rename(pair="exposure")
    table = table.assign_coords({name: ("exposure", values) for name, values in _exposures(pairs).items()})
    return table.assign(described(dict(table.data_vars), GAIN_NUMBERS, "adu"))


def _is_linearised(ptc: xr.Dataset) -> bool:
    """Whether the flats were linearised, as far as the product says; tables without a recipe are taken as such."""
    recipe: Mapping[str, Any] = ptc.attrs.get("recipe", {})
    return bool(recipe.get("isr", {}).get("linearity", True))


def _exposures(ptc: xr.Dataset) -> dict[str, npt.NDArray[Any]]:
    """First exposures of the pairs: id, day, number and time, (pair,) each."""
    ids = ptc["exposure_1"].values
    days, numbers, _ = zip(*(unpack_exposure_id(int(e)) for e in ids), strict=True)
    return {"exposure": ids, "day_obs": np.array(days), "seq_num": np.array(numbers), "mjd": ptc["mjd"].values}


def nominal(ptc: xr.Dataset) -> xr.Dataset:
    """Gain and read noise of the camera model, pixels of the amps, names and vendors of the detectors."""
    camera = get_instrument(ptc.attrs["instrument"])
    detectors = [camera.detectors[int(d)] for d in ptc["detector"].values]
    places = {"detector": ptc["detector"].values, "amp": ptc["amp"].values}
    shape = (len(places["detector"]), len(places["amp"]))
    pixels = np.zeros(shape, np.int64)
    for row, detector in zip(pixels, detectors, strict=True):
        row[: len(detector.amps)] = [amp.data.width * amp.data.height for amp in detector.amps]
    nothing = (DETECTOR_DIMS, np.broadcast_to(0.0, (*shape, *camera.trimmed_shape)))
    image = xr.Dataset({"image": nothing}, places, {"instrument": camera.name, "units": "electron"})
    found = expectations(image, MeasureConfig())
    names = {"detector_name": [d.full_name for d in detectors], "vendor": [d.vendor for d in detectors]}
    return xr.Dataset(
        {
            "gain_nominal": found["gain"],
            "noise_nominal": found["noise_expected"],
            "read_noise_nominal": found["read_noise"],
            "noise_factor": found["noise_expected"] / found["read_noise"],
            "overscan_error": found["overscan_error"],
            "n_pixel": (AMP_DIMS, pixels),
        },
        {name: ("detector", values) for name, values in names.items()},
        {"instrument": camera.name},
    )


def _gain_slope(vendor: str) -> float:
    known = vendors().get(vendor)
    return 0.0 if known is None else known.gain_slope


def _bands(names: npt.NDArray[np.str_]) -> tuple[FloatArray, FloatArray]:
    """Centres and half widths of the bands of a00 [1/electron], by the vendors' names; NaN for one without."""
    bands = {name: vendor.a00 for name, vendor in vendors().items()}
    ends = np.array([bands.get(str(name), (np.nan, np.nan)) for name in names])
    return ends.mean(axis=1), np.diff(ends, axis=1)[:, 0] / 2


def _widths(ptc: xr.Dataset) -> xr.DataArray:
    """Columns of an amp, over which a row is averaged."""
    camera = get_instrument(ptc.attrs["instrument"])
    return xr.DataArray([camera.detectors[int(d)].amps[0].data.width for d in ptc["detector"].values], dims="detector")


def _a00_error(ptc: xr.Dataset) -> xr.DataArray:
    """Error of a00 [1/electron], by the fit that was made; 0 where none was noted."""
    noted = {"fit_pars_err": {"parameter": 0}, "a_matrix_err": {"lag_i": 0, "lag_j": 0}}
    found = xr.zeros_like(ptc["gain"])
    for name, at in noted.items():
        if name in ptc:
            found = found + ptc[name].isel(at, drop=True).fillna(0.0)
    return found


def _short_ramp(ptc: xr.Dataset) -> xr.DataArray:
    """1 where no flat is brighter than the turnoff of a lit amp: it is where the ramp ends, and tells nothing of it."""
    brightest = ptc["raw_mean"].where(ptc["valid"]).max("pair")
    turnoff, end = ((adu * ptc["gain"]).transpose(*AMP_DIMS) for adu in (ptc["turnoff"], brightest))
    return turnoff.copy(data=ends_early(turnoff.values, end.values).astype(np.float64))


def _row_mean_slope(used: xr.Dataset, gain: xr.DataArray, width: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Sum of V_row g^2 over that of 2 mu g / columns, full width of the amp as upstream; its error.

    The error is that of the mean of the ratios of single pairs.
    """
    measured = used["row_mean_variance"] * gain**2
    expected = 2 * used["raw_mean"] * gain / width
    ratio = measured / expected
    slope = measured.sum("pair") / expected.where(measured.notnull()).sum("pair")
    return slope, ratio.std("pair") / np.sqrt(ratio.count("pair"))


def _proportionality(ptc: xr.Dataset) -> dict[str, xr.DataArray]:
    """Departure from proportionality to the photodiode charge, to the exposure time where there is none."""
    lights = [ptc[n].values for n in ("photo_charge", "exposure_time") if n in ptc and bool((ptc[n] > 0).any())]
    light = lights[0] if lights else np.full(ptc.sizes["pair"], np.nan)
    signal = (ptc["raw_mean"].where(ptc["valid"]) * ptc["gain"]).transpose("detector", "amp", "pair").values
    found = {name: xr.full_like(ptc["gain"], np.nan) for name in Proportionality._fields}
    for place in np.ndindex(*signal.shape[:2]):
        for name, value in proportionality(signal[place], light)._asdict().items():
            found[name].values[place] = value
    return {f"linearity_{name}": values for name, values in found.items()}


def _sum_rule(ptc: xr.Dataset) -> dict[str, xr.DataArray]:
    """Sum of a_ij over all four quadrants, and its error."""
    times = (1 + (ptc["lag_i"] > 0)) * (1 + (ptc["lag_j"] > 0))
    lags = ["lag_i", "lag_j"]
    total = (times * ptc["a_matrix"]).sum(lags, skipna=False)
    variance = ((times * ptc["a_matrix_err"]) ** 2).sum(lags)
    return {"a_sum": total, "a_sum_err": variance**0.5}


def _lines(ptc: xr.Dataset, i: int, j: int) -> FloatArray:
    """Slope [adu] and offset [adu^2] of a covariance against the mean: (2, detector, amp), NaN if not measured."""
    out = np.full((2, ptc.sizes["detector"], ptc.sizes["amp"]), np.nan)
    if max(i, j) >= ptc.sizes["lag_i"]:
        return out
    first = ("detector", "amp", "pair")
    covariance = ptc["covariance"].isel(lag_i=i, lag_j=j).transpose(*first).values
    mean, used = (ptc[name].transpose(*first).values for name in ("raw_mean", "used"))
    for place in np.ndindex(*out.shape[1:]):
        good = used[place] & np.isfinite(covariance[place])
        if good.sum() > 2:
            out[(slice(None), *place)] = cauchy_line(mean[place][good], covariance[place][good])
    return out


def cauchy_line(x: FloatArray, y: FloatArray) -> FloatArray:
    """Slope and offset of a line with Cauchy loss, from the start (1, 0), as upstream fits it."""
    return np.asarray(least_squares(lambda p: p[0] * x + p[1] - y, (1.0, 0.0), loss="cauchy").x)

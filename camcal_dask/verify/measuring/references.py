"""What the tests compare with: expected noise and standard errors, from the photon transfer curve and the calibrations.

Without a curve (for an amp, or at all) gain and read noise are those of the camera's tables; ``from_ptc`` says which.
Two steps, so that a verdict never needs pixels: `expectations` and `masters` are measured once, lazily, and stored
with the statistics; `complete` is arithmetic on stored numbers and runs whenever they are judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.instruments.geometry import Amp, get_instrument
from camcal_dask.kernels.statistics import moments
from camcal_dask.schema import STATISTIC_DIMS, number_variables
from camcal_dask.verify.judging.criterion import SIGNIFICANCE
from camcal_dask.verify.measuring.block import MeasureConfig, bin_side, corner_box
from camcal_dask.verify.measuring.curve import shot_variance
from camcal_dask.verify.measuring.response import clipping_factors

FloatArray = npt.NDArray[np.float64]

BF_DEFICIT_PER_ELECTRON = 4.6e-6
"""Largest |a00| of the bands of both vendors (reference 1.7): variance = mu (1 - |a00| mu) with a00 at most this."""

MASTERS: Mapping[str, tuple[str, ...]] = {
    "bias": ("bias_variance",),
    "dark": ("dark_level", "dark_variance"),
    "flat": ("flat_inverse", "flat_inverse_square", "flat_variance"),
}
"""Calibration -> names of the numbers of it that enter the expected noise, see `masters`."""
SPLIT = ("split_mean", "split_noise", "split_expected", "split_n")
"""Comparison of the calibrations of the even and of the odd inputs."""
SURE_NOISE = 0.01
"""A fitted noise of a larger relative error is replaced by that of the overscans of the same pairs of flats."""
FEW = 4
"""With fewer inputs nothing can be clipped: cosmic rays stay in a combined image."""
SAMPLE_VARIANCE_FROM = 5
"""With as many inputs the variance of a combined image is their scatter (default of `CombineConfig`)."""
_LIT = 0.1
"""Pixels of a flat below this fraction of the median of the amp are left out."""

DERIVED = number_variables(
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
        "reference_error": ("1", "relative standard error of noise_expected"),
        "noise_error": (
            "1",
            "relative standard error of the noise of the pixels, part of which rows and columns share",
        ),
    },
)
"""Numbers that `complete` adds: unit and meaning."""


def expectations(
    corrected: xr.Dataset, config: MeasureConfig, ptc: xr.Dataset | None = None
) -> dict[str, xr.DataArray]:
    """References that tests compare with, from a photon transfer curve or the camera's tables; no pixels are needed.

    Parameters
    ----------
    corrected : Dataset
        With ``image`` (.., detector, amp, y, x); variables ``gain`` and ``read_noise`` replace all others.
    config : MeasureConfig
    ptc : Dataset, optional
        ``gain`` [electron/adu], ``noise`` [electron] with ``noise_err``, ``noise_adu`` and
        ``used`` (.., pair); amps without a finite gain and noise have the nominal ones.

    Returns
    -------
    dict of (detector, amp) float64
        ``gain`` [electron/adu]; ``read_noise`` [electron], as the overscan shows it; ``to_electron``, electrons in a
        unit of the image;
        ``noise_expected`` [image unit], read noise of a corrected pixel: the read noise and that of the medians
        subtracted, RN sqrt(1 + pi/(2 n_serial) + pi/(2 n_parallel)), which is what a photon transfer curve
        measures too (+3.5 % for LSSTCam; reference 1.7 has +4.6 %); ``reference_error``, its relative standard
        error; ``from_ptc``, 1 where gain and noise are the curve's, 0 where they are the camera model's;
        ``mean_error``, ``split_error`` [image unit], standard errors of the mean of the
        amp and of its rows that halves are compared on; ``corner_error``, ``bin_error`` [image unit], those of the
        corner box and of a bin against the rest of the amp; ``common_error`` [image unit], root of the standard error
        of the variance that rows and columns of pixels share;
        ``overscan_error``, relative standard error of the noise of the serial overscan.
    """
    instrument = get_instrument(corrected.attrs["instrument"])
    detectors = [instrument.detectors[int(d)] for d in corrected["detector"].values]
    n_amp = corrected.sizes["amp"]
    table = np.full((9, len(detectors), n_amp), np.nan)
    for d, detector in enumerate(detectors):
        for a, amp in enumerate(detector.amps[:n_amp]):
            table[:, d, a] = (amp.gain, amp.read_noise, *_noise_factors(amp, corrected["image"].shape[-2:], config))
    dims = {"detector": corrected["detector"].values, "amp": list(instrument.amp_names)[:n_amp]}
    gain, read_noise, pixel, mean, halves, corner, cell, common, strip = (
        xr.DataArray(row, dims, ("detector", "amp")) for row in table
    )
    curve = {} if ptc is None else _curve(ptc, gain, pixel)
    known = curve.get("from_ptc", xr.zeros_like(gain)) > 0
    if curve:
        gain, read_noise = curve["gain"].fillna(gain), curve["read_noise"].fillna(read_noise)
    gain, read_noise = (_supplied(corrected, n, v) for n, v in (("gain", gain), ("read_noise", read_noise)))
    to_electron = gain if corrected.attrs["units"] == "adu" else xr.ones_like(gain)
    noise = read_noise / to_electron
    found = {"gain": gain, "read_noise": read_noise, "to_electron": to_electron, "overscan_error": strip}
    found |= {"from_ptc": known.astype(np.float64), "reference_error": curve.get("error", xr.zeros_like(gain))}
    factors = {"noise_expected": pixel, "mean_error": mean, "split_error": halves}
    factors |= {"corner_error": corner, "bin_error": cell, "common_error": common}
    return found | {name: noise * factor for name, factor in factors.items()}


def _curve(ptc: xr.Dataset, template: xr.DataArray, pixel: xr.DataArray) -> dict[str, xr.DataArray]:
    """Gain, read noise (as the overscan shows it) and its relative error of the amps, NaN where there are none."""
    names = [n for n in ("gain", "noise", "noise_err") if n in ptc]
    at = ptc[names].reset_coords(drop=True).reindex(detector=template["detector"], amp=template["amp"]).compute()
    gain = at["gain"]
    noise = at["noise"] / pixel if "noise" in at else xr.full_like(gain, np.nan)
    error = at["noise_err"] / at["noise"] if {"noise", "noise_err"} <= set(at) else xr.zeros_like(gain)
    if "noise_adu" in ptc:
        strips = ptc["noise_adu"].where(ptc["used"]).median("pair").reset_coords(drop=True).compute()
        overscan = strips.reindex_like(template) * gain
        sure = (error < SURE_NOISE) | overscan.isnull()
        noise, error = noise.where(sure, overscan), error.where(sure, 0.0)
    gain, noise = (values.where((values > 0) & (values < np.inf)) for values in (gain, noise))
    known = gain.notnull()
    if "noise" in at:  # a table of gains alone has none to go by
        known &= noise.notnull()
    return {
        "gain": gain.where(known),
        "read_noise": noise.where(known),
        "error": error.where(known, 0.0).fillna(0.0),
        "from_ptc": known.astype(np.float64),
    }


def masters(calibs: Mapping[str, xr.Dataset], detectors: Sequence[int]) -> dict[str, xr.DataArray]:
    """Level and variance of every amp of the calibrations that were applied, lazily.

    Parameters
    ----------
    calibs : mapping of name to Dataset
        ``bias``, ``dark`` and ``flat``: ``image`` and ``variance`` (detector, amp, y, x); others are ignored.
    detectors : sequence of int

    Returns
    -------
    dict of (detector, amp) float64
        By the names of `MASTERS`: medians of the variance of the bias [image^2], of the image and the variance of
        the dark [image/s, (image/s)^2]; of the flat F with variance V the means of 1 / F and 1 / F^2 and the
        median of V / F^2.  ``<calibration>_n``, exposures combined, and ``dark_input_seconds``, their dark time.
    """
    found = {}
    for name, numbers in MASTERS.items():
        if name in calibs:
            calib = calibs[name].sel(detector=list(detectors))
            planes = [calib[v].chunk({"detector": 1, "amp": -1, "y": -1, "x": -1}) for v in ("image", "variance")]
            data = da.map_blocks(
                _master_block, *(p.data for p in planes), name, dtype=np.float64, meta=np.empty((0,) * 4),
                chunks=(planes[0].data.chunks[0], planes[0].data.chunks[1], (len(numbers),), (1,)),
            )  # fmt: skip
            coords = {d: calib[d].values for d in ("detector", "amp")}
            for i, number in enumerate(numbers):
                found[number] = xr.DataArray(data[:, :, i, 0], coords, ("detector", "amp"))
            if "n_input" in calib:
                found[f"{name}_n"] = calib["n_input"].reset_coords(drop=True).astype(np.float64)
                if "input_dark_time_s" in calib.attrs:
                    found[f"{name}_input_seconds"] = xr.full_like(found[f"{name}_n"], calib.attrs["input_dark_time_s"])
    return found


def inputs_of(calibs: Mapping[str, xr.Dataset], exposures: Sequence[int], name: str) -> npt.NDArray[np.bool_]:
    """Return which exposures, (exposure,), made a calibration."""
    made = set(calibs[name].attrs.get("exposures", ())) if name in calibs else set()
    return np.array([e in made for e in exposures], bool)


def members(calibs: Mapping[str, xr.Dataset], corrected: xr.Dataset) -> dict[str, xr.DataArray]:
    """Say of every exposure and detector whether it made the bias, dark and flat: ``in_bias`` ..."""
    exposures = [int(e) for e in corrected["exposure"].values]
    dims = {d: corrected[d].values for d in ("exposure", "detector")}
    shape = tuple(len(values) for values in dims.values())
    return {
        f"in_{name}": xr.DataArray(
            np.broadcast_to(inputs_of(calibs, exposures, name)[:, None], shape).astype(np.float64), dims, tuple(dims)
        )
        for name in MASTERS
        if name in calibs and "exposures" in calibs[name].attrs
    }


def _master_block(image: npt.NDArray[np.float32], variance: npt.NDArray[np.float32], name: str) -> FloatArray:
    """Numbers of `MASTERS` of every amp, (detector, amp, number, 1)."""
    out = np.full((*image.shape[:2], len(MASTERS[name]), 1), np.nan)
    for index in np.ndindex(*image.shape[:2]):
        numbers = _flat_numbers if name == "flat" else _medians
        out[index][:, 0] = numbers(image[index], variance[index])[-len(MASTERS[name]) :]
    return out


def _medians(image: npt.NDArray[np.float32], variance: npt.NDArray[np.float32]) -> tuple[float, ...]:
    return moments.median(image), moments.median(variance)


def _flat_numbers(image: npt.NDArray[np.float32], variance: npt.NDArray[np.float32]) -> tuple[float, ...]:
    lit = image > _LIT * moments.median(image)
    if not lit.any():
        return math.nan, math.nan, math.nan
    inverse = 1 / image[lit].astype(np.float64)
    square = inverse * inverse
    return inverse.mean(), square.mean(), moments.median((variance[lit] * square).astype(np.float32))


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
    return {"ptc_variance": known.assign_attrs(long_name="variance of the mean signal, by the photon transfer curve")}


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
    filled: xr.DataArray = (xr.zeros_like(template) + array).transpose(*template.dims)
    return filled.assign_attrs(DERIVED[name].attrs(unit))


def _seconds(statistics: xr.Dataset, name: str) -> xr.DataArray:
    """Times of the exposures, NaN where unknown or not positive."""
    if name not in statistics:
        return xr.full_like(statistics["exposure"], np.nan, np.float64)
    time = statistics[name].astype(np.float64)
    return time.where(time > 0).reset_coords(drop=True)


def _or(statistics: xr.Dataset, name: str, default: float) -> Any:
    return statistics.get(name, default)


def split_statistics(even: xr.Dataset, odd: xr.Dataset) -> dict[str, xr.DataArray]:
    """Difference of the calibrations made of the even and of the odd inputs (DMTN-101 5.5-5.7), computed.

    Parameters
    ----------
    even, odd : Dataset
        ``image`` and ``variance`` (detector, amp, y, x).

    Returns
    -------
    dict of (detector, amp) float64, in the unit of the images
        ``split_mean`` and ``split_noise``, clipped mean (5 sigma) and standard deviation of even - odd;
        ``split_expected``, root of the median of the summed variances; ``split_n``, pixels.
    """
    difference = (even["image"] - odd["image"]).transpose("detector", "amp", "y", "x")
    variance = (even["variance"] + odd["variance"]).transpose(*difference.dims)
    out = np.full((*difference.shape[:2], len(SPLIT)), np.nan)
    for d, a in np.ndindex(*out.shape[:2]):
        pixels = moments.Halves(difference[d, a].values, variance[d, a].values)
        out[d, a] = moments.compare_amp(pixels, math.inf)
    return _split(xr.DataArray(out, {d: difference[d].values for d in ("detector", "amp")}, ("detector", "amp", "of")))


def split_of(calib: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the same as a calibration has it of its own halves; nothing if they were not compared."""
    return _split(calib["halves"].drop_vars("of_halves", errors="ignore")) if "halves" in calib else {}


def _split(numbers: xr.DataArray) -> dict[str, xr.DataArray]:
    return {name: numbers[..., i] for i, name in enumerate(SPLIT)}


def _supplied(corrected: xr.Dataset, name: str, nominal: xr.DataArray) -> xr.DataArray:
    """Take the variable of the Dataset if it is there and in memory, else the nominal values."""
    if name not in corrected or set(corrected[name].dims) != {"detector", "amp"}:
        return nominal
    return xr.DataArray(np.asarray(corrected[name].transpose("detector", "amp")), nominal.coords)


def _noise_factors(amp: Amp, shape: Sequence[int], config: MeasureConfig) -> tuple[float, ...]:
    """Noise of a pixel, errors of four means, of the shared variance and of the overscan noise, by the read noise.

    The errors of the overscan medians are part of the noise, but there are only as many of them as rows and columns:
    their variances are known to sqrt(2 / ny) and sqrt(2 / nx).

    The median that is taken off a row of the parallel overscan has an error that all columns share; the median over
    these n rows keeps 1 / n of its variance (that of two medians of correlation r is r / n), as an offset of the
    whole amp: 2.5 % of the read noise for LSSTCam, where all the rest is 1.1 %.
    """
    height, width = amp.data.height, amp.data.width
    serial = parallel = offset = 0.0
    if config.overscan_skip_pixel >= 0:  # variance of the median of n Gaussian values: pi / (2 n)
        n_row = max(amp.parallel_overscan.height - config.overscan_skip_pixel, 1)
        serial = 0.5 * math.pi / max(amp.serial_overscan.width - config.overscan_skip_pixel, 1)
        parallel, offset = 0.5 * math.pi / n_row, serial / n_row

    def error(ny: int, nx: int, offset: float = 0.0) -> float:
        return math.sqrt(1 / (ny * nx) + serial / ny + parallel / nx + offset)

    side = bin_side(shape[0], shape[1], config)
    means = (
        error(height, width, offset),
        error(-(-height // moments.HALVES_EVERY), width, offset),
        error(*corner_box(height, width, config)),
        error(side, side),
    )
    common = (2 * (serial**2 / height + parallel**2 / width)) ** 0.25
    strip = 1 / math.sqrt(2 * amp.serial_overscan.width * amp.raw_height)
    return math.sqrt(1 + serial + parallel), *means, common, strip

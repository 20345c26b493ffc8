"""What the tests compare with: expected noise and standard errors from the camera's tables and the calibrations used.

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
from camcal_dask.kernels import moments
from camcal_dask.verify.block import MeasureConfig, bin_side, corner_box
from camcal_dask.verify.response import clipping_factors

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
_LIT = 0.1
"""Pixels of a flat below this fraction of the median of the amp are left out."""

DERIVED: Mapping[str, tuple[str, str]] = {
    "mean_per_s": ("image/s", "mean divided by the exposure time"),
    "median_per_s": ("image/s", "median divided by the exposure time"),
    "noise_per_s": ("image/s", "clipped standard deviation divided by the exposure time"),
    "mean_per_dark_s": ("image/s", "mean divided by the dark time"),
    "dark_seconds": ("s", "dark time, the exposure time where it is unknown"),
    "dark_sigma": ("image", "expected standard deviation of a dark residual"),
    "shot_variance": ("image^2", "Poisson variance of the mean signal, or that of the photon transfer curve"),
    "flat_spread": ("1", "relative scatter of 1 / flat over the amp: vignetting, which no single variance describes"),
    "flat_variance_expected": ("image^2", "expected variance of a flat: shot noise, read noise, calibrations"),
    "response_excess": ("1", "covariance of exposure / flat with the flat, less that of the noise of the flat"),
    "response_power": ("1", "variance of the response that the flat has, its noise taken off"),
    "bf_allowance": ("1", "part of the shot variance that the brighter-fatter effect may take away"),
}
"""Numbers that `complete` adds: unit and meaning."""


def expectations(corrected: xr.Dataset, config: MeasureConfig) -> dict[str, xr.DataArray]:
    """References that tests compare with, from the camera's tables; no pixels are needed.

    Returns
    -------
    dict of (detector, amp) float64
        ``gain`` [electron/adu]; ``read_noise`` [electron]; ``to_electron``, electrons in a unit of the image;
        ``noise_expected`` [image unit], read noise of a corrected pixel: the read noise and that of the medians
        subtracted, RN sqrt(1 + pi/(2 n_serial) + pi/(2 n_parallel)), which is what a photon transfer curve
        measures too (+3.5 % for LSSTCam; reference 1.7 has +4.6 %); ``mean_error``, ``corner_error``,
        ``bin_error`` [image unit], standard errors of the mean of the amp, the corner box and a bin;
        ``overscan_error``, relative standard error of the noise of the serial overscan.
    """
    instrument = get_instrument(corrected.attrs["instrument"])
    detectors = [instrument.detectors[int(d)] for d in corrected["detector"].values]
    n_amp = corrected.sizes["amp"]
    table = np.full((7, len(detectors), n_amp), np.nan)
    for d, detector in enumerate(detectors):
        for a, amp in enumerate(detector.amps[:n_amp]):
            table[:, d, a] = (amp.gain, amp.read_noise, *_noise_factors(amp, corrected["image"].shape[-2:], config))
    dims = {"detector": corrected["detector"].values, "amp": list(instrument.amp_names)[:n_amp]}
    gain, read_noise, pixel, mean, corner, cell, strip = (xr.DataArray(row, dims, ("detector", "amp")) for row in table)
    gain, read_noise = (_supplied(corrected, n, v) for n, v in (("gain", gain), ("read_noise", read_noise)))
    to_electron = gain if corrected.attrs["units"] == "adu" else xr.ones_like(gain)
    noise = read_noise / to_electron
    found = {"gain": gain, "read_noise": read_noise, "to_electron": to_electron, "overscan_error": strip}
    factors = {"noise_expected": pixel, "mean_error": mean, "corner_error": corner, "bin_error": cell}
    return found | {name: noise * factor for name, factor in factors.items()}


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
        median of V / F^2.
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
    return found


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

    A calibration that was not given to `camcal_dask.verify.statistics.measure` adds no variance.  With F the read
    noise of a corrected pixel (``noise_expected``), g' = ``to_electron``, t the dark time, mu the mean, and f the flat
    that the exposure was divided by (1 without one; <> is the mean over the amp):

        dark_sigma^2           = F^2 + V_bias + D t / g' +- t^2 V_dark                          (reference 1.4)
        flat_variance_expected = V(mu) <1/f> + (F^2 + V_bias) <1/f^2> +- mu^2 V_flat / f^2      (reference 1.5, 10.X')

    V(mu) is ``ptc_variance`` if the statistics have it.  Without a photon transfer curve it is Poisson, mu / g',
    of which the brighter-fatter effect may take up to the fraction ``bf_allowance`` = `BF_DEFICIT_PER_ELECTRON` mu g'
    (23 % at 50 000 electrons); with one the allowance is zero.  An exposure that made the dark or flat (the
    coordinate ``role``) is no independent of it: x - mean(x) scatters less than x, hence minus there.
    """
    if not {"mean", "noise", "noise_expected", "to_electron"} <= set(statistics.data_vars):
        return statistics
    template = statistics["mean"]
    exposure_time = _seconds(statistics, "exposure_time")
    dark_time = _seconds(statistics, "dark_time")
    dark_time = dark_time.where(dark_time > 0, exposure_time)
    seconds = xr.zeros_like(template) + dark_time.fillna(0.0)
    electron = statistics["to_electron"]
    sign = _sign_of_masters(statistics)
    base = statistics["noise_expected"] ** 2 + _or(statistics, "bias_variance", 0.0)
    signal = np.maximum(_or(statistics, "dark_level", 0.0), 0.0) * seconds / electron
    dark = base + signal + sign * seconds**2 * _or(statistics, "dark_variance", 0.0)
    mean = np.maximum(template, 0.0)
    has_ptc = "ptc_variance" in statistics
    inverse, square = (_or(statistics, f"flat_{name}", 1.0) for name in ("inverse", "inverse_square"))
    shot = (statistics["ptc_variance"] if has_ptc else mean / electron) * inverse
    flat = shot + base * square + sign * mean**2 * _or(statistics, "flat_variance", 0.0)
    derived = {
        **{f"{n}_per_s": statistics[n] / exposure_time for n in ("mean", "median", "noise") if n in statistics},
        "mean_per_dark_s": template / dark_time,
        "dark_seconds": seconds,
        "dark_sigma": np.sqrt(np.maximum(dark, 0.0)),
        "shot_variance": shot,
        "flat_spread": np.sqrt(np.maximum(square / inverse**2 - 1, 0.0)),
        "flat_variance_expected": flat,
        "bf_allowance": xr.zeros_like(template) if has_ptc else BF_DEFICIT_PER_ELECTRON * mean * electron / inverse,
    }
    if "response_covariance" in statistics:
        derived |= _response(statistics, sign)
    unit = statistics.attrs.get("units", "")
    return statistics.assign({name: _described(name, array, template, unit) for name, array in derived.items()})


def _response(statistics: xr.Dataset, sign: Any) -> dict[str, xr.DataArray]:
    """Numerator and denominator of the slope of `camcal_dask.verify.response`; ``sign``: -1 for inputs of the flat."""
    said = statistics["response_noise"]
    factors: list[Any] = [1.0, 1.0]
    if "flat_n_input" in statistics:
        n = statistics["flat_n_input"]
        table = np.array([clipping_factors(int(i)) for i in n.values.ravel()]).reshape(*n.shape, 2)
        factors = [n.astype(np.float64).copy(data=table[..., k]) for k in range(2)]
    noise, shared = said * factors[0], xr.where(sign < 0, said * factors[1], 0.0)
    return {
        "response_excess": statistics["response_covariance"] + noise - shared,
        "response_power": statistics["response_variance"] - noise,
    }


def _described(name: str, array: xr.DataArray, template: xr.DataArray, unit: str) -> xr.DataArray:
    filled: xr.DataArray = (xr.zeros_like(template) + array).transpose(*template.dims)
    units, doc = DERIVED[name]
    return filled.assign_attrs(units=units.replace("image", unit), long_name=doc)


def _seconds(statistics: xr.Dataset, name: str) -> xr.DataArray:
    """Times of the exposures, NaN where unknown or not positive."""
    if name not in statistics:
        return xr.full_like(statistics["exposure"], np.nan, np.float64)
    time = statistics[name].astype(np.float64)
    return time.where(time > 0).reset_coords(drop=True)


def _or(statistics: xr.Dataset, name: str, default: float) -> Any:
    return statistics.get(name, default)


def _sign_of_masters(statistics: xr.Dataset) -> Any:
    """Sign with which the variance of a dark or flat adds to that of an exposure: -1 for those that made it."""
    if "role" not in statistics.coords:
        return 1.0
    made = (statistics["role"] == "construction").reset_coords(drop=True)
    return xr.where(made, -1.0, 1.0)


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
    """Noise of a pixel, standard errors of three means and of the overscan noise, in units of the read noise."""
    height, width = amp.data.height, amp.data.width
    serial = parallel = 0.0
    if config.overscan_skip_pixel >= 0:  # variance of the median of n Gaussian values: pi / (2 n)
        serial = 0.5 * math.pi / max(amp.serial_overscan.width - config.overscan_skip_pixel, 1)
        parallel = 0.5 * math.pi / max(amp.parallel_overscan.height - config.overscan_skip_pixel, 1)

    def error(ny: int, nx: int) -> float:
        return math.sqrt(1 / (ny * nx) + serial / ny + parallel / nx)

    side = bin_side(shape[0], shape[1], config)
    means = error(height, width), error(*corner_box(height, width, config)), error(side, side)
    strip = 1 / math.sqrt(2 * amp.serial_overscan.width * amp.raw_height)
    return math.sqrt(1 + serial + parallel), *means, strip

"""What the tests compare with: expected noise and standard errors, from the photon transfer curve and the calibrations.

Without a curve (for an amp, or at all) gain and read noise are those of the camera's tables; ``from_ptc`` says which.
Two steps, so that a verdict never needs pixels: `expectations` and `masters` are measured once, lazily, and stored
with the statistics; `complete` is arithmetic on stored numbers and runs whenever they are judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from camcal_dask.instruments.geometry import Amp, get_instrument
from camcal_dask.kernels.statistics import moments
from camcal_dask.schema import AMP_DIMS, described, number_variables
from camcal_dask.verify.measuring.block import MeasureConfig, bin_side, corner_box

REFERENCES = number_variables(
    AMP_DIMS,
    {
        "gain": ("electron/adu", "gain of the photon transfer curve, of the camera model where there is none"),
        "read_noise": ("electron", "read noise as the overscan shows it, from the same"),
        "from_ptc": ("1", "1 where gain and read noise are those of the photon transfer curve, else 0"),
        "to_electron": ("electron/image", "electrons in a unit of the image"),
        "noise_expected": ("image", "read noise of a corrected pixel, with that of the medians subtracted"),
        "reference_error": ("1", "relative standard error of noise_expected"),
        "mean_error": ("image", "standard error of the mean of the amp"),
        "split_error": ("image", "standard error of the mean of the rows that halves are compared on"),
        "corner_error": ("image", "standard error of the mean of the corner box"),
        "bin_error": ("image", "standard error of the mean of a bin"),
        "common_error": ("image", "root of the standard error of the variance that rows and columns share"),
        "overscan_error": ("1", "relative standard error of the noise of the serial overscan"),
    },
)
"""Numbers of `expectations`."""
SPLIT = number_variables(
    AMP_DIMS,
    {
        "split_mean": ("image", "clipped mean (5 sigma) of the calibration of the even inputs minus that of the odd"),
        "split_noise": ("image", "clipped standard deviation of that difference"),
        "split_expected": ("image", "root of the median of the variances of both"),
        "split_n": ("pixel", "pixels compared"),
    },
)
"""Comparison of the calibrations of the even and of the odd inputs (DMTN-101 5.5-5.7)."""
SURE_NOISE = 0.01
"""A fitted noise of a larger relative error is replaced by that of the overscans of the same pairs of flats."""
FEW = 4
"""With fewer inputs nothing can be clipped: cosmic rays stay in a combined image."""


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
        Of `REFERENCES`.  The noise of a corrected pixel is RN sqrt(1 + pi/(2 n_serial) + pi/(2 n_parallel)), which is
        what a photon transfer curve measures too (+3.5 % for LSSTCam; reference 1.7 has +4.6 %).
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
        xr.DataArray(row, dims, AMP_DIMS) for row in table
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
    found |= {name: noise * factor for name, factor in factors.items()}
    return described(found, REFERENCES, corrected.attrs["units"])


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


def split_of(calib: xr.Dataset) -> dict[str, xr.DataArray]:
    """`SPLIT` of a calibration, (detector, amp) float64; nothing if its halves were not compared."""
    if "halves" not in calib:
        return {}
    numbers = calib["halves"].drop_vars("of_halves", errors="ignore")
    return described({name: numbers[..., i] for i, name in enumerate(SPLIT)}, SPLIT, calib.attrs.get("units", ""))


def _supplied(corrected: xr.Dataset, name: str, nominal: xr.DataArray) -> xr.DataArray:
    """Take the variable of the Dataset if it is there and in memory, else the nominal values."""
    if name not in corrected or set(corrected[name].dims) != {"detector", "amp"}:
        return nominal
    return xr.DataArray(np.asarray(corrected[name].transpose(*AMP_DIMS)), nominal.coords)


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

"""Numbers of a combined dark itself: dark current, bright pixels and columns (reference/verification.md 3.6, 3.7)."""

from __future__ import annotations

import math

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.instruments.geometry import Amp, Detector, get_instrument
from camcal_dask.isr.config import IsrConfig
from camcal_dask.kernels.pixels.hot_pixels import Q95, hot_pixels
from camcal_dask.kernels.statistics import outlier_counts
from camcal_dask.schema import AMP_DIMS, DETECTOR_DIMS, number_variables
from camcal_dask.verify.measuring.product import measure_image
from camcal_dask.verify.verdict import Calibs

DARK_NUMBERS = number_variables(
    AMP_DIMS,
    {
        "dark_current_median": ("electron/s", "median of the combined dark without hot pixels"),
        "dark_current_q95": ("electron/s", "95th percentile of the combined dark without hot pixels"),
        "dark_current_tail": ("electron/s", "the same without its noise, which is the spread below the median"),
        "dark_current_noise": ("electron/s", "standard deviation of that noise"),
        "bright_columns": ("column", "columns with over 20 contiguous pixels above 5 electron/s"),
        "bright_pixels": ("pixel", "pixels above 5 electron/s outside of such columns"),
    },
)
"""Numbers of every amp of a combined dark."""


def measure_dark(dark: xr.Dataset) -> xr.Dataset:
    """Measure a combined dark; nothing is computed.  Returns a Dataset of `DARK_NUMBERS`, (detector, amp) float64."""
    return measure_image(dark, DARK_NUMBERS, _dark_numbers)


def with_hot_pixels(dark: xr.Dataset, calibs: Calibs, config: IsrConfig) -> tuple[Calibs, IsrConfig]:
    """Mask the hot pixels of a dark where defects are not known yet: what will be a defect is no fault of the dark."""
    if config.defects:
        return calibs, config
    return {**calibs, "defects": hot_mask(dark)}, config.model_copy(update={"defects": True})


def hot_mask(dark: xr.Dataset) -> xr.Dataset:
    """Hot pixels of a combined dark in place of ``defects``, where these are not known yet; nothing is computed.

    Parameters
    ----------
    dark : Dataset
        ``image`` (detector, amp, y, x); attributes ``instrument`` and ``units``.

    Returns
    -------
    Dataset of ``mask`` (detector, amp, y, x) int32, 1 where `kernels.pixels.hot_pixels.hot_pixels` finds one.
    """
    image = dark["image"].transpose(*DETECTOR_DIMS).chunk({"detector": 1, "amp": -1, "y": -1, "x": -1})
    numbers = da.from_array(image["detector"].values, chunks=1)[:, None, None, None]
    names = {"instrument": dark.attrs["instrument"], "units": dark.attrs["units"]}
    mask = da.map_blocks(_hot_block, image.data, numbers, **names, dtype=np.int32, meta=np.empty((0,) * 4, np.int32))
    coords = {dim: image[dim].values for dim in AMP_DIMS}
    return xr.Dataset({"mask": (image.dims, mask)}, coords, names)


def _hot_block(
    image: npt.NDArray[np.float32], detectors: npt.NDArray[np.int64], instrument: str, units: str
) -> npt.NDArray[np.int32]:
    out = np.zeros(image.shape, np.int32)
    for d, number in enumerate(detectors.ravel()):
        for amp in get_instrument(instrument).detectors[int(number)].amps:
            box = np.s_[d, amp.index, : amp.data.height, : amp.data.width]
            out[box] = hot_pixels(_per_second(image[box], amp, units))
    return out


def _per_second(image: npt.NDArray[np.float32], amp: Amp, units: str) -> npt.NDArray[np.float64]:
    """Dark current of an amp [electron/s]."""
    return np.asarray(image * (amp.gain if units.startswith("adu") else 1.0), np.float64)


def _dark_numbers(detector: Detector, image: npt.NDArray[np.float32], units: str) -> dict[int, list[float]]:
    found = {}
    for amp in detector.amps:
        rate = _per_second(image[amp.index, : amp.data.height, : amp.data.width], amp, units)
        good = rate[np.isfinite(rate) & ~hot_pixels(rate)]
        low, median, high = np.percentile(good, [5, 50, 95]) if good.size else (np.nan,) * 3
        above = max((high - median) ** 2 - (median - low) ** 2, 0.0)  # NaN stays: nothing is larger than it
        numbers = [median, high, median + math.sqrt(above), (median - low) / Q95]
        found[amp.index] = [*numbers, *outlier_counts.bright(rate)]
    return found

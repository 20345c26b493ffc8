"""Statistics of the calibration under test itself: defects, dark current, tearing (reference 3.6-3.9, 3.18)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.instruments.geometry import Amp, Detector, get_instrument
from camcal_dask.kernels.pixels.hot_pixels import Q95, hot_pixels
from camcal_dask.kernels.readout.tearing import profile, tearing
from camcal_dask.kernels.statistics import outlier_counts
from camcal_dask.kernels.statistics.moments import median
from camcal_dask.verify.measuring.block import Statistic

FloatArray = npt.NDArray[np.float64]
FRAME = 9
"""Pixels at the edges of a CCD that are no dark defects: the picture frame [pixel]."""
_LAST_COLUMN = 7
_LIT = 0.1
"""An amp of a flat below this fraction of the median amp is dead, as for the defects."""

PRODUCT: Mapping[str, Mapping[str, Statistic]] = {
    "dark": {
        "dark_current_median": Statistic("electron/s", "median of the combined dark without hot pixels"),
        "dark_current_q95": Statistic("electron/s", "95th percentile of the combined dark without hot pixels"),
        "dark_current_tail": Statistic(
            "electron/s", "the same without its noise, which is the spread below the median"
        ),
        "dark_current_noise": Statistic("electron/s", "standard deviation of that noise"),
        "bright_columns": Statistic("column", "columns with over 20 contiguous pixels above 5 electron/s"),
        "bright_pixels": Statistic("pixel", "pixels above 5 electron/s outside of such columns"),
    },
    "flat": {
        "dark_columns": Statistic("column", "columns with over 100 contiguous pixels below 0.8 of the mean"),
        "dark_pixels": Statistic("pixel", "pixels below 0.8 of the mean outside of such columns, without the frame"),
        "vampires": Statistic("1", "spots brighter than 1.2 times their surroundings"),
        "divisadero": Statistic("1", "largest ripple at the boundaries to the neighbour amps"),
    },
}
"""Numbers of every amp of a combined image, by kind of calibration."""


def measure_product(kind: str, calib: xr.Dataset) -> xr.Dataset:
    """Measure a combined image; nothing is computed.

    Parameters
    ----------
    kind : str
        ``dark`` or ``flat``; any other has no numbers.
    calib : Dataset
        ``image`` (detector, amp, y, x) in readout coordinates; attributes ``instrument`` and ``units``.

    Returns
    -------
    Dataset of `PRODUCT` of the kind, (detector, amp) float64, one task a detector.
    """
    if kind not in PRODUCT:
        return xr.Dataset()
    table, image = PRODUCT[kind], calib["image"].transpose("detector", "amp", "y", "x")
    shape = (1, image.sizes["amp"], len(table))
    task = dask.delayed(_measure_detector)
    rows = [
        da.from_delayed(
            task(kind, calib.attrs["instrument"], int(d), image.isel(detector=[i]).chunk().data, calib.attrs["units"]),
            shape,
            np.float64,
        )
        for i, d in enumerate(image["detector"].values)
    ]
    packed = da.concatenate(rows)
    variables = {
        name: (("detector", "amp"), packed[..., i], {"units": s.unit, "long_name": s.doc})
        for i, (name, s) in enumerate(table.items())
    }
    return xr.Dataset(variables, {dim: image[dim].values for dim in ("detector", "amp")})


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
    image = dark["image"].transpose("detector", "amp", "y", "x").chunk({"detector": 1, "amp": -1, "y": -1, "x": -1})
    numbers = da.from_array(image["detector"].values, chunks=1)[:, None, None, None]
    names = {"instrument": dark.attrs["instrument"], "units": dark.attrs["units"]}
    mask = da.map_blocks(_hot_block, image.data, numbers, **names, dtype=np.int32, meta=np.empty((0,) * 4, np.int32))
    coords = {dim: image[dim].values for dim in ("detector", "amp")}
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


def _measure_detector(
    kind: str, instrument: str, detector: int, image: npt.NDArray[np.float32], units: str
) -> FloatArray:
    known = get_instrument(instrument).detectors[detector]
    out = np.full((1, image.shape[1], len(PRODUCT[kind])), np.nan)
    measured = _dark_numbers(known, image[0], units) if kind == "dark" else _flat_numbers(known, image[0])
    for index, numbers in measured.items():
        out[0, index] = numbers
    return out


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


def _flat_numbers(detector: Detector, image: npt.NDArray[np.float32]) -> dict[int, list[float]]:
    level = {amp.index: median(image[amp.index]) for amp in detector.amps}
    lit = _LIT * float(np.nanmedian(list(level.values())))
    profiles = {}
    for amp in detector.amps:
        along = profile(image[amp.index, : amp.data.height, : amp.data.width])
        along[:] = along if level[amp.index] > lit else np.nan  # a dead amp tears nothing
        profiles[amp.ix, amp.iy] = along[::-1] if amp.flip_x else along
    torn = tearing(profiles)
    found = {}
    for amp in detector.amps:
        inner = image[amp.index][inside(amp)]
        found[amp.index] = [*outlier_counts.dark(inner), outlier_counts.vampires(inner), torn[amp.ix, amp.iy]]
    return found


def inside(amp: Amp, frame: int = FRAME) -> tuple[slice, slice]:
    """Rows and columns of an amp, readout coordinates, without the picture frame of the CCD.

    Readout row 0 is an outer row; the first or last columns are outer ones for the amps at the ends of a row of eight.
    """
    height, width = amp.data.height, amp.data.width
    first, last = (amp.ix == 0, amp.ix == _LAST_COLUMN)
    left, right = (last, first) if amp.flip_x else (first, last)
    return slice(min(frame, height), height), slice(frame if left else 0, width - frame if right else width)

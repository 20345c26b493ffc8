"""Level and noise of the calibrations that were applied, by which exposures scatter more than by themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.statistics import moments
from camcal_dask.schema import AMP_DIMS, Variables, described, number_variables, union

MASTERS: Mapping[str, Variables] = {
    "bias": number_variables(AMP_DIMS, {"bias_variance": ("image^2", "median variance of the bias")}),
    "dark": number_variables(
        AMP_DIMS,
        {
            "dark_level": ("image/s", "median of the dark"),
            "dark_variance": ("image^2/s^2", "median variance of the dark"),
        },
    ),
    "flat": number_variables(
        AMP_DIMS,
        {
            "flat_inverse": ("1", "mean of 1 / flat"),
            "flat_inverse_square": ("1", "mean of 1 / flat^2"),
            "flat_variance": ("1", "median of the variance of the flat over flat^2"),
        },
    ),
}
"""Calibration -> the numbers of it that enter the expected noise, see `masters`."""
INPUTS = number_variables(
    AMP_DIMS,
    {
        **{f"{name}_n": ("exposure", f"exposures in the {name}") for name in MASTERS},
        **{f"{name}_input_seconds": ("s", f"dark time of the exposures in the {name}") for name in MASTERS},
    },
)
"""What the calibrations that were applied are made of."""
MEMBERS = number_variables(
    ("exposure", "detector"),
    {f"in_{name}": ("1", f"1 for an exposure that is in the {name}, else 0") for name in MASTERS},
)
"""Numbers of `members`."""

_LIT = 0.1
"""Pixels of a flat below this fraction of the median of the amp are left out."""


def masters(calibs: Mapping[str, xr.Dataset], detectors: Sequence[int], unit: str) -> dict[str, xr.DataArray]:
    """Level and variance of every amp of the calibrations that were applied, lazily.

    Parameters
    ----------
    calibs : mapping of name to Dataset
        ``bias``, ``dark`` and ``flat``: ``image`` and ``variance`` (detector, amp, y, x); others are ignored.
    detectors : sequence of int
    unit : str
        Of the images that were corrected.

    Returns
    -------
    dict of (detector, amp) float64
        Of `MASTERS` and `INPUTS`.
    """
    found: dict[str, xr.DataArray] = {}
    for name, numbers in MASTERS.items():
        if name in calibs:
            calib = calibs[name].sel(detector=list(detectors))
            planes = [calib[v].chunk({"detector": 1, "amp": -1, "y": -1, "x": -1}) for v in ("image", "variance")]
            data = da.map_blocks(
                _master_block, *(p.data for p in planes), name, dtype=np.float64, meta=np.empty((0,) * 4),
                chunks=(planes[0].data.chunks[0], planes[0].data.chunks[1], (len(numbers),), (1,)),
            )  # fmt: skip
            coords = {d: calib[d].values for d in AMP_DIMS}
            for i, number in enumerate(numbers):
                found[number] = xr.DataArray(data[:, :, i, 0], coords, AMP_DIMS)
            if "n_input" in calib:
                found[f"{name}_n"] = calib["n_input"].reset_coords(drop=True).astype(np.float64)
                if "input_dark_time_s" in calib.attrs:
                    found[f"{name}_input_seconds"] = xr.full_like(found[f"{name}_n"], calib.attrs["input_dark_time_s"])
    return described(found, union(*MASTERS.values(), INPUTS), unit)


def inputs_of(calibs: Mapping[str, xr.Dataset], exposures: Sequence[int], name: str) -> npt.NDArray[np.bool_]:
    """Return which exposures, (exposure,), made a calibration."""
    made = set(calibs[name].attrs.get("exposures", ())) if name in calibs else set()
    return np.array([e in made for e in exposures], bool)


def members(calibs: Mapping[str, xr.Dataset], corrected: xr.Dataset) -> dict[str, xr.DataArray]:
    """Say of every exposure and detector whether it made the bias, dark and flat: ``in_bias`` ..."""
    exposures = [int(e) for e in corrected["exposure"].values]
    dims = {d: corrected[d].values for d in ("exposure", "detector")}
    shape = tuple(len(values) for values in dims.values())
    found = {
        f"in_{name}": xr.DataArray(
            np.broadcast_to(inputs_of(calibs, exposures, name)[:, None], shape).astype(np.float64), dims, tuple(dims)
        )
        for name in MASTERS
        if name in calibs and "exposures" in calibs[name].attrs
    }
    return described(found, MEMBERS, "")


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

"""Numbers of every amp of the calibration under test itself, measured in its image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.instruments.geometry import Detector, get_instrument
from camcal_dask.schema import AMP_DIMS, DETECTOR_DIMS, Variables

Measure = Callable[[Detector, npt.NDArray[np.float32], str], Mapping[int, Sequence[float]]]
"""Numbers by index of the amp, from the detector, its image (amp, y, x) and the unit of it."""


def measure_image(calib: xr.Dataset, described: Variables, numbers: Measure) -> xr.Dataset:
    """Measure a combined image; nothing is computed.

    Parameters
    ----------
    calib : Dataset
        ``image`` (detector, amp, y, x) in readout coordinates; attributes ``instrument`` and ``units``.
    described : mapping
        The numbers by name, in the order in which ``numbers`` returns them.
    numbers : callable
        See `Measure`.

    Returns
    -------
    Dataset of ``described``, (detector, amp) float64, one task per detector.
    """
    image = calib["image"].transpose(*DETECTOR_DIMS)
    shape, task = (1, image.sizes["amp"], len(described)), dask.delayed(_measure_detector)
    rows = [
        da.from_delayed(
            task(
                numbers, calib.attrs["instrument"], int(d), image.isel(detector=[i]).chunk().data,
                calib.attrs["units"], len(described),
            ),
            shape,
            np.float64,
        )
        for i, d in enumerate(image["detector"].values)
    ]  # fmt: skip
    packed = da.concatenate(rows)
    variables = {
        name: (AMP_DIMS, packed[..., i], s.attrs(calib.attrs["units"])) for i, (name, s) in enumerate(described.items())
    }
    return xr.Dataset(variables, {dim: image[dim].values for dim in AMP_DIMS})


def _measure_detector(
    numbers: Measure, instrument: str, detector: int, image: npt.NDArray[np.float32], units: str, n_number: int
) -> npt.NDArray[np.float64]:
    out = np.full((1, image.shape[1], n_number), np.nan)
    for index, row in numbers(get_instrument(instrument).detectors[detector], image[0], units).items():
        out[0, index] = row
    return out

"""The finishing of a combined detector: its slabs put together, gaps filled, amps described."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camcal_dask.calibs.combined.product import LEVELS, OF_HALVES
from camcal_dask.errors import DataError
from camcal_dask.instruments.geometry import Detector
from camcal_dask.kernels.arrays import Int32Array, Pixels
from camcal_dask.kernels.pixels.masks import BAD, NO_DATA
from camcal_dask.kernels.statistics.moments import Halves, compare_amp, median, percentiles


class Combined(NamedTuple):
    """Some rows of the product: float32, float32, int32 (amp, y, x); whether (exposure, amp) had a usable pixel.

    ``halves`` has arrays (amp, y, x) of every fourth row, None if not asked for.
    """

    image: Pixels
    variance: Pixels
    mask: Int32Array
    used: NDArray[np.bool_]
    halves: Halves | None = None


class Finished(NamedTuple):
    """All arrays of one detector, named as the variables of the product, without the detector axis."""

    image: Pixels
    variance: Pixels
    mask: Int32Array
    distribution: NDArray[np.float64]
    n_bad: Int32Array
    halves: NDArray[np.float64]
    n_input: Int32Array


def finish_detector(slabs: list[Combined], detector: Detector) -> Finished:
    """Put the slabs of a detector together, fill what is missing, describe the amps.

    Pixels without value or variance get the median over the detector of each, and BAD.

    Raises
    ------
    DataError
        If not one pixel of the detector has a value.
    """
    image, variance, mask = (np.concatenate(planes, axis=1) for planes in list(zip(*slabs, strict=True))[:3])
    used = np.any([s.used for s in slabs], axis=0)
    n_amp = image.shape[0]
    inside = [np.s_[amp.index, : amp.data.height, : amp.data.width] for amp in detector.amps]
    _pad(image, variance, mask, detector)
    missing = [~(np.isfinite(image[box]) & np.isfinite(variance[box])) for box in inside]
    if any(m.any() for m in missing):
        fill = median(image), median(variance)
        if not np.all(np.isfinite(fill)):
            raise DataError(f"detector {detector.name}: no exposure has a usable pixel; leave the detector out (-d)")
        for box, m in zip(inside, missing, strict=True):
            image[box][m], variance[box][m] = fill
            mask[box][m] |= BAD
    distribution, n_bad = np.full((n_amp, len(LEVELS)), np.nan), np.zeros(n_amp, np.int32)
    for box in inside:
        distribution[box[0]] = percentiles(image[box], np.array(LEVELS) / 100)
        n_bad[box[0]] = np.count_nonzero(mask[box] & BAD)
    n_input = used.sum(axis=0, dtype=np.int32)
    return Finished(image, variance, mask, distribution, n_bad, _halves(slabs, detector, n_input), n_input)


def unusable_amps(product: Finished, detector: Detector, *, divides: bool) -> dict[str, str]:
    """Amps of a combined image that are of no use for corrections, and why.

    Parameters
    ----------
    product : Finished
    detector : Detector
    divides : whether images will be divided by it: then its median must be positive
    """
    reasons = {}
    for amp in detector.amps:
        middle = float(product.distribution[amp.index, LEVELS.index(50)])
        if not product.n_input[amp.index]:
            reasons[amp.name] = "no exposure has a usable pixel in it"
        elif product.n_bad[amp.index] >= amp.data.height * amp.data.width:
            reasons[amp.name] = "all of its pixels are bad"
        elif divides and not middle > 0:
            reasons[amp.name] = f"its median response is {middle:.3g}"
    return reasons


def _halves(slabs: list[Combined], detector: Detector, n_input: Int32Array) -> NDArray[np.float64]:
    """Numbers of `OF_HALVES` of every amp, NaN if the halves were not compared."""
    out = np.full((len(n_input), len(OF_HALVES)), np.nan)
    compared = [slab.halves for slab in slabs if slab.halves is not None]
    if compared:
        whole = Halves._make(np.concatenate(planes, axis=1) for planes in zip(*compared, strict=True))
        for amp in detector.amps:  # padding is NaN
            out[amp.index] = compare_amp(Halves._make(plane[amp.index] for plane in whole), float(n_input[amp.index]))
    return out


def _pad(image: Pixels, variance: Pixels, mask: Int32Array, detector: Detector) -> None:
    """Mark what is beyond the pixels of each amp, and amps that the detector lacks."""
    sizes = {amp.index: (amp.data.height, amp.data.width) for amp in detector.amps}
    for a in range(image.shape[0]):
        height, width = sizes.get(a, (0, 0))
        for part in (np.s_[a, height:], np.s_[a, :height, width:]):
            image[part], variance[part], mask[part] = np.nan, np.nan, NO_DATA

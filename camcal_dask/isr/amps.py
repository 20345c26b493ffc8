"""Amps that are BAD as a whole (steps 3, 7 and 11), and why."""

from __future__ import annotations

from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from camcal_dask.instruments.geometry import Amp
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.overscan import Overscan
from camcal_dask.isr.raw import RawRows, Region
from camcal_dask.isr.statistics import READ_NOISE, SERIAL_MEDIAN
from camcal_dask.isr.tables import Prepared
from camcal_dask.kernels.arrays import Int32Array, Pixels
from camcal_dask.kernels.pixels.masks import BAD


class AmpStatus(IntFlag):
    """Why an amp is BAD as a whole."""

    LISTED = 1
    """Its gain is not usable, or ``IsrConfig.bad_amps`` names it."""
    NOISY = 2
    OVERSCAN_LEVEL = 4
    SATURATED = 8
    """Every pixel reaches the level of SAT or SUSPECT."""
    LINEARITY = 16
    """The linearizer has no usable values for it."""
    DEFERRED_CHARGE = 32
    """The cti calibration has no usable values for it."""


def find_bad_amps(raw: RawRows, levels: Overscan, tables: Prepared, config: IsrConfig) -> NDArray[np.float64]:
    """Bits of `AmpStatus` of every amp, (n_amp,) float64.

    Parameters
    ----------
    raw : RawRows
        All rows and columns.
    levels : Overscan
        Serial levels and their statistics are needed.
    """
    n = len(raw.detector.amps)
    status = np.where(tables.bad, int(AmpStatus.LISTED), 0)
    noise = levels.statistics[:n, READ_NOISE] * tables.gain * tables.to_electron
    with np.errstate(invalid="ignore"):
        noisy = (noise > config.amp_noise_threshold_e) | (tables.read_noise > config.amp_noise_threshold_e)
        pull = (levels.statistics[:n, SERIAL_MEDIAN] - tables.overscan_level) / tables.overscan_sigma
        far = np.abs(pull) > config.overscan_level_threshold
    status |= np.where(noisy, int(AmpStatus.NOISY), 0) | np.where(far, int(AmpStatus.OVERSCAN_LEVEL), 0)
    for problem, step in (
        (AmpStatus.LINEARITY, tables.linearity),
        (AmpStatus.DEFERRED_CHARGE, tables.deferred_charge),
    ):
        if step is not None:
            status[list(step.problems)] |= int(problem)
    for amp in raw.detector.amps:
        if _all_saturated(raw, amp, levels.serial[amp.index], tables):
            status[amp.index] |= int(AmpStatus.SATURATED)
    return status.astype(np.float64)


def _all_saturated(raw: RawRows, amp: Amp, serial: Pixels, tables: Prepared) -> bool:
    """Whether no data pixel lies below the level of SAT or SUSPECT; as a rule the first row tells."""
    level = min(tables.saturated[amp.index], tables.suspect[amp.index])
    if not np.isfinite(level):
        return False
    rows = (amp.data.y0 + 1, amp.data.y0 + amp.data.height)
    for low, high in ((amp.data.y0, amp.data.y0 + 1), rows):
        pixels = raw.pixels[amp.index, low:high, amp.data.x]
        if not (pixels - serial[low:high, None] >= level).all():
            return False
    return True


def flag_bad_amps(mask: Int32Array, status: NDArray[np.float64], regions: dict[int, Region]) -> None:
    """Flag all pixels of amps whose status (amp,) is neither 0 nor NaN as BAD, in place."""
    for a, (top, bottom, left, right) in regions.items():
        if np.isfinite(status[a]) and status[a] != 0:
            mask[a, : bottom - top, : right - left] |= BAD

"""Charge-transfer inefficiency from the charge found in the overscan (EPER; reference/verification.md 3.10)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from camcal_dask.kernels.arrays import AnyArray, FloatArray
from camcal_dask.kernels.statistics.moments import ClippedMean, clip_statistics

_SIGMA = 5.0


class Deferred(NamedTuple):
    """Charge trailed beyond the last column (or row), its standard error, and the signal of that column, a row [u]."""

    trailed: float
    error: float
    signal: float
    transfers: int

    @property
    def cti(self) -> float:
        """Inefficiency of one transfer: trailed / signal / (columns + 1); NaN without signal."""
        return self._per_transfer(self.trailed)

    @property
    def cti_error(self) -> float:
        """Standard error of `cti`."""
        return self._per_transfer(self.error)

    def _per_transfer(self, charge: float) -> float:
        return charge / self.signal / (self.transfers + 1) if self.signal > 0 else float("nan")


def serial(raw: AnyArray, columns: tuple[int, int], rows: tuple[int, int], n_trail: int = 2) -> Deferred:
    """Charge trailed along the serial register of one amp.

    Parameters
    ----------
    raw : (y, x) [u]
        Readout coordinates, nothing subtracted: a flat, or the clipped mean of several.
    columns, rows : (first, one past the last)
        Of the data area; the overscan columns follow it.
    n_trail : int
        Overscan columns whose charge counts; the median of the others is the level of a row.

    Returns
    -------
    Deferred
        Clipped means (5 sigma, 3 iterations) over the rows, summed over the columns.
    """
    area = raw[rows[0] : rows[1]]
    overscan = np.asarray(area[:, columns[1] :], np.float64)
    return _deferred(np.asarray(area[:, columns[1] - 1], np.float64), overscan, columns[1] - columns[0], n_trail)


def parallel(raw: AnyArray, columns: tuple[int, int], rows: tuple[int, int], n_trail: int = 2) -> Deferred:
    """Charge trailed along the columns of one amp; as `serial`, with the parallel overscan rows."""
    area = raw[:, columns[0] : columns[1]]
    overscan = np.asarray(area[rows[1] :], np.float64).T
    return _deferred(np.asarray(area[rows[1] - 1], np.float64), overscan, rows[1] - rows[0], n_trail)


def _deferred(last: FloatArray, overscan: FloatArray, transfers: int, n_trail: int) -> Deferred:
    if overscan.shape[1] <= n_trail:
        nan = float("nan")
        return Deferred(nan, nan, nan, transfers)
    level = np.median(overscan[:, n_trail:], axis=1)
    # each column by itself: the first holds nearly all the charge, and together they would clip one side only
    columns = [_clipped(overscan[:, k] - level) for k in range(n_trail)]
    error = math.sqrt(sum(c.error**2 for c in columns))
    return Deferred(sum(c.mean for c in columns), error, _clipped(last - level).mean, transfers)


def _clipped(values: FloatArray) -> ClippedMean:
    return clip_statistics(values.astype(np.float32), sigma=_SIGMA)


def read_noise(overscan: AnyArray, boxes: int = 100, side: int = 20, seed: int = 0) -> float:
    """Read noise as the median scatter of random boxes of the serial overscan (reference/verification.md 3.1).

    Parameters
    ----------
    overscan : (y, x) [u]
        Without its outermost two columns and rows; smaller than ``side``, one box is the whole.
    boxes, side : int
        Number of boxes and their side [pixel].
    seed : int
        The same boxes for every amp and exposure.

    Returns
    -------
    float [u]
    """
    height, width = min(side, overscan.shape[0]), min(side, overscan.shape[1])
    if min(height, width) < 2:
        return float("nan")
    rng = np.random.default_rng(seed)
    ys = rng.integers(0, overscan.shape[0] - height + 1, boxes)
    xs = rng.integers(0, overscan.shape[1] - width + 1, boxes)
    windows = np.lib.stride_tricks.sliding_window_view(overscan, (height, width))[ys, xs]
    return float(np.median(np.asarray(windows, np.float64).std(axis=(1, 2), ddof=1)))

"""Scales of a set of flats: one table of levels, two sets of factors (reference/construction.md 3.1, 3.2).

The level of unit i (a detector, or one amp) in exposure j is modelled as B_ij = G_i E_j.  Only
the table travels; pixels never move.  The flat is the stack of images divided by E_j, so
differences of throughput between detectors stay in the flat, and its mean over the focal plane is 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from camcal_dask.errors import DataError
from camcal_dask.kernels.arrays import BoolArray, FloatArray, IntArray, Mask, Pixels
from camcal_dask.kernels.statistics.moments import clip_statistics


class Levels(NamedTuple):
    """Levels of one exposure of one detector, clipped means [unit of the image].

    ``amp_mean``, ``amp_stdev`` float64 and ``amp_n`` int64 are (n_amp,); the others hold for all amps
    together.  The counts are of good pixels *before* clipping.  What upstream calls "median" is this
    clipped mean [Q5].  NaN and 0 where nothing is good.
    """

    mean: float
    stdev: float
    n: int
    amp_mean: FloatArray
    amp_stdev: FloatArray
    amp_n: IntArray


class FlatScales(NamedTuple):
    """Solution of B_ij = G_i E_j.

    Attributes
    ----------
    exposure_scale : (n_exp,) float64
        E_j, the level of the mean focal plane, by which images are divided; NaN without a usable level.
    unit_scale : trailing shape of the table, float64
        G_i, relative throughput, weighted mean 1; NaN without a usable level.
    residual : shape of the table, float64
        ln(B_ij / (G_i E_j)); NaN where the entry was not used.
    iterations : int
    change : float
        Largest change of ln E_j in the last iteration.
    """

    exposure_scale: FloatArray
    unit_scale: FloatArray
    residual: FloatArray
    iterations: int
    change: float


def measure_levels(image: Pixels, mask: Mask, reject: int) -> Levels:
    """Return the levels of one exposure of one detector.

    Parameters
    ----------
    image : (n_amp, y, x) float32
    mask : (n_amp, y, x) int32; set NO_DATA on what is vignetted first
    reject : OR of mask bits that exclude a pixel (DETECTED, BAD, NO_DATA upstream)
    """
    amps = [clip_statistics(i, m, reject) for i, m in zip(image, mask, strict=True)]
    whole = clip_statistics(image, mask, reject)
    return Levels(
        whole.mean,
        whole.stdev,
        whole.n + whole.n_clipped,
        np.array([a.mean for a in amps]),
        np.array([a.stdev for a in amps]),
        np.array([a.n + a.n_clipped for a in amps], np.int64),
    )


def solve_scales(
    levels: ArrayLike, counts: ArrayLike, *, max_iterations: int = 1000, tolerance: float = 1e-12
) -> FlatScales:
    """Solve the two-way model of a table of levels.

    Alternating weighted least squares of ln B_ij = ln G_i + ln E_j with the pixel counts as weights
    and the weighted mean of G held at 1.  Entries that are not finite or not above 0 have weight 0 [Q2].
    A complete table is solved after two iterations; with gaps the alternation needs more than the 10 of
    upstream (``max_iterations=10, tolerance=0`` repeats those), so it runs until nothing changes.

    Parameters
    ----------
    levels : (n_exp, n_detector) or (n_exp, n_detector, n_amp)
        Clipped means; the shape decides between the levels DETECTOR and AMP.
    counts : same shape
        Pixels behind each level.
    max_iterations, tolerance
        It stops when no ln E_j changes by more than ``tolerance``.

    Raises
    ------
    DataError
        If no entry is usable, or the exposures fall into groups without a common unit, whose relative
        scale nothing determines.
    """
    table = np.asarray(levels, np.float64)
    number = np.asarray(counts, np.float64)
    if table.shape != number.shape or table.ndim < 2:
        raise DataError(f"levels of shape {table.shape} and counts of shape {number.shape}: give (exposure, detector)")
    usable = np.isfinite(table) & (table > 0) & np.isfinite(number) & (number > 0)
    flat = usable.reshape(len(table), -1)
    _require_connected(flat)
    log = np.log(np.where(usable, table, 1.0)).reshape(flat.shape)
    weight = np.where(usable, number, 0.0).reshape(flat.shape)
    e, g, iterations, change = _alternate(log, weight, max_iterations, tolerance)
    residual = np.where(flat, log - e[:, None] - g, np.nan).reshape(table.shape)
    return FlatScales(np.exp(e), np.exp(g).reshape(table.shape[1:]), residual, iterations, change)


def _alternate(
    log: FloatArray, weight: FloatArray, max_iterations: int, tolerance: float
) -> tuple[FloatArray, FloatArray, int, float]:
    """Return ln E (n_exp,), ln G (n_unit,), iterations and last change; NaN for rows and columns without weight."""
    per_unit, per_exposure = weight.sum(axis=0), weight.sum(axis=1)
    g = np.zeros(log.shape[1])
    e = _mean(weight, log - g, per_exposure, axis=1)
    done, change = 0, np.inf
    while done < max_iterations and change > tolerance:
        before = e
        g = _mean(weight, log - e[:, None], per_unit, axis=0)
        g -= np.log((per_unit * np.exp(g)).sum() / per_unit.sum())
        e = _mean(weight, log - g, per_exposure, axis=1)
        done, change = done + 1, float(np.abs(e - before).max())
    return np.where(per_exposure > 0, e, np.nan), np.where(per_unit > 0, g, np.nan), done, change


def _mean(weight: FloatArray, values: FloatArray, total: FloatArray, axis: int) -> FloatArray:
    # Nothing to average: 0, which no weight ever lets out of its row or column.
    return np.asarray((weight * values).sum(axis=axis) / np.where(total > 0, total, 1.0))


def _require_connected(usable: BoolArray) -> None:
    """Refuse a table (n_exp, n_unit) whose used exposures are not linked by common units."""
    exposures = np.flatnonzero(usable.any(axis=1))
    if exposures.size == 0:
        raise DataError("flat: no level is finite and above 0; check the exposures and their masks")
    linked: BoolArray = np.zeros(len(usable), np.bool_)
    linked[exposures[0]] = True
    while True:
        units = usable[linked].any(axis=0)
        grown = np.asarray(usable[:, units].any(axis=1))
        if (grown == linked).all():
            break
        linked = grown
    apart = [int(j) for j in exposures if not linked[j]]
    if apart:
        raise DataError(
            f"flat: exposures at positions {apart} share no detector with that at position {exposures[0]}; "
            "their relative scale is unknown: select exposures with common detectors"
        )

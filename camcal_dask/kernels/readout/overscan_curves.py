"""Overscan as one number or as a smooth curve over the lines, instead of a level per line (reference/isr.md 2.2).

A curve is a least-squares fit of a polynomial in t = 2 i / N - 1 to the levels of the N lines, or a spline
through the mean levels of ``order`` bins of t.  Upstream puts the level of the first bin everywhere if fewer
than 5 bins hold a good line; here the mean of the lines takes its place.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import Chebyshev, Legendre, Polynomial

from camcal_dask.errors import ConfigError, nearest
from camcal_dask.kernels.arrays import FloatArray, Mask, Pixels
from camcal_dask.kernels.linearity.akima import akima_slopes
from camcal_dask.kernels.statistics.moments import clip_statistics, median

SCALARS = ("MEAN", "MEANCLIP", "MEDIAN")
POLYNOMIALS = {"POLY": Polynomial, "CHEB": Chebyshev, "LEG": Legendre}
SPLINES = ("NATURAL_SPLINE", "CUBIC_SPLINE", "AKIMA_SPLINE")
MIN_KNOTS = 5


def strip_level(pixels: Pixels, flags: Mask, reject: int, kind: str) -> float:
    """One level for the whole strip: mean, clipped mean or median of the finite pixels without ``reject``."""
    if kind == "MEDIAN":
        return median(pixels, flags, reject)
    if kind == "MEANCLIP":
        return clip_statistics(pixels, flags, reject).mean
    good = np.isfinite(pixels) & ((flags & reject) == 0)
    return float(pixels.mean(dtype=np.float64, where=good)) if good.any() else float("nan")


def smooth_levels(levels: FloatArray, weights: FloatArray, kind: str, order: int) -> FloatArray:
    """Fit a curve to the levels of the lines.

    Parameters
    ----------
    levels : (N,) finite
    weights : (N,) of the lines, 0 for those without pixels of their own (splines only)
    kind : one of ``POLYNOMIALS`` or ``SPLINES``
    order : degree of the polynomial, or number of bins of the spline

    Returns
    -------
    (N,) float64
    """
    n = levels.size
    t = 2.0 * np.arange(n) / n - 1.0
    if kind in POLYNOMIALS:
        fitted = POLYNOMIALS[kind].fit(t, levels, order, domain=[-1, 1])
        return np.asarray(fitted(t), np.float64)
    if kind not in SPLINES:
        raise ConfigError(f"unknown overscan fit {kind!r}{nearest(kind, (*SCALARS, *POLYNOMIALS, *SPLINES))}")
    x, y = _knots(t, levels, weights, order)
    if x.size < MIN_KNOTS:
        return np.full(n, np.average(levels, weights=weights) if weights.any() else levels.mean())
    return _spline(x, y, kind, t)


def _knots(t: FloatArray, levels: FloatArray, weights: FloatArray, n_bins: int) -> tuple[FloatArray, FloatArray]:
    """Weighted mean position and level of the bins that hold a line with weight."""
    index = np.minimum((0.5 * (t + 1.0) * n_bins).astype(int), n_bins - 1)
    total = np.bincount(index, weights, n_bins)
    used = total > 0
    x = np.bincount(index, weights * t, n_bins)[used] / total[used]
    y = np.bincount(index, weights * levels, n_bins)[used] / total[used]
    return x, y


def _spline(x: FloatArray, y: FloatArray, kind: str, t: FloatArray) -> FloatArray:
    """Cubic spline through (x, y), continued beyond the outermost knots."""
    from scipy.interpolate import CubicHermiteSpline, CubicSpline  # half a second that most campaigns need not wait

    if kind == "AKIMA_SPLINE":  # scipy's knows no classic rule where slopes are equal in pairs
        return np.asarray(CubicHermiteSpline(x, y, akima_slopes(x, y))(t))
    return np.asarray(CubicSpline(x, y, bc_type="natural" if kind == "NATURAL_SPLINE" else "not-a-knot")(t))

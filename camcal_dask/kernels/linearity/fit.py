"""Linearity from a ramp of flats: robust fits, groups of illumination, turnoff, polynomials and lookup rows.

See reference/ptc_linearity.md 7 and 12.  Arrays are those of one amp: ``abscissa`` exposure time [s] or
photodiode charge [C], ``ordinate`` mean signal [adu], one entry per flat (or pair), in any order.  The splines are in
:mod:`camcal_dask.kernels.linearity.spline`.

Where we differ from today's system:

- the weights of the robust fit multiply the squares of the residuals (there: the residuals, so that they enter
  squared), and weights given by the caller stay in force (there: for the first round only);
- the models of that fit are polynomials, so each round is a linear least-squares problem solved exactly.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from camcal_dask.errors import DataError, nearest
from camcal_dask.kernels.arrays import BoolArray, FloatArray, IntArray

Weight = Literal["cauchy", "anderson", "bisquare", "box", "welsch", "huber", "logistic", "fair"]
TUNING: dict[str, float] = {
    "cauchy": 2.385,
    "anderson": 1.339 * np.pi,
    "bisquare": 4.685,
    "box": 2.795,
    "welsch": 2.985,
    "huber": 1.345,
    "logistic": 1.205,
    "fair": 1.4,
}
"""Residual, in units of its scatter, at which each weight function begins to bite."""

SIGMA_OF_MAD = 1.482602218505602
_ROUNDS = 10
_FIRST_POINTS = 10
_FEWEST = 4


class Fit(NamedTuple):
    """Polynomial fit: parameters (order + 1) from the constant up, their errors, reduced chi2, final weights."""

    parameters: FloatArray
    errors: FloatArray
    chi2: float
    weights: FloatArray

    def __call__(self, x: FloatArray) -> FloatArray:
        """Value of the polynomial."""
        return np.asarray(np.polynomial.polynomial.polyval(x, self.parameters))


class Range(NamedTuple):
    """Where an amp is linear [adu]: largest linear signal, largest signal seen; ``good`` are the linear points."""

    turnoff: float
    max_signal: float
    good: BoolArray


class Polynomial(NamedTuple):
    """Coefficients c_0, c_1 .. of v + sum c_i v^(i+2), the fit they come from, and the points it used."""

    coefficients: FloatArray
    fit: Fit
    used: BoolArray


def robust_weights(residual: FloatArray, kind: Weight = "cauchy") -> FloatArray:
    """Weights of residuals (in units of their scatter) for an iteratively re-weighted fit.

    Raises
    ------
    DataError
        For an unknown kind.
    """
    if kind not in TUNING:
        raise DataError(f"weights of a robust fit: unknown kind {kind!r}{nearest(kind, get_args(Weight))}")
    z = np.abs(residual) / TUNING[kind]
    inside = z < 1
    tiny = np.maximum(z, 1e-12)
    weights: FloatArray = {
        "cauchy": lambda: 1 / (1 + z**2),
        "anderson": lambda: np.where(inside, np.sinc(z), 0.0),
        "bisquare": lambda: np.where(inside, (1 - z**2) ** 2, 0.0),
        "box": lambda: inside.astype(np.float64),
        "welsch": lambda: np.exp(-(z**2)),
        "huber": lambda: np.where(inside, 1.0, 1 / tiny),
        "logistic": lambda: np.tanh(tiny) / tiny,
        "fair": lambda: 1 / (1 + z),
    }[kind]()
    return weights


def irls_fit(
    x: FloatArray,
    y: FloatArray,
    order: int = 1,
    *,
    weights: FloatArray | None = None,
    kind: Weight = "cauchy",
    scale_by_root: bool = True,
) -> Fit:
    """Fit a polynomial robustly: least squares, then ten rounds of re-weighting.

    Parameters
    ----------
    x, y : (n,) finite
    order : of the polynomial
    weights : (n,) factors on the squared residuals that hold in every round
    kind : weight function
    scale_by_root : residuals are in units of sqrt(y) (y below 1 counts as 1), otherwise of y's unit

    Raises
    ------
    DataError
        If there are fewer points than parameters.
    """
    if len(x) <= order:
        raise DataError(f"robust fit: {len(x)} points for a polynomial of order {order}")
    own = np.ones_like(y) if weights is None else weights
    scatter = np.sqrt(np.maximum(y, 1.0)) if scale_by_root else np.ones_like(y)
    fit = _least_squares(x, y, order, own)
    for _ in range(_ROUNDS):
        fit = _least_squares(x, y, order, own * robust_weights((y - fit(x)) / scatter, kind))
    return fit


def _least_squares(x: FloatArray, y: FloatArray, order: int, weights: FloatArray) -> Fit:
    scale = float(np.abs(x).max()) or 1.0
    powers = scale ** np.arange(order + 1)
    root = np.sqrt(weights)[:, None]
    matrix = root * np.polynomial.polynomial.polyvander(x / scale, order)
    solution = np.linalg.lstsq(matrix, root[:, 0] * y, rcond=None)[0]
    free = len(x) - order - 1
    chi2 = float((weights * (y - np.polynomial.polynomial.polyval(x / scale, solution)) ** 2).sum()) / max(free, 1)
    covariance = np.linalg.pinv(matrix.T @ matrix)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0) * chi2) if free > 0 else np.full(order + 1, np.nan)
    return Fit(solution / powers, errors / powers, chi2, weights)


def mad_sigma(values: FloatArray) -> float:
    """Scatter from the median absolute deviation; NaN without values."""
    if not values.size:
        return np.nan
    return SIGMA_OF_MAD * float(np.median(np.abs(values - np.median(values))))


def find_groups(signal: FloatArray, abscissa: FloatArray, jump: float = 0.1, saturated: float = 0.9) -> IntArray:
    """Group flats by their illumination: signal per abscissa.

    Parameters
    ----------
    signal : (n,) mean signal of the detector, any unit
    abscissa : (n,)
    jump : relative step of signal/abscissa, in rising order, that begins another group
    saturated : points above this fraction of the largest signal join the group of the brightest one below,
        because there signal/abscissa falls by itself

    Returns
    -------
    (n,) group 0, 1 .. by rising illumination; -1 where signal or abscissa is not usable.
    """
    group = np.full(len(signal), -1, np.int64)
    usable = np.isfinite(signal) & np.isfinite(abscissa) & (abscissa > 0) & (signal > 0)
    if not usable.any():
        return group
    ratio = np.divide(signal, abscissa, out=np.full(len(signal), np.nan), where=usable)
    ratio = ratio / np.nanmedian(ratio)
    top = usable & (signal > saturated * signal[usable].max())
    below = np.flatnonzero(usable & ~top)
    if not below.size:
        group[top] = 0
        return group
    order = below[np.argsort(ratio[below], kind="stable")]
    group[order] = np.concatenate([[0], np.cumsum(np.diff(ratio[order]) > jump)])
    group[top] = group[below[np.argmax(signal[below])]]
    return group


def linear_range(
    abscissa: FloatArray,
    ordinate: FloatArray,
    used: BoolArray,
    group: IntArray,
    *,
    min_signal: float = 1000.0,
    max_turnoff: float = np.inf,
    max_residual: float = 0.01,
) -> Range:
    """Find up to which signal an amp is linear.

    Each group gets a slope through the origin, sum x / sum (x^2 / y); points whose relative residual (less its
    median over the fitted points) stays below ``max_residual`` are linear.  If there are no more than four, the
    worst fitted point goes and the fit is repeated.

    Parameters
    ----------
    abscissa, ordinate : (n,) the latter in adu
    used : (n,) points to begin with (those that the PTC used)
    group : (n,) of each point; -1 takes no part
    min_signal, max_turnoff : [adu] limits of the points fitted; nothing above ``max_turnoff`` is linear

    Returns
    -------
    Range.  ``turnoff`` is NaN if nothing can be fitted.
    """
    usable = np.isfinite(abscissa) & np.isfinite(ordinate) & (abscissa > 0) & (ordinate > 0) & (group >= 0)
    fitted = used & usable & (ordinate >= min_signal) & (ordinate <= max_turnoff)
    fitted |= _faintest_of_empty_groups(ordinate, usable, fitted, group)
    max_signal = _max_signal(ordinate[usable])
    while fitted.sum() >= _FEWEST:
        residual = _relative_residual(abscissa, ordinate, usable, fitted, group)
        good = usable & (np.abs(residual) < max_residual) & (ordinate < max_turnoff)
        if good.sum() > _FEWEST:
            turnoff = float(ordinate[good].max())
            return Range(turnoff, turnoff if turnoff == ordinate[usable].max() else max_signal, good)
        fitted[np.argmax(np.where(fitted, np.abs(residual), -1.0))] = False
    turnoff = float(ordinate[fitted].max()) if fitted.any() else np.nan
    return Range(turnoff, max_signal, np.zeros(len(ordinate), bool))


def _faintest_of_empty_groups(ordinate: FloatArray, usable: BoolArray, fitted: BoolArray, group: IntArray) -> BoolArray:
    extra = np.zeros(len(ordinate), bool)
    for g in np.setdiff1d(np.unique(group[usable]), np.unique(group[fitted])):
        members = np.flatnonzero(usable & (group == g))
        extra[members[np.argsort(ordinate[members])][:_FIRST_POINTS]] = True
    return extra


def _relative_residual(
    x: FloatArray, y: FloatArray, usable: BoolArray, fitted: BoolArray, group: IntArray
) -> FloatArray:
    """(y - slope x) / y about its median over the fitted points; inf where there is no slope."""
    residual = np.full(len(y), np.inf)
    for g in np.unique(group[fitted]):
        mine, all_mine = fitted & (group == g), usable & (group == g)
        slope = x[mine].sum() / (x[mine] ** 2 / y[mine]).sum()
        residual[all_mine] = 1 - slope * x[all_mine] / y[all_mine]
    return np.asarray(residual - np.median(residual[fitted]))


def _max_signal(y: FloatArray) -> float:
    return float(np.median(y[y > 0.99 * y.max()])) if y.size else np.nan


def fit_polynomial(
    abscissa: FloatArray,
    ordinate: FloatArray,
    used: BoolArray,
    *,
    order: int = 3,
    min_linear: float = 30.0,
    max_linear: float = 20000.0,
    n_sigma: float = 5.0,
) -> Polynomial:
    """Fit signal against what a line through its lower part predicts.

    Parameters
    ----------
    abscissa, ordinate, used : (n,)
    order : of the polynomial, at least 2
    min_linear, max_linear : [adu] range of the line
    n_sigma : points further than this times sqrt(ordinate) from the line leave the polynomial

    Returns
    -------
    Polynomial.  With y = sum k_m L^m, c_(m-2) = -k_m / k_1^m: the inverse to first order in the k_m.

    Raises
    ------
    DataError
        If too few points are left for a fit.
    """
    usable = used & np.isfinite(abscissa) & np.isfinite(ordinate)
    low = usable & (ordinate > min_linear) & (ordinate < max_linear)
    line = irls_fit(abscissa[low], ordinate[low])
    linear = line(abscissa)
    near = usable & (np.abs(ordinate - linear) < n_sigma * np.sqrt(np.abs(np.where(usable, ordinate, 0.0))))
    fit = irls_fit(linear[near], ordinate[near], order)
    k = fit.parameters
    coefficients = -k[2:] / k[1] ** np.arange(2, order + 1)
    return Polynomial(coefficients, fit, near)


def lookup_row(fit: Fit, n_column: int = 1 << 18) -> FloatArray:
    """Row of a lookup table (n_column,) [adu]: k_0 + k_1 t - P(t) at the t whose straight line reaches each column."""
    k = fit.parameters
    linear = np.linspace(0.0, (n_column - k[0]) / k[1], n_column)
    return np.asarray(k[0] + k[1] * linear - fit(linear))

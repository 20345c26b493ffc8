"""Fits of one photon-transfer curve: outliers, turnoff, roll-off and the models of the variance.

Everything here is of one amp, sorted by its mean: ``mean`` [adu], ``variance`` [adu^2], (n,) float64, NaN where there
is no measurement.  Steps and numbers: reference/ptc_linearity.md 6 and 7.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import optimize

from camcal_dask.kernels.arrays import BoolArray, FloatArray
from camcal_dask.kernels.ptc.models import exp_variance, exp_variance_jacobian, rolloff_variance

_TOLERANCE = 1e-13
_COARSE = 1e-4
_STUCK = 1 + 1e-4
_ROLLOFF_REACH = 5000.0
_ROLLOFF_START = -1200.0
_ROLLOFF_BOUNDS = ((-20000.0, -1e4), (0.0, -100.0))
"""Lower and upper bounds of T - turnoff and tau [adu]; T also reaches down to 0."""


class Start(NamedTuple):
    """Where the bounded fit begins and how far it may go: (a00 [1/electron], g [electron/adu], n2 [electron^2])."""

    parameters: tuple[float, float, float]
    lower: tuple[float, float, float]
    upper: tuple[float, float, float]


_INFINITE = (np.inf, np.inf, np.inf)
STARTS = {
    "current": Start((-2e-6, 1.5, 25.0), (-1e-4, 0.1, 0.0), (0.0, 10.0, 2000.0)),
    "legacy": Start((-1e-9, 1.0, 10.0), (-1e-4, 0.1, -2000.0), (1e-4, 10.0, 2000.0)),
    "unbounded": Start((-2e-6, 1.5, 25.0), (-np.inf, -np.inf, -np.inf), _INFINITE),
}
"""``legacy`` is from before 2025-09; ``unbounded`` is for binned differences."""


class OutlierRule(NamedTuple):
    """How outliers are found: levels in adu, or in electron if ``in_electron``."""

    max_signal: float = 50000.0
    """The first fit takes points up to this mean."""
    max_gap: float = 9000.0
    """A hole of rejected points of this width ends the curve."""
    in_electron: bool = True
    n_sigma: float = 5.0
    max_iterations: int = 2
    cap_variance: bool = True
    """The first fit takes variances [adu^2] only up to the number ``max_signal`` [adu], as upstream since 2025-10."""
    start: str = "current"


class Rejection(NamedTuple):
    """Points that survive, (n,) bool, and the parameters (3,) of the last bounded fit."""

    used: BoolArray
    parameters: FloatArray


class Fit(NamedTuple):
    """Parameters and their errors (m,), scaled by the reduced chi2; ``chi2`` is the reduced one."""

    parameters: FloatArray
    errors: FloatArray
    chi2: float


class Rolloff(NamedTuple):
    """Where the variance leaves the model.

    ``level``, its error, ``tau``, its error [adu] (NaN without a fit); ``used`` (n,) bool, the points of the final
    model fit; ``fitted`` (n,) bool, those of the roll-off fit (none without one).
    """

    level: float
    level_error: float
    tau: float
    tau_error: float
    used: BoolArray
    fitted: BoolArray


def reject_outliers(mean: FloatArray, variance: FloatArray, good: BoolArray, rule: OutlierRule) -> Rejection | None:
    """Find the points that follow Eq. 16, starting from the faint ones.

    The curve is fitted (bounded, unweighted), points further than ``n_sigma`` sqrt(variance) are rejected - an
    empirical scale, not the error of the variance - and the curve is cut at the first wide hole; then again with the
    survivors, until a pass ends with the points that it began with: all of ``good`` before the first, whose fit to the
    faint ones is only the start.  So a curve without outliers is left alone after one pass.

    Parameters
    ----------
    mean, variance : (n,) sorted by mean
    good : (n,) bool, points that may be used at all
    rule : OutlierRule

    Returns
    -------
    None if there is no point to start with, or fewer than 2 survive.
    """
    variance = np.where(variance == 0, 1e-9, variance)
    scale = float(np.nanmedian(mean / variance)) if rule.in_electron and np.isfinite(mean / variance).any() else 1.0
    max_signal, max_gap = rule.max_signal / scale, rule.max_gap / scale
    with np.errstate(invalid="ignore"):
        used = good & (mean <= max_signal) & ((variance <= max_signal) | (not rule.cap_variance))
        sigma = np.sqrt(variance)
    if not used.any():
        return None
    if rule.max_iterations == 0:
        return Rejection(good.copy(), _fit_bounded(mean[used], variance[used], rule.start))
    before = good
    for _ in range(rule.max_iterations):
        parameters = _fit_bounded(mean[used], variance[used], rule.start)
        with np.errstate(invalid="ignore"):
            used = good & (np.abs(variance - exp_variance(parameters, mean)) / sigma < rule.n_sigma)
        if used.sum() < 2:
            return None
        cut_at_hole(mean, used, max_gap)
        if np.array_equal(used, before):
            break
        before = used
    return Rejection(used, parameters)


def cut_at_hole(mean: FloatArray, used: BoolArray, max_gap: float) -> None:
    """Reject, in place, all from the first used point that follows rejected ones, ``max_gap`` above the last used."""
    kept = np.flatnonzero(used)
    hole = (np.diff(kept) > 1) & (np.diff(mean[kept]) >= max_gap)
    if hole.any():
        used[kept[1:][hole][0] :] = False


def cut_at_decrease(variance: FloatArray, good: BoolArray, min_variance: float) -> None:
    """Reject, in place, all above the start of the first two consecutive decreases of the variance.

    The turnoff rule of old (section 6.8); decreases count from ``min_variance`` [adu^2] on.
    """
    index = np.flatnonzero(good & np.isfinite(variance))
    falls = (np.diff(variance[index]) < 0) & (variance[index][:-1] > min_variance)
    runs = np.flatnonzero(falls[:-1] & falls[1:])
    if runs.size:
        good[index[runs[0]] + 1 :] = False


def reaches_full_well(
    mean: FloatArray, variance: FloatArray, scatter: FloatArray, used: BoolArray, n_sigma: float
) -> BoolArray:
    """Which points (n,) bool have pixels at the full well, though they still follow the curve.

    No pixel holds more than the full well.  What photon noise and response would put above it is missing from the
    variance: 4, 0.2 and 0.01 % of it where the mean is 2, 3 and 4 standard deviations of the pixels below; the charge
    turns up in other lags.  `reject_outliers` sees 2 % at best.  The full well is the lowest mean above the turnoff at
    which half the variance is gone: half the pixels are full there.  Without such a point nothing is known of it, and
    nothing is left out.

    Parameters
    ----------
    mean, variance : (n,) sorted by mean
    scatter : (n,) standard deviation of the pixels of one exposure [adu], light and response
    used : (n,) bool, points that follow the curve
    n_sigma : standard deviations
    """
    last = int(np.flatnonzero(used)[-1])
    with np.errstate(invalid="ignore"):
        full = (mean > mean[last]) & (variance < 0.5 * variance[last])
        return np.asarray(mean + n_sigma * scatter > np.min(mean[full], initial=np.inf))


def find_turnoff(mean: FloatArray, used: BoolArray) -> tuple[float, float]:
    """Return the largest used mean and its sampling error, half the distance of its neighbours [adu].

    Without a finite neighbour above, the error is the distance to the one below; NaN if there is none either.
    """
    last = int(np.flatnonzero(used)[-1])
    below = float(mean[last - 1]) if last > 0 else np.nan
    above = float(mean[last + 1]) if last + 1 < len(mean) else np.nan
    turnoff = float(mean[last])
    return turnoff, (above - below) / 2 if np.isfinite(above) else turnoff - below


def fit_exp(
    mean: FloatArray, variance: FloatArray, weight: FloatArray, start: FloatArray, *, minimiser: str = "lmdif"
) -> Fit:
    """Fit Eq. 16 without bounds, minimising sum [weight (model - variance)]^2.

    ``lmdif`` is upstream's minimiser with its coarse numerical derivatives (steps of 1 %), so that gains agree with
    upstream to all digits.  It stops within 1e-6 of the least chi2, but where it starts with n2 at a bound it may not
    move at all: then, and always for ``lmder``, the minimum is found with analytic derivatives.

    Parameters
    ----------
    mean, variance : (n,) finite, n >= 3
    weight : (n,) [1/adu^2]; 0 where not finite
    start : (3,) a00 [1/electron], g [electron/adu], n2 [electron^2]
    """
    weight = np.where(np.isfinite(weight), weight, 0.0)

    def residual(p: FloatArray) -> FloatArray:
        return np.asarray(weight * (exp_variance(p, mean) - variance))

    exact = optimize.leastsq(
        residual,
        start,
        Dfun=lambda p: weight[:, None] * exp_variance_jacobian(p, mean),
        full_output=True,
        ftol=_TOLERANCE,
        xtol=_TOLERANCE,
        maxfev=1000,
    )
    coarse = optimize.leastsq(residual, start, epsfcn=_COARSE, full_output=True) if minimiser == "lmdif" else exact
    least, chi2 = (float(np.sum(fit[2]["fvec"] ** 2)) for fit in (exact, coarse))
    found, covariance = exact[:2] if chi2 > _STUCK * least else coarse[:2]
    return _with_errors(found, covariance, min(chi2, least), len(mean))


def bootstrap_exp(mean: FloatArray, variance: FloatArray, weight: FloatArray, fit: Fit, n: int, seed: int = 0) -> Fit:
    """Mean and scatter of the parameters over ``n`` fits to variances plus N(0, |residual|); chi2 is that of ``fit``.

    (Upstream adds the weighted residuals, whose unit is another one.)
    """
    sigma = np.abs(variance - exp_variance(fit.parameters, mean))
    random = np.random.default_rng(seed)
    found = [
        fit_exp(mean, variance + sigma * random.standard_normal(len(mean)), weight, fit.parameters, minimiser="lmder")
        for _ in range(n)
    ]
    parameters = np.array([each.parameters for each in found])
    return Fit(parameters.mean(axis=0), parameters.std(axis=0), fit.chi2)


def fit_polynomial(mean: FloatArray, variance: FloatArray, weight: FloatArray, degree: int) -> Fit:
    """Fit variance = sum_k p_k mean^k, k = 0..degree < n, minimising sum [weight (model - variance)]^2."""
    weight = np.where(np.isfinite(weight), weight, 0.0)
    scale = float(np.abs(mean).max())
    design = weight[:, None] * np.vander(mean / scale, degree + 1, increasing=True)
    solution, _, rank, _ = np.linalg.lstsq(design, weight * variance, rcond=None)
    found = np.asarray(solution, np.float64)
    covariance = np.asarray(np.linalg.inv(design.T @ design), np.float64) if rank == degree + 1 else None
    fit = _with_errors(found, covariance, float(np.sum((design @ found - weight * variance) ** 2)), len(mean))
    unit = scale ** np.arange(degree + 1.0)
    return Fit(fit.parameters / unit, fit.errors / unit, fit.chi2)


def fit_rolloff(
    mean: FloatArray,
    variance: FloatArray,
    good: BoolArray,
    used: BoolArray,
    start: FloatArray,
    *,
    max_deviation: float,
    bounds: str = "current",
) -> Rolloff:
    """Fit the roll-off that begins below the turnoff, and find where it passes ``max_deviation`` of the variance.

    Parameters
    ----------
    mean, variance : (n,) sorted by mean
    good, used : (n,) bool, points that may be used at all, and those that follow Eq. 16
    start : (3,) parameters of Eq. 16
    max_deviation : relative deviation of the variance
    bounds : key of STARTS, for the first three parameters
    """
    last = int(np.flatnonzero(used)[-1])
    turnoff = float(mean[last])
    with np.errstate(invalid="ignore"):
        near = (mean >= turnoff) & (mean < turnoff + _ROLLOFF_REACH) & (variance <= variance[last])
    added = good & near & ~used
    if not added.any():
        return Rolloff(turnoff, np.nan, np.nan, np.nan, used.copy(), np.zeros_like(used))
    fitted = used | added
    limits = STARTS[bounds]
    (t_low, tau_low), (t_high, tau_high) = _ROLLOFF_BOUNDS
    lower = np.array([*limits.lower, min(turnoff + t_low, 0.0), tau_low])
    upper = np.array([*limits.upper, turnoff + t_high, tau_high])
    x, y = mean[fitted], variance[fitted]
    result = optimize.least_squares(
        lambda p: rolloff_variance(p, x) - y,
        np.clip([*start, turnoff, _ROLLOFF_START], lower, upper),
        bounds=(lower, upper),
    )
    level_error, tau_error = _errors_of(result.jac, 2 * result.cost, len(x))[3:]
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.abs(rolloff_variance(result.x, x) / exp_variance(result.x[:3], x) - 1)
    followed = x[deviation <= max_deviation]
    level = min(float(followed[-1]), turnoff) if followed.size else np.nan
    return Rolloff(level, level_error, float(result.x[4]), tau_error, fitted & (mean < level), fitted)


def _fit_bounded(mean: FloatArray, variance: FloatArray, start: str) -> FloatArray:
    """Unweighted fit of Eq. 16 within bounds, (3,)."""
    begin, lower, upper = STARTS[start]
    result = optimize.least_squares(
        lambda p: exp_variance(p, mean) - variance,
        begin,
        bounds=(lower, upper),
    )
    return np.asarray(result.x)


def _with_errors(parameters: FloatArray, covariance: FloatArray | None, chi2: float, n: int) -> Fit:
    """Scale the errors by the reduced chi2; NaN without a covariance or a degree of freedom."""
    freedom = n - len(parameters)
    reduced = chi2 / freedom if freedom > 0 else np.nan
    if covariance is None:
        return Fit(parameters, np.full(len(parameters), np.nan), reduced)
    return Fit(parameters, np.sqrt(np.diag(covariance) * reduced), reduced)


def _errors_of(jacobian: FloatArray, chi2: float, n: int) -> FloatArray:
    """Errors (m,) of parameters from the jacobian (n, m) of unit-weight residuals; NaN if it is singular."""
    norm = np.sqrt((jacobian**2).sum(axis=0))
    if not (norm > 0).all() or np.linalg.matrix_rank(jacobian / norm) < len(norm) or n <= len(norm):
        return np.full(len(norm), np.nan)
    scaled = jacobian / norm
    return np.asarray(np.sqrt(np.diag(np.linalg.inv(scaled.T @ scaled)) * chi2 / (n - len(norm))) / norm)

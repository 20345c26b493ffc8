"""Fit of the full covariance model (Astier+19 Eq. 20, or more of its terms) to the covariances of one amp.

The model is, at every lag, a polynomial of degree 4 in the mean, so the data of a lag act on chi2 only through the QR
decomposition of its weighted powers: hundreds of flat pairs become five numbers per lag (more for more terms), exactly.
The first of them is always matched by the free constant n_ij / g^2, which removes the noise plane from the search.
What is left, 4 r^2 residuals for a, c and g, goes to the minimum by Levenberg-Marquardt with analytic derivatives:
upstream's minimum (6e-8 in g, 2e-6 in a00; reference/ptc_linearity.md 7), some fifty times faster.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg

from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.ptc.models import EQ_20, LagPlanes, Polynomials, polynomials

_MAX_STEPS = 200
_CONVERGED = 1e-13
_ROUNDS_OF_START = 5


class CovarianceFit(NamedTuple):
    """Best parameters; errors of a (r, r), of the gain and of noise[0, 0], scaled by the reduced chi2; that chi2."""

    planes: LagPlanes
    a_err: FloatArray
    gain_err: float
    noise00_err: float
    chi2: float


class _Reduced(NamedTuple):
    """Data of every lag: chi2 = sum_lag |triangle q - target|^2 + rest, q coefficients in powers of mean / scale."""

    triangle: FloatArray  # (lag, 5, 5)
    target: FloatArray  # (lag, 5)
    unit: FloatArray  # (5,) powers of the scale
    rest: float
    n_values: int

    def model(self, planes: LagPlanes) -> Polynomials:
        """Model of as many powers as the data were reduced to."""
        return polynomials(planes, len(self.unit) - 2)


def fit_covariances(
    mean: FloatArray, covariance: FloatArray, weight: FloatArray, *, with_b: bool, order: int = EQ_20
) -> CovarianceFit | None:
    """Fit Eq. 20 (or a model of higher order), minimising sum [weight (model - covariance)]^2.

    Parameters
    ----------
    mean : (n,) float64 [adu], the pairs in use
    covariance : (n, r, r) float64 [adu^2], index (serial, parallel); a value that is not finite has no weight
    weight : (n, r, r) float64 [1/adu^2]; 0 where not finite
    with_b : whether b is free; else 0 everywhere (FULLCOVARIANCE_NO_B)
    order : highest power of mu g, see `ptc_models.polynomials`

    Returns
    -------
    None if there are fewer data than parameters, or no minimum with a positive gain is found.
    """
    side = covariance.shape[1]
    data = _reduce(mean, covariance.reshape(len(mean), -1), weight.reshape(len(mean), -1), order)
    freedom = data.n_values - (3 if with_b else 2) * side**2 - 1
    if freedom < 0:
        return None
    planes = _search(_first_guess(data, side), data, with_b)
    if planes is None:
        return None
    poly = data.model(planes)
    residual = _residual(poly, data)
    chi2 = (float(residual @ residual) + data.rest) / freedom if freedom else np.nan
    jacobian = _jacobian(poly, data, with_b)
    norm = _norms(jacobian)
    try:
        inverse = np.linalg.inv((jacobian / norm).T @ (jacobian / norm)) / np.outer(norm, norm)
    except np.linalg.LinAlgError:
        inverse = np.full((len(norm), len(norm)), np.nan)
    noise, by_rest = _noise(poly, data, planes.gain, with_b)
    variance00 = planes.gain**4 / data.triangle[0, 0, 0] ** 2 + by_rest @ inverse @ by_rest
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(np.diag(inverse) * chi2)
        noise00_err = float(np.sqrt(variance00 * chi2))
    a_err = errors[: side**2].reshape(side, side)
    return CovarianceFit(planes._replace(noise=noise.reshape(side, side)), a_err, float(errors[-1]), noise00_err, chi2)


def _reduce(mean: FloatArray, covariance: FloatArray, weight: FloatArray, order: int) -> _Reduced:
    """Decompose the weighted powers of every lag; (n,), (n, lag), (n, lag)."""
    usable = np.isfinite(covariance) & np.isfinite(weight) & (weight > 0)
    powers = order + 2
    weight = np.where(usable, weight, 0.0).T
    scale = float(np.abs(mean).max())
    augmented = np.zeros((covariance.shape[1], max(len(mean), powers + 1), powers + 1))
    augmented[:, : len(mean), :powers] = weight[:, :, None] * np.vander(mean / scale, powers, increasing=True)
    augmented[:, : len(mean), powers] = weight * np.where(usable, covariance, 0.0).T
    r = np.asarray(np.linalg.qr(augmented, mode="r"))
    rest = float(np.sum(r[:, powers, powers] ** 2))
    unit = scale ** np.arange(float(powers))
    return _Reduced(r[:, :powers, :powers], r[:, :powers, powers], unit, rest, int(usable.sum()))


def _all_rows(poly: Polynomials, data: _Reduced) -> FloatArray:
    """(lag, 5): model minus data, in units of the weights."""
    scaled = (poly.coefficients * data.unit[:, None]).T
    return np.asarray((data.triangle @ scaled[:, :, None])[:, :, 0] - data.target)


def _residual(poly: Polynomials, data: _Reduced) -> FloatArray:
    """(4 lag,): what the noise plane cannot take away."""
    return _all_rows(poly, data)[:, 1:].ravel()


def _rows_by_parameters(triangle: FloatArray, poly: Polynomials, unit: FloatArray, with_b: bool) -> FloatArray:
    """Derivatives (lag, rows, parameters) of rows of ``triangle`` (lag, rows, 5) by a, c and g, n apart."""
    blocks = [poly.by_a, poly.by_c] if with_b else [poly.by_a]
    stacked = np.concatenate([*blocks, poly.by_gain[:, :, None]], axis=2) * unit[:, None, None]
    return np.asarray(triangle[:, :, 1:] @ stacked[1:].transpose(1, 0, 2))


def _jacobian(poly: Polynomials, data: _Reduced, with_b: bool) -> FloatArray:
    rows = _rows_by_parameters(data.triangle[:, 1:], poly, data.unit, with_b)
    return rows.reshape(-1, rows.shape[2])


def _norms(jacobian: FloatArray) -> FloatArray:
    norm = np.sqrt(np.einsum("ij,ij->j", jacobian, jacobian))
    return np.where(norm > 0, norm, 1.0)


def _noise(poly: Polynomials, data: _Reduced, gain: float, with_b: bool) -> tuple[FloatArray, FloatArray]:
    """The noise plane (lag,) that matches the first row of every lag, NaN without data; derivatives of noise[0]."""
    pivot = data.triangle[:, 0, 0]
    pivot = np.where(pivot == 0, np.nan, pivot)
    now = poly.coefficients[0]
    noise = gain**2 * (now - _all_rows(poly, data)[:, 0] / pivot)
    row = _rows_by_parameters(data.triangle[:1, :1], _lag0(poly), data.unit, with_b)[0, 0]
    by_rest = -(gain**2) * row / pivot[0]
    by_rest[-1] += 2 * noise[0] / gain
    return noise, by_rest


def _lag0(poly: Polynomials) -> Polynomials:
    """The same at lag (0, 0) only."""
    return Polynomials(*(part[:, :1] for part in poly))


def _search(planes: LagPlanes, data: _Reduced, with_b: bool) -> LagPlanes | None:
    """Levenberg-Marquardt in a, c and g from a first guess; the noise plane is left alone."""
    poly = data.model(planes)
    residual = _residual(poly, data)
    chi2, damping = float(residual @ residual), 1e-4
    for _ in range(_MAX_STEPS):
        if not (np.isfinite(chi2) and planes.gain > 0):
            return None
        jacobian = _jacobian(poly, data, with_b)
        norm = _norms(jacobian)
        jacobian = jacobian / norm
        normal, gradient = jacobian.T @ jacobian, jacobian.T @ residual
        while damping < 1e8:
            step = _solve(normal, damping, gradient)
            trial = _moved(planes, -step / norm, with_b)
            trial_poly = data.model(trial)
            residual = _residual(trial_poly, data)
            new = float(residual @ residual)
            if new < chi2 and trial.gain > 0:
                break
            damping = max(damping, 1e-10) * 10
        else:
            return planes
        converged = chi2 - new <= _CONVERGED * (chi2 + data.rest) and damping <= 1e-6
        planes, poly, chi2 = trial, trial_poly, new
        damping = damping / 30
        if converged:
            break
    return planes


def _solve(normal: FloatArray, damping: float, gradient: FloatArray) -> FloatArray:
    """Solve the damped normal equations of unit diagonal."""
    damped = normal + max(damping, 1e-14) * np.eye(len(normal))
    try:
        return np.asarray(linalg.cho_solve(linalg.cho_factor(damped, overwrite_a=True, check_finite=False), gradient))
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(damped, gradient, rcond=1e-14)[0])


def _moved(planes: LagPlanes, step: FloatArray, with_b: bool) -> LagPlanes:
    shape, size = planes.a.shape, planes.a.size
    a = planes.a + step[:size].reshape(shape)
    c = planes.c + step[size : 2 * size].reshape(shape) if with_b else planes.c
    return LagPlanes(a, c, planes.noise, planes.gain + float(step[-1]))


def _first_guess(data: _Reduced, side: int) -> LagPlanes:
    """Upstream's start: up to five rounds of parabolas through what the model leaves, then c = 0."""
    zero = np.zeros((side, side))
    planes, least = LagPlanes(zero, zero, zero, 1.0), np.inf
    for _ in range(_ROUNDS_OF_START):
        rows = _all_rows(data.model(planes), data)
        chi2 = float(np.sum(rows**2))
        if not chi2 < least:
            break
        least, best = chi2, planes
        parabola = -(np.linalg.pinv(data.triangle[:, :, :3]) @ rows[:, :, None])[:, :, 0] / data.unit[:3]
        gain = 1 / (1 / planes.gain + parabola[0, 1])
        if not gain > 0:
            break
        constant, square = (parabola[:, k].reshape(side, side) for k in (0, 2))
        planes = LagPlanes(planes.a + square, zero, planes.noise + constant, float(gain))
    return best


def subtract_long_range(covariance: FloatArray, weight: FloatArray, start: int) -> FloatArray:
    """Subtract, pair by pair, the surface k0 + k1 i + k2 j + k3 i j fitted to the lags with i or j >= ``start``.

    Parameters
    ----------
    covariance, weight : (n, r, r) as for :func:`fit_covariances`
    start : first lag that counts as distant

    Returns
    -------
    (n, r, r); a pair with fewer than four distant values is returned as it is.
    """
    side = covariance.shape[1]
    i, j = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    design = np.stack([np.ones(i.shape), i, j, i * j], axis=-1)
    distant = (i >= start) | (j >= start)
    out = covariance.copy()
    for values, w in zip(out, weight, strict=True):
        use = distant & np.isfinite(values) & np.isfinite(w)
        if use.sum() >= design.shape[-1]:
            surface = np.linalg.lstsq(design[use] * w[use, None], values[use] * w[use], rcond=None)[0]
            values -= design @ surface
    return out

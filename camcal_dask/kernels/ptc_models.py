"""Photon-transfer models: variance (Astier+19 Eq. 16) and covariances (Eq. 20) against the mean signal.

References
----------
reference/ptc_linearity.md section 7; P. Astier et al., A&A 629, A36 (2019).

Means are in adu, variances in adu^2, gains in electron/adu, a and b in 1/electron, c = a b in 1/electron^2, noise in
electron^2.  Lag planes are quarter planes (serial, parallel) that stand for all four quadrants; **the centre of a
convolution is lag (0, 0), always**.  Upstream centres on the largest coefficient, which shifts every term of second and
third order as soon as a lag outgrows a_00; that is no option here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_SERIES_BELOW = 1e-2
POWERS = 5
"""The covariance model has powers 0..4 of the mean."""


def growth(x: FloatArray) -> FloatArray:
    """(exp(x) - 1) / x, continuous at 0."""
    safe = np.where(x == 0, 1.0, x)
    return np.where(x == 0, 1.0, np.expm1(safe) / safe)


def _growth_slope(x: FloatArray) -> FloatArray:
    """Derivative of :func:`growth`; the series near 0, where the closed form cancels."""
    safe = np.where(np.abs(x) < _SERIES_BELOW, 1.0, x)
    series = 1 / 2 + x * (1 / 3 + x * (1 / 8 + x * (1 / 30 + x * (1 / 144 + x / 840))))
    return np.where(np.abs(x) < _SERIES_BELOW, series, (np.exp(safe) - np.expm1(safe) / safe) / safe)


def exp_variance(parameters: FloatArray, mean: FloatArray) -> FloatArray:
    """Variance of Eq. 16: [exp(2 a00 g mu) - 1] / (2 a00 g^2) + n2 / g^2.

    Parameters
    ----------
    parameters : (3,) a00 [1/electron], g [electron/adu], n2 [electron^2]
    mean : (n,) [adu]

    Returns
    -------
    (n,) float64 [adu^2]; mu / g + n2 / g^2 where a00 = 0, inf where the exponential overflows.
    """
    a00, gain, noise2 = parameters
    with np.errstate(over="ignore"):
        return np.asarray(mean / gain * growth(2 * a00 * gain * mean) + noise2 / gain**2)


def exp_variance_jacobian(parameters: FloatArray, mean: FloatArray) -> FloatArray:
    """Derivatives (n, 3) of :func:`exp_variance` by its parameters."""
    a00, gain, noise2 = parameters
    x = 2 * a00 * gain * mean
    with np.errstate(over="ignore", invalid="ignore"):
        grown, slope = growth(x), _growth_slope(x)
    by_gain = (x * slope - grown) * mean / gain**2 - 2 * noise2 / gain**3
    return np.stack([2 * mean**2 * slope, by_gain, np.full_like(mean, 1 / gain**2)], axis=1)


def rolloff_variance(parameters: FloatArray, mean: FloatArray) -> FloatArray:
    """Eq. 16 minus the loss exp(-(mu - T) / tau) - 1 from T on.

    Parameters
    ----------
    parameters : (5,) a00, g, n2, T [adu], tau [adu] < 0
    mean : (n,) [adu]
    """
    start, tau = parameters[3:]
    beyond = np.maximum(mean - start, 0.0)
    with np.errstate(over="ignore"):
        return np.asarray(exp_variance(parameters[:3], mean) - np.expm1(-beyond / tau))


class LagPlanes(NamedTuple):
    """Parameters of Eq. 20: quarter planes (r, r) float64, index (serial, parallel).

    ``a`` [1/electron], ``c`` = a b [1/electron^2] (zero for the model without b), ``noise`` [electron^2],
    ``gain`` [electron/adu].
    """

    a: FloatArray
    c: FloatArray
    noise: FloatArray
    gain: float

    @property
    def b(self) -> FloatArray:
        """C / a (r, r) [1/electron]; NaN where a is 0."""
        return np.divide(self.c, self.a, out=np.full_like(self.a, np.nan), where=self.a != 0)


def padded_side(side: int) -> int:
    """Side of the quarter planes in which products of products are kept: int(1.5 r) + 1, as the reference."""
    return int(1.5 * side) + 1


def convolution_matrix(plane: FloatArray, rows: int, columns: int) -> FloatArray:
    """Matrix of the convolution with a quarter plane, between quarter planes of other sides.

    Parameters
    ----------
    plane : (s, s), zero beyond
    rows, columns : sides of the result and of the operand

    Returns
    -------
    (rows^2, columns^2) float64.  Column m is ``plane`` convolved with the unit charge at lags (+-m_i, +-m_j).
    """
    side = max(len(plane), rows + columns - 1)
    padded = np.zeros((side, side))
    padded[: len(plane), : len(plane)] = plane
    out, into = np.arange(rows)[:, None], np.arange(columns)[None, :]
    near, far, mirrored = np.abs(out - into), out + into, into[0] > 0
    serial = padded[near] + padded[far] * mirrored[:, None]  # (row_i, column_i, j)
    both = serial[:, :, near] + serial[:, :, far] * mirrored  # (row_i, column_i, row_j, column_j)
    return np.asarray(both.transpose(0, 2, 1, 3).reshape(rows**2, columns**2))


def convolve(first: FloatArray, second: FloatArray, side: int) -> FloatArray:
    """Convolution of two quarter planes on the whole lag plane, at lags 0..side-1: (side, side)."""
    return (convolution_matrix(first, side, len(second)) @ second.ravel()).reshape(side, side)


class Polynomials(NamedTuple):
    """Covariances as polynomials of the mean, and their derivatives by the parameters.

    ``coefficients`` (5, r^2): of mu^0..mu^4 [adu^(2-k)].  ``by_a`` and ``by_c`` (5, r^2, r^2), ``by_gain`` (5, r^2).
    The constant term is n / g^2: its derivative by n is 1 / g^2 at its own lag.
    """

    coefficients: FloatArray
    by_a: FloatArray
    by_c: FloatArray
    by_gain: FloatArray


def polynomials(p: LagPlanes) -> Polynomials:
    """Expand Eq. 20 in powers of the mean.

    C_ij = (mu/g) [delta + a x + (2/3) (a.a + c) x^2 + ((1/3) a.a.a + (5/6) a.c) x^3] + n / g^2,  x = mu g,

    where . is the convolution.  The derivatives are exact for the padded planes that are used.
    """
    side, g = len(p.a), p.gain
    wide = padded_side(side)
    a, c = p.a.ravel(), p.c.ravel()
    with_a = convolution_matrix(p.a, side, side)
    aa_wide = convolve(p.a, p.a, wide)
    with_aa = convolution_matrix(aa_wide, side, side)
    aa, aaa, ac = with_a @ a, with_aa @ a, with_a @ c
    delta = np.zeros(side**2)
    delta[0] = 1.0
    third = aaa / 3 + 5 / 6 * ac
    # a.a.a changes by the outer factor and by both factors of the inner product, which is cut off at the padding.
    aaa_by_a = with_aa + 2 * convolution_matrix(p.a, side, wide) @ convolution_matrix(p.a, wide, side)
    third_by_a = aaa_by_a / 3 + 5 / 6 * convolution_matrix(p.c, side, side)
    identity, zero = np.eye(side**2), np.zeros((side**2, side**2))
    return Polynomials(
        coefficients=np.stack([p.noise.ravel() / g**2, delta / g, a, 2 / 3 * g * (aa + c), g**2 * third]),
        by_a=np.stack([zero, zero, identity, 4 / 3 * g * with_a, g**2 * third_by_a]),
        by_c=np.stack([zero, zero, zero, 2 / 3 * g * identity, 5 / 6 * g**2 * with_a]),
        by_gain=np.stack([-2 * p.noise.ravel() / g**3, -delta / g**2, 0 * a, 2 / 3 * (aa + c), 2 * g * third]),
    )


def covariances(p: LagPlanes, mean: FloatArray) -> FloatArray:
    """Covariances of Eq. 20: (n, r, r) [adu^2] at means (n,) [adu]."""
    coefficients = polynomials(p).coefficients
    return (np.vander(mean, POWERS, increasing=True) @ coefficients).reshape(len(mean), *p.a.shape)


def covariances_jacobian(p: LagPlanes, mean: FloatArray) -> FloatArray:
    """Derivatives of :func:`covariances`, (n, r, r, 3 r^2 + 1): by a, c, n (each ravelled) and the gain."""
    parts = polynomials(p)
    lags = p.a.size
    by_noise = np.zeros((POWERS, lags, lags))
    by_noise[0] = np.eye(lags) / p.gain**2
    stacked = np.concatenate([parts.by_a, parts.by_c, by_noise, parts.by_gain[:, :, None]], axis=2)
    powers = np.vander(mean, POWERS, increasing=True)
    return np.asarray(np.tensordot(powers, stacked, axes=1).reshape(len(mean), *p.a.shape, -1))

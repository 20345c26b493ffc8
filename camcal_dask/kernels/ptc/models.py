"""Photon-transfer models: variance (Astier+19 Eq. 16) and covariances (Eq. 20) against the mean signal.

References
----------
reference/ptc_linearity.md 7; P. Astier et al., A&A 629, A36 (2019).

The covariance model is the series of the differential equation behind Eq. 20, which is its first four terms; higher
orders are a choice (`polynomials`).

Means are in adu, variances in adu^2, gains in electron/adu, a and b in 1/electron, c = a b in 1/electron^2, noise in
electron^2.  Lag planes are quarter planes (serial, parallel) that stand for all four quadrants; **the centre of a
convolution is lag (0, 0), always**.  Upstream centres on the largest coefficient, which shifts every term of second and
third order as soon as a lag outgrows a_00; that is no option here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from camcal_dask.kernels.arrays import FloatArray

_SERIES_BELOW = 1e-2
EQ_20 = 3
"""Order of the published covariance model: its bracket goes up to (mu g)^3, its covariances up to mu^4."""


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


class Polynomials(NamedTuple):
    """Covariances as polynomials of the mean, and their derivatives by the parameters.

    ``coefficients`` (order + 2, r^2): of mu^0, mu^1 ... [adu^(2-k)].  ``by_a`` and ``by_c`` (order + 2, r^2, r^2),
    ``by_gain`` (order + 2, r^2).  The constant term is n / g^2: its derivative by n is 1 / g^2 at its own lag.
    """

    coefficients: FloatArray
    by_a: FloatArray
    by_c: FloatArray
    by_gain: FloatArray


def polynomials(p: LagPlanes, order: int = EQ_20) -> Polynomials:
    """Expand the covariances in powers of the mean, the bracket up to x^order, x = mu g.

    While charge comes in, covariances grow by dC/dx = delta + 2 (a + c x) . C, where . is the convolution.  Its series
    C = sum alpha_n x^n has

        alpha_1 = delta,    alpha_(n+1) = 2 (a . alpha_n + c . alpha_(n-1)) / (n + 1),

    which up to alpha_4 is Eq. 20:

        C_ij = (mu/g) [delta + a x + (2/3) (a.a + c) x^2 + ((1/3) a.a.a + (5/6) a.c) x^3] + n / g^2

    The terms left out there are 2/15 (a_00 x)^4 and smaller: at 1e5 electron 1e-3 of the variance, as much as the
    statistical error of a pair.  The fit of Eq. 20 makes up for them with a_00 (0.8 % too negative).

    Products are kept on padded planes, as the reference.  Derivatives by a and c are convolutions with planes that
    obey the same recursion; at the very edge of the padding they are not those of the truncated products.
    """
    side, g = len(p.a), p.gain
    wide = padded_side(side)
    with_a, with_c = (convolution_matrix(plane, wide, wide) for plane in (p.a, p.c))
    zero, delta = np.zeros(wide**2), np.eye(1, wide**2)[0]
    alpha, by_a, by_c = [zero, delta], [zero, zero], [zero, zero]
    for n in range(1, order + 1):
        grown = [2 / (n + 1) * (with_a @ each[n] + with_c @ each[n - 1]) for each in (alpha, by_a, by_c)]
        by_a.append(grown[1] + 2 / (n + 1) * alpha[n])
        by_c.append(grown[2] + 2 / (n + 1) * alpha[n - 1])
        alpha.append(grown[0])
    power = g ** (np.arange(order + 2.0) - 2)
    inner = np.reshape(alpha, (-1, wide, wide))[:, :side, :side].reshape(-1, side**2)
    coefficients = power[:, None] * inner
    coefficients[0] = p.noise.ravel() / g**2
    exponent = np.arange(order + 2.0)[:, None] - 2
    spread_a, spread_c = (
        np.stack([convolution_matrix(plane.reshape(wide, wide), side, side) for plane in planes])
        for planes in (by_a, by_c)
    )
    return Polynomials(
        coefficients=coefficients,
        by_a=power[:, None, None] * spread_a,
        by_c=power[:, None, None] * spread_c,
        by_gain=exponent * coefficients / g,
    )


def covariances(p: LagPlanes, mean: FloatArray, order: int = EQ_20) -> FloatArray:
    """Covariances of the model: (n, r, r) [adu^2] at means (n,) [adu]; Eq. 20, or to a higher order of mu g."""
    coefficients = polynomials(p, order).coefficients
    return (np.vander(mean, order + 2, increasing=True) @ coefficients).reshape(len(mean), *p.a.shape)

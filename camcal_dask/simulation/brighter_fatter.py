"""Area coefficients a_ij and the boundary shifts that make them (Astier+19).

A pixel with charge Q changes the area of the pixel at lag (i, j) by a_ij Q.  Light that falls during the
exposure then gives covariances whose spectrum is, for a flat of mean mu [electron] and b_ij = 0,

    C(k) = mu (exp(2 a(k) mu) - 1) / (2 a(k) mu),    C_ij = mu [delta + a_ij mu + (2/3) (a*a)_ij mu^2 + ...],

whose first terms are Eq. 20 of that paper.  The simulator draws white Poisson light once and then moves charge between
pixels, by a polynomial in the operator u = a mu that stands for ``sqrt((exp(2 u) - 1) / (2 u))``.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from camcal_dask.kernels.simulator.sensor import area_flow, pad_edges
from camcal_dask.simulation.config import BrighterFatter

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]

_TOLERANCE = 5e-5
"""Of the polynomial, at the worst wavelength; the variance of a flat pair is known to 1.5e-3."""
_MAX_TERMS = 12
_WAVES = 64


def area_coefficients(strength: BrighterFatter) -> F8:
    """The a_ij of the quarter plane, with the outer ring that makes the plane sum zero.

    Returns
    -------
    (n, n) float64 [1/electron]
        First index serial lag, second parallel lag.
    """
    if strength.a:
        given = np.array(strength.a, np.float64)
    else:
        i, j = np.meshgrid(*2 * [np.arange(strength.range_pixel, dtype=np.float64)], indexing="ij")
        square = np.where((i == 0) & (j == 0), 1.0, i**2 + j**2)
        along = (strength.a10 * i**2 + strength.a01 * j**2) / square
        given = along * square ** (-strength.power / 2)
        given[0, 0] = strength.a00
    n = len(given)
    a = np.zeros((n + 1, n + 1))
    a[:n, :n] = given
    ring = -plane(a).sum() / (8 * n)
    a[n, :] = a[:, n] = ring
    return a * strength.enabled


def plane(a: F8) -> F8:
    """Mirror a quarter plane (n, n) to all lags -(n-1)..n-1, (2n-1, 2n-1)."""
    half = np.concatenate([a[:0:-1], a])
    return np.concatenate([half[:, :0:-1], half], axis=1)


def boundary_shifts(a: F8) -> tuple[F4, F4]:
    """Shifts of pixel boundaries, per electron, that change areas by ``a``.

    Many shifts give the same areas; these are the smallest: the gradient of a potential, which is the solution
    of Poisson's equation with no shift of the outermost boundaries.

    Parameters
    ----------
    a : (n, n) float64 [1/electron]
        Quarter plane whose plane sum is zero.

    Returns
    -------
    shift_e : (2r, r + 1) float32, shift_n : (2r + 1, r) float32 [pixel/electron]
        As :func:`camcal_dask.kernels.simulator.sensor.area_flow` wants them, r = n - 1.
    """
    full = plane(a)
    r = len(a) - 1
    size = 2 * r + 1
    k = np.arange(size)
    wave = 2 * np.cos(np.pi * k / size) - 2
    eigenvalue = wave[:, None] + wave[None, :]
    eigenvalue[0, 0] = 1.0
    cosines = np.sqrt(2 / size) * np.cos(np.pi * np.outer(k, 2 * k + 1) / (2 * size))  # the orthonormal DCT-II
    cosines[0] /= np.sqrt(2)
    spectrum = cosines @ full @ cosines.T / eigenvalue
    spectrum[0, 0] = 0.0
    potential = cosines.T @ spectrum @ cosines
    shift_e = np.diff(potential, axis=0)[:, r:]
    shift_n = np.diff(potential, axis=1)[:, r:]
    return shift_e.astype(np.float32), shift_n.astype(np.float32)


@functools.cache
def shifts_of(strength: BrighterFatter) -> tuple[F4, F4]:
    """Boundary shifts of a configuration."""
    return boundary_shifts(area_coefficients(strength))


def series(a: F8, light: float) -> F8:
    """Polynomial in u = a mu that moves charge, over all that u may be.

    The Taylor series, 1 + u/2 + 5/24 u^2 + ..., would need twice the terms: this is the least-squares polynomial
    through Chebyshev points of the range of u, exact at u = 0 as charge is kept, of the lowest degree that is good to
    5e-5.

    Parameters
    ----------
    a : (n, n) float64 [1/electron], quarter plane
    light : of the brightest pixel [electron]

    Returns
    -------
    (terms,) float64
        Coefficients of u, u^2, ...; none if the charge hardly moves.
    """
    waves = np.fft.fft2(plane(a), (_WAVES, _WAVES))
    phase = np.exp(2j * np.pi * (len(a) - 1) * np.fft.fftfreq(_WAVES))
    spectrum = (waves * phase[:, None] * phase).real * light
    low, high = spectrum.min(), spectrum.max()
    u = (high + low) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(32) + 0.5) / 32)
    x = np.where(u == 0, 1.0, 2 * u)
    wanted = np.where(u == 0, 1.0, np.sqrt(np.expm1(x) / x)) - 1
    for terms in range(_MAX_TERMS + 1):
        powers = u[:, None] ** np.arange(1, terms + 1)
        coefficients = np.linalg.lstsq(powers, wanted, rcond=None)[0] if terms else np.zeros(0)
        if np.abs(powers @ coefficients - wanted).max() <= _TOLERANCE:
            break
    return np.asarray(coefficients, np.float64)


def redistribute(charge: F4, light: F4, a: F8, shifts: tuple[F4, F4]) -> None:
    """Move charge as the pixel areas changed during the exposure.

    Parameters
    ----------
    charge : (y, x) float32 [electron]
        What the pixels would hold with fixed boundaries, noise included; changed in place, its sum is kept.
    light : (y, x) float32 [electron]
        Expectation of the light collected.
    a, shifts
        From :func:`area_coefficients` and :func:`boundary_shifts`.
    """
    source = charge
    total = np.zeros_like(charge)
    r = len(a) - 1
    for coefficient in series(a, float(light.max())):
        flow = np.empty_like(charge)
        area_flow(pad_edges(source, r), light, *shifts, flow)
        total += np.float32(coefficient) * flow
        source = flow
    charge += total

"""Area coefficients a_ij and the boundary shifts that make them (Astier+19).

A pixel with charge Q changes the area of the pixel at lag (i, j) by a_ij Q.  Light that falls during the
exposure then gives covariances whose spectrum is, for a flat of mean mu [electron] and b_ij = 0,

    C(k) = mu (exp(2 a(k) mu) - 1) / (2 a(k) mu),    C_ij = mu [delta + a_ij mu + (2/3) (a*a)_ij mu^2 + ...],

Eq. 20 of that paper.  The simulator draws white Poisson light once and then moves charge between pixels; to
second order in a mu and beyond that takes the operator series of ``sqrt((exp(x) - 1) / x)`` with x = 2 a mu.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from camcal_dask.kernels.sensor import area_flow, pad_edges
from camcal_dask.simulate.config import BrighterFatter

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]

SERIES = (1 / 2, 5 / 24, 1 / 16)
"""Coefficients of (a mu)^n, n = 1, 2, 3, in sqrt((exp(x) - 1) / x), x = 2 a mu; the next one is 0.0137."""

_NEGLIGIBLE = 1e-3


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
        As :func:`camcal_dask.kernels.sensor.area_flow` wants them, r = n - 1.
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


def n_terms(a: F8, light: float) -> int:
    """Terms of :data:`SERIES` that matter (0..3) for a brightest pixel of ``light`` electrons."""
    x = float(np.abs(plane(a)).sum()) * light
    return sum(coefficient * x**n > _NEGLIGIBLE for n, coefficient in enumerate(SERIES, 1))


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
    for coefficient in SERIES[: n_terms(a, float(light.max()))]:
        flow = np.empty_like(charge)
        area_flow(pad_edges(source, r), light, *shifts, flow)
        total += np.float32(coefficient) * flow
        source = flow
    charge += total

"""Akima's spline: slopes at the nodes, the spline as a linear function of values and slopes, its derivatives.

H. Akima, J. ACM 17, 589 (1970).
"""

from __future__ import annotations

import numpy as np

from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.compiled import compiled

_SAME_SLOPE = 1e-9


@compiled
def akima_slopes(x: FloatArray, y: FloatArray) -> FloatArray:
    """Derivatives of the classic Akima spline (1970) at its nodes.

    Parameters
    ----------
    x, y : (n,) float64 nodes in rising order, and values; n >= 2.

    Returns
    -------
    (n,) slopes. With chord slopes m extended by two on each side at constant second difference,
    s = (|m4-m3| m2 + |m2-m1| m3) / (|m4-m3| + |m2-m1|); where both differences vanish, (m2+m3)/2.
    """
    n = x.shape[0]
    m = np.empty(n + 3)
    for i in range(n - 1):
        m[i + 2] = (y[i + 1] - y[i]) / (x[i + 1] - x[i])
    if n == 2:
        return np.full(2, m[2])
    m[1] = 2 * m[2] - m[3]
    m[0] = 2 * m[1] - m[2]
    m[n + 1] = 2 * m[n] - m[n - 1]
    m[n + 2] = 2 * m[n + 1] - m[n]
    largest = 0.0
    for i in range(n):
        largest = max(largest, abs(m[i + 3] - m[i + 2]) + abs(m[i + 1] - m[i]))
    slopes = np.empty(n)
    for i in range(n):
        right, left = abs(m[i + 3] - m[i + 2]), abs(m[i + 1] - m[i])
        if right + left > _SAME_SLOPE * largest:
            slopes[i] = (right * m[i + 1] + left * m[i + 2]) / (right + left)
        else:
            slopes[i] = 0.5 * (m[i + 1] + m[i + 2])
    return slopes


def spline_basis(nodes: FloatArray, r: FloatArray) -> FloatArray:
    """Return the matrix (m, 2 n) that takes node values and slopes to the cubic spline at ``r`` (m,).

    Positions beyond the nodes are moved to the nearest node.
    """
    n = len(nodes)
    at = np.clip(r, nodes[0], nodes[-1])
    k = np.clip(np.searchsorted(nodes, at, side="right") - 1, 0, n - 2)
    step = nodes[k + 1] - nodes[k]
    t = (at - nodes[k]) / step
    basis = np.zeros((len(r), 2 * n))
    row = np.arange(len(r))
    basis[row, k] = (1 + 2 * t) * (1 - t) ** 2
    basis[row, k + 1] = t * t * (3 - 2 * t)
    basis[row, n + k] = t * (1 - t) ** 2 * step
    basis[row, n + k + 1] = t * t * (t - 1) * step
    return basis


def akima_spline(nodes: FloatArray, values: FloatArray, r: FloatArray) -> FloatArray:
    """Evaluate the Akima spline through (nodes, values) at ``r`` (m,), constant beyond the nodes."""
    return np.asarray(_evaluate(nodes, values, akima_slopes(nodes, values), r))


def slopes_jacobian(nodes: FloatArray, values: FloatArray) -> FloatArray:
    """Derivatives (2 n, n) of values and slopes by the values; central differences, the slopes are nearly linear."""
    h = 1e-5 * max(float(np.abs(np.diff(values)).max()), 1e-6)
    return np.vstack([np.eye(len(values)), _slope_derivatives(nodes, values, h)])


def akima_jacobian(nodes: FloatArray, values: FloatArray, r: FloatArray) -> FloatArray:
    """Derivatives (m, n) of `akima_spline` at ``r`` by the node values."""
    return np.asarray(_basis_times(nodes, slopes_jacobian(nodes, values), r))


@compiled
def _slope_derivatives(nodes: FloatArray, values: FloatArray, h: float) -> FloatArray:
    n = values.shape[0]
    out = np.empty((n, n))
    moved = values.copy()
    for k in range(n):
        moved[k] = values[k] + h
        above = akima_slopes(nodes, moved)
        moved[k] = values[k] - h
        below = akima_slopes(nodes, moved)
        for i in range(n):  # whole columns would cost five seconds of compilation
            out[i, k] = (above[i] - below[i]) / (2 * h)
        moved[k] = values[k]
    return out


@compiled(inline="always")
def _hermite(nodes: FloatArray, r: float) -> tuple[int, float, float, float, float]:
    """Piece of a position and the factors on value and slope at its two ends."""
    at = min(max(r, nodes[0]), nodes[-1])
    k = min(max(np.searchsorted(nodes, at, side="right") - 1, 0), nodes.shape[0] - 2)
    step = nodes[k + 1] - nodes[k]
    t = (at - nodes[k]) / step
    return k, (1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t), t * (1 - t) ** 2 * step, t * t * (t - 1) * step


@compiled
def _evaluate(nodes: FloatArray, values: FloatArray, slopes: FloatArray, r: FloatArray) -> FloatArray:
    out = np.empty(r.shape[0])
    for i in range(r.shape[0]):
        k, v0, v1, s0, s1 = _hermite(nodes, r[i])
        out[i] = v0 * values[k] + v1 * values[k + 1] + s0 * slopes[k] + s1 * slopes[k + 1]
    return out


@compiled
def _basis_times(nodes: FloatArray, matrix: FloatArray, r: FloatArray) -> FloatArray:
    n = nodes.shape[0]
    out = np.empty((r.shape[0], matrix.shape[1]))
    for i in range(r.shape[0]):
        k, v0, v1, s0, s1 = _hermite(nodes, r[i])
        for j in range(matrix.shape[1]):
            out[i, j] = v0 * matrix[k, j] + v1 * matrix[k + 1, j] + s0 * matrix[n + k, j] + s1 * matrix[n + k + 1, j]
    return out

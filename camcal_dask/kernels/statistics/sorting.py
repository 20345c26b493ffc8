"""Quantiles of many columns at once: a sorting network that runs over all columns in step."""

from __future__ import annotations

import functools

import numpy as np

from camcal_dask.kernels.arrays import FloatArray, Int32Array, Pixels
from camcal_dask.kernels.compiled import compiled


@functools.cache
def sorting_network(n: int) -> Int32Array:
    """Return the comparators (i, j), i < j, of Batcher's odd-even merge sort of ``n`` values, (m, 2) int32."""
    pairs = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                low = range(j, min(j + k, n - k))
                pairs += [(i, i + k) for i in low if i // (2 * p) == (i + k) // (2 * p)]
            k //= 2
        p *= 2
    return np.array(pairs, np.int32).reshape(-1, 2)


@compiled
def sort_columns(a: Pixels, pairs: Int32Array) -> None:
    """Sort ``a`` (n, m) float32, C order, along axis 0 in place; no NaN (use +inf for "absent").

    As integers of the same order: the smaller of two floats is compiled to masked stores, four times slower on AMD.
    """
    keys = a.view(np.int32)
    _flip_negative(keys)
    for k in range(pairs.shape[0]):
        low, high = keys[pairs[k, 0]], keys[pairs[k, 1]]
        for i in range(a.shape[1]):
            x, y = low[i], high[i]
            low[i], high[i] = min(x, y), max(x, y)
    _flip_negative(keys)


@compiled
def _flip_negative(bits: Int32Array) -> None:
    """Turn the bits of float32 numbers into integers of the same order, and back."""
    for e in range(bits.shape[0]):
        row = bits[e]
        for i in range(row.size):
            row[i] ^= (row[i] >> np.int32(31)) & np.int32(0x7FFFFFFF)


@compiled
def column_quantile(a: Pixels, n: Int32Array, fraction: float, out: FloatArray) -> None:
    """Quantile of the first ``n[i]`` of the sorted values of each column of ``a`` (k, m) float32; out (m,) float64."""
    total = a.shape[0]
    at = fraction * (total - 1)
    j = int(at)
    part, lower, upper = at - j, a[j], a[min(j + 1, total - 1)]
    for i in range(a.shape[1]):  # nearly every column is complete: a loop that vectorises
        low = np.float64(lower[i])
        out[i] = low + part * (np.float64(upper[i]) - low)
    for i in range(a.shape[1]):
        if n[i] == 0:
            out[i] = np.nan
        elif n[i] < total:
            at = fraction * (n[i] - 1)
            j = int(at)
            low = np.float64(a[j, i])
            out[i] = low + (at - j) * (np.float64(a[min(j + 1, n[i] - 1), i]) - low)

"""Correlations between amplifiers, of one CCD or of a raft (reference/verification.md 1.13, 3.4, 3.5)."""

from __future__ import annotations

import numpy as np

from camcal_dask.kernels.arrays import AnyArray, FloatArray, Pixels


def deviations(pixels: AnyArray, sigma: float = 10.0) -> Pixels:
    """Standardised pixels of one amp, in readout order, for `correlate`.

    Parameters
    ----------
    pixels : (y, x) [u]
        Of one amp; what lies beyond ``sigma`` robust standard deviations counts as the median.

    Returns
    -------
    (y x,) float32 of mean 0 and sum of squares 1; NaN if the pixels do not vary or one is unknown.
    """
    values = np.asarray(pixels, np.float64).ravel()
    low, median, high = np.percentile(values, [25, 50, 75])
    limit = sigma * 0.7413 * (high - low)
    centred = np.where(np.abs(values - median) <= limit, values - median, 0.0)
    centred -= centred.mean()
    norm = np.sqrt(np.sum(centred**2))
    return (centred / norm if norm > 0 else np.full(values.size, np.nan)).astype(np.float32)


def correlate(first: Pixels, second: Pixels) -> FloatArray:
    """Pearson correlations of two sets of amps.

    Parameters
    ----------
    first, second : (n, pixel), (m, pixel) float32
        From `deviations`, pixels of one index sampled together.

    Returns
    -------
    (n, m) float64; NaN for an amp without values.
    """
    alive = np.isfinite(first[:, 0])[:, None] & np.isfinite(second[:, 0])[None, :]
    products = np.nan_to_num(first) @ np.nan_to_num(second).T
    return np.where(alive, products, np.nan).astype(np.float64)


def flat_difference(first: AnyArray, second: AnyArray) -> FloatArray:
    """Difference of two flats of one amp weighted to equal levels: i1 m2 / m - i2 m1 / m, m the mean of the medians."""
    m1, m2 = float(np.median(first)), float(np.median(second))
    mean = 0.5 * (m1 + m2)
    return np.asarray(first * (m2 / mean) - second * (m1 / mean), np.float64)

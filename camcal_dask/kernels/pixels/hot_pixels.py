"""Hot pixels and hot columns of a combined dark, distinguished from glow by their sharpness."""

from __future__ import annotations

import numpy as np

from camcal_dask.kernels.arrays import AnyArray, BoolArray

HOT_PER_S = 3.0
"""A pixel this far above its surroundings is hot [electron/s], as in defects (reference/construction.md 5)."""
SIDE = 5
"""Columns at each side that are the surroundings."""
_SIGNIFICANCE = 6.0
Q95 = 1.6448536269514722
"""95th percentile of a Gaussian of standard deviation 1."""


def hot_pixels(rate: AnyArray, threshold: float = HOT_PER_S, side: int = SIDE) -> BoolArray:
    """Find pixels of one amp that stand out of their row by more than ``threshold``, and by six sigma of its noise.

    Parameters
    ----------
    rate : (y, x) float [electron/s]
        An amp of a combined dark; NaN where there is no pixel, which is not hot.
    threshold : float
        Least excess over the median of the surroundings [electron/s].
    side : int
        Columns at each side that are the surroundings; what is wider than these, as glow or a light leak, is not hot.

    Returns
    -------
    (y, x) bool
    """
    good = rate[np.isfinite(rate)]
    if good.size == 0:
        return np.zeros(rate.shape, bool)
    low, middle = np.percentile(good, [5, 50])
    least = max(threshold, _SIGNIFICANCE * (middle - low) / Q95)  # the noise by what is below: the rest has the tail
    y, x = np.nonzero(rate > middle + least)
    padded = np.pad(np.asarray(rate, np.float64), ((0, 0), (side, side)), constant_values=np.nan)
    around = np.stack([padded[y, x + i] for i in range(2 * side + 1)])  # itself included: the edge of glow is not hot
    found = np.zeros(rate.shape, bool)
    if y.size:
        found[y, x] = rate[y, x] - np.nanmedian(around, axis=0) > least
    return found

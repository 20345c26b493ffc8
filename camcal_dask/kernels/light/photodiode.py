"""Charge of a photodiode reading, by every method in use (reference/ptc_linearity.md 11)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from camcal_dask.kernels.arrays import FloatArray

Method = Literal["trimmed_sum", "direct_sum", "charge_sum", "mean"]

_DARK_PARTS = 5  # samples in the lowest of so many parts of the range are dark
_CLIP_SIGMA, _CLIP_ROUNDS = 3.0, 5
_LIGHT_PART = 0.05  # charge samples above this part of the range are light
_LIGHT_MARGIN = 2  # samples on both sides of the light that count as light too


def charge(
    time: FloatArray,
    current: FloatArray,
    method: Method = "trimmed_sum",
    *,
    scale: float = -1.0,
    exposure_time: float = float("nan"),
) -> float:
    """Integrate one reading.

    Parameters
    ----------
    time : (sample,) float64 [s]
    current : (sample,) float64 [A]; for ``charge_sum`` the charge [C] of the interval that ends at ``time``
    method : str
        ``trimmed_sum``: trapezoid of the scaled current less its dark level, that of the samples in the lowest fifth
        of the range, see `dark_level`.  ``direct_sum``: trapezoid of the current as it is.
        ``charge_sum``: sum of the charges less the background current outside the light.
        ``mean``: mean scaled current times ``exposure_time``.
    scale : float
        -1 for an electrometer that counts the light negative, as upstream; ``direct_sum`` ignores it.
    exposure_time : float [s]
        For ``mean``.

    Returns
    -------
    Charge [C]; NaN if there are fewer than two samples or one is not finite.
    """
    if time.size < 2 or not (np.isfinite(time).all() and np.isfinite(current).all()):
        return float("nan")
    if method == "direct_sum":
        return float(np.trapezoid(current, time))
    scaled = scale * current
    if method == "mean":
        return float(scaled.mean() * exposure_time)
    if method == "charge_sum":
        return _charge_sum(np.diff(time), scaled[1:])
    low, high = scaled.min(), scaled.max()
    dark = scaled[scaled < low + (high - low) / _DARK_PARTS]
    baseline = dark_level(dark) if dark.size else low
    return float(np.trapezoid(scaled - baseline, time))


def dark_level(current: FloatArray) -> float:
    """Mean of the samples (sample,) [A] after clipping about their median.

    Up to five times, the samples beyond 3 standard deviations (1/N) of the median of what is left are dropped, until
    none is: astropy's default, as upstream.  The clipped mean of pixels is another one: its first window is the
    interquartile range, which for a short dark makes 1e-4 of the charge.
    """
    for _ in range(_CLIP_ROUNDS):
        kept = np.abs(current - np.median(current)) <= _CLIP_SIGMA * current.std()
        if kept.all():
            break
        current = current[kept]
    return float(current.mean())


def light_sign(current: FloatArray) -> float:
    """Scale that makes the light of a reading positive: the sign of its largest sample, 1 if there is none."""
    return -1.0 if current.size and current[np.argmax(np.abs(current))] < 0 else 1.0


def _charge_sum(interval: FloatArray, charges: FloatArray) -> float:
    current = charges / interval
    low, high = current.min(), current.max()
    light = np.flatnonzero(current > low + _LIGHT_PART * (high - low))
    near = np.zeros(current.size, bool)
    for i in light:
        near[max(i - _LIGHT_MARGIN, 0) : i + _LIGHT_MARGIN + 1] = True
    background = charges[~near].sum() / interval[~near].sum() if not near.all() else 0.0
    return float((charges - background * interval).sum())

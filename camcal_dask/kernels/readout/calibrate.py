"""Pixel-local steps of the instrument signature removal on one amp: levels, gain, bias, dark, flat, variance.

All take 2-D arrays (y, x): image float32 [u], masks int32, changed in place; nothing couples pixels, so
any rows may be done by themselves (reference/isr.md 2.3, 2.4, 2.10-2.13).
"""

from __future__ import annotations

import numpy as np

from camcal_dask.kernels.arrays import AnyArray, Mask, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.pixels.masks import BAD, NO_DATA, SAT, SUSPECT, UNMASKEDNAN

NO_DATA_VARIANCE = 1e10
"""Variance of pixels without light."""


@compiled
def flag_and_scale(image: Pixels, mask: Mask, saturated: np.float32, suspect: np.float32, gain: np.float32) -> int:
    """Set SAT and SUSPECT where ``image`` [adu] reaches a level, then multiply it by ``gain`` (float32).

    Levels are float32 [adu]; NaN or inf flags nothing.  Returns the number of pixels flagged SAT or SUSPECT.
    """
    sat, sus, none = np.int32(SAT), np.int32(SUSPECT), np.int32(0)
    n = 0
    for y in range(image.shape[0]):
        row, flags = image[y], mask[y]
        for x in range(row.shape[0]):
            found = (sat if row[x] >= saturated else none) | (sus if row[x] >= suspect else none)
            flags[x] |= found
            n += 1 if found != 0 else 0
            row[x] *= gain
    return n


@compiled
def subtract_plane(image: Pixels, plane: Pixels, scale: np.float32) -> None:
    """Subtract ``scale`` (float32) times a calibration."""
    for y in range(image.shape[0]):
        row, value = image[y], plane[y]
        for x in range(row.shape[0]):
            row[x] -= scale * value[x]


@compiled
def flag_defects(mask: Mask, defects: AnyArray, height: int, width: int) -> None:
    """Set BAD where any bit of ``defects`` is set, in the first ``height`` rows and ``width`` columns."""
    for y in range(height):
        bits, found = mask[y, :width], defects[y, :width]
        for x in range(bits.shape[0]):
            bits[x] |= np.int32(BAD) if found[x] != 0 else np.int32(0)


@compiled
def flag_not_finite(values: Pixels, mask: Mask, height: int, width: int) -> None:
    """Set UNMASKEDNAN where ``values`` are not finite, in the first ``height`` rows and ``width`` columns."""
    nan, none = np.int32(UNMASKEDNAN), np.int32(0)
    for y in range(height):
        row, bits = values[y, :width], mask[y, :width]
        for x in range(row.shape[0]):
            bits[x] |= none if abs(row[x]) < np.inf else nan


@compiled
def divide_flat(
    image: Pixels, mask: Mask, flat: Pixels, flags: Mask, scale: np.float32, height: int, width: int
) -> None:
    """Divide the first rows and columns by ``scale * flat`` and OR the flat's mask; 0 where it says NO_DATA.

    A flat that is not finite or not positive, without NO_DATA, makes the pixel NaN, BAD and UNMASKEDNAN.
    """
    no_data, bad = np.int32(NO_DATA), np.int32(BAD | UNMASKEDNAN)
    for y in range(height):
        row, bits, level, more = image[y, :width], mask[y, :width], flat[y, :width], flags[y, :width]
        for x in range(row.shape[0]):
            f = scale * level[x]
            good = (f > np.float32(0)) & (f < np.inf)
            value = row[x] / (f if good else np.float32(1))
            dark = (more[x] & no_data) != 0
            value = value if good else np.float32(np.nan)
            row[x] = np.float32(0) if dark else value
            bits[x] |= more[x] | (np.int32(0) if good | dark else bad)


@compiled
def variance(
    image: Pixels,
    noise: float,
    bias: Pixels,
    dark: Pixels,
    dark_scale: float,
    flat: Pixels,
    flat_variance: Pixels,
    flags: Mask,
    flat_scale: float,
    out: Pixels,
) -> None:
    """Variance of the corrected image, from the image itself (reference/isr.md 2.12 with G = 1, and 0.3).

    With I the image before the flat, V = I + V_bias + s^2 V_dark + noise; after it, with I' = I / cF,
    V' = (I'^2 V_F + V / c^2) / F^2, and 1e10 where the flat says NO_DATA.

    Parameters
    ----------
    image : (y, x) float32, final: after the flat, if there is one
    noise : read-noise term
    bias, dark, flat, flat_variance, flags : (y, x) calibrations; (0, 0) for those not applied
    dark_scale, flat_scale : s, c
    out : (y, x) float32, written
    """
    s2, c2 = dark_scale * dark_scale, flat_scale * flat_scale
    with_bias, with_dark, with_flat = bias.shape[0] > 0, dark.shape[0] > 0, flat.shape[0] > 0
    n = image.shape[1]
    total = np.empty(n)
    for y in range(image.shape[0]):
        row, target = image[y], out[y]
        for x in range(n):
            total[x] = np.float64(row[x]) * (flat_scale * flat[y, x] if with_flat else 1.0) + noise
        if with_bias:
            for x in range(n):
                total[x] += bias[y, x]
        if with_dark:
            for x in range(n):
                total[x] += s2 * dark[y, x]
        if with_flat:
            for x in range(n):
                i, f = np.float64(row[x]), np.float64(flat[y, x])
                v = (i * i * flat_variance[y, x] + total[x] / c2) / (f * f if f > 0 else np.nan)
                total[x] = NO_DATA_VARIANCE if (flags[y, x] & NO_DATA) != 0 else v
        for x in range(n):
            target[x] = total[x]

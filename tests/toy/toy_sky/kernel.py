"""Numbers from arrays, and nothing else."""

import numpy as np


def median(stack):
    """Median over the exposures of a stack (exposure, amp, y, x) [electron]; NaN where a pixel is never there."""
    known = np.isfinite(stack)
    filled = np.where(known.any(axis=0), stack, 0)
    return np.where(known.any(axis=0), np.nanmedian(filled, axis=0), np.nan).astype(np.float32)


def levels(image, percent):
    """Level, scatter, pixels and percentiles of each amp of an image (amp, y, x) [electron]."""
    flat = [amp[np.isfinite(amp)].astype(np.float64) for amp in image]
    return {
        "level": np.array([np.median(v) for v in flat]),
        "scatter": np.array([v.std() for v in flat]),
        "n_pixel": np.array([v.size for v in flat]),
        "percentile": np.array([np.percentile(v, percent) for v in flat]),
    }

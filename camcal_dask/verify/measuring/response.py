"""Whether a flat has the pixel response right: what its own differences of pixels leave in the flats it divides.

With the response r, the flat f = 1 + s (r - 1) + n and an exposure x = r + e, the quotient x / f holds
(1 - s)(r - 1) - n + e.  Its covariance with f over the pixels of an amp is s (1 - s) var(r) - var(n) + cov(e, n), so

    slope = (cov + var(n) - cov(e, n)) / (var(f) - var(n)) = (1 - s) / s

which is 0.11 for a flat whose contrast is 10 % too small (s = 0.90).  cov(e, n) is zero for an exposure that did not
make the flat.  var(n) follows from the variance that the flat carries; a clipped mean of few inputs scatters by more
than its variance says (`clipping_factors`).  Differences of neighbours in a row are taken for values, of the flat in
units of their mean, less the mean difference of the amp: vignetting, illumination and glow drop out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.statistics.moments import clip_statistics, clipped_mean_stack
from camcal_dask.schema import STATISTIC_DIMS, number_variables

RESPONSE = number_variables(
    STATISTIC_DIMS,
    {
        "response_covariance": ("1", "covariance of exposure / flat with the flat, of neighbours in a row"),
        "response_variance": ("1", "relative variance of the flat, likewise"),
        "response_noise": ("1", "part of it that is noise of the flat's inputs"),
        "response_error": ("1", "standard error of the covariance"),
    },
)
CLIP_SIGMA, CLIP_ITERATIONS = 5.0, 3
_N_PIXEL = 100_000
SAMPLE_VARIANCE_FROM = 5
"""With as many inputs the variance of a combined image is their scatter (default of `CombineConfig`)."""


def measure_response(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[np.int32],
    flat: npt.NDArray[np.float32],
    flat_variance: npt.NDArray[np.float32],
    bad_bits: int,
) -> dict[str, FloatArray]:
    """Numbers of `RESPONSE` of one exposure of one detector, (amp,) float64.

    Parameters
    ----------
    image, mask : (amp, y, x) float32 [u], int32
        Exposure divided by the flat.
    flat, flat_variance : (amp, y, x) float32 [1]
        What it was divided by.
    bad_bits : int
        Pixels with one of these bits do not count.
    """
    rows = [_measure_amp(*planes, bad_bits) for planes in zip(image, mask, flat, flat_variance, strict=True)]
    return dict(zip(RESPONSE, np.array(rows).T, strict=True))


def _measure_amp(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[np.int32],
    flat: npt.NDArray[np.float32],
    variance: npt.NDArray[np.float32],
    bad_bits: int,
) -> tuple[float, float, float, float]:
    width = image.shape[1] // 2 * 2
    left, right = (np.s_[:, start:width:2] for start in (0, 1))  # every pixel once: pairs are independent
    good = ((mask & bad_bits) == 0) & np.isfinite(image) & np.isfinite(flat) & np.isfinite(variance)
    both = good[left] & good[right]
    if not both.any():
        return (np.nan,) * 4
    level = float(np.median(image[good]))
    quotient = ((image[right] - image[left])[both] / np.float32(level)).astype(np.float32)
    here = 0.5 * (flat[right] + flat[left])[both]  # a vignetted flat is far from 1, its relative noise is not
    own = ((flat[right] - flat[left])[both] / here).astype(np.float32)
    noise = (variance[right] + variance[left])[both] / here**2
    kept = _inliers(quotient) & _inliers(own)
    quotient, own, noise = (values[kept].astype(np.float64) for values in (quotient, own, noise))
    if own.size == 0:
        return (np.nan,) * 4
    quotient, own = quotient - quotient.mean(), own - own.mean()
    product = 0.5 * quotient * own
    return product.mean(), 0.5 * (own**2).mean(), 0.5 * noise.mean(), product.std() / np.sqrt(own.size)


def _inliers(values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    found = clip_statistics(values, sigma=CLIP_SIGMA, iterations=CLIP_ITERATIONS)
    return np.asarray(np.abs(values - found.mean) <= CLIP_SIGMA * found.stdev)


@lru_cache
def clipping_factors(n: int) -> tuple[float, float]:
    """Variance of the clipped mean of n Gaussian inputs, and its covariance with one of them, over what it says it is.

    Quartiles of few values are coarse, so the clip takes good inputs: 1.26 and 1.13 for 8 inputs, 1.13 and 1.06 for 20.
    """
    if n < 2:  # noqa: PLR2004 (nothing to clip)
        return 1.0, 1.0
    inputs = np.random.default_rng(n).standard_normal((n, _N_PIXEL), np.float32)
    given = np.ones_like(inputs) if n < SAMPLE_VARIANCE_FROM else None
    found = clipped_mean_stack(inputs.copy(), given, sigma=3.0, iterations=3)
    good = np.isfinite(found.mean) & np.isfinite(found.variance)
    mean, said = found.mean[good].astype(np.float64), float(found.variance[good].mean())
    covariance = float(np.cov(inputs[:, good].mean(axis=0), mean)[0, 1])
    return float(mean.var()) / said, covariance / said

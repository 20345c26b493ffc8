"""Synthetic flat pairs of known truth: Eq. 20 (or Eq. 16) with the statistical errors of a real amp."""

import numpy as np
import xarray as xr

from camcal_dask.kernels.ptc.models import LagPlanes, covariances

N_PIXEL = 926064
"""Of an E2V amp inside the 20-pixel edge."""
PAIR = ("pair", "detector", "amp")


def truth(side=4, gain=1.5, noise=6.0, a00=-2.4e-6, b=-1.5e-6):
    """Planes like those of a thick sensor: a_01 > a_10, falling off as a power."""
    i, j = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    square = np.where(i + j == 0, 1, i**2 + j**2)
    a = 2e-7 * (1 + (j > i)) * square**-1.6
    a[0, 0] = a00
    n = np.zeros((side, side))
    n[0, 0] = noise**2
    return LagPlanes(a, a * b, n, gain)


def means(n=100, top=90000.0, gain=1.5):
    """Signal levels [adu], logarithmic in electron."""
    return np.geomspace(60.0, top, n) / gain


def noisy(planes, mean, rng, scale=1.0):
    """Covariances (n, r, r) with their errors, and the inverse errors that the extraction quotes."""
    exact = covariances(planes, mean)
    i, j = np.indices(planes.a.shape)
    pixels = N_PIXEL * np.where((i == 0) | (j == 0), 1, 2)
    relative = np.sqrt(np.where(i + j == 0, 2, 1) / pixels)
    measured = exact + scale * relative * exact[:, :1, :1] * rng.standard_normal(exact.shape)
    return measured, 1 / (relative * measured[:, :1, :1])


def partial(planes, mean, rng, scale=1.0, detectors=(94,)):
    """Dataset of extracted pairs: one amp for each of ``planes``, pairs at ``mean`` electron / gain."""
    names = [f"C1{k}" for k in range(len(planes))]
    shape = (len(mean), len(detectors), len(planes))
    side = len(planes[0].a)
    raw_mean = np.zeros(shape)
    covariance, weight = np.zeros((*shape, side, side)), np.zeros((*shape, side, side))
    for d in range(len(detectors)):
        for k, p in enumerate(planes):
            raw_mean[:, d, k] = mean / p.gain
            covariance[:, d, k], weight[:, d, k] = noisy(p, mean / p.gain, rng, scale)
    overscan_noise = np.array([np.sqrt(p.noise[0, 0]) / p.gain for p in planes])
    lags = (*PAIR, "lag_i", "lag_j")
    return xr.Dataset(
        {
            "raw_mean": (PAIR, raw_mean),
            "raw_var": (PAIR, covariance[..., 0, 0].copy()),
            "noise_adu": (PAIR, np.broadcast_to(overscan_noise, shape).copy()),
            "overscan_median": (PAIR, 20000 + rng.standard_normal(shape)),
            "valid": (PAIR, np.ones(shape, bool)),
            "covariance": (lags, covariance),
            "covariance_sqrt_weight": (lags, weight),
            "exposure_1": ("pair", 2 * np.arange(len(mean))),
            "exposure_2": ("pair", 2 * np.arange(len(mean)) + 1),
            "exposure_time": ("pair", mean / 5000),
        },
        {
            "pair": np.arange(len(mean)),
            "detector": list(detectors),
            "amp": names,
            "lag_i": np.arange(side),
            "lag_j": np.arange(side),
        },
        {"instrument": "TinyCam"},
    )

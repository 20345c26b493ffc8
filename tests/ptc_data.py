"""A photon transfer curve made from its model, without pixels: what extraction and solver give of a perfect camera."""

import numpy as np
import xarray as xr

from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.kernels.ptc.models import LagPlanes, covariances

FIRST = 2026081200001
A = np.array([[-3.0e-6, 3.0e-7, 1e-7], [6.0e-7, 2.0e-7, 1e-7], [1e-7, 1e-7, -2e-7]]).T
"""a_ij [1/electron], index (serial, parallel): the parallel neighbour is the larger."""


def solved(instrument="TinyCam", detectors=(0, 1), n_pair=24, n_pixel=900_000, seed=5):
    """Dataset with the dims of the product (detector, amp, pair, lag_i, lag_j), statistical noise of ``n_pixel``."""
    camera = get_instrument(instrument)
    rng = np.random.default_rng(seed)
    models = [camera.detectors[d] for d in detectors]
    gain = np.array([[a.gain for a in d.amps] for d in models])
    read = np.array([[a.read_noise for a in d.amps] for d in models])
    box = models[0].amps[0]
    medians = sum(np.pi / 2 / (n - 6) for n in (box.serial_overscan.width, box.parallel_overscan.height))
    noise = read * np.sqrt(1 + medians)
    mean = np.geomspace(50, 110_000, n_pair) * np.ones((*gain.shape, 1))
    g, n2 = gain[..., None], noise[..., None] ** 2
    signal = (mean * g).ravel()
    shot = covariances(LagPlanes(A, 0 * A, 0 * A, 1.0), signal)[:, 0, 0]  # Eq. 20, as the planes below say
    bent = (shot / signal).reshape(mean.shape)
    variance = (bent * mean * g + n2) / g**2
    covariance = A * (mean**2)[..., None, None]
    covariance[..., 0, 0] = variance
    error = variance[..., None, None] / np.sqrt(n_pixel) * np.ones(A.shape)
    error[..., 0, 0] *= np.sqrt(2)
    model = covariance.copy()
    covariance = covariance + error * rng.standard_normal(covariance.shape)
    used = np.ones(mean.shape, bool)
    used[..., -1] = False
    amp, pair, lags = ("detector", "amp"), ("detector", "amp", "pair"), ("detector", "amp", "lag_i", "lag_j")
    cube = (*pair, "lag_i", "lag_j")
    adu = read / gain
    exposures = FIRST + np.arange(2 * n_pair)
    widths = np.array([d.amps[0].data.width for d in models])[:, None, None]
    full, planes = np.ones(gain.shape), np.ones((*gain.shape, *A.shape))
    variables = {
        "gain": (amp, gain), "gain_err": (amp, 3e-4 * gain), "gain_unadjusted": (amp, gain), "noise": (amp, noise),
        "noise_err": (amp, 0.01 * noise), "a00": (amp, A[0, 0] * full), "chi2": (amp, full),
        "turnoff": (amp, mean[..., -2]), "turnoff_sampling_error": (amp, (mean[..., -1] - mean[..., -3]) / 2),
        "overscan_median_level": (amp, 24_000 * full), "overscan_median_sigma": (amp, full), "bad": (amp, full < 0),
        "fit_pars": ((*amp, "parameter"), np.stack([A[0, 0] * full, gain, noise**2], -1)),
        "fit_pars_err": ((*amp, "parameter"), np.stack([1e-8 * full, 3e-4 * gain, noise], -1)),
        "a_matrix": (lags, A * planes), "a_matrix_err": (lags, 1e-8 * planes),
        "b_matrix": (lags, 0 * planes), "noise_matrix": (lags, 0 * planes),
        "raw_mean": (pair, mean), "raw_delta": (pair, 0 * mean), "raw_var": (pair, covariance[..., 0, 0]),
        "row_mean_variance": (pair, 2 * mean / g / widths),
        "pair_gain": (pair, g / bent * (1 + 1e-4 * rng.standard_normal(mean.shape))),
        "noise_adu": (pair, adu[..., None] * (1 + 0.01 * rng.standard_normal(mean.shape))),
        "overscan_median": (pair, 24_000 + 0 * mean), "amp_offset": (pair, 0 * mean), "hist_var": (pair, np.nan * mean),
        "hist_chi2_dof": (pair, np.nan * mean), "ks_pvalue": (pair, 1 + 0 * mean),
        "n_pixel": (pair, np.full(mean.shape, n_pixel)), "valid": (pair, np.ones(mean.shape, bool)),
        "used": (pair, used), "rolloff_used": (pair, ~used), "final_mean": (pair, np.where(used, mean, np.nan)),
        "final_var": (pair, np.where(used, covariance[..., 0, 0], np.nan)),
        "final_model_var": (pair, np.where(used, variance, np.nan)),
        "covariance": (cube, covariance), "covariance_model": (cube, model),
        "covariance_sqrt_weight": (cube, 1 / error),
        "n_lag": (cube, np.full(covariance.shape, n_pixel)),
    }  # fmt: skip
    coords = {
        "detector": list(detectors), "amp": list(camera.amp_names), "pair": np.arange(n_pair),
        "lag_i": np.arange(len(A)), "lag_j": np.arange(len(A)),
        "exposure_1": ("pair", exposures[::2]), "exposure_2": ("pair", exposures[1::2]),
        "exposure_time": ("pair", mean[0, 0] / 2000), "mjd": ("pair", 61000 + np.arange(n_pair) / 1000),
    }  # fmt: skip
    return xr.Dataset(variables, coords, {"instrument": instrument, "fit_type": "FULLCOVARIANCE", "units": "adu"})

"""The variance planes of bias, dark and flat: pulls as n inputs must have them (docs/verification.md, variances).

The distribution expected is made here by brute force, of Gaussian numbers: the mean of a few clipped values over the
root of their own variance has the tails of Student's t, and a little more, so that its width is no 1.
"""

import dask
import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.combined.combine import CombineConfig, combine
from camcal_dask.instruments import get_instrument
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.statistics.moments import clipped_mean_stack
from tests.isr.frames import raw_array

CAMERA = get_instrument("TinyCam")
NOISE, SECONDS, RATE, LEVEL = 6.0, 15.0, 2.0, 40_000.0
DETECTORS = (0, 1)
FACTOR = 1.195
"""Noise of a corrected pixel over the read noise, measured: medians of the narrow overscans of TinyCam have some."""


def frames(n, seed, signal=0.0, response=1.0):
    """Raw exposures [adu]: pedestal, Gaussian read noise and, in the data, a signal with its noise."""
    rng = np.random.default_rng(seed)
    n_amp, ny, nx = CAMERA.raw_shape[1:]
    pixels = 20_000 + rng.normal(0, NOISE, (n, len(DETECTORS), n_amp, ny, nx))
    box = CAMERA.detectors[0].amps[0].data
    mean = np.broadcast_to(signal * response, pixels[..., box.y, box.x].shape)
    pixels[..., box.y, box.x] += mean + np.sqrt(mean) * rng.standard_normal(mean.shape)
    raw = raw_array(np.round(pixels).astype("i4"), DETECTORS, dark_time=SECONDS)
    return raw.assign_coords(exposure_time=("exposure", np.full(n, SECONDS)))


def stacked(raw, config, calibs, levels=None, **combined):
    corrected = isr(raw, calibs, config)
    with dask.config.set(scheduler="sync"):
        return combine(corrected, CombineConfig(**combined), slab_rows=16, levels=levels).compute()


def made_bias(n, seed=0):
    return stacked(frames(n, seed), IsrConfig(), None)


def made_dark(n, bias, seed=1):
    return stacked(frames(n, seed, RATE * SECONDS), IsrConfig(bias=True), {"bias": bias}, scale="dark_time")


def widths(pull):
    """Half the interval of 68 %, and of 95 %, of pulls."""
    low2, low, high, high2 = np.percentile(pull, [2.5, 15.85, 84.15, 97.5])
    return np.array([(high - low) / 2, (high2 - low2) / 2])


def pulls(image, variance, truth):
    good = np.isfinite(image)
    return ((image - truth) / np.sqrt(variance))[good]


def drawn(n, signal, rng, n_pixel=200_000):
    """Clipped mean of n exposures of Gaussian noise and its variance, as the combine engine has them.

    The variance plane of one exposure has no noise of the overscan medians (reference/isr.md 2.12); the scatter has.
    """
    x = (np.sqrt((FACTOR * NOISE) ** 2 + signal) * rng.standard_normal((n, n_pixel))).astype("f4")
    found = clipped_mean_stack(x, None if n >= 5 else np.full_like(x, NOISE**2 + signal))
    return found.mean.astype("f8"), found.variance.astype("f8")


@pytest.mark.parametrize("n", [2, 4, 5, 10, 20])
def test_pulls_of_a_bias(n):
    bias = made_bias(n)
    mean, variance = drawn(n, 0.0, np.random.default_rng(7))
    # rows and columns share the noise of their overscan: fewer independent pixels than there are
    np.testing.assert_allclose(
        widths(pulls(bias["image"].values, bias["variance"].values, 0.0)), widths(mean / np.sqrt(variance)), rtol=0.04
    )


@pytest.mark.parametrize(("n_bias", "n"), [(2, 4), (3, 10), (10, 10), (20, 3)])
def test_pulls_of_a_dark_know_the_bias_that_was_subtracted(n_bias, n):
    """With 3 bias frames and 10 darks they had a width of 2.1."""
    dark = made_dark(n, made_bias(n_bias))
    rng = np.random.default_rng(8)
    zero, of_zero = drawn(n_bias, 0.0, rng)
    mean, own = drawn(n, RATE * SECONDS, rng)
    expected = widths((mean - zero) / np.sqrt(own + of_zero))
    found = widths(pulls(dark["image"].values, dark["variance"].values, RATE))
    np.testing.assert_allclose(found, expected, rtol=0.04)
    assert found[0] < 1.4


@pytest.mark.parametrize("n", [3, 10])
def test_pulls_of_a_flat(n):
    """Bias and dark add less than 1 % here; that the dark has the error of the bias too is neglected."""
    bias = made_bias(5)
    dark = made_dark(5, bias)
    response = 1 + 0.02 * np.random.default_rng(3).standard_normal((len(DETECTORS), 16, 1, 1))
    raw = frames(n, 2, LEVEL, response)
    flat = stacked(
        raw, IsrConfig(bias=True, dark=True), {"bias": bias, "dark": dark}, levels=[LEVEL] * n, scale="levels"
    )
    mean, variance = drawn(n, LEVEL, np.random.default_rng(9))
    truth = (LEVEL * response - RATE * SECONDS) / LEVEL  # the dark subtracted light of which the flats have none
    found = widths(pulls(flat["image"].values, flat["variance"].values, truth))
    np.testing.assert_allclose(found, widths(mean / np.sqrt(variance)), rtol=0.05)


def test_shared_variance_is_added_once_whatever_the_number_of_inputs():
    """A bias of known variance and no noise: with few inputs, too, it is all there."""
    bias = made_bias(2)
    bias = bias.assign(variance=xr.full_like(bias["variance"], 25.0))
    none = bias.assign(variance=xr.zeros_like(bias["variance"]))
    for n in (1, 2, 4, 5, 8):
        raw, config = frames(n, 4), IsrConfig(bias=True)
        difference = stacked(raw, config, {"bias": bias})["variance"] - stacked(raw, config, {"bias": none})["variance"]
        np.testing.assert_allclose(difference.values, 25.0, rtol=1e-4)
        scaled = [stacked(raw, config, {"bias": b}, scale="dark_time")["variance"] for b in (bias, none)]
        np.testing.assert_allclose((scaled[0] - scaled[1]).values, 25.0 / SECONDS**2, rtol=1e-3)

import numpy as np
import pytest
import xarray as xr

from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.kernels.pixels.masks import NO_DATA


def gaussian_exposures(instrument="TinyCam", detectors=(0, 2), n_exposure=3, seed=0, units="electron"):
    """Corrected exposures as a perfect detector gives them: zero mean, each amp with its nominal read noise."""
    camera = get_instrument(instrument)
    ny, nx = camera.trimmed_shape
    shape = (n_exposure, len(detectors), 16, ny, nx)
    rng = np.random.default_rng(seed)
    image = rng.standard_normal(shape, np.float32)
    variance = np.empty(shape, np.float32)
    mask = np.full(shape, NO_DATA, np.int32)
    for d, detector in enumerate(detectors):
        for a, amp in enumerate(camera.detectors[detector].amps):
            noise = amp.read_noise / (amp.gain if units == "adu" else 1.0)
            image[:, d, a] *= noise
            variance[:, d, a] = noise**2
            mask[:, d, a, : amp.data.height, : amp.data.width] = 0
    image[mask > 0] = np.nan
    dims = ("exposure", "detector", "amp", "y", "x")
    rows = 25000 + rng.normal(0, 0.15, (n_exposure, len(detectors), 16, camera.raw_shape[2]))
    overscan = np.array([[amp.read_noise / amp.gain for amp in camera.detectors[d].amps] for d in detectors])
    return xr.Dataset(
        {
            "image": (dims, image),
            "variance": (dims, variance),
            "mask": (dims, mask),
            "serial_overscan": (("exposure", "detector", "amp", "y_raw"), rows),
            "read_noise_adu": (("exposure", "detector", "amp"), np.broadcast_to(overscan, shape[:3]).copy()),
        },
        {
            "exposure": 3026081200001 + np.arange(n_exposure),
            "detector": list(detectors),
            "amp": list(camera.amp_names),
            "detector_name": ("detector", [camera.detectors[d].full_name for d in detectors]),
        },
        {"instrument": instrument, "units": units},
    )


def dark_exposures(seconds=30.0, rate=0.02, n_input=20, seed=1, **options):
    """Dark residuals [electron] and the dark that was subtracted, made of ``n_input`` independent exposures."""
    corrected = gaussian_exposures(seed=seed, **options)
    rng = np.random.default_rng(seed + 100)
    image, variance = corrected["image"].values, corrected["variance"].values
    image += (rng.poisson(rate * seconds, image.shape) - rate * seconds).astype("f4")
    single = (variance[0] + np.float32(rate * seconds)) / seconds**2
    master = rate + rng.standard_normal(single.shape, np.float32) * np.sqrt(single / n_input)
    image -= seconds * (master - rate)
    corrected = corrected.assign_coords(
        exposure_time=("exposure", np.full(image.shape[0], seconds)),
        dark_time=("exposure", np.full(image.shape[0], seconds)),
    )
    dims = ("detector", "amp", "y", "x")
    calib = xr.Dataset(
        {"image": (dims, master.astype("f4")), "variance": (dims, (single / n_input).astype("f4"))},
        {"detector": corrected["detector"].values, "amp": corrected["amp"].values},
        {"units": "electron"},
    )
    return corrected, calib


def flat_exposures(level=50_000.0, deficit=0.0, n_input=20, seed=2, seconds=10.0, **options):
    """Flats divided by their flat [electron], and the flat made of ``n_input`` others.

    ``deficit`` is the part of the Poisson variance that the brighter-fatter effect takes away.
    """
    corrected = gaussian_exposures(seed=seed, **options)
    rng = np.random.default_rng(seed + 100)
    image, variance = corrected["image"].values, corrected["variance"].values
    shot = level * (1 - deficit)
    image += np.float32(np.sqrt(shot)) * rng.standard_normal(image.shape, np.float32) + np.float32(level)
    variance += np.float32(level)
    relative = shot / level**2 / n_input
    master = 1 + rng.standard_normal(image.shape[1:], np.float32) * np.float32(np.sqrt(relative))
    image /= master
    corrected = corrected.assign_coords(exposure_time=("exposure", np.full(image.shape[0], seconds)))
    dims = ("detector", "amp", "y", "x")
    calib = xr.Dataset(
        {"image": (dims, master), "variance": (dims, np.full(master.shape, relative, "f4"))},
        {"detector": corrected["detector"].values, "amp": corrected["amp"].values},
        {"units": "1"},
    )
    return corrected, calib


@pytest.fixture(scope="session")
def make_darks():
    return dark_exposures


@pytest.fixture(scope="session")
def make_flats():
    return flat_exposures


@pytest.fixture(scope="session")
def make_exposures():
    return gaussian_exposures

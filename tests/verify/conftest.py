import numpy as np
import pytest
import xarray as xr

from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.kernels.masks import NO_DATA


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


@pytest.fixture(scope="session")
def make_exposures():
    return gaussian_exposures

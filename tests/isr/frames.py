"""Raw frames of TinyCam for tests: known levels, no simulator."""

import numpy as np
import xarray as xr

from camcal_dask.instruments import get_instrument

DAY = 2026081200000


def tiny_raw(n_exposure=6, seed=0, detectors=(0, 1, 2, 3), read_noise=5.0, pattern=0.0):
    """Bias frames: pedestal per amp + level per row + 2-D ``pattern`` [adu] fixed in all exposures + read noise."""
    camera = get_instrument("TinyCam")
    rng = np.random.default_rng(seed)
    n_amp, ny, nx = camera.raw_shape[1:]
    shape = (n_exposure, len(detectors), n_amp, ny, nx)
    level = 20000 + 100 * np.arange(n_amp)[:, None, None] + rng.normal(0, 3, (*shape[:4], 1))
    fixed = rng.normal(0, 1, (len(detectors), n_amp, ny, nx)) * pattern
    for i, d in enumerate(detectors):  # only the sky-side pixels carry structure
        for amp in camera.detectors[d].amps:
            keep = np.zeros((ny, nx), bool)
            keep[amp.data.y, amp.data.x] = True
            fixed[i, amp.index] *= keep
    pixels = np.round(level + fixed + rng.normal(0, read_noise, shape)).astype("i4")
    return raw_array(pixels, detectors), fixed


def raw_array(pixels, detectors=(0, 1, 2, 3), dark_time=0.05):
    n = pixels.shape[0]
    return xr.DataArray(
        pixels,
        dims=("exposure", "detector", "amp", "y", "x"),
        coords={
            "exposure": DAY + 1 + np.arange(n),
            "detector": list(detectors),
            "amp": list(get_instrument("TinyCam").amp_names),
            "exposure_time": ("exposure", np.zeros(n)),
            "dark_time": ("exposure", np.full(n, dark_time)),
        },
        attrs={"instrument": "TinyCam"},
    )


def refuse(*_args, **_kwargs):
    """Scheduler that must not be called."""
    raise AssertionError("computed while building a graph")


def task_count(collection):
    import dask

    (optimised,) = dask.optimize(collection)
    return len(dict(optimised.__dask_graph__()))

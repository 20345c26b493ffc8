"""Calibrations of TinyCam with strong effects, and a frame without noise, for tests of the whole ISR."""

import numpy as np
import xarray as xr

from camcal_dask.instruments import get_instrument
from tests.isr.frames import raw_array

CAMERA = get_instrument("TinyCam")
DETECTORS = (0, 1, 2, 3)
AMPS = ("detector", "amp")
PIXELS = ("detector", "amp", "y", "x")
PEDESTAL = 20000


def table(variables, units="", detectors=DETECTORS):
    """Dataset of arrays (detector, amp, ..)."""
    data = {}
    for name, values in variables.items():
        values = np.asarray(values)
        more = ("source", "target") if values.shape[1:] == (16, 16) else (*AMPS[1:], f"{name}_entry")
        data[name] = (("detector", *more[: values.ndim - 1]), values)
    return xr.Dataset(data, {"detector": list(detectors)}, {"units": units})


def image(seed, level, spread, variance, units, **attrs):
    """Combined image with random values; padding of ITL as in products: NaN, NO_DATA."""
    rng = np.random.default_rng(seed)
    shape = (4, 16, 50, 36)
    values = rng.normal(level, spread, shape).astype("f4")
    var, mask = rng.uniform(0.5, 1.5, shape).astype("f4") * np.float32(variance), np.zeros(shape, "i4")
    for part in (np.s_[2:, :, 49:], np.s_[2:, :, :, 35:]):
        values[part], var[part], mask[part] = np.nan, np.nan, 256
    planes = {"image": (PIXELS, values), "variance": (PIXELS, var), "mask": (PIXELS, mask)}
    return xr.Dataset(planes, {"detector": list(DETECTORS)}, {"units": units, **attrs})


def calibrations(units="electron"):
    """All calibrations, every effect far above rounding."""
    rng = np.random.default_rng(12)
    each = (4, 16)
    linear = rng.choice([-1, 1], (4, 16, 16)) * rng.uniform(1e-4, 1e-2, (4, 16, 16))
    linear[:, np.arange(16), np.arange(16)] = np.nan
    linear[:, 3, 5] = 0  # not measured: no quadratic term either
    gain = rng.uniform(1.2, 1.8, each)
    defects = np.zeros((4, 16, 50, 36), "i4")
    defects[:, 2, 10:12, 7], defects[:, 9, 20, :4] = 4, 1
    return {
        "ptc": table({"gain": gain, "noise": np.full(each, 7.0), "turnoff": np.full(each, 30000.0)}),
        "gain_correction": table({"adjustment": rng.uniform(0.98, 1.02, each)}),
        "crosstalk": table({"linear": linear, "quadratic": rng.uniform(-1, 1, (4, 16, 16)) * 1e-7}, "electron"),
        "linearizer": table(
            {
                "type": np.full(each, "Polynomial"),
                "coefficients": np.stack([rng.uniform(-1, 1, each) * 1e-6, rng.uniform(-1, 1, each) * 1e-11], -1),
                "input_gain": gain * 1.01,
                "input_turnoff": np.full(each, 25000.0),
            },
            "adu",
        ),
        "cti": table(
            {
                "drift_scale": rng.uniform(1e-3, 2e-3, each),
                "decay_time": rng.uniform(2, 6, each),
                "global_cti": rng.uniform(0, 1e-2, each),
                "trap_kind": np.full(each, "linear"),
                "trap_size": np.full(each, 200.0),
                "trap_emission_time": rng.uniform(0.5, 3, each),
                "trap_coefficients": np.full((*each, 1), 0.05),
                "input_gain": gain,
            },
            "electron",
        ),
        "bias": image(1, 0, 8, 2.0, units),
        "dark": image(2, 3, 0.5, 0.3, units, dark_time_s=2.0),
        "flat": image(3, 1, 0.1, 1e-4, "1"),
        "defects": xr.Dataset({"mask": (PIXELS, defects)}, {"detector": list(DETECTORS)}),
    }


def bright_raw(n_exposure=2, seed=5):
    """Frames without noise: pedestal, small column offsets, light in the data area up to 40000 adu; int32 [adu]."""
    rng = np.random.default_rng(seed)
    shape = (n_exposure, 4, 16, 64, 56)
    pixels = np.full(shape, PEDESTAL)
    columns = rng.integers(0, 3, (*shape[:3], 1, 56))
    for d in DETECTORS:
        for amp in CAMERA.detectors[d].amps:
            x, y = amp.data.x, slice(0, 64)
            pixels[:, d, amp.index, y, x] += columns[:, d, amp.index, :, x]
            light = rng.integers(0, 40000, (n_exposure, amp.data.height, amp.data.width))
            pixels[:, d, amp.index, amp.data.y, x] += light
            pixels[:, d, amp.index, :, : amp.data.x0] += 5000  # prescan: nobody must look
    raw = raw_array(pixels.astype("i4"), dark_time=3.0)
    return raw, columns

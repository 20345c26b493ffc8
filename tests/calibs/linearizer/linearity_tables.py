"""Tables of flat pairs with known non-linearity, photon noise included: what a PTC of a real ramp would hold."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

AMPS = [f"C{i:02d}" for i in range(16)]


@dataclass(frozen=True)
class Camera:
    """A detector whose amps read v + c2 v^2 + c3 v^3 [electron], as the simulator's NonLinearity has it."""

    n_amp: int = 16
    n_pixel: int = 900_000
    full_well: float = 170_000.0
    read_noise: float = 6.0
    c2: float = -2e-8
    c3: float = 1e-13
    seed: int = 3

    @property
    def gain(self):
        return np.random.default_rng(self.seed).uniform(1.4, 1.6, self.n_amp)

    @property
    def response(self):
        return np.random.default_rng(self.seed + 1).uniform(0.97, 1.03, self.n_amp)

    def bent(self, v):
        """(.., amp) electrons collected -> electrons read."""
        scatter = 1 + 0.1 * np.random.default_rng(self.seed + 2).normal(size=(2, self.n_amp))
        over = np.maximum(v - self.full_well, 0) / (0.1 * self.full_well)  # a full amp takes a tenth more, slowly
        v = np.minimum(v, self.full_well) + 0.1 * self.full_well * -np.expm1(-over)
        return v + self.c2 * scatter[0] * v**2 + self.c3 * scatter[1] * v**3


def ramp(camera=Camera(), n_pair=340, *, groups=1, drift=0.0, jitter=0.0, detector=94, seed=7, lamp_seed=11, top=165e3):
    """PTC table of a ramp.

    ``groups`` of lamps with currents 1, 0.3, 0.09 ..; ``drift``: the photodiode reads up to +-drift/2 too much over
    the run (order of signals shuffled in time); ``jitter``: rms of the light of an exposure at equal time.
    """
    rng, lamp = np.random.default_rng(seed), np.random.default_rng(lamp_seed)
    level = np.geomspace(300, top, n_pair)
    group = lamp.integers(0, groups, n_pair)
    current = 0.3**group * 2e-8
    seconds = level / (2000 * 0.3**group)
    mjd = 60000 + lamp.permutation(n_pair) * 1e-3
    light = level[:, None] * (1 + jitter * lamp.normal(size=(n_pair, 2)))
    true = light[..., None] * camera.response
    read = camera.bent(true)
    error = np.sqrt((true + camera.read_noise**2) / camera.n_pixel)
    read = (read + error * rng.normal(size=read.shape)) / camera.gain
    charge = (
        current[:, None] * seconds[:, None] * light / level[:, None] * 1.5 ** group[:, None]
    )  # the diode's colour response
    charge = charge * (1 + drift * (mjd - mjd.mean()) / np.ptp(mjd))[:, None]
    turnoff = np.full(camera.n_amp, 0.7 * camera.full_well) / camera.gain
    mean = read.mean(1)
    amps = AMPS[: camera.n_amp]
    exposure = 2026081200001 + np.arange(2 * n_pair).reshape(-1, 2)
    per_pair = {
        "exposure_time": seconds,
        "mjd": mjd,
        "photo_charge": charge.mean(1),
        "photo_charge_delta": charge[:, 1] - charge[:, 0],
        "aux_CCOBCURR": current,
    }
    each = {"raw_mean": mean.T, "raw_delta": (read[:, 1] - read[:, 0]).T, "used": (mean <= turnoff).T}
    amp = {
        "gain": camera.gain,
        "noise": np.full(camera.n_amp, camera.read_noise),
        "turnoff": turnoff,
        "bad": np.zeros(camera.n_amp, bool),
    }
    table = xr.Dataset(
        {name: ("pair", v) for name, v in per_pair.items()}
        | {name: (("detector", "amp", "pair"), v[None]) for name, v in each.items()}
        | {name: (("detector", "amp"), v[None]) for name, v in amp.items()},
        {
            "detector": [detector],
            "amp": amps,
            "exposure_1": ("pair", exposure[:, 0]),
            "exposure_2": ("pair", exposure[:, 1]),
        },
    )
    ratios = image_ratios(camera, table, read, exposure.ravel(), detector)
    return table, ratios


def image_ratios(camera, table, read, exposure, detector, reference_amp=0):
    """What binned images would give: medians per amp, so the levels themselves."""
    level = read.reshape(-1, camera.n_amp)
    flat = level[np.argmin(np.abs(level[:, reference_amp] - 10000))]
    scaling = flat / flat[reference_amp]
    quotient = level / scaling
    reference = quotient[:, reference_amp]
    return xr.Dataset(
        {
            "reference_level": (("detector", "exposure"), reference[None]),
            "gain_ratio": (("detector", "amp", "exposure"), (quotient / reference[:, None]).T[None]),
            "amp_scaling": (("detector", "amp"), scaling[None]),
            "reference_amp": ("detector", [reference_amp]),
        },
        {"detector": [detector], "exposure": exposure},
    )


def closure(linearizer, camera, low=1000.0):
    """(amp, signal) relative error of signals linearised as the ISR does it, a common factor of each amp apart."""
    from camcal_dask.kernels.linearity.correct import TYPES, linearize, make_linearity

    one = linearizer.isel(detector=0)
    top = one["input_turnoff"].values * camera.gain
    true = np.geomspace(low, top, 400)  # (signal, amp) electron
    adu = (camera.bent(true) / camera.gain).T.astype("f4")
    types = [TYPES[t] for t in one["type"].values]
    table = one["table"].values if "table" in one else None
    linear, _ = linearize(adu[:, None, :], make_linearity(types, one["coefficients"].values, table=table))
    ratio = linear[:, 0].astype(float) * camera.gain[:, None] / true.T
    return ratio / np.median(ratio, axis=1, keepdims=True) - 1

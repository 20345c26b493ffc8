"""Charge that an exposure collects in the data area of one amp, before read-out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from camcal_dask.instruments.geometry import Amp, get_instrument
from camcal_dask.kernels.simulator.sensor import bloom, poisson_from_normals
from camcal_dask.simulation.brighter_fatter import redistribute, shifts_of
from camcal_dask.simulation.config import SimulationConfig
from camcal_dask.simulation.exposures import ExposureSpec
from camcal_dask.simulation.headers import physical_filter
from camcal_dask.simulation.photodiode import lamp_brightness
from camcal_dask.simulation.sensor import F4, Sensor, flat_image
from camcal_dask.simulation.streams import stream

_STEP_PIXEL = 0.25
"""Spacing of the points that a cosmic-ray track is drawn with."""


def collect_charge(
    config: SimulationConfig, instrument: str, sensor: Sensor, exposure: ExposureSpec, amp: Amp
) -> F4 | None:
    """Charge (y, x) [electron] of the data area at the end of the exposure; None if there is none.

    Light and dark current with Poisson noise, cosmic rays, brighter-fatter, full well.
    """
    light = _light(config, instrument, sensor, exposure, amp)
    charge = _with_dark(config, sensor, exposure, amp, light)
    if charge is not None and config.shot_noise.enabled:
        rng = stream(config.seed, "shot_noise", exposure.key, sensor.detector.id, amp.index)
        poisson_from_normals(charge, rng.standard_normal(charge.shape, dtype=np.float32))
    charge = _with_cosmic_rays(config, sensor, exposure, amp, charge)
    if charge is None:
        return None
    if light is not None and config.brighter_fatter.enabled:
        redistribute(charge, light, sensor.a_matrix, shifts_of(config.brighter_fatter))
    if config.full_well.enabled:
        full_well = float(sensor.full_well[amp.index])
        if not config.full_well.blooming:
            np.minimum(charge, np.float32(full_well), out=charge)
        elif charge.max() > full_well:
            columns = np.ascontiguousarray(charge.T)
            bloom(columns, full_well)
            charge[:] = columns.T
    return charge


def lamp_electrons(config: SimulationConfig, exposure: ExposureSpec) -> float:
    """Mean electrons a pixel of response 1 on the optical axis collects from the lamp."""
    if not (exposure.lit and config.illumination.enabled):
        return 0.0
    return config.illumination.rate_e_per_s * lamp_brightness(config, exposure) * exposure.exposure_time_s


def _light(config: SimulationConfig, instrument: str, sensor: Sensor, exposure: ExposureSpec, amp: Amp) -> F4 | None:
    electrons = lamp_electrons(config, exposure)
    if electrons <= 0:
        return None
    name = physical_filter(get_instrument(instrument), exposure)
    image = flat_image(config, instrument, sensor.detector.id, name)[amp.index]
    return np.asarray(image * np.float32(electrons))


def _with_dark(
    config: SimulationConfig, sensor: Sensor, exposure: ExposureSpec, amp: Amp, light: F4 | None
) -> F4 | None:
    """Expected light and dark current, hot pixels and columns included (a new array)."""
    seconds = exposure.dark_time_s
    if not config.dark.enabled or seconds <= 0:
        return None if light is None else light.copy()
    charge = np.full((amp.data.height, amp.data.width), config.dark.rate_e_per_s * seconds, np.float32)
    if light is not None:
        charge += light
    defects = sensor.defects
    hot, columns = defects.hot[:, 0] == amp.index, defects.columns[:, 0] == amp.index
    y, x = defects.hot[hot, 1] - amp.data.y0, defects.hot[hot, 2] - amp.data.x0
    np.add.at(charge, (y, x), (defects.hot_rate[hot] * seconds).astype(np.float32))
    for x, rate in zip(defects.columns[columns, 1] - amp.data.x0, defects.column_rate[columns], strict=True):
        charge[:, x] += np.float32(rate * seconds)
    return charge


def _with_cosmic_rays(
    config: SimulationConfig, sensor: Sensor, exposure: ExposureSpec, amp: Amp, charge: F4 | None
) -> F4 | None:
    """Add straight tracks; dark time and, on average, half of the readout collect them."""
    strength = config.cosmic_rays
    if not strength.enabled:
        return charge
    area_cm2 = amp.data.height * amp.data.width * (sensor.detector.pixel_size_mm / 10) ** 2
    seconds = exposure.dark_time_s + strength.readout_s / 2
    rng = stream(config.seed, "cosmic_rays", exposure.key, sensor.detector.id, amp.index)
    n = int(rng.poisson(strength.rate_per_cm2_s * area_cm2 * seconds))
    if n == 0:
        return charge
    if charge is None:
        charge = np.zeros((amp.data.height, amp.data.width), np.float32)
    for _ in range(n):
        y, x = cosmic_ray_track(rng, charge.shape, strength.mean_length_pixel)
        per_point = strength.charge_e_per_pixel * _STEP_PIXEL * rng.lognormal(0.0, 0.4)
        np.add.at(charge, (y, x), np.float32(per_point))
    return charge


def cosmic_ray_track(
    rng: np.random.Generator, shape: tuple[int, ...], mean_length: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pixels (y, x) of points a quarter pixel apart along a track of random place, direction and length."""
    y0, x0 = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
    angle, length = rng.uniform(0, 2 * np.pi), rng.exponential(mean_length) + 1.0
    along = np.arange(0, length, _STEP_PIXEL)
    y = np.floor(y0 + along * np.sin(angle)).astype(np.int64)
    x = np.floor(x0 + along * np.cos(angle)).astype(np.int64)
    inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    return y[inside], x[inside]

"""Photodiode readings of lit exposures, in the camera's two-column text form (reference/raw_format.md 1.13)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from camcal_dask.simulation.config import SimulationConfig
from camcal_dask.simulation.exposures import ExposureSpec
from camcal_dask.simulation.streams import stream

F8 = npt.NDArray[np.float64]


def lamp_brightness(config: SimulationConfig, exposure: ExposureSpec) -> float:
    """Brightness of the lamp in this exposure: ``light`` x (1 + jitter); the photodiode sees it too."""
    jitter = config.illumination.lamp_jitter * stream(config.seed, "lamp", exposure.key).standard_normal()
    return float(exposure.light * (1 + jitter))


def photodiode_charge(config: SimulationConfig, exposure: ExposureSpec) -> float:
    """True charge through the photodiode during the exposure [coulomb], dark current not counted."""
    if not exposure.lit:
        return 0.0
    return config.photodiode.current_a * lamp_brightness(config, exposure) * exposure.exposure_time_s


def photodiode_trace(config: SimulationConfig, exposure: ExposureSpec) -> tuple[F8, F8]:
    """Current against time, some dark time before and after the light.

    A sample is the mean current of its interval, so the trapezoid sum minus the baseline is the true
    charge within the noise.

    Returns
    -------
    time : (sample,) float64 [s]
    current : (sample,) float64 [A]
    """
    strength = config.photodiode
    n = int(np.ceil((exposure.exposure_time_s + 2 * strength.lead_s) / strength.sample_s)) + 1
    time = np.arange(n, dtype=np.float64) * strength.sample_s
    low, high = time - strength.sample_s / 2, time + strength.sample_s / 2
    begin, end = strength.lead_s, strength.lead_s + exposure.exposure_time_s
    part = np.clip(np.minimum(high, end) - np.maximum(low, begin), 0.0, None) / strength.sample_s
    light = part * strength.current_a * lamp_brightness(config, exposure) * exposure.lit
    rng = stream(config.seed, "photodiode", exposure.key)
    noise = strength.noise * light * rng.standard_normal(n) + strength.dark_current_a * (1 + rng.standard_normal(n))
    return time, np.asarray(light + noise)


def photodiode_text(config: SimulationConfig, exposure: ExposureSpec) -> str:
    """Contents of a ``Photodiode_Readings`` file: time [s] and current [A], one sample per line."""
    time, current = photodiode_trace(config, exposure)
    return "".join(f"{t:.4f} {a:.6E}\n" for t, a in zip(time, current, strict=True))


def photodiode_name(exposure: ExposureSpec) -> str:
    """``Photodiode_Readings_20260812_000001.txt``."""
    return f"Photodiode_Readings_{exposure.day_obs}_{exposure.seq_num:06d}.txt"

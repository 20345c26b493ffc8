"""One exposure of one detector, effect by effect in the order of reference/isr.md 2.22."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from camcal_dask.instruments.geometry import Amp
from camcal_dask.kernels.simulator.sensor import add_crosstalk, serial_cti
from camcal_dask.simulation.charge import collect_charge
from camcal_dask.simulation.config import SimulationConfig
from camcal_dask.simulation.exposures import ExposureSpec
from camcal_dask.simulation.sensor import F4, Sensor, make_sensor, pattern_image
from camcal_dask.simulation.streams import stream

ADC_MAX = 2**18 - 1
"""Largest value of the 18-bit converter [adu]."""


def simulate_exposure(
    instrument: str, detector_id: int, exposure: ExposureSpec, config: SimulationConfig
) -> npt.NDArray[np.int32]:
    """Raw pixels of one detector in one exposure; a pure function of its arguments.

    Returns
    -------
    (amp, y, x) int32 [adu]
        Amps in HDU order and readout coordinates, prescan and overscans included.
    """
    sensor = make_sensor(config, instrument, detector_id)
    pattern = pattern_image(config, instrument, detector_id)
    common = _common_mode(config, sensor, exposure)
    signal = np.zeros(sensor.raw_shape, np.float32)
    for amp in sensor.detector.amps:
        frame = signal[amp.index]
        if not sensor.dead[amp.index]:
            _transfer(frame, config, instrument, sensor, exposure, amp)
            _add_pattern(frame, config, sensor, exposure, amp, pattern[amp.index])
        _add_structure(frame, config, sensor, exposure, amp)
        _bend(frame, sensor.non_linearity[amp.index])
        _add_noise(frame, config, sensor, exposure, amp, common)
    if config.crosstalk.enabled:
        add_crosstalk(signal, sensor.crosstalk.astype(np.float32), sensor.crosstalk_quadratic.astype(np.float32))
    return _digitise(signal, config, sensor, exposure)


def _transfer(
    frame: F4, config: SimulationConfig, instrument: str, sensor: Sensor, exposure: ExposureSpec, amp: Amp
) -> None:
    """Put the collected charge into the empty ``frame`` (y, x) [electron] and clock it out."""
    charge = collect_charge(config, instrument, sensor, exposure, amp)
    if charge is None:
        return
    frame[amp.data.y, amp.data.x] = charge
    if config.serial_cti.enabled:
        serial_cti(frame, amp.data.x0 + amp.data.width, sensor.cti[amp.index])


def _add_pattern(
    frame: F4, config: SimulationConfig, sensor: Sensor, exposure: ExposureSpec, amp: Amp, pattern: F4
) -> None:
    """Add the 2-D bias, and what the first exposure after idle carries."""
    frame[amp.data.y, amp.data.x] += np.float32(sensor.gain[amp.index]) * pattern
    if exposure.contaminated and config.contamination.enabled:
        frame[amp.data.y, amp.data.x] += _contamination(config, sensor, exposure, amp)


def _add_structure(frame: F4, config: SimulationConfig, sensor: Sensor, exposure: ExposureSpec, amp: Amp) -> None:
    """Add row and column offsets, overscans included."""
    gain = np.float32(sensor.gain[amp.index])
    rows = sensor.row_profile[amp.index] + _row_drift(config, sensor, exposure, amp)
    frame += (gain * rows.astype(np.float32))[:, None]
    frame += (gain * sensor.column_profile[amp.index].astype(np.float32))[None, :]


def _bend(frame: F4, coefficients: npt.NDArray[np.float64]) -> None:
    """Apply the non-linearity v + c2 v^2 + c3 v^3."""
    c2, c3 = (np.float32(c) for c in coefficients)
    if c2 != 0 or c3 != 0:
        frame += frame * frame * (c2 + c3 * frame)


def _row_drift(config: SimulationConfig, sensor: Sensor, exposure: ExposureSpec, amp: Amp) -> npt.NDArray[np.float64]:
    """Row offsets (y,) [adu] of this exposure: a random walk that reaches ``drift_adu`` rms, and white jitter."""
    strength, ny = config.row_structure, amp.raw_height
    if not strength.enabled:
        return np.zeros(ny)
    rng = stream(config.seed, "rows", exposure.key, sensor.detector.id, amp.index)
    walk = np.cumsum(rng.standard_normal(ny)) * (strength.drift_adu / np.sqrt(ny))
    return np.asarray(walk + strength.noise_adu * rng.standard_normal(ny))


def _contamination(config: SimulationConfig, sensor: Sensor, exposure: ExposureSpec, amp: Amp) -> F4:
    """Stripes and charge not flushed in the first exposure after idle, (y, x) of the data area [electron]."""
    strength, shape = config.contamination, (amp.data.height, amp.data.width)
    rng = stream(config.seed, "contamination", exposure.key, sensor.detector.id, amp.index)
    gain = sensor.gain[amp.index]
    rows = strength.row_stripe_adu * gain * _stripes(rng, shape[0])
    columns = strength.column_stripe_adu * gain * _stripes(rng, shape[1])
    decay = np.exp(-np.arange(shape[0]) / (strength.decay * shape[0]))
    charge = strength.residual_charge_e * rng.uniform(0.7, 1.3) * decay
    image = rng.standard_normal(shape, dtype=np.float32) * np.sqrt(charge).astype(np.float32)[:, None]
    image += (rows + charge).astype(np.float32)[:, None]
    image += columns.astype(np.float32)[None, :]
    return image


def _stripes(rng: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    """Bands of random height, about 32 over ``n`` pixels, (n,) of unit rms."""
    width = max(1, n // 32)
    return np.repeat(rng.standard_normal(-(-n // width)), width)[:n]


def _common_mode(config: SimulationConfig, sensor: Sensor, exposure: ExposureSpec) -> F4 | None:
    """Noise (y, x) of unit rms that all amps of the detector see at the same moment."""
    if not config.common_mode.enabled:
        return None
    rng = stream(config.seed, "common_mode_noise", exposure.key, sensor.detector.id)
    return rng.standard_normal(sensor.raw_shape[1:], dtype=np.float32)


def _add_noise(
    frame: F4, config: SimulationConfig, sensor: Sensor, exposure: ExposureSpec, amp: Amp, common: F4 | None
) -> None:
    """Add read noise [electron]: an independent part, so that with common mode and digitisation the total is right."""
    if common is not None:
        frame += np.float32(sensor.common_mode[amp.index]) * common
    if not config.read_noise.enabled:
        return
    rng = stream(config.seed, "read_noise", exposure.key, sensor.detector.id, amp.index)
    noise = rng.standard_normal(frame.shape, dtype=np.float32)
    noise *= np.float32(independent_noise(sensor, amp.index))
    frame += noise


def independent_noise(sensor: Sensor, amp: int) -> float:
    """Rms [electron] of the part of the read noise that is neither common mode nor digitisation (gain^2 / 12)."""
    square = sensor.read_noise[amp] ** 2 - sensor.common_mode[amp] ** 2 - sensor.gain[amp] ** 2 / 12
    return float(np.sqrt(max(square, 0.0)))


def _digitise(signal: F4, config: SimulationConfig, sensor: Sensor, exposure: ExposureSpec) -> npt.NDArray[np.int32]:
    """Electrons to 18-bit adu on the bias level; ``signal`` (amp, y, x) is used up."""
    raw = np.empty(signal.shape, np.int32)
    for amp in sensor.detector.amps:
        rng = stream(config.seed, "bias_jitter", exposure.key, sensor.detector.id, amp.index)
        jitter = config.bias_level.enabled * config.bias_level.jitter_adu * rng.standard_normal()
        frame = signal[amp.index]
        frame *= np.float32(1 / sensor.gain[amp.index])
        frame += np.float32(sensor.bias_level[amp.index] + jitter)
        np.rint(frame, out=frame)
        np.clip(frame, 0, ADC_MAX, out=frame)
        raw[amp.index] = frame
    return raw

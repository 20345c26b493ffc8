"""The simulated sensors: everything about a detector that no exposure changes.

All of it is a pure function of (configuration, camera, detector); random parts come from streams
keyed by (seed, detector, amp) only.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camcal_dask.errors import ConfigError, nearest
from camcal_dask.instruments.geometry import Amp, Detector, Instrument, get_instrument
from camcal_dask.simulation.brighter_fatter import area_coefficients
from camcal_dask.simulation.config import AmpRef, SimulationConfig
from camcal_dask.simulation.streams import stream

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Defects:
    """Pixels of the data area that answer wrongly; coordinates are readout pixels of the raw amp.

    ``hot`` and ``cold`` are (n, 3) float64 rows (amp index, y, x) and ``hot_rate`` [electron/s] their dark
    current; ``columns`` (n, 2) rows (amp index, x) and ``column_rate`` [electron/s per pixel].
    """

    hot: npt.NDArray[np.int64]
    hot_rate: F8
    columns: npt.NDArray[np.int64]
    column_rate: F8
    cold: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sensor:
    """Static truth of one detector; arrays run over amps in HDU order unless said otherwise.

    Attributes
    ----------
    gain : (amp,) [electron/adu]; read_noise : (amp,) [electron], total white noise of a pixel with common
        mode and digitisation; common_mode : (amp,) [electron], its part shared by the detector's amps.
    bias_level : (amp,) [adu]; row_profile : (amp, y) and column_profile : (amp, x) [adu].
    full_well : (amp,) [electron].
    crosstalk : (source, target) and crosstalk_quadratic [1/electron].
    a_matrix : (lag_i, lag_j) [1/electron], serial lag first; the plane sum is zero.
    non_linearity : (amp, 2) coefficients c2 [1/electron], c3 [1/electron^2].
    cti : (amp, 6) global CTI, trap size [electron], trap slope, emission [pixel], drift scale, drift decay [pixel].
    dead, noisy : (amp,) bool.
    """

    detector: Detector
    gain: F8
    read_noise: F8
    common_mode: F8
    bias_level: F8
    row_profile: F8
    column_profile: F8
    full_well: F8
    crosstalk: F8
    crosstalk_quadratic: F8
    non_linearity: F8
    cti: F8
    a_matrix: F8
    dead: npt.NDArray[np.bool_]
    noisy: npt.NDArray[np.bool_]
    defects: Defects

    @property
    def raw_shape(self) -> tuple[int, int, int]:
        """(n_amp, y, x) of the raw detector."""
        amp = self.detector.amps[0]
        return len(self.detector.amps), amp.raw_height, amp.raw_width


@functools.lru_cache(maxsize=4)
def make_sensor(config: SimulationConfig, instrument_name: str, detector_id: int) -> Sensor:
    """Static truth of a detector, from its table values and the configured strengths."""
    detector = get_instrument(instrument_name).detector(detector_id)
    amps = detector.amps
    dead, noisy = _flags(config.faults.dead, detector), _flags(config.faults.noisy, detector)
    gain = np.array([a.gain for a in amps]) * (1 + config.gain.scatter * _normals(config, "gain", detector))
    linear, quadratic = _crosstalk(config, detector, dead)
    return Sensor(
        detector=detector,
        gain=gain,
        read_noise=_read_noise(config, detector, noisy, dead, gain),
        common_mode=_common_mode(config, detector, dead),
        bias_level=_bias_level(config, detector),
        row_profile=_row_profile(config, detector),
        column_profile=_column_profile(config, detector),
        full_well=np.array([a.saturation for a in amps]) * gain * config.full_well.scale,
        crosstalk=linear,
        crosstalk_quadratic=quadratic,
        non_linearity=_non_linearity(config, detector),
        cti=_cti(config, detector),
        a_matrix=area_coefficients(config.brighter_fatter),
        dead=dead,
        noisy=noisy,
        defects=_defects(config, detector),
    )


def check_faults(config: SimulationConfig, instrument: Instrument) -> None:
    """Refuse faults of detectors or amps that the camera does not have."""
    for detector_id, amp in (*config.faults.dead, *config.faults.noisy):
        names = [a.name for a in instrument.detector(detector_id).amps]
        if amp not in names:
            raise ConfigError(f"faults: detector {detector_id} has no amp {amp!r}{nearest(amp, names)}")


@functools.lru_cache(maxsize=1)
def pattern_image(config: SimulationConfig, instrument_name: str, detector_id: int) -> F4:
    """Fixed 2-D bias pattern of the data area.

    Returns
    -------
    (amp, y, x) float32 [adu]
        Trimmed amps in readout coordinates; what a perfect combined bias shows.
    """
    detector = get_instrument(instrument_name).detector(detector_id)
    strength, box = config.pattern, detector.amps[0].data
    image = np.zeros((len(detector.amps), box.height, box.width), np.float32)
    if not strength.enabled:
        return image
    y = np.arange(box.height, dtype=np.float32)[:, None] / box.height
    x = np.arange(box.width, dtype=np.float32)[None, :] / box.width
    vendor = 1.0 if detector.vendor == "E2V" else 0.4
    for amp in detector.amps:
        rng = stream(config.seed, "pattern", detector.id, amp.index)
        phase, waves_x, waves_y = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2.0), rng.uniform(0.5, 3.0)
        corner = strength.corner_adu * vendor * rng.uniform(0.7, 1.3)
        image[amp.index] = np.float32(strength.pixel_adu) * rng.standard_normal(image.shape[1:], dtype=np.float32)
        image[amp.index] += np.float32(corner) * (np.exp(-y / np.float32(0.08)) * np.exp(-x / np.float32(0.15)))
        angle = 2 * np.pi * (waves_x * x + waves_y * y) + phase
        image[amp.index] += np.float32(strength.wave_adu) * np.sin(angle.astype(np.float32))
    return image


def response_image(config: SimulationConfig, instrument_name: str, detector_id: int, physical_filter: str) -> F4:
    """Response of the data area to light through one filter: PRNU, dust donuts, cold pixels.

    Returns
    -------
    (amp, y, x) float32
        Relative response, about 1; trimmed amps in readout coordinates.
    """
    detector = get_instrument(instrument_name).detector(detector_id)
    strength, box = config.response, detector.amps[0].data
    image = np.ones((len(detector.amps), box.height, box.width), np.float32)
    if not strength.enabled:
        return image
    for amp in detector.amps:
        grey = stream(config.seed, "prnu", detector.id, amp.index)
        colour = stream(config.seed, "prnu_filter", detector.id, amp.index, physical_filter)
        image[amp.index] += np.float32(strength.prnu) * grey.standard_normal(image.shape[1:], dtype=np.float32)
        image[amp.index] += np.float32(strength.prnu_filter) * colour.standard_normal(image.shape[1:], dtype=np.float32)
    _add_donuts(image, config, detector, physical_filter)
    cold = make_sensor(config, instrument_name, detector_id).defects.cold
    image[cold[:, 0], cold[:, 1] - box.y0, cold[:, 2] - box.x0] *= np.float32(strength.cold_pixel_response)
    return image


@functools.lru_cache(maxsize=2)
def flat_image(config: SimulationConfig, instrument_name: str, detector_id: int, physical_filter: str) -> F4:
    """Response x vignetting: what a lamp of unit brightness gives.

    Returns
    -------
    (amp, y, x) float32
        Trimmed amps in readout coordinates.
    """
    detector = get_instrument(instrument_name).detector(detector_id)
    image = response_image(config, instrument_name, detector_id, physical_filter)
    for amp in detector.amps:
        image[amp.index] *= vignetting(config, detector, amp)
    return image


def vignetting(config: SimulationConfig, detector: Detector, amp: Amp) -> F4:
    """Illumination of an amp's data area relative to the optical axis, from the radius in the focal plane.

    Returns
    -------
    (y, x) float32, in [0, 1].
    """
    strength = config.illumination
    if not strength.vignetting:
        return np.ones((amp.data.height, amp.data.width), np.float32)
    x_ccd, y_ccd = ccd_coordinates(amp)
    turn = np.deg2rad(detector.yaw_deg)
    dx = (x_ccd[None, :] - detector.refpos_x_pix) * detector.pixel_size_mm
    dy = (y_ccd[:, None] - detector.refpos_y_pix) * detector.pixel_size_mm
    x = detector.fp_x_mm + np.cos(turn) * dx - np.sin(turn) * dy
    y = detector.fp_y_mm + np.sin(turn) * dx + np.cos(turn) * dy
    radius = np.hypot(x, y)
    smooth = 1 - strength.roll_off * (radius / strength.clear_radius_mm) ** 2
    edge = (strength.dark_radius_mm - radius) / (strength.dark_radius_mm - strength.clear_radius_mm)
    return np.asarray(smooth * np.clip(edge, 0.0, 1.0), np.float32)


def ccd_coordinates(amp: Amp) -> tuple[F8, F8]:
    """Trimmed CCD coordinates of an amp's data columns (x,) and rows (y,) [pixel], in readout order."""
    x = np.arange(amp.data.width, dtype=np.float64)
    y = np.arange(amp.data.height, dtype=np.float64)
    x = x[::-1] if amp.flip_x else x
    y = y[::-1] if amp.flip_y else y
    return x + amp.ix * amp.data.width, y + amp.iy * amp.data.height


def _normals(config: SimulationConfig, name: str, detector: Detector) -> F8:
    return np.array([stream(config.seed, name, detector.id, a.index).standard_normal() for a in detector.amps])


def _flags(refs: tuple[AmpRef, ...], detector: Detector) -> npt.NDArray[np.bool_]:
    names = {amp for detector_id, amp in refs if detector_id == detector.id}
    return np.array([a.name in names for a in detector.amps])


def _read_noise(
    config: SimulationConfig, detector: Detector, noisy: npt.NDArray[np.bool_], dead: npt.NDArray[np.bool_], gain: F8
) -> F8:
    strength = config.read_noise
    if not strength.enabled:
        return np.zeros(len(detector.amps))
    noise = np.array([a.read_noise for a in detector.amps]) * strength.scale
    noise *= 1 + strength.scatter * _normals(config, "read_noise_truth", detector)
    noise = np.where(noisy, noise * config.faults.noise_factor, noise)
    return np.where(dead, config.faults.dead_noise_adu * gain, noise)


def _common_mode(config: SimulationConfig, detector: Detector, dead: npt.NDArray[np.bool_]) -> F8:
    strength = config.common_mode
    rms = strength.rms_e * (1 + strength.spread * np.tanh(_normals(config, "common_mode", detector)))
    return np.where(dead, 0.0, rms) * strength.enabled


def _bias_level(config: SimulationConfig, detector: Detector) -> F8:
    strength = config.bias_level
    level = strength.level_adu + strength.scatter_adu * np.tanh(_normals(config, "bias_level", detector))
    return np.asarray(level * strength.enabled)


def _row_profile(config: SimulationConfig, detector: Detector) -> F8:
    strength, ny = config.row_structure, detector.amps[0].raw_height
    scale = 1 + 0.3 * np.tanh(_normals(config, "row_profile", detector))
    return strength.enabled * strength.ramp_adu * scale[:, None] * np.exp(-np.arange(ny) / (0.03 * ny))[None, :]


def _column_profile(config: SimulationConfig, detector: Detector) -> F8:
    strength, nx = config.column_structure, detector.amps[0].raw_width
    scale = 1 + 0.3 * np.tanh(_normals(config, "column_profile", detector))
    ramp = strength.ramp_adu * scale[:, None] * np.exp(-np.arange(nx) / (0.05 * nx))[None, :]
    comb = [stream(config.seed, "column_comb", detector.id, a.index).standard_normal(nx) for a in detector.amps]
    return strength.enabled * (ramp + strength.comb_adu * np.array(comb))


def _crosstalk(config: SimulationConfig, detector: Detector, dead: npt.NDArray[np.bool_]) -> tuple[F8, F8]:
    """Matrices (source, target): neighbours along the CCD couple most; none with itself or a dead amp."""
    strength, n = config.crosstalk, len(detector.amps)
    rng = stream(config.seed, "crosstalk", detector.id)
    ix, iy = np.array([a.ix for a in detector.amps]), np.array([a.iy for a in detector.amps])
    distance = abs(ix[:, None] - ix[None, :]) + 4 * abs(iy[:, None] - iy[None, :])
    weight = np.exp(-(distance - 1) / strength.reach_amps) * (1 - np.eye(n))
    weight *= ~(dead[:, None] | dead[None, :])
    linear = strength.linear * weight * rng.uniform(0.3, 1.7, (n, n)) * rng.choice([1, 1, 1, -1], (n, n))
    quadratic = strength.quadratic_per_e * weight * rng.uniform(-1, 1, (n, n))
    return linear * strength.enabled, quadratic * strength.enabled


def _non_linearity(config: SimulationConfig, detector: Detector) -> F8:
    strength = config.non_linearity
    scale = 1 + strength.scatter * _normals(config, "non_linearity", detector)
    return np.asarray(strength.enabled * scale[:, None] * np.array([strength.c2_per_e, strength.c3_per_e2])[None, :])


def _cti(config: SimulationConfig, detector: Detector) -> F8:
    strength = config.serial_cti
    scale = np.exp(strength.scatter * _normals(config, "cti", detector))[:, None] * strength.enabled
    amounts = np.array([strength.global_cti, strength.trap_size_e, strength.drift_scale]) * scale
    ones = np.ones(len(detector.amps))
    shape = [strength.trap_slope * ones, strength.trap_emission_pixel * ones]
    return np.stack([amounts[:, 0], amounts[:, 1], *shape, amounts[:, 2], strength.drift_decay_pixel * ones], axis=1)


def _defects(config: SimulationConfig, detector: Detector) -> Defects:
    hot, rate, columns, column_rate, cold = [], [], [], [], []
    dark, response = config.dark, config.response
    for amp in detector.amps:
        rng = stream(config.seed, "defects", detector.id, amp.index)
        n_hot, n_columns = rng.poisson(dark.hot_pixels_per_amp), rng.poisson(dark.hot_columns_per_amp)
        hot.append(_positions(rng, amp, n_hot))
        low, high = np.log(dark.hot_pixel_min_e_per_s), np.log(dark.hot_pixel_max_e_per_s)
        rate.append(np.exp(rng.uniform(low, high, n_hot)))
        x = rng.integers(amp.data.x0, amp.data.x0 + amp.data.width, n_columns)
        columns.append(np.stack([np.full(n_columns, amp.index), x], axis=1))
        column_rate.append(dark.hot_column_e_per_s * rng.uniform(0.5, 1.5, n_columns))
        cold.append(_positions(rng, amp, rng.poisson(response.cold_pixels_per_amp)))
    return Defects(
        hot=np.concatenate(hot) if dark.enabled else np.zeros((0, 3), np.int64),
        hot_rate=np.concatenate(rate) if dark.enabled else np.zeros(0),
        columns=np.concatenate(columns) if dark.enabled else np.zeros((0, 2), np.int64),
        column_rate=np.concatenate(column_rate) if dark.enabled else np.zeros(0),
        cold=np.concatenate(cold) if response.enabled else np.zeros((0, 3), np.int64),
    )


def _positions(rng: np.random.Generator, amp: Amp, n: int) -> npt.NDArray[np.int64]:
    y = rng.integers(amp.data.y0, amp.data.y0 + amp.data.height, n)
    x = rng.integers(amp.data.x0, amp.data.x0 + amp.data.width, n)
    return np.stack([np.full(n, amp.index), y, x], axis=1)


def _add_donuts(image: F4, config: SimulationConfig, detector: Detector, physical_filter: str) -> None:
    """Shadow rings of dust on the filter, in CCD coordinates so that they cross amp borders."""
    strength = config.response
    rng = stream(config.seed, "donuts", detector.id, physical_filter)
    for _ in range(rng.poisson(strength.donuts_per_detector)):
        x0, y0 = rng.uniform(0, detector.width_pix), rng.uniform(0, detector.height_pix)
        outer = strength.donut_radius * detector.amps[0].data.width * rng.uniform(0.7, 1.5)
        depth = np.float32(strength.donut_depth * rng.uniform(0.3, 1.0))
        for amp in detector.amps:
            x_ccd, y_ccd = ccd_coordinates(amp)
            columns, rows = np.flatnonzero(abs(x_ccd - x0) <= outer), np.flatnonzero(abs(y_ccd - y0) <= outer)
            if not (columns.size and rows.size):
                continue
            radius = np.hypot(x_ccd[columns][None, :] - x0, y_ccd[rows][:, None] - y0)
            ring = (radius <= outer) & (radius >= 0.5 * outer)
            image[amp.index][np.ix_(rows, columns)] *= np.where(ring, 1 - depth, np.float32(1))

"""Each effect alone against its closed form, on the tiny camera; tolerances follow from the statistics."""

import numpy as np
import pytest

from camcal_dask.errors import ConfigError
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.simulation import SimulationConfig, bias_set, dark_set, flat_set, simulate_exposure
from camcal_dask.simulation import config as c
from camcal_dask.simulation.charge import lamp_electrons
from camcal_dask.simulation.sensor import (
    check_faults,
    flat_image,
    make_sensor,
    pattern_image,
    response_image,
    vignetting,
)

TINY = get_instrument("TinyCam")
BIAS = bias_set(4, 20260812)
BOX = {d.id: d.amps[0].data for d in TINY.detectors.values()}
LEVEL = c.BiasLevel(jitter_adu=0.0)


def electrons(raw, config, detector):
    """Raw pixels to electrons above the true bias level; rounding is all that is lost."""
    sensor = make_sensor(config, "TinyCam", detector)
    return (raw - sensor.bias_level[:, None, None]) * sensor.gain[:, None, None]


def data(image, detector):
    return image[:, BOX[detector].y, BOX[detector].x]


def one(exposure, config, detector=0):
    return electrons(simulate_exposure("TinyCam", detector, exposure, config), config, detector)


def close_in_adu(actual, expected, config, detector=0, adu=0.51):
    gain = make_sensor(config, "TinyCam", detector).gain[:, None, None]
    np.testing.assert_array_less(abs(actual - expected) / gain, adu)


def test_nothing_but_the_bias_level():
    config = SimulationConfig.ideal(bias_level=LEVEL)
    raw = simulate_exposure("TinyCam", 1, BIAS[0], config)
    level = np.rint(make_sensor(config, "TinyCam", 1).bias_level.astype(np.float32))
    assert raw.dtype == np.int32
    assert raw.shape == (16, 64, 56)
    assert (raw == level[:, None, None]).all()


def test_gain_and_read_noise_are_nominal_within_their_scatter():
    sensor = make_sensor(SimulationConfig(), "LSSTCam", 94)
    amps = get_instrument("LSSTCam").detector(94).amps
    np.testing.assert_allclose(sensor.gain, [a.gain for a in amps], rtol=5 * 0.002)
    np.testing.assert_allclose(sensor.read_noise, [a.read_noise for a in amps], rtol=5 * 0.002)


def test_read_noise_has_the_true_rms_with_common_mode_and_digitisation():
    config = SimulationConfig.ideal(bias_level=LEVEL, read_noise=c.ReadNoise(), common_mode=c.CommonMode(rms_e=2.0))
    sensor = make_sensor(config, "TinyCam", 0)
    frames = np.stack([one(e, config) for e in BIAS])  # 4 x 3584 pixels an amp
    rms = frames.std(axis=(0, 2, 3))
    np.testing.assert_allclose(rms, sensor.read_noise, rtol=4 / np.sqrt(2 * 4 * 3584))


def test_amps_share_the_common_mode():
    config = SimulationConfig.ideal(bias_level=LEVEL, read_noise=c.ReadNoise(), common_mode=c.CommonMode(rms_e=3.0))
    sensor = make_sensor(config, "TinyCam", 0)
    frames = np.concatenate([one(e, config).reshape(16, -1) for e in BIAS], axis=1)
    covariance = np.cov(frames)
    expected = np.outer(sensor.common_mode, sensor.common_mode)
    sigma = np.outer(sensor.read_noise, sensor.read_noise) * np.sqrt(2 / frames.shape[1])
    off = ~np.eye(16, dtype=bool)
    assert (abs(covariance - expected)[off] < 4.5 * sigma[off]).all()


def test_rows_and_columns_are_separable_and_reach_the_overscans():
    config = SimulationConfig.ideal(
        bias_level=LEVEL,
        row_structure=c.RowStructure(ramp_adu=300.0, drift_adu=200.0),
        column_structure=c.ColumnStructure(ramp_adu=400.0),
    )
    sensor = make_sensor(config, "TinyCam", 2)
    adu = simulate_exposure("TinyCam", 2, BIAS[0], config) - sensor.bias_level[:, None, None]
    columns = adu - sensor.column_profile[:, None, :]
    rows = columns.mean(axis=2)
    assert abs(columns - rows[:, :, None]).max() < 1.1  # rounding only: structure is row + column everywhere
    drift = rows - sensor.row_profile
    assert 50 < drift[:, -10:].std() < 600


def test_row_drift_differs_between_exposures_and_amps():
    config = SimulationConfig.ideal(bias_level=LEVEL, row_structure=c.RowStructure(ramp_adu=0.0, drift_adu=100.0))
    first, second = (simulate_exposure("TinyCam", 0, e, config) for e in BIAS[:2])
    assert (first[0] != second[0]).any()
    assert (first[0] != first[1]).any()


def test_pattern_fills_the_data_area_only_and_is_the_same_in_every_exposure():
    config = SimulationConfig.ideal(bias_level=LEVEL, pattern=c.Pattern(corner_adu=200.0))
    gain = make_sensor(config, "TinyCam", 3).gain[:, None, None]
    frames = [one(e, config, 3) for e in BIAS[:2]]
    np.testing.assert_array_equal(*frames)
    close_in_adu(data(frames[0], 3), gain * pattern_image(config, "TinyCam", 3), config, 3)
    outside = frames[0].copy()
    data(outside, 3)[:] = 0
    assert abs(outside / gain).max() < 0.51


def test_dark_current_hot_pixels_and_columns():
    dark = c.Dark(rate_e_per_s=10.0, hot_columns_per_amp=1.0)
    config = SimulationConfig.ideal(bias_level=LEVEL, dark=dark)
    exposure = dark_set(1, 20.0, 20260812)[0]
    sensor = make_sensor(config, "TinyCam", 1)
    expected = np.zeros(sensor.raw_shape)
    data(expected, 1)[:] = 10.0 * exposure.dark_time_s
    for (amp, y, x), rate in zip(sensor.defects.hot, sensor.defects.hot_rate, strict=True):
        expected[amp, y, x] += rate * exposure.dark_time_s
    for (amp, x), rate in zip(sensor.defects.columns, sensor.defects.column_rate, strict=True):
        expected[amp, BOX[1].y, x] += rate * exposure.dark_time_s
    assert len(sensor.defects.hot) > 100
    assert len(sensor.defects.columns) > 3
    close_in_adu(one(exposure, config, 1), expected, config, 1)


def test_a_bias_collects_no_dark_current():
    config = SimulationConfig.ideal(bias_level=LEVEL, dark=c.Dark(rate_e_per_s=1e5), shot_noise=c.ShotNoise())
    assert abs(one(BIAS[0], config) / make_sensor(config, "TinyCam", 0).gain[:, None, None]).max() < 0.51


def test_light_follows_lamp_filter_and_exposure_time():
    config = SimulationConfig.ideal(
        bias_level=LEVEL, illumination=c.Illumination(vignetting=False), response=c.Response(donuts_per_detector=40.0)
    )
    for exposure in flat_set(1, 8.0, 20260812, physical_filter="g_6", light=0.5):
        expected = lamp_electrons(config, exposure) * response_image(config, "TinyCam", 0, "g_6")
        assert lamp_electrons(config, exposure) == pytest.approx(0.5 * 2000 * 8, rel=0.01)
        close_in_adu(data(one(exposure, config), 0), expected, config)


def test_response_keeps_its_grey_part_and_changes_with_the_filter():
    config = SimulationConfig.ideal(response=c.Response(prnu=0.01, prnu_filter=0.005, donuts_per_detector=0.0))
    red, green = (response_image(config, "TinyCam", 0, f) for f in ("r_57", "g_6"))
    cold = make_sensor(config, "TinyCam", 0).defects.cold
    good = np.ones(red.shape, bool)
    good[cold[:, 0], cold[:, 1], cold[:, 2] - BOX[0].x0] = False
    assert red[good].std() == pytest.approx(np.hypot(0.01, 0.005), rel=0.03)
    assert np.corrcoef(red[good], green[good])[0, 1] == pytest.approx(0.8, abs=0.02)
    assert np.median(red[~good]) == pytest.approx(0.4, abs=0.01)


def test_donuts_cross_amp_borders():
    config = SimulationConfig.ideal(
        response=c.Response(
            prnu=0, prnu_filter=0, cold_pixels_per_amp=0, donut_radius=1.5, donut_depth=0.5, donuts_per_detector=3.0
        )
    )
    detector = TINY.detector(0)
    image = response_image(config, "TinyCam", 0, "r_57")
    ccd = np.empty((100, 288), np.float32)
    for amp in detector.amps:
        part = image[amp.index, :: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
        ccd[amp.iy * 50 : (amp.iy + 1) * 50, amp.ix * 36 : (amp.ix + 1) * 36] = part
    shadow = ccd < 1
    assert shadow.any()
    border = shadow[:, 35:-1:36] & shadow[:, 36::36]
    assert border.any() or (shadow[49] & shadow[50]).any()


@pytest.mark.parametrize("detector", [0, 94, 188])
def test_vignetting_depends_on_focal_plane_radius(detector):
    camera = get_instrument("LSSTCam").detector(detector)
    amp = camera.amps[9]
    config = SimulationConfig()
    image = vignetting(config, camera, amp)
    y, x = 1000, 200
    x_ccd = amp.ix * amp.data.width + (amp.data.width - 1 - x if amp.flip_x else x)
    y_ccd = amp.iy * amp.data.height + (amp.data.height - 1 - y if amp.flip_y else y)
    radius = np.hypot(
        camera.fp_x_mm + (x_ccd - camera.refpos_x_pix) * 0.01, camera.fp_y_mm + (y_ccd - camera.refpos_y_pix) * 0.01
    )
    expected = (1 - 0.04 * (radius / 317) ** 2) * min(1.0, max(0.0, (366 - radius) / 49))
    assert image[y, x] == pytest.approx(expected, abs=1e-5)


def test_flat_image_is_response_times_vignetting():
    config = SimulationConfig()
    amp = TINY.detector(2).amps[5]
    expected = response_image(config, "TinyCam", 2, "i_39")[5] * vignetting(config, TINY.detector(2), amp)
    np.testing.assert_array_equal(flat_image(config, "TinyCam", 2, "i_39")[5], expected)


def test_shot_noise_of_a_flat_measures_the_gain():
    config = SimulationConfig.ideal(
        bias_level=LEVEL,
        illumination=c.Illumination(vignetting=False, lamp_jitter=0.0),
        shot_noise=c.ShotNoise(),
        gain=c.Gain(scatter=0.05),
    )
    sensor = make_sensor(config, "TinyCam", 0)
    frames = np.stack([simulate_exposure("TinyCam", 0, e, config) for e in flat_set(6, 2.0, 20260812)])
    signal = frames[:, :, BOX[0].y, BOX[0].x] - sensor.bias_level[:, None, None]
    mean, variance = signal.mean(axis=(0, 2, 3)), signal.var(axis=(0, 2, 3)) - 1 / 12
    n = signal[:, 0].size
    np.testing.assert_allclose(mean * sensor.gain, 4000.0, rtol=4 / np.sqrt(n * 4000))
    np.testing.assert_allclose(mean / variance, sensor.gain, rtol=4 * np.sqrt(2 / n))


def test_full_well_without_blooming_clips():
    config = SimulationConfig.ideal(
        bias_level=LEVEL,
        illumination=c.Illumination(vignetting=False, rate_e_per_s=1e5),
        full_well=c.FullWell(scale=0.5, blooming=False),
    )
    well = make_sensor(config, "TinyCam", 0).full_well[:, None, None]
    close_in_adu(data(one(flat_set(1, 10.0, 20260812)[0], config), 0), well, config)


def test_adc_saturates_at_18_bits():
    config = SimulationConfig.ideal(illumination=c.Illumination(rate_e_per_s=1e6))
    raw = simulate_exposure("TinyCam", 0, flat_set(1, 10.0, 20260812)[0], config)
    assert raw.max() == 2**18 - 1


def test_non_linearity():
    bent = c.NonLinearity(c2_per_e=-1e-6, c3_per_e2=1e-12)
    light = c.Illumination(vignetting=False, lamp_jitter=0.0)
    config = SimulationConfig.ideal(bias_level=LEVEL, illumination=light, non_linearity=bent)
    c2, c3 = make_sensor(config, "TinyCam", 0).non_linearity.T[:, :, None, None]
    expected = 60000 + c2 * 60000.0**2 + c3 * 60000.0**3
    assert np.ptp(c2) > 0
    close_in_adu(data(one(flat_set(1, 30.0, 20260812)[0], config), 0), expected, config)


def test_crosstalk_of_hot_pixels():
    """Bright single pixels: every target shows c B + q B^2 of every source at the same place, and nothing else."""
    config = SimulationConfig.ideal(
        bias_level=LEVEL,
        dark=c.Dark(rate_e_per_s=0, hot_pixel_min_e_per_s=1e4, hot_pixel_max_e_per_s=1e5, hot_columns_per_amp=0),
        crosstalk=c.Crosstalk(linear=2e-3, quadratic_per_e=1e-8),
    )
    exposure = dark_set(1, 1.0, 20260812)[0]
    plain = one(exposure, config.model_copy(update={"crosstalk": c.Crosstalk(enabled=False)}))
    sensor = make_sensor(config, "TinyCam", 0)
    np.testing.assert_array_equal(np.diag(sensor.crosstalk), 0)
    linear = np.einsum("st,syx->tyx", sensor.crosstalk, plain)
    quadratic = np.einsum("st,syx->tyx", sensor.crosstalk_quadratic, plain**2)
    assert abs(linear).max() > 50
    assert abs(quadratic).max() > 5
    close_in_adu(one(exposure, config), plain + linear + quadratic, config, adu=1.05)


def test_dead_and_noisy_amps():
    faults = c.Faults(dead=((0, "C12"),), noisy=((0, "C03"),), noise_factor=5.0)
    config = SimulationConfig(faults=faults, common_mode=c.CommonMode(enabled=False))
    exposure = flat_set(1, 20.0, 20260812)[0]
    dark = simulate_exposure("TinyCam", 0, BIAS[0], config)
    flat = simulate_exposure("TinyCam", 0, exposure, config)
    names = [a.name for a in TINY.detector(0).amps]
    dead, noisy = names.index("C12"), names.index("C03")
    overscan = np.diff(dark[:, :, 44:], axis=2).std(axis=(1, 2)) / np.sqrt(2)
    sensor = make_sensor(config, "TinyCam", 0)
    assert sensor.dead.nonzero()[0].tolist() == [dead]
    assert overscan[dead] < 0.7
    assert overscan[noisy] * sensor.gain[noisy] == pytest.approx(5 * 6.0, rel=0.25)
    assert abs(data(flat, 0)[dead].mean() - data(dark, 0)[dead].mean()) < 5
    assert data(flat, 0)[noisy].mean() - data(dark, 0)[noisy].mean() > 10000


def test_faults_of_unknown_amps_are_refused():
    config = SimulationConfig(faults=c.Faults(dead=((0, "C18"),)))
    with pytest.raises(ConfigError, match=r"detector 0 has no amp 'C18'; did you mean 'C1"):
        check_faults(config, TINY)


def test_first_exposure_after_idle_is_contaminated_in_the_data_area_only():
    config = SimulationConfig.ideal(bias_level=LEVEL, contamination=c.Contamination())
    first, second = (one(e, config) for e in bias_set(2, 20260812, contaminated_first=True))
    gain = make_sensor(config, "TinyCam", 0).gain[:, None, None]
    assert abs(second / gain).max() < 0.51
    assert data(first, 0)[:, :5].mean() == pytest.approx(400 * np.exp(-0.15), rel=0.15)
    assert data(first, 0).mean(axis=1).std(axis=1).min() > 5  # column stripes
    outside = first.copy()
    data(outside, 0)[:] = 0
    assert abs(outside / gain).max() < 0.51


def test_cosmic_rays_leave_straight_tracks():
    rays = c.CosmicRays(rate_per_cm2_s=100.0, mean_length_pixel=6.0)
    config = SimulationConfig.ideal(bias_level=LEVEL, cosmic_rays=rays)
    frames = np.stack([one(e, config) for e in BIAS])
    hit = frames > 100
    expected = 100.0 * 16 * 1800 * 1e-6 * 1.2 * 4  # tracks: rate x area x half of the readout x exposures
    total = frames[hit].sum() / (700 * np.exp(0.08) * 7)
    assert 0.2 * expected < total < 1.5 * expected  # tracks are cut at the edges of the small amps
    assert hit.mean() < 0.05

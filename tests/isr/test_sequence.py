"""The steps on one detector: their order, geometry, thresholds, units, variance."""

import inspect
import re

import numpy as np
import pytest

from camcal_dask.instruments import get_instrument
from camcal_dask.isr import sequence
from camcal_dask.isr.calibrations import Plane, Planes, add_flags, common_flags, subtract_bias
from camcal_dask.isr.config import IsrConfig, OverscanConfig, ParallelOverscanConfig
from camcal_dask.isr.masks import mask_not_finite
from camcal_dask.isr.raw import RawRows
from camcal_dask.isr.sequence import Exposure, correct, measure_overscan
from camcal_dask.isr.statistics import STATISTICS
from camcal_dask.isr.tables import NO_TABLES, prepare
from camcal_dask.isr.variance import noise_variance, variance_plane
from camcal_dask.kernels.pixels.masks import BAD, NO_DATA, UNMASKEDNAN
from camcal_dask.kernels.readout.overscan import FILL
from camcal_dask.kernels.statistics.moments import clip_statistics
from tests.isr.frames import DAY, tiny_raw

CAMERA = get_instrument("TinyCam")
PLAIN = IsrConfig(dither="none")


def rows_of(pixels, detector=0):
    return RawRows(pixels, 0, 0, DAY + 1, CAMERA.detectors[detector])


def corrected(raw, config=PLAIN):
    """Overscan, image and mask of whole amps."""
    tables = prepare(raw.detector, NO_TABLES, config)
    overscan = measure_overscan(raw, config, tables, width=CAMERA.trimmed_shape[1])
    image, mask = np.empty((16, 50, 36), np.float32), np.empty((16, 50, 36), np.int32)
    correct(Exposure(raw, range(50), overscan, Planes(), 0.0, config, tables), image, mask)
    return overscan, image, mask


@pytest.mark.parametrize("detector", [0, 2])
def test_rows_and_columns_are_removed_exactly(detector):
    """Integer level per amp, row and column without noise: the image is zero, E2V and ITL."""
    rng = np.random.default_rng(detector)
    row = rng.integers(-40, 40, (16, 64, 1))
    column = rng.integers(0, 4, (16, 1, 56))
    amp = CAMERA.detectors[detector].amps[0]
    column[:, :, : amp.data.x0] = 77  # prescan: nobody looks
    column[:, :, amp.serial_overscan.x0 :] = 0
    raw = rows_of((20000 + row + column).astype("i4"), detector)
    overscan, image, mask = corrected(raw)
    width, height = amp.data.width, amp.data.height
    np.testing.assert_array_equal(image[:, :height, :width], 0)
    assert np.isnan(image[:, height:]).all()
    assert np.isnan(image[:, :, width:]).all()
    assert (mask[:, :height, :width] == 0).all()
    assert (mask[:, height:] == NO_DATA).all()
    np.testing.assert_array_equal(overscan.serial, (20000 + row)[..., 0])
    np.testing.assert_array_equal(overscan.parallel[:, :width], column[:, 0, amp.data.x])


def test_statistics_are_those_of_the_corrected_strips():
    raw, _ = tiny_raw(1)
    pixels = raw.values[0, 0]
    overscan, _, _ = corrected(rows_of(pixels))
    numbers = dict(zip(STATISTICS, overscan.statistics[5], strict=True))
    amp = CAMERA.detectors[0].amps[5]
    strip = pixels[5, :, amp.serial_overscan.x].astype("f4") - overscan.serial[5][:, None]  # skipped columns too
    expected = clip_statistics(strip)
    assert numbers["read_noise_adu"] == pytest.approx(expected.stdev, rel=1e-9)
    assert numbers["read_noise_adu"] == pytest.approx(5.0, rel=0.1)
    assert numbers["serial_residual_mean"] == pytest.approx(strip.mean(dtype="f8"), abs=1e-6)
    assert numbers["serial_overscan_median"] == pytest.approx(np.median(overscan.serial[5]))
    assert numbers["serial_overscan_mean"] == pytest.approx(overscan.serial[5].mean(dtype="f8"))
    assert numbers["serial_overscan_stdev"] == pytest.approx(clip_statistics(overscan.serial[5]).stdev)
    assert numbers["parallel_residual_stdev"] == pytest.approx(5.0, rel=0.15)
    assert numbers["serial_bad_rows"] == 0


def test_prescan_is_not_touched_and_not_used():
    raw, _ = tiny_raw(1)
    pixels = raw.values[0, 0]
    other = pixels.copy()
    other[:, :, :4] = 100000
    for a, b in zip(corrected(rows_of(pixels))[1:], corrected(rows_of(other))[1:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_saturated_parallel_pixels_are_left_out():
    """20000 adu above the serial level, grown by 7: beyond its reach the columns are as without it."""
    raw, _ = tiny_raw(1)
    pixels = raw.values[0, 0]
    clean, _, _ = corrected(rows_of(pixels))
    hit = pixels.copy()
    hit[3, 55:64, 20] += 25000
    overscan, _, _ = corrected(rows_of(hit))
    np.testing.assert_array_equal(np.delete(overscan.parallel[3], range(16 - 7, 16 + 8)), np.delete(
        clean.parallel[3], range(16 - 7, 16 + 8)))  # fmt: skip
    assert abs(overscan.parallel[3, 16] - clean.parallel[3, 16]) < 10
    assert overscan.statistics[3, list(STATISTICS).index("parallel_residual_stdev")] < 10


def lit(strip_level, data_level):
    """A frame whose data and parallel overscan hold light."""
    raw, _ = tiny_raw(1)
    pixels = raw.values[0, 0].copy()
    pixels[:, :50, 4:40] += data_level
    pixels[:, 50:, 4:40] += strip_level
    return rows_of(pixels)


@pytest.mark.parametrize(
    ("strip", "data", "skipped"), [(6000, 11000, True), (5000, 11000, False), (6000, 13000, False), (4800, 9000, False)]
)
def test_bright_parallel_strip_is_not_subtracted(strip, data, skipped):
    """reference/isr.md 2.2 step 1: more than half of the data, and the data above 10000."""
    overscan, image, _ = corrected(lit(strip, data))
    assert np.median(image) == pytest.approx(data if skipped else data - strip, abs=5)
    assert (overscan.statistics[:, 7:] == 0).all() == skipped


def test_threshold_of_the_data_is_in_the_unit_of_the_image():
    """10000 is not scaled by the gain (about 1.5), the others are."""
    _, image, _ = corrected(lit(4500, 8000), IsrConfig(dither="none", gains="nominal"))
    gain = [a.gain for a in CAMERA.detectors[0].amps]
    np.testing.assert_allclose(np.median(image, axis=(1, 2)), 8000 * np.array(gain), rtol=1e-2)
    _, image, _ = corrected(lit(4500, 8000))
    assert np.median(image) == pytest.approx(3500, abs=5)


def test_nominal_gain_scales_image_noise_and_thresholds():
    raw, _ = tiny_raw(1, pattern=20)
    pixels = raw.values[0, 1]
    pixels[:, 50:, 20] += 90  # below 100 adu, above 100 electron / gain
    amps = CAMERA.detectors[1].amps
    gain = np.array([a.gain for a in amps], np.float32)
    in_adu, image, _ = corrected(rows_of(pixels, 1))
    in_e, electrons, _ = corrected(rows_of(pixels, 1), IsrConfig(dither="none", gains="nominal"))
    np.testing.assert_array_equal(in_adu.serial, in_e.serial)
    np.testing.assert_allclose(electrons, image * gain[:, None, None], rtol=1e-5, atol=1e-3)
    noise_adu = noise_variance(CAMERA.detectors[1], in_adu.statistics, PLAIN)
    noise_e = noise_variance(CAMERA.detectors[1], in_e.statistics, IsrConfig(gains="nominal"))
    np.testing.assert_allclose(noise_e, noise_adu * gain**2, rtol=1e-5)


def test_variance():
    """V = I + V_bias + RN^2 with the empirical, or the nominal read noise (reference/isr.md 2.12)."""
    rng = np.random.default_rng(3)
    statistics = rng.uniform(3, 6, (16, len(STATISTICS)))
    image = rng.normal(0, 5, (16, 50, 36)).astype("f4")
    bias = Plane(image, rng.uniform(0, 1, image.shape).astype("f4"), np.zeros(image.shape, "i4"))
    detector = CAMERA.detectors[0]
    noise = noise_variance(detector, statistics, PLAIN)
    np.testing.assert_allclose(noise, statistics[:, list(STATISTICS).index("read_noise_adu")] ** 2, rtol=1e-6)
    expected = image.astype("f8") + bias.variance + noise[:, None, None]
    np.testing.assert_allclose(variance_plane(image, noise, bias), expected, rtol=1e-6, atol=1e-5)
    nominal = IsrConfig(gains="nominal", read_noise="nominal")
    expected = [a.read_noise**2 for a in detector.amps]
    np.testing.assert_allclose(noise_variance(detector, statistics, nominal), expected, rtol=1e-6)
    expected = [(a.read_noise / a.gain) ** 2 for a in detector.amps]
    nominal = IsrConfig(read_noise="nominal")
    np.testing.assert_allclose(noise_variance(detector, statistics, nominal), expected, rtol=1e-6)


def test_pixels_never_written():
    raw, _ = tiny_raw(1)
    pixels = raw.values[0, 0].copy()
    pixels[9] = FILL
    pixels[2, 10, 15] = FILL
    overscan, image, mask = corrected(rows_of(pixels))
    assert np.isnan(image[9]).all()
    assert (mask[9] == NO_DATA | BAD | UNMASKEDNAN).all()
    assert np.isnan(overscan.statistics[9]).all()
    assert np.argwhere(mask[2]).tolist() == [[10, 11]]
    assert np.isfinite(np.delete(image, [9, 2], axis=0)).all()


def test_nan_mask_looks_at_the_bias_variance_and_spares_the_padding():
    raw, _ = tiny_raw(1)
    _, image, mask = corrected(rows_of(raw.values[0, 2], 2))
    planes = [np.zeros(image.shape, t) for t in ("f4", "f4", "i4")]
    planes[0][4, 5, 6] = np.nan
    planes[1][4, 7, 8] = np.nan
    planes[2][4, 9, 1] = BAD
    bias = Plane(*planes)
    calibs, place = Planes(bias), (CAMERA.detectors[2], 0)
    flags = common_flags(mask.shape, calibs, *place, IsrConfig())
    assert np.flatnonzero(~flags.quiet).tolist() == [4]
    subtract_bias(image, bias)
    quiet = add_flags(mask, calibs, *place, IsrConfig(), flags)
    mask_not_finite(image, mask, *place, skip=quiet)
    assert np.argwhere(mask == UNMASKEDNAN).tolist() == [[4, 5, 6], [4, 7, 8]]
    assert mask[4, 9, 1] == BAD
    assert (mask[:, 49:] == NO_DATA).all()


def test_switches():
    raw, _ = tiny_raw(1)
    off = OverscanConfig(enabled=False)
    config = IsrConfig(dither="none", serial_overscan=off, read_noise="nominal",
                       parallel_overscan=ParallelOverscanConfig(enabled=False))  # fmt: skip
    _, image, _ = corrected(rows_of(raw.values[0, 0]), config)
    np.testing.assert_array_equal(image, raw.values[0, 0, :, :50, 4:40])
    with pytest.raises(ValueError, match="read_noise"):
        IsrConfig(serial_overscan=off)
    mean = IsrConfig(dither="none", serial_overscan=OverscanConfig(fit_type="MEAN_PER_ROW"))
    overscan, _, _ = corrected(rows_of(raw.values[0, 0]), mean)
    plain = raw.values[0, 0, :, :, 43:53].mean(axis=-1)
    assert np.abs(overscan.serial - plain).max() < 8  # outliers out


@pytest.mark.parametrize(("dither", "low"), [("symmetric", -0.5), ("positive", 0.0), ("negative", -1.0)])
def test_dither_is_uniform_in_its_interval(dither, low):
    off = {"enabled": False}
    config = IsrConfig(dither=dither, serial_overscan=off, parallel_overscan=off, read_noise="nominal")
    raw, _ = tiny_raw(1)
    _, image, _ = corrected(rows_of(raw.values[0, 0]), config)
    added = image - raw.values[0, 0, :, :50, 4:40]
    assert added.min() >= low - 1e-3
    assert added.max() <= low + 1 + 1e-3
    assert added.mean() == pytest.approx(low + 0.5, abs=0.01)
    assert added.var() == pytest.approx(1 / 12, rel=0.03)


@pytest.mark.parametrize("fit_type", ["MEANCLIP", "CHEB", "AKIMA_SPLINE"])
def test_smooth_overscan(fit_type):
    """A level that is a straight line over the rows is found by every curve; its mean by a single level."""
    raw, _ = tiny_raw(1, read_noise=0.0)
    pixels = np.full(raw.values[0, 0].shape, 20000, "i4") + np.arange(64, dtype="i4")[:, None] * 4
    serial = OverscanConfig(fit_type=fit_type, order=8 if "SPLINE" in fit_type else 1)
    overscan, _, _ = corrected(rows_of(pixels), IsrConfig(dither="none", serial_overscan=serial))
    expect = 20000 + 4 * np.arange(64) if fit_type != "MEANCLIP" else np.full(64, 20000 + 4 * 31.5)
    np.testing.assert_allclose(overscan.serial, np.broadcast_to(expect, (16, 64)), rtol=1e-6)


ORDER = {
    "overscan.subtract_both": "5, 6, 9, 12 and 15",
    "_to_image_unit": "5 - 9",
    "crosstalk.subtract": "10",
    "overscan.subtract_parallel": "12",
    "linearity.linearize": "13",
    "deferred_charge.correct": "14",
    "stripe.trim": "15",
    "amps.flag_bad_amps": "3, 7, 11",
    "morphology.mask_shapes": "16 - 18, whole CCD",
    "calibrations.subtract_bias": "19",
    "calibrations.subtract_dark": "20",
    "calibrations.add_flags": "19 - 21",
    "masks.mask_not_finite": "22",
    "morphology.widen_trails": "23, whole CCD",
    "brighter_fatter.correct": "24, whole CCD",
    "masks.mask_negative_variance": "25",
    "flat.divide": "26",
    "interpolation.fill_bad_regions": "28, whole CCD",
    "interpolation.interpolate": "29, whole CCD",
    "amp_offsets.correct": "30, whole CCD",
}
"""Steps of reference/isr.md 1 in their order; amps that are BAD as a whole are known before, flagged after the trim."""


def test_the_page_has_the_documented_order():
    """The calls of `correct` stand in the order of the reference, each with the number that it has there."""
    lines = inspect.getsource(sequence.correct).splitlines()
    found = {}
    for name in ORDER:
        places = [i for i, line in enumerate(lines) if re.search(rf"\b{re.escape(name)}\(", line)]
        assert len(places) == 1, name
        found[name] = places[0]
    assert list(found.values()) == sorted(found.values())
    for name, number in list(ORDER.items())[1:]:
        assert lines[found[name]].endswith(f"# {number}"), lines[found[name]]


def test_a_configuration_that_needs_no_whole_ccd_calls_no_step_that_does(monkeypatch):
    """Slabs are corrected without `assemble`: only the steps marked "whole CCD" put a CCD together."""
    from camcal_dask.isr import amp_offsets, brighter_fatter, interpolation, morphology

    for module in (amp_offsets, brighter_fatter, interpolation, morphology):
        monkeypatch.setattr(module, "assemble", lambda *_: pytest.fail("assembled"))
    raw, _ = tiny_raw(1)
    _, image, _ = corrected(rows_of(raw.values[0, 0]), IsrConfig(gains="nominal", mask_negative_variance=True))
    assert np.isfinite(image).all()

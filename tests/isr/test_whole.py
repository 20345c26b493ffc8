"""Whole-CCD steps through isr(): in their place in the order, by the right kernel, gated by the configuration."""

import dask
import numpy as np
import pytest

from camcal_dask.calibs.combined.combine import CombineConfig, combine
from camcal_dask.errors import ConfigError
from camcal_dask.instruments.focal_plane import amp_boxes, assemble
from camcal_dask.isr.config import IsrConfig, MorphologyConfig, SaturationConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.charge import brighter_fatter
from camcal_dask.kernels.pixels import interpolation
from camcal_dask.kernels.pixels.masks import BAD, EDGE, INTRP, ITL_DIP, SAT, SUSPECT
from camcal_dask.kernels.readout import amp_offset
from tests.isr.calibrations import CAMERA, bright_raw, calibrations, table
from tests.isr.frames import raw_array

BASE = IsrConfig(dither="none", gains="ptc", bias=True, dark=True, defects=True)
LEVELS = SaturationConfig(saturated="turnoff")


@pytest.fixture(scope="module")
def calibs():
    return calibrations()


@pytest.fixture(scope="module")
def raw():
    return bright_raw(1)[0]


def run(raw, calibs, config, **updates):
    return isr(raw, calibs, config.model_copy(update=updates)).dataset().compute(scheduler="sync")


def ccd(result, name, d):
    return assemble(result[name].values[0, d], CAMERA.detectors[d])


def area(d):
    box = CAMERA.detectors[d].amps[0].data
    return np.s_[:, : box.height, : box.width]


def shifts(n=4, scale=3e-7):
    lag = np.hypot(*np.indices((n, n))) + 1.0
    value = scale / lag**3
    value[0, 0] = -4 * scale
    return {name: np.stack([value] * 4) for name in ("aN", "aS", "aE", "aW")}


@pytest.mark.parametrize("d", [0, 2])
def test_astier_before_variance_and_flat(raw, calibs, d):
    bf = table(shifts())
    before = run(raw, calibs, BASE)
    after = run(raw, {**calibs, "brighter_fatter": bf}, BASE, brighter_fatter="astier23", flat=True)
    pixels, flags = ccd(before, "image", d), ccd(before, "mask", d)
    total = pixels.sum(dtype="f8")
    brighter_fatter.astier23(pixels, flags, brighter_fatter.BoundaryShifts(*(v[d] for v in shifts().values())))
    assert pixels.sum(dtype="f8") == pytest.approx(total, rel=1e-9)  # reference/isr.md 7.6
    flat = assemble(calibs["flat"]["image"].values[d], CAMERA.detectors[d])
    np.testing.assert_allclose(ccd(after, "image", d), pixels / flat, rtol=1e-6)
    np.testing.assert_array_equal(ccd(after, "mask", d), flags)
    assert (flags[:4] & EDGE).all()
    noise = after["read_noise_adu"].values[0, d] * calibs["ptc"]["gain"].values[d]
    spread = after["variance"].values[0, d][area(d)]
    i, f = (v[area(d)].astype("f8") for v in (after["image"].values[0, d], calibs["flat"]["image"].values[d]))
    light = i * f + noise[:, None, None] ** 2 + calibs["bias"]["variance"].values[d][area(d)]
    light += 1.5**2 * calibs["dark"]["variance"].values[d][area(d)]
    expect = (i**2 * calibs["flat"]["variance"].values[d][area(d)] + light) / f**2
    np.testing.assert_allclose(spread, expect, rtol=2e-6)


@pytest.mark.parametrize("method", ["coulton18", "coulton18_flux_conserving"])
def test_coulton(raw, calibs, method):
    kernel = np.outer(np.hanning(9)[1:-1], np.hanning(9)[1:-1]) * -1e-7
    before = run(raw, calibs, BASE)
    after = run(raw, {**calibs, "brighter_fatter": table({"kernel": np.stack([kernel] * 4)})}, BASE,
                brighter_fatter=method)  # fmt: skip
    pixels, flags = ccd(before, "image", 1), ccd(before, "mask", 1)
    getattr(brighter_fatter, method)(pixels, flags, kernel)
    np.testing.assert_array_equal(ccd(after, "image", 1), pixels)
    assert not np.array_equal(pixels, ccd(before, "image", 1))
    with pytest.raises(ConfigError, match="no brighter_fatter was given"):
        run(raw, calibs, BASE, brighter_fatter=method)


@pytest.mark.parametrize("d", [0, 3])
def test_fill_interpolate_offsets_come_last(raw, calibs, d):
    before = run(raw, calibs, BASE, flat=True, saturation=LEVELS)
    after = run(raw, calibs, BASE, flat=True, saturation=LEVELS, fill_bad_regions=True, interpolate=True,
                amp_offsets="apply", amp_offset_max=1e5)  # fmt: skip
    pixels, spread, flags = (ccd(before, name, d) for name in ("image", "variance", "mask"))
    interpolation.set_bad_regions(pixels, flags)
    interpolation.interpolate(pixels, spread, flags)
    boxes = amp_boxes(CAMERA.detectors[d]).astype(np.int64)
    offsets = amp_offset.measure_amp_offsets(pixels, flags, boxes, max_offset=1e5).pedestals
    amp_offset.apply_amp_offsets(pixels, offsets, boxes)
    np.testing.assert_array_equal(ccd(after, "image", d), pixels)
    np.testing.assert_array_equal(ccd(after, "variance", d), spread)
    np.testing.assert_array_equal(ccd(after, "mask", d), flags)
    np.testing.assert_array_equal(after["amp_offset"].values[0, d], offsets)
    assert (flags & INTRP).any()
    assert np.isfinite(ccd(after, "image", d)).all()
    measured = run(raw, calibs, BASE, flat=True, saturation=LEVELS, amp_offsets="measure", amp_offset_max=1e5)
    np.testing.assert_array_equal(measured["image"], before["image"])
    assert np.abs(measured["amp_offset"]).max() > 0


def saturated_star(d, columns, rows):
    """A bleed from the bottom edge of the CCD up, in detector coordinates, on a level of 500 adu."""
    detector = CAMERA.detectors[d]
    pixels = np.full((1, 4, 16, 64, 56), 20000, "i4")
    for amp in detector.amps:
        area = pixels[0, d, amp.index, amp.data.y, amp.data.x]
        y, x = np.indices(area.shape)
        x = amp.ix * amp.data.width + (amp.data.width - 1 - x if amp.flip_x else x)
        y = amp.iy * amp.data.height + (amp.data.height - 1 - y if amp.flip_y else y)
        area += 500
        area[(y < rows) & (x >= columns[0]) & (x < columns[1])] += 60000
    return raw_array(pixels)


def test_morphology_of_e2v(calibs):
    config = IsrConfig(dither="none", gains="ptc", saturation=LEVELS)
    raw = saturated_star(0, (60, 180), 95)
    plain = run(raw, calibs, config)
    got = run(raw, calibs, config, morphology=MorphologyConfig(e2v_edge_bleed=True))
    new = (ccd(got, "mask", 0) ^ ccd(plain, "mask", 0)) & SAT != 0
    # the column of the centroid, 119, lies in the amp of columns 108..143: all its rows nearer than 350
    expect = np.zeros(new.shape, bool)
    expect[:50, 108:144] = True
    np.testing.assert_array_equal(new, expect & (ccd(plain, "mask", 0) & SAT == 0))
    np.testing.assert_array_equal(got["image"], plain["image"])


def test_morphology_of_itl(calibs):
    config = IsrConfig(dither="none", gains="ptc", saturation=LEVELS)
    raw = saturated_star(2, (50, 170), 90)
    name = CAMERA.detectors[2].full_name
    rules = MorphologyConfig(itl_dip=True, itl_edge_bleed=True, itl_dips={name: (10, 0.01)})
    plain, got = run(raw, calibs, config), run(raw, calibs, config, morphology=rules)
    flags, old = ccd(got, "mask", 2), ccd(plain, "mask", 2)
    assert (flags[:, 50:170] & SAT != 0).all()  # sagging columns
    assert not (old[92:] & SAT).any()
    dip = (flags & ITL_DIP) != 0
    assert (dip == dip[:1]).all()
    assert dip[0].sum() == 76  # 1.5 widths of at most 50, both ends included
    np.testing.assert_array_equal(dip, (flags & SUSPECT) != 0)
    off = run(raw, calibs, config, morphology=rules.model_copy(update={"itl_dips": {}}))
    assert not (ccd(off, "mask", 2) & ITL_DIP).any()


def test_widened_trails(calibs, raw):
    got = run(raw, calibs, BASE, saturation=LEVELS, widen_trails=True)
    plain = run(raw, calibs, BASE, saturation=LEVELS)
    assert ((got["mask"] & SAT) >= (plain["mask"] & SAT)).all()
    assert (got["mask"] & BAD == plain["mask"] & BAD).all()


def test_slabs_need_exposures_in_memory(raw, calibs):
    """A stack of exposures that were corrected as whole CCDs: refused with the remedy, which is tried."""
    config = BASE.model_copy(update={"interpolate": True})
    corrected = isr(raw, calibs, config)
    with pytest.raises(ConfigError, match=r"whole CCDs, not slabs of rows; .* persist\(\)"):
        combine(corrected)
    with dask.config.set(scheduler="sync"):
        product = combine(corrected.persist(), CombineConfig(reject_mask=()), slab_rows=16).compute()
    image = corrected.dataset()["image"].compute(scheduler="sync").values[0, 0]
    np.testing.assert_array_equal(product["image"].values[0], image)
    with pytest.raises(ValueError, match="need gains"):
        IsrConfig(brighter_fatter="astier23")

"""Gain ratios from synthetic flats of known steps, illumination and faults."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.ptc.gain_ratios import (
    GainRatioConfig,
    adjust_by_amp_offsets,
    adjust_gain_ratios,
    bin_flats,
    flats_for_gain_ratios,
)
from camcal_dask.errors import DataError
from camcal_dask.instruments import get_instrument
from camcal_dask.instruments.focal_plane import ccd_to_focal_plane, readout_to_ccd, transform
from camcal_dask.kernels.light.gain_ratio import fit_gain_ratios, reference_amp
from camcal_dask.kernels.pixels.masks import BAD

LSSTCAM = get_instrument("LSSTCam")
DETECTOR = LSSTCAM.detectors[22]  # far from the axis
NAMES = [amp.name for amp in DETECTOR.amps]
PAIR = ("pair", "detector", "amp")
TRUE = 1.5 + 0.02 * np.random.default_rng(0).standard_normal(16)


def curves(gain, means=(500.0, 2000.0, 6000.0, 12000.0, 30000.0)):
    shape = (len(means), 1, 16)
    amp = (("detector", "amp"), gain[None])
    return xr.Dataset(
        {
            "gain": amp,
            "gain_unadjusted": amp,
            "noise": amp[:1] + (np.full((1, 16), 6.0),),
            "turnoff": amp[:1] + (np.linspace(80000, 90000, 16)[None],),
            "bad": amp[:1] + (~np.isfinite(gain)[None],),
            "final_mean": (PAIR, np.broadcast_to(np.array(means)[:, None, None], shape).copy()),
        },
        {"exposure_1": ("pair", 100 + 2 * np.arange(len(means))), "detector": [22], "amp": NAMES},
    )


def flats(true=TRUE, noise=0.0, illumination=lambda u, v, r: 1.0, exposures=(102, 104, 106), size=64):
    """Binned flats in adu: smooth light over the true gains."""
    rng = np.random.default_rng(1)
    bin_y, bin_x = (20 + size * np.arange((n - 40) // size) + (size - 1) / 2 for n in (2002, 512))
    x_readout, y_readout = np.meshgrid(bin_x, bin_y)
    out = np.empty((len(exposures), 1, 16, *x_readout.shape))
    for k, amp in enumerate(DETECTOR.amps):
        x, y = transform(readout_to_ccd(amp), x_readout, y_readout)
        radius = np.hypot(*transform(ccd_to_focal_plane(DETECTOR), x, y))
        light = illumination(2 * x / 4095 - 1, 2 * y / 4003 - 1, radius / 350) * np.ones_like(x)
        out[:, 0, k] = 9000 * light / true[k]
    out *= 1 + noise * rng.standard_normal(out.shape)
    coords = {"exposure": list(exposures), "detector": [22], "amp": NAMES, "bin_y": bin_y, "bin_x": bin_x}
    return xr.DataArray(out, coords, ("exposure", "detector", "amp", "bin_y", "bin_x"))


@pytest.mark.parametrize(
    "illumination",
    [lambda u, v, r: 1.0, lambda u, v, r: 1 + 0.01 * u - 0.02 * v + 0.002 * u * v],
    ids=["even", "sloping"],
)
def test_noiseless_flats_give_the_ratios_to_rounding(illumination):
    """Upstream's acceptance (1e-7), with one wildly wrong gain and one bad amp."""
    measured = TRUE * (1 + 0.003 * np.random.default_rng(2).standard_normal(16))
    measured[3] *= 1.7
    measured[9] = np.nan
    config = GainRatioConfig(radial_nodes=8)
    adjusted, summary = adjust_gain_ratios(curves(measured), flats(illumination=illumination), {22: DETECTOR}, config)
    gain = adjusted["gain"].values[0]
    good = np.arange(16) != 9
    ratios = gain[good] / TRUE[good]
    np.testing.assert_allclose(ratios / ratios[0], 1, atol=1e-7)
    assert np.isnan(gain[9])
    np.testing.assert_array_equal(adjusted["gain_unadjusted"].values[0], measured)
    np.testing.assert_allclose(np.nanmedian(summary["correction"]), 1)
    np.testing.assert_allclose(adjusted["gain"] * summary["correction"], adjusted["gain_unadjusted"])
    assert summary["exposure"].values.tolist() == [102, 104, 106]


def test_the_median_gain_stays():
    measured = TRUE * (1 + 0.003 * np.random.default_rng(2).standard_normal(16))
    gain = adjust_gain_ratios(curves(measured), flats(), {22: DETECTOR})[0]["gain"].values[0]
    assert abs(np.median(gain / TRUE) / np.median(measured / TRUE) - 1) < 1e-3
    np.testing.assert_allclose(gain / TRUE, np.median(gain / TRUE), rtol=1e-7)


def test_real_light_is_told_from_steps():
    """Photon noise, 20 % of radial fall-off, hot bins: 2e-4."""
    measured = TRUE * (1 + 0.003 * np.random.default_rng(2).standard_normal(16))
    light = lambda u, v, r: (1 - 0.2 * r**2) * (1 + 0.005 * u)  # noqa: E731
    binned = flats(noise=3e-4, illumination=light)
    binned[:, 0, 4, 3:6, 2] *= 1.1
    gain = adjust_gain_ratios(curves(measured), binned, {22: DETECTOR})[0]["gain"].values[0]
    ratios = gain / TRUE
    assert np.abs(ratios / np.median(ratios) - 1).max() < 2e-4


def test_flats_are_binned_lazily():
    rng = np.random.default_rng(0)
    dims, shape = ("exposure", "detector", "amp", "y", "x"), (2, 1, 3, 56, 60)
    image, mask = rng.normal(1000, 10, shape).astype("f4"), np.zeros(shape, np.int32)
    mask[0, 0, 1, 20:28, 20:28] = BAD
    corrected = xr.Dataset({"image": (dims, image), "mask": (dims, mask)}, {"exposure": [1, 2], "detector": [22]})
    lazy = bin_flats(corrected.chunk(exposure=1))
    assert lazy.chunks is not None
    binned = lazy.compute()
    xr.testing.assert_identical(binned, bin_flats(corrected))
    assert binned.shape == (2, 1, 3, 2, 2)
    assert binned["bin_y"].values.tolist() == [23.5, 31.5]
    assert np.isnan(binned[0, 0, 1, 0, 0])
    np.testing.assert_allclose(binned[1, 0, 2, 1, 0], image[1, 0, 2, 28:36, 20:28].mean(), rtol=1e-6)


def test_which_flats_take_part():
    ptc = curves(TRUE)
    assert flats_for_gain_ratios(ptc) == {22: [102, 104, 106]}
    many = curves(TRUE, means=np.full(80, 5000.0))
    drawn = flats_for_gain_ratios(many)[22]
    expected = np.random.RandomState(12345).choice(100 + 2 * np.arange(80), 50, replace=False)  # noqa: NPY002
    assert drawn == sorted(expected.tolist())
    ptc["bad"][:] = True
    assert flats_for_gain_ratios(ptc) == {22: []}


def test_nothing_to_go_by_leaves_the_gains():
    one = curves(np.where(np.arange(16) == 4, TRUE, np.nan))
    adjusted, summary = adjust_gain_ratios(one, flats(), {22: DETECTOR})
    xr.testing.assert_equal(adjusted["gain"], one["gain"])
    assert summary["reference_amp"].values.tolist() == [""]
    none = adjust_gain_ratios(curves(TRUE), flats(exposures=(1, 2)), {22: DETECTOR})[0]
    np.testing.assert_array_equal(none["gain"], TRUE[None])
    with pytest.raises(DataError, match=r"no binned flats of detectors \[22\]"):
        adjust_gain_ratios(curves(TRUE), flats().assign_coords(detector=[23]), {22: DETECTOR})


def with_offsets(measured, means=(500.0, 2000.0, 6000.0, 12000.0, 18000.0, 40000.0)):
    """Curves whose pairs carry the steps of the true gains; amp 7 is used in no pair."""
    ptc = curves(measured, means)
    level = np.array(means)[:, None, None] * 1.5 / TRUE
    ptc["raw_mean"] = (PAIR, level)
    ptc["amp_offset"] = (PAIR, level - level.mean(axis=2, keepdims=True))
    used = np.ones(level.shape, bool)
    used[:, 0, 7] = False
    ptc["used"] = (PAIR, used)
    return ptc


def test_amp_offsets_give_the_ratios():
    measured = TRUE * (1 + 0.003 * np.random.default_rng(2).standard_normal(16))
    measured[9] = np.nan
    adjusted = adjust_by_amp_offsets(with_offsets(measured))
    gain = adjusted["gain"].values[0]
    good = np.isin(np.arange(16), [7, 9], invert=True)
    np.testing.assert_allclose(gain[good] / TRUE[good], np.median(gain[good] / TRUE[good]), rtol=1e-12)
    assert abs(np.median(gain[good] / measured[good]) - 1) < 1e-12
    assert gain[7] == measured[7]
    assert np.isnan(gain[9])


def test_amp_offsets_that_do_not_tell_leave_the_gains():
    measured = TRUE * (1 + 0.003 * np.random.default_rng(2).standard_normal(16))
    few = with_offsets(measured, means=(500.0, 2000.0, 6000.0, 40000.0))
    np.testing.assert_array_equal(adjust_by_amp_offsets(few)["gain"], few["gain"])
    unmeasured = with_offsets(measured)
    unmeasured["amp_offset"][:] = np.nan
    np.testing.assert_array_equal(adjust_by_amp_offsets(unmeasured)["gain"], unmeasured["gain"])
    with pytest.raises(DataError, match=r"isr\.amp_offsets=measure"):
        adjust_by_amp_offsets(unmeasured.drop_vars("amp_offset"))


def test_reference_amp_is_the_median_of_the_sound_ones():
    gain = np.array([1.0, 1.1, 1.2, 1.3, 1.4, np.nan])
    noise = np.array([5.0, 5, 5, 5, 13, 5])
    turnoff = np.array([9e4, 9e4, 9e4, 1e4, 9e4, 9e4])
    assert reference_amp(gain, noise, turnoff) == 1  # of 0, 1, 2: element 1
    assert reference_amp(gain, noise + 10, turnoff) is None
    assert reference_amp(np.where(gain == 1.0, gain, np.nan), noise, turnoff) is None


def test_amps_without_values_have_no_ratio():
    values, amp = np.array([1.0, 1.0, 2.0, 2.0, np.nan]), np.array([0, 0, 1, 1, 2])
    nothing = np.zeros((5, 0))
    np.testing.assert_allclose(fit_gain_ratios(values, amp, 3, nothing, nothing), [2 / 3, 4 / 3, np.nan])
    assert np.isnan(fit_gain_ratios(values * np.nan, amp, 3, nothing, nothing)).all()

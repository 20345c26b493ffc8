"""Gains, read noise and shot noise that tests compare with: those of the curve, of the camera model without one."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.kernels.ptc.models import exp_variance
from camcal_dask.verify.judging.judge import judge
from camcal_dask.verify.measuring.derived import complete
from camcal_dask.verify.measuring.references import expectations
from camcal_dask.verify.measuring.statistics import MeasureConfig, measure

ALL = (0, 1, 2, 3)
EXACT = MeasureConfig(overscan_skip_pixel=-1)
A00 = -3e-6


def curve(noise=1.3, gain=1.1, detectors=ALL, noise_err=1e-4, **changes):
    """A ptc whose gains and noise are those of the camera model times a factor."""
    camera = get_instrument("TinyCam")
    amps = [camera.detectors[d].amps for d in detectors]
    dims = ("detector", "amp")
    values = {
        "gain": np.array([[a.gain * gain for a in row] for row in amps]),
        "noise": np.array([[a.read_noise * noise for a in row] for row in amps]),
    }
    values |= {"noise_err": values["noise"] * noise_err, "a00": np.full(values["gain"].shape, A00)} | changes
    coords = {"detector": list(detectors), "amp": list(camera.amp_names)}
    return xr.Dataset({name: (dims, value) for name, value in values.items()}, coords)


@pytest.mark.parametrize("units", ["electron", "adu"])
def test_gain_and_noise_are_those_of_the_curve(make_exposures, units):
    corrected = make_exposures(detectors=ALL, n_exposure=1, units=units)
    nominal, found = (expectations(corrected, MeasureConfig(), ptc) for ptc in (None, curve()))
    assert (found["from_ptc"] == 1).all()
    assert (nominal["from_ptc"] == 0).all()
    np.testing.assert_allclose(found["gain"] / nominal["gain"], 1.1)
    # what the curve measures is the noise of a corrected pixel: that of the overscan medians is in it already
    electrons = found["noise_expected"] * found["to_electron"]
    np.testing.assert_allclose(electrons, curve()["noise"])
    np.testing.assert_allclose(
        found["read_noise"] / electrons, nominal["read_noise"] / (nominal["noise_expected"] * nominal["to_electron"])
    )
    assert (found["to_electron"] == (1.0 if units == "electron" else found["gain"])).all()


def test_an_amp_without_a_fit_and_a_detector_without_a_curve_have_nominal_references(make_exposures):
    corrected = make_exposures(detectors=ALL, n_exposure=1)
    ptc = curve(detectors=(0, 1, 2))
    ptc["gain"][0, 3] = np.nan
    ptc["noise"][1, 4] = np.nan
    nominal, found = (expectations(corrected, EXACT, p) for p in (None, ptc))
    expected = np.ones((4, 16))
    expected[3] = expected[0, 3] = expected[1, 4] = 0
    np.testing.assert_array_equal(found["from_ptc"], expected)
    for name in ("gain", "read_noise", "noise_expected"):
        ratio = (found[name] / nominal[name]).values
        np.testing.assert_allclose(ratio, np.where(expected > 0, 1.1 if name == "gain" else 1.3, 1.0))


def test_an_uncertain_fit_gives_way_to_the_overscans_of_its_own_pairs(make_exposures):
    corrected = make_exposures(detectors=ALL, n_exposure=1)
    ptc = curve(noise=2.0, noise_err=0.05)
    strips = np.repeat((ptc["noise"] / 2 * 1.02 / ptc["gain"]).values[..., None], 5, axis=-1)
    strips[..., 4] = 1e6
    ptc["noise_adu"] = (("detector", "amp", "pair"), strips)
    ptc["used"] = (("detector", "amp", "pair"), np.arange(5) < 4 + 0 * strips)
    found = expectations(corrected, MeasureConfig(), ptc)
    np.testing.assert_allclose(found["read_noise"], ptc["noise"] / 2 * 1.02)
    assert (found["reference_error"] == 0).all()
    alone = expectations(corrected, MeasureConfig(), ptc.drop_vars("noise_adu"))
    np.testing.assert_allclose(alone["reference_error"], 0.05)


def test_read_noise_tests_follow_the_curve(make_exposures):
    """An amp 30 % noisier than the camera model is no failure if the curve says the same, and the other way round."""
    corrected = make_exposures(detectors=ALL, n_exposure=2)
    corrected["image"][:] = corrected["image"] * 1.3
    corrected["read_noise_adu"][:] = corrected["read_noise_adu"] * 1.3 / 1.1
    failed = {}
    for name, ptc in (("model", {}), ("curve", {"ptc": curve()})):
        verdict = judge(measure(corrected, config=EXACT, calibs=ptc).compute(), first_in_set=())
        status = verdict["status"].sel(test=["bias.noise", "bias.rn_consistent"])
        failed[name] = (status == 0).mean(["exposure", "detector", "amp"]).values.tolist()
    assert failed == {"model": [1.0, 1.0], "curve": [0.0, 0.0]}


def test_shot_variance_is_that_of_the_curve(make_flats):
    """Eq. 16 in electron: 50 000 electron and -3e-6 take 14 % away; Poisson would need the allowance."""
    corrected, flat = make_flats(50_000.0, 1 - np.expm1(-0.3) / -0.3, detectors=ALL, n_exposure=2)
    stats = measure(corrected, config=EXACT, calibs={"flat": flat, "ptc": curve(noise=1.0, gain=1.0)}).compute()
    full = complete(stats)
    parameters = np.array([A00, 1.0, 0.0])
    np.testing.assert_allclose(full["shot_variance"], exp_variance(parameters, np.array(50_000.0)), rtol=5e-3)
    assert (full["bf_allowance"] == 0).all()
    ratio = stats["noise"] ** 2 / full["flat_variance_expected"]
    assert float(ratio.mean()) == pytest.approx(1, abs=0.01)
    assert bool(judge(stats, "flat", first_in_set=())["run_success"])
    without = complete(measure(corrected, config=EXACT, calibs={"flat": flat}).compute())
    assert (without["bf_allowance"] > 0.2).all()


def test_errors_of_means_are_those_of_overscan_corrected_noise():
    """Brute force on an amp of TinyCam: medians of serial overscan rows, then of the parallel overscan's columns."""
    amp = get_instrument("TinyCam").detectors[0].amps[0]
    ny, nx = amp.data.height, amp.data.width
    skip = MeasureConfig().overscan_skip_pixel
    n_row, n_column = amp.parallel_overscan.height - skip, amp.serial_overscan.width - skip
    noise = np.random.default_rng(4).standard_normal((4000, ny + n_row, nx + n_column), np.float32)
    image = noise[..., :nx] - np.median(noise[..., nx:], axis=2)[..., None]
    image = image[:, :ny] - np.median(image[:, ny:], axis=1)[:, None]
    shape = xr.Dataset(
        {"image": (("exposure", "detector", "amp", "y", "x"), np.empty((1, 1, 16, ny, nx)))},
        {"exposure": [1], "detector": [0], "amp": list(get_instrument("TinyCam").amp_names)},
        {"instrument": "TinyCam", "units": "electron"},
    )
    found = {k: float(v[0, 0]) / amp.read_noise for k, v in expectations(shape, MeasureConfig()).items()}
    means = image.mean(axis=(1, 2))  # pi / (2 n) is too large for medians of 8; without the offset: 0.095
    assert means.std() == pytest.approx(found["mean_error"], rel=0.1)
    assert image[:, ::4].mean(axis=(1, 2)).std() == pytest.approx(found["split_error"], rel=0.1)
    sigma = image.std(axis=(1, 2))  # of independent pixels: 1.7 %
    known = {"noise": sigma.mean(), "n_good": float(ny * nx)} | {
        k: found[k] for k in ("common_error", "noise_expected")
    }
    one = xr.Dataset({"mean": ("exposure", [0.0]), **known}, {"exposure": [1]})
    error = float(complete(one)["noise_error"].mean())
    assert sigma.std() / sigma.mean() == pytest.approx(error, rel=0.1)
    assert error > 1.4 / np.sqrt(2 * ny * nx)
    bins = image[:, :9, :9].mean(axis=(1, 2))
    assert (bins - means).std() <= 1.03 * found["bin_error"]
    assert (bins - image[:, 9:18, 9:18].mean(axis=(1, 2))).std() == pytest.approx(2**0.5 * found["bin_error"], rel=0.1)

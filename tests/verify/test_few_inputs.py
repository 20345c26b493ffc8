"""What is expected of a residual depends on how many exposures made the calibration, and on whether it is one."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.kernels.statistics.moments import clipped_mean_stack
from camcal_dask.verify.judging.account import failures, summary
from camcal_dask.verify.judging.judge import judge
from camcal_dask.verify.judging.levels import FAIL
from camcal_dask.verify.measuring.derived import complete
from camcal_dask.verify.measuring.statistics import MeasureConfig, measure
from camcal_dask.verify.verdict import criteria_of

ALL = (0, 1, 2, 3)
EXACT = MeasureConfig(overscan_skip_pixel=-1)
FIRST = 3026081200001
TRACK = np.s_[0, 1, 4, 20:23, 20]
"""A cosmic ray in the first exposure."""


def combined(exposures, n, times=1.0, track=0.0):
    """Calibration made of the first n exposures, as the combine engine makes it, and what it says of itself."""
    image, given = exposures["image"].values, exposures["variance"].values
    image[TRACK] += track
    given[(1, *TRACK[1:])] -= track / 2  # the variance plane of a residual has its signal, a hole too
    stack = np.ascontiguousarray(image[:n].reshape(n, -1) / np.float32(times))
    variance = np.ascontiguousarray(exposures["variance"].values[:n].reshape(n, -1) / np.float32(times**2))
    found = clipped_mean_stack(stack, None if n >= 5 else variance)
    dims, shape = ("detector", "amp", "y", "x"), image.shape[1:]
    coords = {d: exposures[d].values for d in ("detector", "amp")}
    return xr.Dataset(
        {
            "image": (dims, found.mean.reshape(shape)),
            "variance": (dims, found.variance.reshape(shape)),
            "n_input": (dims[:2], np.full(shape[:2], n)),
        },
        coords,
        {"exposures": exposures["exposure"].values[:n].tolist(), "units": "electron"},
    )


def residuals(exposures, calib, times=1.0):
    return exposures.assign(image=exposures["image"] - np.float32(times) * calib["image"].astype("f4"))


def excess(stats, expected):
    """Noise over what is expected, median of the amps: of inputs, of others."""
    ratio = (stats["noise"] / complete(stats)[expected]).median(["detector", "amp"])
    inside = stats["in_" + expected.removesuffix("_sigma")].isel(detector=0, drop=True) > 0
    return float(ratio[inside].median()), float(ratio[~inside].median())


@pytest.mark.parametrize("n", [2, 3, 4, 5, 10, 20])
def test_noise_expected_of_a_bias_residual(make_exposures, n):
    """Brute force: n frames and four others; 1 % is three standard errors, the limit of the test is 5 %."""
    frames = make_exposures(detectors=ALL, n_exposure=n + 4)
    bias = combined(frames, n)
    stats = measure(residuals(frames, bias), config=EXACT, calibs={"bias": bias}).compute()
    assert excess(stats, "bias_sigma") == pytest.approx((1, 1), abs=0.01)
    verdict = judge(stats, "bias", first_in_set=())
    table = failures(verdict)
    assert set(table["name"]) <= {"SPEC_NOISE"}, summary(verdict)  # one amp of the camera model has 12.6 electron


@pytest.mark.parametrize("n", [2, 5, 12])
def test_noise_expected_of_a_dark_residual(make_darks, n):
    """The bias, which made the dark, too, cancels, whatever its noise."""
    seconds = 300.0
    frames, _ = make_darks(seconds, n_exposure=n + 4, detectors=ALL, n_input=10**9)
    error = np.random.default_rng(5).standard_normal(frames["image"].shape[1:]) * 3
    frames["image"][:] = frames["image"] + (0.02 * seconds - error)  # darks, less a bias of large error
    dark = combined(frames, n, seconds)
    bias = dark.assign(n_input=dark["n_input"] * 0 + 4).assign_attrs(exposures=[1, 2, 3, 4])
    stats = measure(residuals(frames, dark, seconds), config=EXACT, calibs={"dark": dark, "bias": bias}).compute()
    assert excess(stats, "dark_sigma") == pytest.approx((1, 1), abs=0.012)
    assert failures(judge(stats, "dark", first_in_set=()), required_only=True).empty


@pytest.mark.parametrize("n", [2, 5, 20])
def test_variance_expected_of_a_flat(make_flats, n):
    frames, _ = make_flats(20_000.0, n_exposure=n + 4, detectors=ALL, n_input=10**9)
    level = frames["image"].mean(["amp", "y", "x"]).mean("detector").values[0]
    flat = combined(frames, n, level)
    quotient = frames.assign(image=(frames["image"] / flat["image"]).astype("f4"))
    stats = measure(quotient, config=EXACT, calibs={"flat": flat}).compute()
    ratio = (stats["noise"] ** 2 / complete(stats)["flat_variance_expected"]).median(["detector", "amp"])
    inside = stats["in_flat"].isel(detector=0, drop=True) > 0
    found = float(ratio[inside].median()), float(ratio[~inside].median())
    assert found == pytest.approx((1, 1), abs=0.03)
    assert failures(judge(stats, "flat", first_in_set=()), required_only=True).empty


def test_tracks_that_two_inputs_left_in_the_bias_are_no_failure_of_theirs_but_of_others(make_exposures):
    """With two inputs nothing is clipped: half of a track is in the bias, and a hole in the other input."""
    frames = make_exposures(detectors=ALL, n_exposure=3)
    bias = combined(frames, 2, track=900.0)
    stats = measure(residuals(frames, bias), config=EXACT, calibs={"bias": bias}).compute()
    status = judge(stats, "bias", first_in_set=())["status"].sel(test="bias.cr")
    assert [bool((status[e] == FAIL).any()) for e in range(3)] == [False, False, True]
    assert int((status == FAIL).sum()) == 1


def test_a_dead_amp_is_dead_whatever_the_number_of_inputs(make_exposures):
    for n in (2, 10):
        frames = make_exposures(detectors=ALL, n_exposure=n + 1)
        frames["image"][:, 1, 3] = 0.3 * frames["image"][:, 1, 3]
        bias = combined(frames, n)
        stats = measure(residuals(frames, bias), config=EXACT, calibs={"bias": bias}).compute()
        failed = failures(judge(stats, "bias", first_in_set=()), required_only=True)
        assert set(zip(failed["name"], failed["amp"], strict=True)) == {("NOISE_LOW", "C13")}
        assert len(failed) == n + 1


def test_every_noise_test_knows_the_number_of_inputs():
    """`noise_expected` is that of a single exposure: only advice of upstream compares with it as it is."""
    for kind in ("bias", "dark"):
        rows = [c.id for c in criteria_of(kind) if "- noise_expected" in c.value or "noise_expected -" in c.value]
        assert rows == (["dark.noise"] if kind == "dark" else [])

"""Pixel response of flats: the contrast that a flat lacks or has too much of is measured without bias."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.kernels.statistics.moments import clipped_mean_stack
from camcal_dask.verify.judging.account import failures
from camcal_dask.verify.judging.judge import judge
from camcal_dask.verify.judging.levels import FAIL, NOT_EVALUATED, PASS
from camcal_dask.verify.measuring.block import MeasureConfig
from camcal_dask.verify.measuring.response import clipping_factors
from camcal_dask.verify.measuring.statistics import measure

EXACT = MeasureConfig(overscan_skip_pixel=-1)
LEVEL, PRNU, N, SHAPE = 30_000.0, 0.005, 8, (16, 50, 36)


@pytest.fixture(scope="module")
def flats():
    """Twelve exposures of a response that varies by 0.5 %, and the flat of the first eight."""
    rng = np.random.default_rng(7)
    response = 1 + PRNU * rng.standard_normal(SHAPE) + np.linspace(0, 0.03, SHAPE[2])
    raw = rng.poisson(LEVEL * response, (N + 4, *SHAPE)).astype("f4")
    found = clipped_mean_stack((raw[:N] / LEVEL).reshape(N, -1).astype("f4"), None, sigma=3.0, iterations=3)
    return raw, found.mean.reshape(SHAPE), found.variance.reshape(SHAPE), response


def statistics_of(raw, image, variance):
    dims = ("detector", "amp", "y", "x")
    shape = (len(raw), 1, *SHAPE)
    quotient = (raw / image).astype("f4").reshape(shape)
    corrected = xr.Dataset(
        {
            "image": (("exposure", *dims), quotient),
            "variance": (("exposure", *dims), np.full(shape, LEVEL, "f4")),
            "mask": (("exposure", *dims), np.zeros(shape, "i4")),
        },
        {"exposure": 3026081200001 + np.arange(len(raw)), "detector": [0]},
        {"instrument": "TinyCam", "units": "electron"},
    )
    calib = xr.Dataset(
        {
            "image": (dims, image[None].astype("f4")),
            "variance": (dims, variance[None].astype("f4")),
            "n_input": (("detector", "amp"), np.full((1, SHAPE[0]), N)),
        },
        {"detector": [0]},
        {"units": "1"},
    )
    return measure(corrected, config=EXACT, calibs={"flat": calib}).compute()


def judged(statistics):
    first = 3026081200001 + N
    roles = {int(e): "construction" if e < first else "verification" for e in statistics["exposure"].values}
    return statistics.merge(judge(statistics, "flat", role=roles), compat="override", join="exact")


def slopes(verdict):
    """Slope of the inputs of the flat and of the others, pooled over exposures and amps, and its standard error."""
    for part in (np.s_[:N], np.s_[N:]):
        one = verdict.isel(exposure=part)
        power = float(one["response_power"].sum())
        yield float(one["response_excess"].sum()) / power, float((one["response_error"] ** 2).sum() ** 0.5) / power


@pytest.mark.parametrize("s", [1.0, 0.9, 1.1])
def test_contrast_of_the_response_is_found_without_bias(flats, s):
    """The quotient holds (1 - s) / s of the contrast of the flat, for inputs of the flat and for others."""
    raw, image, variance, response = flats
    verdict = judged(statistics_of(raw, image - ((1 - s) * (response - 1)).astype("f4"), variance))
    for found, error in slopes(verdict):
        assert error < 0.008
        assert abs(found - (1 - s) / s) < 4 * error
    status = verdict["exposure_status"].sel(exposure_test="flat.exposure_response").values
    assert (status == (PASS if s == 1.0 else FAIL)).all()
    assert (verdict["status"].sel(test="flat.pixel_response") == FAIL).mean() < 0.01 or s != 1.0


def test_a_wrong_amp_is_named(flats):
    raw, image, variance, response = flats
    wrong = image.copy()
    wrong[3] -= 0.6 * (response[3] - 1)
    statistics = statistics_of(raw, wrong, variance).isel(exposure=slice(N, None))
    table = failures(judge(statistics, "flat", role="verification"), required_only=True)
    named = table[table["name"] == "PIXEL_RESPONSE"]["amp"].value_counts()
    assert named.to_dict() == {"C13": 4}


def test_without_the_numbers_there_is_no_verdict_on_the_response(flats):
    raw, image, variance, _ = flats
    statistics = statistics_of(raw, image, variance)
    older = statistics.drop_vars([str(n) for n in statistics.data_vars if str(n).startswith("response_")])
    verdict = judge(older, "flat", role="verification")
    assert (verdict["status"].sel(test="flat.pixel_response") == NOT_EVALUATED).all()


@pytest.mark.parametrize("n", [3, 8, 20])
def test_what_a_clipped_mean_scatters_by(n):
    """Brute force over one million pixels."""
    inputs = np.random.default_rng(99).standard_normal((n, 400_000)).astype("f4")
    given = np.ones_like(inputs) if n < 5 else None
    found = clipped_mean_stack(inputs.copy(), given, sigma=3.0, iterations=3)
    said = float(np.mean(found.variance.astype("f8")))
    scatter, shared = clipping_factors(n)
    assert scatter == pytest.approx(float(np.var(found.mean.astype("f8"))) / said, rel=0.02)
    assert shared == pytest.approx(float(np.cov(inputs[0], found.mean)[0, 1]) / said, rel=0.04)


def test_a_vignetted_flat_is_judged_like_any_other(flats):
    """Five times less light on a detector: a flat of 0.2 with the same relative response and noise."""
    raw, image, variance, _ = flats
    bright, faint = (judged(statistics_of(raw, image * k, variance * k**2)) for k in (1.0, 0.2))
    for name in ("response_excess", "response_power", "response_error"):
        np.testing.assert_allclose(faint[name], bright[name], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("s", [1.0, 0.7])
def test_flats_of_two_inputs(flats, s):
    """An amp of 1800 pixels cannot tell, says so, and never fails a right flat; the amps together can."""
    raw, _, _, response = flats
    raw = raw[[0, 1, *range(N, N + 4)]]
    image = raw[:2].mean(axis=0) / LEVEL - (1 - s) * (response - 1)
    statistics = statistics_of(raw, image.astype("f4"), (raw[:2].sum(axis=0) / (2 * LEVEL) ** 2).astype("f4"))
    statistics["flat_n"] = statistics["flat_n"] * 0 + 2
    statistics = statistics.isel(exposure=slice(2, None))
    verdict = statistics.merge(judge(statistics, "flat", role="verification"), compat="override", join="exact")
    pooled = verdict["exposure_status"].sel(exposure_test="flat.exposure_response").values
    assert (pooled == (PASS if s == 1.0 else FAIL)).all()
    status = verdict["status"].sel(test="flat.pixel_response").values
    assert (s < 1.0) or not (status == FAIL).any()
    blind = verdict["response_blind"].values > 0
    assert (status[blind] == NOT_EVALUATED).all()
    assert (status[~blind] != NOT_EVALUATED).all()

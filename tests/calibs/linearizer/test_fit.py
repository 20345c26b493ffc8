"""Linearizers from tables of ramps: injected non-linearity comes back to far better than 0.1 % of the signal."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.linearizer.config import LinearityConfig, NormalizationConfig, PolynomialConfig, SplineConfig
from camcal_dask.calibs.linearizer.fit import failures, fit
from camcal_dask.calibs.linearizer.flats import read_flats
from camcal_dask.calibs.linearizer.lengthen import concat
from camcal_dask.calibs.linearizer.normalize import correct_photodiode, normalize, solve
from camcal_dask.calibs.linearizer.ratios import choose
from camcal_dask.errors import ConfigError, DataError
from camcal_dask.kernels.linearity.correct import TYPES, correct_signals
from tests.calibs.linearizer.linearity_tables import Camera, closure, ramp

CAMERA = Camera(n_amp=4)
LIGHT = {"abscissa": "photodiode", "grouping": "auto"}


@pytest.fixture(scope="module")
def plain():
    return ramp(CAMERA)


def errors(linearizer, camera=CAMERA):
    return np.abs(closure(linearizer, camera)).max()


@pytest.mark.parametrize("kind", ["Polynomial", "LookupTable", "Spline", "DoubleSpline"])
def test_injected_non_linearity_is_recovered(plain, kind):
    table, ratios = plain
    config = LinearityConfig(type=kind, polynomial=PolynomialConfig(n_column=130_000))
    made = fit(table, config, ratios=ratios)
    assert not made["bad"].any()
    assert (made["type"] == TYPES.index(kind)).all()
    assert errors(made) < 2e-4
    assert (made["residual_sigma"] < 1e-4).all()
    relative = (made["residual"] / made["model"]).where(made["ordinate"] > 1000)
    assert abs(relative).max() < 5e-4
    assert np.isnan(made["residual"].where(~made["used"])).all()


@pytest.mark.parametrize("kind", ["Spline", "DoubleSpline"])
@pytest.mark.parametrize("drift", [0.0, 0.01])
def test_recovered_with_grouped_light_and_a_drifting_photodiode(kind, drift):
    table, ratios = ramp(CAMERA, groups=3, drift=drift, seed=8)
    config = LinearityConfig(type=kind, spline=SplineConfig(temporal=True, outer_rounds=2), **LIGHT)
    made = fit(table, config, ratios=ratios)
    assert errors(made) < 3e-4
    assert set(np.unique(made["group"])) == {0, 1, 2}
    ignored = fit(table, LinearityConfig(type="Spline", abscissa="photodiode"))  # neither groups nor drift
    if drift:
        assert ignored["residual_sigma"].max() > 10 * made["residual_sigma"].max()


def test_squared_keeps_the_quadratic_term():
    camera = Camera(n_amp=4, c3=0.0)
    made = fit(ramp(camera)[0], LinearityConfig(type="Squared"))
    assert made.sizes["coefficient"] == 1
    injected = -camera.c2 * (1 + 0.1 * np.random.default_rng(camera.seed + 2).normal(size=(2, 4)))[0] * camera.gain
    np.testing.assert_allclose(made["coefficients"][0, :, 0], injected, rtol=3e-3)
    assert errors(made, camera) < 5e-5


def test_nothing_is_corrected_by_proportional(plain):
    made = fit(plain[0], LinearityConfig(type="Proportional"))
    assert (made["coefficients"] == 0).all()
    assert made["residual_sigma"].min() > 1e-4  # the non-linearity stays visible


def test_lamp_jitter_is_solved_over_the_focal_plane():
    """Two detectors see the same jitter of 0.05 %; their median residual gives it back."""
    each = [ramp(Camera(n_amp=2, seed=s), jitter=5e-4, detector=s, seed=s) for s in (10, 20)]
    table = xr.concat([t for t, _ in each], "detector", data_vars="minimal", coords="minimal", compat="override")
    ratios = xr.concat([r for _, r in each], "detector")
    config = LinearityConfig()
    made, factors = solve(table, config, ratios=ratios)
    alone = fit(table, config, ratios=ratios)
    assert made["residual_sigma"].max() < 0.1 * alone["residual_sigma"].min()
    assert factors.std() == pytest.approx(5e-4, rel=0.15)
    for i, seed in enumerate((10, 20)):
        assert errors(made.isel(detector=[i]), Camera(n_amp=2, seed=seed)) < 1e-3
    none, kept = solve(table, config.model_copy(update={"normalization": NormalizationConfig(rounds=0)}), ratios=ratios)
    assert kept is None
    xr.testing.assert_equal(none["coefficients"], alone["coefficients"])


def test_exposures_with_few_valid_detectors_are_not_normalised(plain):
    made = fit(plain[0], LinearityConfig(type="Spline"))
    made["residual"][:, :, 5] = np.nan
    factors = normalize(made, LinearityConfig())
    assert factors[5] == 1
    assert abs(factors[200] - 1) < 1e-3


def test_a_detector_alone_is_not_normalised(plain):
    """It would take its own non-linearity for jitter; nor do detectors decide that are not there."""
    made = fit(plain[0], LinearityConfig(type="Spline"), final=False)
    two = concat([made, made.assign_coords(detector=[95]).assign_attrs(problems={})])
    absent = LinearityConfig(normalization=NormalizationConfig(detectors=(1, 2, 3)))
    for linearizer, config in ((made, LinearityConfig()), (two, absent)):
        assert (normalize(linearizer, config) == 1).all()
    assert normalize(two, LinearityConfig()).std() > 0


def test_photodiode_correction_removes_jitter_of_the_reading():
    table, _ = ramp(CAMERA)
    reading = 1 + 0.004 * np.random.default_rng(1).normal(size=table.sizes["pair"])
    table["photo_charge"] = table["photo_charge"] * reading
    config = LinearityConfig(type="Spline", abscissa="photodiode")
    before = fit(table, config)
    after = fit(correct_photodiode(before, table), config)
    assert after["residual_sigma"].max() < 0.1 * before["residual_sigma"].min()


def test_bad_amps_have_no_linearity_and_say_why(plain):
    table, ratios = plain[0].copy(deep=True), plain[1]
    table["bad"][0, 1] = True
    table["used"][0, 2] = False
    made = fit(table, LinearityConfig(), ratios=ratios)
    assert (made["type"].values[0] == [TYPES.index(t) for t in ("DoubleSpline", "None", "None", "DoubleSpline")]).all()
    assert failures(made) == {94: {"C01": "bad in the PTC", "C02": "the PTC used no flat whose light is known"}}
    assert (made["coefficients"][0, 1] == 0).all()


def test_rows_of_detectors_are_padded(plain):
    few = LinearityConfig(type="Spline", spline=SplineConfig(n_node=6))
    parts = [fit(plain[0], LinearityConfig(type="Spline")), fit(plain[0].assign_coords(detector=[95]), few)]
    joined = concat(parts)
    assert joined.sizes["coefficient"] == 20
    signals = np.linspace(100, 7e4, 500)
    for part, detector in zip(parts, (94, 95), strict=True):  # zeros would make nodes of values
        for amp in range(4):
            rows = [x["coefficients"].sel(detector=detector)[amp].values for x in (joined, part)]
            np.testing.assert_allclose(*(correct_signals("Spline", row, signals) for row in rows), atol=0.02)


def test_temperature_is_a_column_of_the_ptc():
    table, _ = ramp(CAMERA)
    degrees = np.random.default_rng(3).normal(-100, 0.5, table.sizes["pair"])
    table["aux_TEMP6"] = ("pair", degrees)
    table["raw_mean"] = table["raw_mean"] / (1 + 2e-3 * (degrees - np.median(degrees)))
    made = fit(table, LinearityConfig(type="Spline", spline=SplineConfig(temperature="TEMP6")))
    np.testing.assert_allclose(made["fit_params"][0, :, -1], 2e-3, rtol=0.02)
    with pytest.raises(ConfigError, match="no aux_TEMP7; its auxiliary values are aux_CCOBCURR, aux_TEMP6"):
        fit(table, LinearityConfig(type="Spline", spline=SplineConfig(temperature="TEMP7")))


def test_groups_by_a_column_need_pairs():
    table, _ = ramp(CAMERA, 340, groups=3)
    made = fit(table, LinearityConfig(type="Spline", grouping="CCOBCURR", abscissa="photodiode"))
    assert set(np.unique(made["group"])) == {0, 1, 2}
    with pytest.raises(DataError, match="60 flat pairs are too few to group by CCOBCURR"):
        fit(table.isel(pair=slice(0, 60)), LinearityConfig(type="Spline", grouping="CCOBCURR"))


def test_single_exposures_come_in_turn(plain):
    flats = read_flats(plain[0], 94, LinearityConfig(), None)
    assert flats.exposure.tolist()[:2] == [int(plain[0]["exposure_1"][0]), int(plain[0]["exposure_2"][0])]
    both = flats.ordinate.reshape(4, -1, 2)
    np.testing.assert_allclose(both.mean(-1), plain[0]["raw_mean"][0])
    np.testing.assert_allclose(both[..., 1] - both[..., 0], plain[0]["raw_delta"][0], atol=1e-8)
    reference = choose(plain[0], 94, LinearityConfig())
    at = flats.ordinate[reference.amp][flats.exposure == reference.exposure]
    assert abs(at / 10000 - 1) < 0.05


def test_a_double_spline_needs_its_ratios(plain):
    with pytest.raises(ConfigError, match="needs the amp ratios"):
        fit(plain[0], LinearityConfig())
    with pytest.raises(DataError, match="detector 94: the amp ratios lack 670 exposures of the PTC"):
        fit(plain[0], LinearityConfig(), ratios=plain[1].isel(exposure=slice(0, 10)))

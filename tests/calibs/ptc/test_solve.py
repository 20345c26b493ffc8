"""The solver on synthetic curves of known truth, clean and broken."""

import numpy as np
import pytest
from scipy import special

from camcal_dask.calibs.ptc.solve import PtcSolveConfig, gain_from_flat_pairs, reasons_of, replace_invalid, solve
from camcal_dask.calibs.ptc.variables import SOLVED, BadReason
from camcal_dask.errors import DataError
from camcal_dask.kernels.ptc.models import LagPlanes, covariances, exp_variance
from camcal_dask.simulation.brighter_fatter import area_coefficients, plane
from camcal_dask.simulation.config import BrighterFatter
from tests.calibs.ptc.ptc_curves import means, partial, truth

TYPES = ("EXPAPPROXIMATION", "FULLCOVARIANCE", "FULLCOVARIANCE_NO_B", "POLYNOMIAL")
ELECTRONS = means(60, gain=1.0)


@pytest.fixture
def pairs():
    """Two amps of different gain, Eq. 20 with photon statistics."""
    return partial([truth(gain=1.5), truth(gain=1.2)], ELECTRONS, np.random.default_rng(3))


@pytest.mark.parametrize("fit_type", TYPES)
def test_the_result_has_every_variable(pairs, fit_type):
    out = solve(pairs, PtcSolveConfig(fit_type=fit_type))
    assert set(out.data_vars) == set(pairs.data_vars) | set(SOLVED)
    for name, variable in SOLVED.items():
        assert set(out[name].dims) == set(variable.dims)
        assert out[name].attrs["long_name"]
    order = {"covariance_order": 3} if fit_type.startswith("FULLCOVARIANCE") else {}
    attrs = {"instrument": "TinyCam", "fit_type": fit_type, "units": "adu", "covariance_lags": 4}
    assert out.attrs == attrs | order
    assert not out["bad"].any()
    np.testing.assert_allclose(out["gain"], [[1.5, 1.2]], rtol=0.02)
    np.testing.assert_allclose(out["overscan_median_level"], 20000, atol=1)
    np.testing.assert_allclose(out["overscan_median_sigma"], 1, rtol=0.4)


def test_exact_exponential_is_recovered():
    """Upstream's acceptance: seven decimals."""
    p = np.array([-2.1e-6, 0.75, 64.0])
    data = partial([truth(gain=0.75)], means(100, gain=1.0), np.random.default_rng(0))
    mean = data["raw_mean"].values
    data["raw_var"] = data["raw_mean"].copy(data=exp_variance(p, mean))
    for minimiser in ("lmdif", "lmder"):
        out = solve(data, PtcSolveConfig(minimiser=minimiser)).squeeze()
        np.testing.assert_allclose([out["a00"], out["gain"], out["noise"]], [-2.1e-6, 0.75, 8.0], rtol=1e-7)
        assert out["used"].all()
        assert float(out["turnoff"]) == mean.max()


def test_light_knows_no_truncated_series():
    """Covariances of the closed form (exp(2 a mu) - 1) / (2 a): Eq. 20 is 0.8 % off in a_00, order 8 is right."""
    a = area_coefficients(BrighterFatter())
    mean, n, r = np.append(np.geomspace(60, 100_000, 14), 108_000), 64, 5
    waves = np.exp(2j * np.pi * np.outer(np.arange(n) / n, np.arange(1 - len(a), len(a))))
    x = 2 * (waves @ plane(a) @ waves.T).real * mean[:, None, None]
    grown = mean[:, None, None] * np.where(np.abs(x) < 1e-12, 1.0, np.expm1(x) / np.where(x == 0, 1.0, x))
    exact = np.fft.ifft2(grown).real[:, :r, :r]
    p = LagPlanes(a[:r, :r], 0 * a[:r, :r], np.diag([36.0, 0, 0, 0, 0]), 1.5)
    data = partial([p], mean, np.random.default_rng(0), scale=0)
    values = (exact + p.noise) / p.gain**2
    relative = data["covariance_sqrt_weight"].values[:, 0, 0] * data["covariance"].values[:, 0, 0, :1, :1]
    data["covariance"][:, 0, 0] = values
    data["covariance_sqrt_weight"][:, 0, 0] = relative / values[:, :1, :1]
    data["raw_var"][:, 0, 0] = values[:, 0, 0]
    published, full = (
        solve(data, PtcSolveConfig(fit_type="FULLCOVARIANCE", order=order)).squeeze() for order in (3, 8)
    )
    assert float(published["a00"]) / a[0, 0] - 1 == pytest.approx(8.4e-3, abs=3e-4)
    np.testing.assert_allclose(full["a_matrix"], a[:r, :r], atol=1e-5 * abs(a[0, 0]))
    np.testing.assert_allclose(full["gain"], 1.5, rtol=1e-7)
    np.testing.assert_allclose(full["noise"], 6.0, rtol=1e-5)


def test_covariance_truth_is_recovered_without_noise():
    p = truth(gain=1.4, noise=5.0)
    out = solve(partial([p], ELECTRONS, np.random.default_rng(0), scale=0), PtcSolveConfig(fit_type="FULLCOVARIANCE"))
    out = out.squeeze()
    np.testing.assert_allclose(out["gain"], 1.4, rtol=1e-9)
    np.testing.assert_allclose(out["noise"], 5.0, rtol=1e-7)
    np.testing.assert_allclose(out["a_matrix"], p.a, rtol=1e-6)
    np.testing.assert_allclose(out["b_matrix"], p.b, rtol=1e-4)
    np.testing.assert_allclose(out["covariance_model"], out["covariance"], atol=1e-8 * out["raw_var"].max().item())


def test_pairs_may_come_in_any_order(pairs):
    order = np.random.default_rng(1).permutation(pairs.sizes["pair"])
    for fit_type in ("EXPAPPROXIMATION", "FULLCOVARIANCE"):
        config = PtcSolveConfig(fit_type=fit_type)
        straight, mixed = solve(pairs, config), solve(pairs.isel(pair=order), config)
        np.testing.assert_array_equal(mixed["exposure_1"], 2 * order)
        for name in SOLVED:
            again = mixed[name].sortby("pair") if "pair" in mixed[name].dims else mixed[name]
            np.testing.assert_allclose(again, straight[name], rtol=1e-6, err_msg=name)


def test_bad_points_at_the_top_lower_the_turnoff(pairs):
    """Upstream's acceptance: one NaN pair and one with 90 % of the variance cost exactly two points."""
    mean = pairs["raw_mean"].values[:, 0, 0]
    pairs["raw_var"][-1, 0, 0] *= 0.9
    pairs["raw_mean"][-2, 0, 0] = pairs["raw_var"][-2, 0, 0] = np.nan
    out = solve(pairs, PtcSolveConfig(fit_type="FULLCOVARIANCE"))
    assert float(out["turnoff"][0, 0]) == mean[-3]
    assert not out["used"][0, 0, -2:].any()
    assert out["used"][0, 0, :-2].all()
    assert out["used"][0, 1].all()
    assert np.isnan(out["final_var"][0, 0, -2:]).all()


WELL = 120_000.0
"""Full well [electron] of the curves below."""


def clipped(k):
    """Mean and variance of min(x, k) of a standard normal x."""
    density, beyond = np.exp(-0.5 * k**2) / np.sqrt(2 * np.pi), 0.5 * special.erfc(k / np.sqrt(2))
    mean = k * beyond - density
    return mean, 1 - k * density - beyond + k**2 * beyond - mean**2


def with_full_well(distances, response=0.0):
    """Exact curve to 100 000 electron, then levels so many deviations of their pixels below the full well, then full.

    What the full well takes is the Gaussian above it, pixel by pixel of a scattered ``response``.
    """
    p = truth(side=1)
    top = covariances(p, np.array([WELL / p.gain]))[0, 0, 0] ** 0.5 * p.gain
    scatter = np.hypot(top, response * WELL)
    light = np.array([*np.geomspace(60, 100_000, 12), *(WELL - scatter * np.asarray(distances)), WELL, WELL])
    data = partial([p], light, np.random.default_rng(0), scale=0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    left = np.ones(len(light))
    for n in range(12, 12 + len(distances)):
        pixels = clipped((WELL - light[n] - response * WELL * nodes) / top)
        left[n] = np.sum(weights * pixels[1]) / weights.sum()
    left[-2:] = 1e-3
    data["raw_var"] = data["raw_var"] * left[:, None, None]
    data["covariance"] = data["covariance"] * left[:, None, None, None, None]
    sigma = np.sqrt(covariances(p, light / p.gain)[:, 0, 0] + (response * light / p.gain) ** 2)
    data["pixel_stdev"] = data["raw_mean"].copy(data=sigma[:, None, None])
    return data


@pytest.mark.parametrize("fit_type", ["EXPAPPROXIMATION", "FULLCOVARIANCE"])
@pytest.mark.parametrize(("response", "distance"), [(0.0, 2.6), (0.0, 3.5), (0.004, 2.6), (0.004, 3.5)])
def test_no_level_that_touches_the_full_well_enters_the_fit(fit_type, response, distance):
    """Its variance is too low by up to 1 %, which is less than the outlier rule sees and more than the fit can bear."""
    data = with_full_well([distance], response)
    config = PtcSolveConfig(fit_type=fit_type, full_well_sigma=4)
    out = solve(data, config).squeeze()
    assert out["used"].values.tolist() == [True] * 12 + [False] * 3
    assert float(out["turnoff"]) == data["raw_mean"][12].item()
    clean = solve(data.isel(pair=slice(12)), config).squeeze()
    for name in ("gain", "noise", "a00"):
        assert float(out[name]) == pytest.approx(float(clean[name]), rel=1e-9)
    upstream = solve(data, PtcSolveConfig(fit_type=fit_type)).squeeze()
    assert upstream["used"].values.tolist() == [True] * 13 + [False] * 2
    bias = abs(float(upstream["a00"]) / float(clean["a00"]) - 1)
    assert distance > 3 or bias > (0.03 if fit_type == "FULLCOVARIANCE" else 0.003)


@pytest.mark.parametrize("response", [0.0, 0.004])
def test_levels_below_the_reach_of_the_full_well_stay(response):
    data = with_full_well([6, 4.5], response)
    config = PtcSolveConfig(full_well_sigma=4)
    out = solve(data, config).squeeze()
    assert out["used"].values.tolist() == [True] * 14 + [False] * 2
    assert float(out["turnoff"]) == data["raw_mean"][13].item()
    photons_alone = solve(data.drop_vars("pixel_stdev"), config).squeeze()
    assert (photons_alone["used"] == out["used"]).all()


def test_without_a_level_that_is_full_nothing_is_known_of_the_full_well():
    """A curve that ends on its way up loses no level, and neither does one whose variance goes down by and by."""
    data = with_full_well([3.5])
    config = PtcSolveConfig(full_well_sigma=4)
    assert solve(data.isel(pair=slice(13)), config)["used"].all()
    rising = with_full_well([])
    soft = rising["raw_mean"].values[-3].item() * np.array([1.01, 1.1])
    for k, mean in zip((-2, -1), soft, strict=True):
        rising["raw_mean"][k], rising["raw_var"][k] = mean, 0.9 * rising["raw_var"][-3].item()
    assert solve(rising, config).squeeze()["used"].values.tolist() == [True] * 12 + [False] * 2


def test_an_amp_without_a_curve_is_bad_alone(pairs, caplog):
    pairs["raw_mean"][5:, 0, 0] = np.nan
    pairs["raw_mean"][:3, 0, 0] = np.nan
    out = solve(pairs, PtcSolveConfig(fit_type="FULLCOVARIANCE"))
    np.testing.assert_array_equal(out["bad"], [[True, False]])
    assert "detector 94, amp C10 is bad: " in caplog.text
    for name, variable in SOLVED.items():
        if variable.dtype != "f8":
            assert name in ("bad", "bad_reason") or not out[name][0, 0].any()
        else:
            assert np.isnan(out[name][0, 0]).all()


@pytest.mark.parametrize("fit_type", TYPES)
def test_all_bad_and_single_pair_do_not_raise(pairs, fit_type):
    assert solve(pairs.isel(pair=[30]), PtcSolveConfig(fit_type=fit_type))["bad"].all()
    nothing = pairs.assign(raw_mean=pairs["raw_mean"] * np.nan, covariance=pairs["covariance"] * np.nan)
    assert solve(nothing, PtcSolveConfig(fit_type=fit_type))["bad"].all()
    assert solve(pairs.assign(valid=pairs["valid"] & False), PtcSolveConfig(fit_type=fit_type))["bad"].all()


def test_what_may_be_used_at_all(pairs):
    pairs["ks_pvalue"] = pairs["raw_mean"] * 0 + 1
    pairs["ks_pvalue"][10, 0, 0] = 0.001
    pairs["valid"][11, 0, 0] = False
    low, high = pairs["raw_mean"].values[[3, -4], 0, 1]
    limits = PtcSolveConfig(min_mean={"ALL_AMPS": 0.0, "C11": low}, max_mean={"ALL_AMPS": 1e6, "C11": high})
    used = solve(pairs, limits)["used"].values[0]
    assert not used[0, [10, 11]].any()
    assert used[0].sum() == len(used[0]) - 2
    assert not used[1, :4].any()
    assert not used[1, -4:].any()
    assert used[1, 4:-4].all()


def test_nan_covariances_have_no_weight():
    data = partial([truth()], ELECTRONS, np.random.default_rng(2))
    config = PtcSolveConfig(fit_type="FULLCOVARIANCE")
    holed = data.copy(deep=True)
    holed["covariance"][20, 0, 0, 1, 1] = np.nan
    lowered = data.copy(deep=True)
    lowered["covariance_sqrt_weight"][20, 0, 0, 1, 1] = 0
    np.testing.assert_allclose(solve(holed, config)["gain"], solve(lowered, config)["gain"], rtol=1e-12)


def test_fewer_lags_may_be_fitted(pairs):
    out = solve(pairs, PtcSolveConfig(fit_type="FULLCOVARIANCE", covariance_lags=2))
    assert out.attrs["covariance_lags"] == 2
    assert np.isfinite(out["a_matrix"][..., :2, :2]).all()
    assert np.isnan(out["a_matrix"][..., 2:]).all()
    assert np.isnan(out["covariance_model"][..., 2:, :]).all()


def test_lags_follow_the_pairs():
    """13 pairs, of which 9 can be used, and 10 x 10 lags: 9 x 9 are fitted."""
    data = partial([truth(side=10), truth(side=10, gain=1.2)], means(13, gain=1.0), np.random.default_rng(7))
    data["valid"][9:] = False
    out = solve(data, PtcSolveConfig(fit_type="FULLCOVARIANCE")).squeeze()
    assert not out["bad"].any()
    np.testing.assert_array_equal(out["used"].sum("pair"), 9)
    np.testing.assert_array_equal(out["lags"], 9)
    assert np.isfinite(out["a_matrix"][:, :9, :9]).all()
    assert np.isnan(out["a_matrix"][:, 9:]).all()
    pulls = (out["gain"] - [1.5, 1.2]) / out["gain_err"]
    assert np.abs(pulls).max() < 4
    enough = solve(data.isel(pair=slice(9)), PtcSolveConfig(fit_type="FULLCOVARIANCE", covariance_lags=3)).squeeze()
    np.testing.assert_array_equal(enough["lags"], 3)
    insisted = solve(data, PtcSolveConfig(fit_type="FULLCOVARIANCE", covariance_lags=10)).squeeze()
    assert (insisted["bad_reason"] == BadReason.FEW_FOR_LAGS).all()
    assert reasons_of(insisted, 94)["C10"] == ("9 usable pairs for 10 x 10 lags, which solve.covariance_lags asks for")


@pytest.mark.parametrize("n", [4, 6])
def test_a_handful_of_pairs_still_has_a_gain(n):
    data = partial([truth(side=10)] * 4, np.geomspace(1000, 60000, n), np.random.default_rng(n))
    out = solve(data, PtcSolveConfig(fit_type="FULLCOVARIANCE")).squeeze()
    assert not out["bad"].any()
    np.testing.assert_array_equal(out["lags"], n)
    np.testing.assert_allclose(out["gain"].mean(), 1.5, rtol=0.02)


WILD = np.geomspace(1e9, 1, 60)


def damaged(name, value):
    def damage(pairs):
        pairs[name][:, 0, 0] = value
        return pairs

    return damage


@pytest.mark.parametrize(
    ("damage", "reason", "words"),
    [
        (damaged("raw_mean", np.nan), BadReason.NO_PAIRS, "0 of 60 pairs can be used: it has no mean in any"),
        (damaged("raw_var", np.nan), BadReason.NO_PAIRS, "good pixels inside extract.edge_pixel = 20, fewer than"),
        (damaged("raw_mean", 2e6), BadReason.NO_PAIRS, "all are outside solve.min_mean, solve.max_mean"),
        (damaged("raw_var", WILD), BadReason.FEW_PAIRS, "are left for 3 parameters; the outlier rule (solve.n"),
        (lambda pairs: pairs.isel(pair=slice(2)), BadReason.FEW_PAIRS, "2 of 2 usable pairs are left for 3 parameters"),
        (lambda pairs: pairs.isel(pair=[1, 30, 50]), BadReason.FEW_PAIRS, "3 x 3 lags fits its 3 pairs"),
    ],
)  # fmt: skip
def test_every_bad_amp_has_a_reason(pairs, damage, reason, words):
    pairs.attrs["extract_config"] = '{"edge_pixel": 20, "min_pixels": 10000}'
    out = solve(damage(pairs), PtcSolveConfig(fit_type="FULLCOVARIANCE"))
    assert int(out["bad_reason"][0, 0]) == reason
    assert words in reasons_of(out, 94)["C10"]
    np.testing.assert_array_equal(out["bad"], out["bad_reason"] != BadReason.NONE)
    np.testing.assert_array_equal(out["gain"].isnull(), out["bad"])


def test_long_range_covariances_are_subtracted():
    p = truth(side=8)
    data = partial([p], ELECTRONS, np.random.default_rng(0), scale=0)
    surface = 3.0 + 0.2 * data["lag_i"] - 0.1 * data["lag_j"]
    data["covariance"] = data["covariance"] + surface
    plain, cleaned = (
        solve(data, PtcSolveConfig(fit_type="FULLCOVARIANCE", subtract_long_range=subtract)).squeeze()
        for subtract in (False, True)
    )
    wrong = [abs(float(out["noise_matrix"][2, 2]) - p.noise[2, 2]) for out in (plain, cleaned)]
    assert wrong[0] > 5
    assert wrong[1] < 0.05 * wrong[0]


def test_missing_variables_are_named(pairs):
    with pytest.raises(DataError, match="no covariance, covariance_sqrt_weight, which a fit of FULLCOVARIANCE needs"):
        solve(pairs.drop_vars(["covariance", "covariance_sqrt_weight"]), PtcSolveConfig(fit_type="FULLCOVARIANCE"))
    out = solve(pairs[["raw_mean", "raw_var"]].drop_vars(["lag_i", "lag_j"], errors="ignore"))
    np.testing.assert_allclose(out["gain"], [[1.5, 1.2]], rtol=0.02)
    assert "a_matrix" not in out


def test_consumers_get_harmless_values(pairs):
    out = solve(pairs)
    out["gain"][0, 0] = out["noise"][0, 0] = out["turnoff"][0, 0] = np.nan
    ready = replace_invalid(out)
    assert [float(ready[name][0, 0]) for name in ("gain", "noise", "turnoff")] == [1, 1, 2e19]
    assert float(ready["gain"][0, 1]) == float(out["gain"][0, 1])


@pytest.mark.parametrize("start", ["current", "legacy", "unbounded"])
def test_starts_lead_to_one_minimum(pairs, start):
    out = solve(pairs, PtcSolveConfig(start=start, minimiser="lmder"))
    np.testing.assert_allclose(out["gain"], solve(pairs, PtcSolveConfig(minimiser="lmder"))["gain"], rtol=1e-9)


def test_bootstrap_replaces_the_errors(pairs):
    plain, drawn = solve(pairs), solve(pairs, PtcSolveConfig(bootstrap=20))
    assert (np.abs(drawn["gain"] - plain["gain"]) < plain["gain_err"]).all()
    assert ((drawn["gain_err"] != plain["gain_err"]) & (drawn["gain_err"] > 0)).all()


def test_turnoff_rule_of_old(pairs):
    falling = pairs["raw_var"].copy(deep=True)
    falling[-3:, 0, 0] = float(falling[-4, 0, 0]) - np.array([10.0, 20.0, 30.0])
    config = PtcSolveConfig(n_sigma=1000, legacy_turnoff=True)
    turnoff = solve(pairs.assign(raw_var=falling), config)["turnoff"].values[0]
    np.testing.assert_array_equal(turnoff, pairs["raw_mean"].values[[-4, -1], 0, [0, 1]])


def test_rolloff_points_leave_the_fit_but_not_the_turnoff():
    """A sensor that loses variance from 52000 adu on, measured densely there."""
    mean = np.concatenate([np.geomspace(60, 66000, 60), np.arange(67500.0, 93000, 450)])
    data = partial([truth(side=1)], mean, np.random.default_rng(4))
    adu = data["raw_mean"].values
    loss = np.expm1(np.maximum(adu - 47000, 0) / 1200)
    data["raw_var"] = data["raw_var"] - loss
    data["covariance"] = data["covariance"] - loss[..., None, None]
    out = solve(data, PtcSolveConfig(model_rolloff=True, max_rolloff_deviation=0.005)).squeeze()
    assert 47000 < float(out["rolloff"]) < float(out["turnoff"])
    assert float(out["raw_mean"].where(out["used"]).max()) < float(out["rolloff"])
    assert out["rolloff_used"].sum() > out["used"].sum()
    np.testing.assert_allclose(out["rolloff_tau"], -1200, rtol=0.15)
    assert np.isfinite(out["rolloff_err"])
    without = solve(data).squeeze()
    assert float(without["turnoff"]) == float(out["turnoff"])
    assert np.isnan(without["rolloff"])


def test_gains_may_be_adjusted_by_the_steps_between_amps():
    true = np.array([1.5, 1.4, 1.3, 1.2])
    pairs = partial([truth(side=1, gain=g) for g in true], ELECTRONS, np.random.default_rng(3))
    level = pairs["raw_mean"].values
    pairs["amp_offset"] = pairs["raw_mean"].copy(data=level - level.mean(axis=2, keepdims=True))
    plain, adjusted = (solve(pairs, PtcSolveConfig(adjust_gains=how)) for how in ("none", "amp_offsets"))
    np.testing.assert_array_equal(adjusted["gain_unadjusted"], plain["gain"])
    gain = adjusted["gain"].values[0]
    np.testing.assert_allclose(gain / true, gain[0] / true[0], rtol=1e-9)
    assert np.ptp(plain["gain"].values / true) > 1e-6


def test_noise_that_is_not_the_overscans_is_told(pairs, caplog):
    solve(pairs)
    assert "overscan" not in caplog.text
    pairs["noise_adu"][:, 0, 1] *= 1.3
    solve(pairs, PtcSolveConfig(fit_type="FULLCOVARIANCE"))
    assert "detector 94, amp C11: noise of the fit" in caplog.text
    assert "C10" not in caplog.text
    caplog.clear()
    pairs["noise_adu"][:, 0, 1] /= 1.3 * 1.08
    solve(pairs, PtcSolveConfig(fit_type="FULLCOVARIANCE"))
    assert "overscan" not in caplog.text  # corrected pixels have the noise of the overscan medians
    pairs["noise_adu"][:] = np.nan
    assert not solve(pairs)["bad"].any()


def test_gains_from_flat_pairs(pairs):
    shape = pairs["raw_mean"].shape
    pairs["pair_gain"] = pairs["raw_mean"].copy(data=np.broadcast_to([1.5, 1.2], shape) + 0.01)
    pairs["pair_gain"][0] = 99.0
    pairs["valid"][0] = False
    out = gain_from_flat_pairs(pairs)
    np.testing.assert_allclose(out["gain"], [[1.51, 1.21]])
    np.testing.assert_allclose(out["gain_err"], 0, atol=1e-12)
    np.testing.assert_allclose(out["noise"], [[6 / 1.5 * 1.51, 6 / 1.2 * 1.21]])
    one = gain_from_flat_pairs(pairs.isel(pair=[7]))
    np.testing.assert_allclose(one["gain"], [[1.51, 1.21]])
    assert np.isnan(one["gain_err"]).all()
    with pytest.raises(DataError, match="pair_gain"):
        gain_from_flat_pairs(pairs.drop_vars("pair_gain"))


@pytest.mark.slow
def test_many_realisations_are_unbiased_with_honest_errors():
    """FULLCOVARIANCE on Eq. 20: gain to 0.05 %, noise and a_00 to 1 %, pulls of width 1."""
    p = truth(side=3)
    n = 120
    data = partial([p] * n, means(150, gain=1.0), np.random.default_rng(11))
    out = solve(data.assign_coords(amp=np.arange(n)), PtcSolveConfig(fit_type="FULLCOVARIANCE")).squeeze()
    assert not out["bad"].any()
    gain, noise, a00 = (out[name].values for name in ("gain", "noise", "a00"))
    assert abs(gain.mean() / p.gain - 1) < 5e-4
    assert abs(noise.mean() / 6 - 1) < 0.01
    assert abs(a00.mean() / p.a[0, 0] - 1) < 0.01
    pulls = (
        (gain - p.gain) / out["gain_err"],
        (noise - 6) / out["noise_err"],
        (a00 - p.a[0, 0]) / out["a_matrix_err"][:, 0, 0],
    )
    for pull in pulls:
        assert abs(pull.mean()) < 4 / np.sqrt(n)
        assert 0.8 < pull.std() < 1.2
    for lag in ((0, 1), (1, 0), (1, 1)):
        pull = (out["a_matrix"][:, *lag] - p.a[lag]) / out["a_matrix_err"][:, *lag]
        assert 0.8 < pull.std() < 1.2
    np.testing.assert_allclose(out["chi2"].mean(), 1, atol=0.02)


@pytest.mark.slow
def test_exponential_errors_are_honest_for_an_exponential_truth():
    p = np.array([-2.4e-6, 1.5, 36.0])
    n = 100
    rng = np.random.default_rng(5)
    data = partial([truth(side=1)] * n, means(150, gain=1.0), rng).assign_coords(amp=np.arange(n))
    exact = exp_variance(p, data["raw_mean"].values)
    measured = exact * (1 + np.sqrt(2 / 926064) * rng.standard_normal(exact.shape))
    data["raw_var"] = data["raw_mean"].copy(data=measured)
    data["covariance_sqrt_weight"][..., 0, 0] = 1 / (np.sqrt(2 / 926064) * measured)
    out = solve(data).squeeze()
    for name, value in (("gain", 1.5), ("noise", 6.0), ("a00", -2.4e-6)):
        error = out["fit_pars_err"][:, 0] if name == "a00" else out[f"{name}_err"]
        pull = (out[name] - value) / error
        assert abs(pull.mean()) < 4 / np.sqrt(n)
        assert 0.8 < pull.std() < 1.2
    assert abs(out["gain"].mean() / 1.5 - 1) < 5e-4

"""The variance that verifications expect of a signal is that of the model which was fitted, whatever its type."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.ptc.solve import PtcSolveConfig, solve
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.kernels.ptc.models import covariances, exp_variance
from camcal_dask.verify.measuring.curve import shot_variance
from camcal_dask.verify.measuring.derived import complete
from camcal_dask.verify.measuring.statistics import MeasureConfig, measure
from tests.calibs.ptc.ptc_curves import means, partial, truth

EXACT = MeasureConfig(overscan_skip_pixel=-1)
MODELS = [
    ("EXPAPPROXIMATION", 3), ("FULLCOVARIANCE", 3), ("FULLCOVARIANCE", 8), ("FULLCOVARIANCE_NO_B", 3),
    ("POLYNOMIAL", 3),
]  # fmt: skip


def solved(fit_type, order, gains=(1.5, 1.2), scale=1.0):
    rng = np.random.default_rng(3)
    pairs = partial([truth(gain=g) for g in gains], means(60, gain=1.0), rng, scale)
    return solve(pairs, PtcSolveConfig(fit_type=fit_type, order=order))


@pytest.mark.parametrize(("fit_type", "order"), MODELS)
def test_it_is_the_model_that_the_solver_left(fit_type, order):
    ptc = solved(fit_type, order)
    gain = ptc["gain"]
    found = shot_variance(ptc, ptc["raw_mean"] * gain) / gain**2
    noise2 = ptc["fit_pars"][..., 2] if fit_type == "EXPAPPROXIMATION" else ptc["noise"] ** 2
    expected = ptc["final_model_var"] - noise2 / gain**2
    np.testing.assert_allclose(found, expected.transpose(*found.dims), rtol=1e-9)


def test_orders_and_types_differ_by_what_they_leave_out():
    """At 1e5 electron b_ij is worth 2 % of the variance, which Eq. 16 with the same a00 knows nothing of."""
    ptc = solved("FULLCOVARIANCE", 3, scale=0.0)
    signal = xr.DataArray([[[1e5, 1e5]]], dims=("exposure", "detector", "amp"))
    published, full = (shot_variance(ptc.assign_attrs(covariance_order=order), signal) for order in (3, 8))
    old = shot_variance(ptc.assign_attrs(fit_type=""), signal)
    p = truth(gain=1.0, noise=0.0)
    np.testing.assert_allclose(published, covariances(p, np.array([1e5]))[0, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(full, covariances(p, np.array([1e5]), 8)[0, 0, 0], rtol=1e-5)
    assert (abs(full / published - 1) > 1e-3).all()
    np.testing.assert_allclose(old / published - 1, -0.02, atol=0.005)
    assert shot_variance(ptc.drop_attrs(), signal).equals(old)
    unnamed = ptc.copy()
    del unnamed.attrs["covariance_order"]
    assert shot_variance(unnamed, signal).equals(published)


def test_fewer_lags_and_no_curve():
    ptc = solved("FULLCOVARIANCE", 3)
    signal = xr.full_like(ptc["gain"], 5e4).expand_dims("exposure")
    expected = shot_variance(ptc, signal)
    ptc = ptc[["a00", "a_matrix", "b_matrix"]].drop_vars(["lag_i", "lag_j"])
    ptc = ptc.pad(lag_i=(0, 3), lag_j=(0, 3), constant_values=np.nan)
    ptc["a_matrix"][0, 1] = np.nan
    ptc["a00"][0, 1] = np.nan
    found = shot_variance(ptc, signal)
    assert found[0, 0, 0] == expected[0, 0, 0]
    assert np.isnan(found[0, 0, 1])
    assert np.isnan(shot_variance(ptc.assign_attrs(fit_type="EXPAPPROXIMATION"), signal)[0, 0, 1])


@pytest.mark.parametrize("units", ["electron", "adu"])
def test_verifications_expect_it(make_exposures, units):
    corrected = make_exposures(detectors=(0,), n_exposure=2, units=units)
    names = list(get_instrument("TinyCam").amp_names)
    ptc = solved("FULLCOVARIANCE", 8, gains=[1.3] * 16).assign_coords(detector=[0], amp=names).drop_dims("pair")
    ptc["gain"][0, 5] = np.nan
    corrected["image"][:] = corrected["image"] + 60_000.0
    stats = measure(corrected, config=EXACT, calibs={"ptc": ptc}).compute()
    signal = stats["mean"] * stats["to_electron"]
    expected = shot_variance(ptc, signal) / stats["to_electron"] ** 2
    known = np.arange(16) != 5
    full = complete(stats)
    np.testing.assert_allclose(stats["ptc_variance"][..., known], expected[..., known], rtol=1e-12)
    np.testing.assert_allclose(full["shot_variance"][..., known], expected[..., known], rtol=1e-12)
    of_a00 = exp_variance(np.array([float(ptc["a00"][0, 0]), 1.0, 0.0]), signal.values[..., 0])
    assert (abs(full["shot_variance"][..., 0] * stats["to_electron"][:, 0] ** 2 / of_a00 - 1) > 0.005).all()
    assert stats["ptc_variance"][..., 5].isnull().all()
    np.testing.assert_allclose(full["shot_variance"][..., 5], (stats["mean"] / stats["to_electron"])[..., 5])
    assert (full["bf_allowance"][..., known] == 0).all()
    assert (full["bf_allowance"][..., 5] > 0).all()

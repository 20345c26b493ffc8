import numpy as np
import pytest
import xarray as xr

from camcal_dask.report.content.quantities import colour_limits, nan_median, quantities, usual_range
from tests.verified_runs import make_verdict


def test_usual_range_is_four_sigma_within_the_data():
    values = np.random.default_rng(0).normal(5.0, 0.5, 100_001)
    assert usual_range(values) == pytest.approx((3.0, 7.0), abs=0.02)
    assert usual_range(np.append(values, [1e6, np.nan])) == pytest.approx((3.0, 7.0), abs=0.02)
    assert usual_range(np.array([1.0, 2.0, 3.0])) == (1.0, 3.0)
    assert usual_range(np.array([0.0] * 9 + [4.0])) == (0.0, 4.0)
    assert np.isnan(usual_range(np.array([np.nan]))).all()


def test_colour_limits_span_all_vendors_and_never_coincide():
    values = np.array([[1.0, 1.1, 1.2], [9.0, 9.1, 9.2]])
    assert colour_limits(values, ["E2V", "ITL"]) == (1.0, 9.2)
    low, high = colour_limits(np.full((2, 3), 4.0), ["E2V", "ITL"])
    assert low < 4.0 < high
    assert colour_limits(np.full((1, 3), np.nan), ["E2V"]) == (0.0, 1.0)


def test_nan_median_is_numpys():
    values = np.random.default_rng(1).normal(size=(6, 3, 4))
    values[2:4, 0] = np.nan
    values[5, 1, 1] = np.nan
    np.testing.assert_allclose(nan_median(values), np.nanmedian(values, axis=0))
    values[:, 2, 2] = np.nan
    assert np.isnan(nan_median(values)[2, 2])


def test_quantities_of_a_verdict():
    verdict = make_verdict()
    found = {q.key: q for q in quantities(verdict, None)}
    assert {"failing", "noise", "test.bias.noise", "read_noise"} <= set(found)
    assert found["failing"].values[0, 2] == 100.0
    assert np.nansum(found["failing"].values) == 100.0  # the bad exposure does not count
    noise = verdict["noise"].values
    np.testing.assert_allclose(found["noise"].values, np.median(noise[1:], axis=0))  # nor does the first of the set
    np.testing.assert_allclose(found["noise"].series, noise)
    assert found["noise"].doc.startswith("STDEVCLIP")


def test_quantities_of_a_product_are_its_small_variables_by_label():
    product = xr.Dataset(
        {
            "image": (("detector", "amp", "y", "x"), np.zeros((2, 3, 4, 4), "f4")),
            "gain": (("detector", "amp"), np.full((2, 3), 1.5), {"units": "electron/adu"}),
            "n_columns": (("detector", "amp", "kind"), np.arange(12).reshape(2, 3, 2)),
            "covariance": (("detector", "amp", "pair", "lag"), np.zeros((2, 3, 4, 5))),
        },
        {"detector": [0, 1], "kind": ["dark", "flat"]},
    )
    found = {q.key: q for q in quantities(None, product)}
    assert set(found) == {"product.gain", "product.n_columns.dark", "product.n_columns.flat"}
    assert found["product.n_columns.flat"].values[1, 2] == 11
    assert found["product.gain"].unit == "electron/adu"

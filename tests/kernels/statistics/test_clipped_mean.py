"""The clipped mean without a sort is that of `camcal_dask.kernels.statistics.moments`."""

import numpy as np
import pytest

from camcal_dask.kernels.statistics.clipped_mean import _quartiles, clip_many
from camcal_dask.kernels.statistics.moments import clip_statistics


def values(kind, n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(30000, 150, n).astype("f4")
    if kind == "with holes":
        x[rng.random(n) < 0.3] = np.nan
        x[rng.random(n) < 0.01] = np.inf
    elif kind == "outliers":
        x[rng.random(n) < 0.02] *= 3
    elif kind == "skew":
        x = rng.gamma(2, 50, n).astype("f4")
    elif kind == "integers":
        x = np.round(x / 40) * np.float32(40)
    elif kind == "constant":
        x[:] = 7.5
    elif kind == "two levels":
        x[n // 2 :] -= 20000
    return x


@pytest.mark.parametrize("kind", ["plain", "with holes", "outliers", "skew", "integers", "constant", "two levels"])
@pytest.mark.parametrize("n", [0, 1, 2, 300, 5000, 40001])
@pytest.mark.parametrize(("sigma", "iterations"), [(5.5, 3), (3.0, 3), (2.0, 5), (3.0, 1)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_same_as_with_a_sort(kind, n, sigma, iterations):
    x = values(kind, n)
    found, want = (f(x, sigma=sigma, iterations=iterations) for f in (clip_many, clip_statistics))
    assert (found.n, found.n_clipped) == (want.n, want.n_clipped)
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["plain", "with holes", "outliers", "skew"])
def test_quartiles_are_exact(kind):
    x = values(kind, 30003, seed=2)
    quartiles, n = _quartiles(x)
    finite = x[np.isfinite(x)].astype("f8")
    assert n == finite.size
    np.testing.assert_array_equal(quartiles, np.quantile(finite, [0.25, 0.5, 0.75]))


def test_any_shape():
    x = values("outliers", 60 * 50).reshape(60, 50)
    assert clip_many(x) == clip_many(x.ravel())

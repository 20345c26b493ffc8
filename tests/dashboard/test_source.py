from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("bokeh")

from camcal_dask.dashboard.source import Source, window  # noqa: E402
from camcal_dask.errors import RepoError  # noqa: E402
from tests.ptc_data import solved  # noqa: E402
from tests.verified_runs import make_verdict  # noqa: E402


@pytest.fixture(scope="module")
def source(repo):
    return Source(repo)


def test_lists(source):
    assert source.runs == {
        "u/good.verify": "verifyBias",
        "u/good": "bias",
        "u/bias.verify": "verifyBias",
        "u/bias": "bias",
    }
    assert source.collections["u/chain"] == ("u/good.verify", "u/good")
    assert source.collections["calib"] == ("u/good",)
    assert {"noise", "gain", "test bias.noise"} <= set(source.names("u/bias.verify"))
    assert "product.distribution.50" in source.names("u/bias")
    with pytest.raises(RepoError, match="has no quantity"):
        source.numbers("u/bias", "noise")


def test_numbers_are_those_of_the_cube(source):
    verdict = make_verdict()
    numbers = source.numbers("u/bias.verify", "noise")
    np.testing.assert_allclose(numbers.values, verdict["noise"].values)
    np.testing.assert_allclose(numbers.chosen(), verdict["noise"].median("exposure").values)
    np.testing.assert_allclose(numbers.chosen("2026081200002"), verdict["noise"].values[1])
    value = verdict["value"].sel(test="bias.noise").values
    np.testing.assert_allclose(source.numbers("u/bias.verify", "test bias.noise").values, value)


def test_history_goes_through_all_runs_in_time(source):
    time, values = source.history(list(source.runs), "noise", 0, "C12")
    assert len(time) == 10
    assert (np.diff(time) >= 0).all()
    assert sorted(values)[4] < 0.6 * sorted(values)[5]  # dead in one of the two runs


def test_failing_tests_of_an_amp(source):
    assert "bias.noise_low (5)" in source.failing("u/bias.verify", 0, "C12")
    assert source.failing("u/good.verify", 0, "C12") == []
    assert source.failing("u/good", 0, "C12") == []


def test_pixels_are_those_of_the_candidate(source):
    image, unit = source.pixels("u/good.verify", 1)
    assert image.shape == (100, 288)
    assert (image == 9.0).all()
    assert unit == "electron"


def test_window_bins_what_is_seen():
    image = np.arange(40 * 60, dtype="f4").reshape(40, 60)
    whole, box = window(image, (-5, 100), (-5, 100), most=30)
    assert whole.shape == (20, 30)
    assert box == (0, 0, 60, 40)
    assert whole[0, 0] == image[:2, :2].mean()
    part, box = window(image, (10.2, 19.5), (5, 8), most=30)
    np.testing.assert_array_equal(part, image[5:8, 10:20])
    assert box == (10, 5, 10, 3)
    tiny, _ = window(image, (59.9, 59.95), (39.9, 39.95))
    assert tiny.shape == (1, 1)


def test_curve_is_of_the_first_run_whose_type_has_one():
    product = solved(detectors=(0,))
    source = Source(SimpleNamespace(open=lambda kind, **chosen: product))
    source.__dict__["runs"] = {"u/bias": "bias", "u/ptc": "ptc"}
    run, figures, curve = source.curve(["u/bias", "u/ptc"], 0, str(product["amp"].values[0]))
    assert (run, figures.title) == ("u/ptc", "Photon transfer curve")
    one = product.isel(detector=0, amp=0)
    np.testing.assert_allclose(curve.x, np.sort(one["raw_mean"].values))
    assert curve.line is not None
    assert source.curve(["u/bias"], 0, "C10") is None
    assert source.curve(["u/ptc"], 1, "C10") is None

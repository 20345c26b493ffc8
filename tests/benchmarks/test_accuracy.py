"""The accuracy benchmark, small: it runs, keeps its work, and its table names every number."""

import numpy as np

from benchmarks import accuracy


def test_a_tiny_curve_is_compared_with_its_truth(tmp_path, monkeypatch):
    case = accuracy.Case("TinyCam", 0, 7)
    curve = accuracy._curve(case, tmp_path, quick=True)
    monkeypatch.setattr(accuracy, "simulate_exposure", None)  # the second time nothing is simulated
    assert accuracy._curve(case, tmp_path, quick=True).equals(curve)
    numbers = accuracy._numbers([(case, curve)])
    assert numbers["amps"] == 16
    assert numbers["bad_amps"] == 0
    assert abs(numbers["overscan_noise_bias_percent"]) < 3
    assert 0.4 < numbers["gain_pull_std"] < 2
    page = accuracy._page({"all": numbers}, (case,))
    assert all(f"`{name}`" in page for name in numbers if not name.endswith("_error"))


def test_a_perfect_curve_has_no_bias(tmp_path):
    case = accuracy.Case("TinyCam", 0, 7)
    truth = accuracy._truth(case)
    curve = accuracy._curve(case, tmp_path, quick=True)
    for name, true in (("gain", "gain"), ("noise", "noise")):
        curve[name][0] = truth[true]
    numbers = accuracy._numbers([(case, curve)])
    np.testing.assert_allclose([numbers["gain_bias_percent"], numbers["noise_bias_percent"]], 0.0, atol=1e-12)

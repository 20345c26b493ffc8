"""Decays of known amplitude and time."""

import numpy as np
import pytest

from camcal_dask.kernels.charge.persistence import persistence


def test_exponential_decay_is_recovered():
    seconds = np.arange(20) * 20.0
    amplitude, tau = np.array([10.0, 3.0, 40.0]), np.array([30.0, 60.0, 25.0])
    level = amplitude * np.exp(-seconds[:, None] / tau) + np.array([0.1, -0.2, 5.0])
    found = persistence(level, seconds)
    np.testing.assert_allclose(found.amplitude, amplitude, rtol=0.005)
    np.testing.assert_allclose(found.decay_s, tau, rtol=0.03)


def test_noise_gaps_and_no_persistence():
    rng = np.random.default_rng(0)
    seconds = np.arange(12) * 20.0
    level = np.stack([8 * np.exp(-seconds / 40), np.zeros(12), seconds / 100], axis=1) + rng.normal(0, 0.02, (12, 3))
    level[5, 0] = np.nan
    found = persistence(level, seconds)
    assert found.amplitude[0] == pytest.approx(8, abs=0.1)
    assert found.decay_s[0] == pytest.approx(40, rel=0.05)
    assert abs(found.amplitude[1]) < 0.1
    assert found.amplitude[2] < 0  # rising: reported as it is (reference 7.14)
    assert np.isnan(found.decay_s[2])
    assert np.isnan(persistence(level[:3], seconds[:3]).decay_s).all()

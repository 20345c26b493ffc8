"""Tearing of known depth at known boundaries."""

import numpy as np
import pytest

from camcal_dask.kernels.readout import tearing

WIDTH, HEIGHT = 128, 300


def flat(seed, slope=0.0, left=0.0, right=0.0):
    """Poisson flat of 50 000 electron with a gradient, and excess in the outermost two columns."""
    rng = np.random.default_rng(seed)
    x = np.arange(WIDTH)
    level = 50_000 * (1 + slope * (x - WIDTH / 2) / WIDTH)
    level[:2] *= 1 + left
    level[-2:] *= 1 + right
    image = rng.poisson(level, (HEIGHT, WIDTH)).astype(np.float32)
    image[50, 30] = 2e5  # a cosmic ray
    return image


def test_gradient_is_no_tearing():
    found = tearing.profile(flat(0, slope=0.2))
    error = 1 / np.sqrt(50_000 * 200)
    assert np.abs(found - 1).max() < 6 * error


def test_departure_belongs_to_both_amps_of_a_boundary():
    amps = {(0, 0): flat(1), (1, 0): flat(2, right=-0.01), (2, 0): flat(3), (3, 0): flat(4, right=0.05)}
    amps[0, 1] = flat(5)
    found = tearing.tearing({cell: tearing.profile(image) for cell, image in amps.items()})
    assert found[1, 0] == pytest.approx(0.01, abs=0.002)
    assert found[2, 0] == pytest.approx(0.01, abs=0.002)
    assert found[0, 0] < 0.002
    assert found[3, 0] < 0.002  # its own right edge is that of the CCD
    assert np.isnan(found[0, 1])


def test_small_and_dead_amps():
    np.testing.assert_allclose(tearing.profile(np.full((49, 35), 7.0, np.float32)), np.ones(35), rtol=1e-12)
    assert np.isnan(tearing.profile(np.full((49, 35), np.nan, np.float32))).all()


def test_a_dead_amp_tears_nothing():
    """Its profile is any number; the amps beside it go by their own columns."""
    profiles = {(i, 0): tearing.profile(flat(i)) for i in range(4)}
    profiles[1, 0] = np.full(WIDTH, np.nan)
    profiles[2, 0][:2] *= 1.03
    found = tearing.tearing(profiles)
    assert np.isnan(found[1, 0])
    assert found[0, 0] < 0.002
    assert found[2, 0] == pytest.approx(0.03, abs=0.002)

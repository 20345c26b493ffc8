"""Proportionality to light against closed forms."""

import numpy as np
import pytest

from camcal_dask.kernels.linearity.proportionality import ends_early, proportionality


def test_departure_of_known_curves():
    flux = np.linspace(1e-9, 2e-7, 200)
    straight = proportionality(1e12 * flux, flux)
    assert straight.worst < 1e-12
    assert straight.turnoff == pytest.approx(2e5)
    curved = 1e12 * flux * (1 - 4e-7 * 1e12 * flux)  # 3.6 % less at 90 000
    found = proportionality(curved, flux)
    n = curved[(curved > 1e3) & (curved < 9e4)]
    f = flux[(curved > 1e3) & (curved < 9e4)]
    slope = np.linalg.lstsq((f / np.sqrt(n))[:, None], np.sqrt(n), rcond=None)[0][0]  # weights 1 / N, by numpy
    assert found.worst == pytest.approx(np.abs(1 - slope * f / n).max(), rel=1e-9)
    assert 0 < found.rms < found.worst
    saturated = np.minimum(1e12 * flux, 120_000)
    assert proportionality(saturated, flux).turnoff == pytest.approx(120_000)
    assert np.isnan(proportionality(saturated[:2], flux[:2]).worst)


def test_only_a_lit_amp_at_the_end_of_a_short_ramp_ends_early():
    """Vignetted to 54 ke; full below its brightest flat; dead; without a curve; beyond what is asked for."""
    turnoff = np.array([[54e3, 50e3, 40e3, 2e3, 0.1, np.nan], [95e3, 95e3, 95e3, 95e3, 95e3, 95e3], [np.nan] * 6])
    brightest = np.array([[54e3, 50e3, 52e3, 2e3, 0.1, 50e3], [95e3] * 6, [50e3] * 6])
    early = ends_early(turnoff, brightest)
    assert early.tolist() == [[True, True, False, False, False, False], [False] * 6, [False] * 6]

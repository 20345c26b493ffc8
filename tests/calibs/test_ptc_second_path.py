"""A second simulation that shares no code with the simulator: pixel boundaries that move while charge comes in.

Straight from the physics of Astier+19: every electron that a pixel holds shifts the boundaries around it, so
in each small step of the exposure a pixel collects light in proportion to its present area.  What one pixel
loses its neighbour gains.  The coefficients a_ij follow from the shifts alone.
"""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.calibs.ptc_solve import PtcSolveConfig, solve
from camcal_dask.kernels.flat_pair import PairRules, measure_pair

GAIN, NOISE_E = 1.6, 6.0
SHAPE, STEPS, REACH = (400, 500), 30, 2
LEVELS_E = (200, 1_000, 3_000, 8_000, 16_000, 26_000, 38_000, 50_000, 62_000, 74_000, 86_000, 96_000)


def boundary_shifts():
    """Shift [pixel/electron] of a pixel's right and upper boundary, index [dy + R, dx + R] of the source's place."""
    y, x = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1].astype(float)
    right = (0.5 - x) / np.hypot(x - 0.5, y) ** 3.2 * 2.0e-7 * 0.6  # towards the source: the field of a point charge
    upper = (0.5 - y) / np.hypot(x, y - 0.5) ** 3.2 * 2.0e-7
    right[:, 0] = upper[0] = 0.0  # as far to the left as to the right of the boundary
    return -right, -upper


def area_coefficients():
    """a_ij [1/electron], index (serial, parallel): change of a pixel's area by a charge i columns and j rows away."""
    right, upper = boundary_shifts()

    def at(kernel, dy, dx):
        inside = abs(dy) <= REACH and abs(dx) <= REACH
        return kernel[dy + REACH, dx + REACH] if inside else 0.0

    lags = range(REACH + 1)
    return np.array(
        [[at(right, j, i) - at(right, j, i + 1) + at(upper, j, i) - at(upper, j + 1, i) for j in lags] for i in lags]
    )


def correlate(charge, kernel):
    """Sum over sources: kernel[dy + R, dx + R] times the charge dy rows and dx columns away; borders wrap."""
    total = np.zeros_like(charge)
    for dy in range(-REACH, REACH + 1):
        for dx in range(-REACH, REACH + 1):
            if kernel[dy + REACH, dx + REACH]:
                total += np.float32(kernel[dy + REACH, dx + REACH]) * np.roll(charge, (-dy, -dx), (0, 1))
    return total


def expose(level, rng):
    """One flat [adu] float32: in each step light falls on the areas that the charge so far has left."""
    right, upper = boundary_shifts()
    charge = np.zeros(SHAPE, np.float32)
    steps = max(2, min(STEPS, int(STEPS * level / 40_000)))
    for _ in range(steps):
        r, u = correlate(charge, right), correlate(charge, upper)
        area = 1 + r - np.roll(r, 1, 1) + u - np.roll(u, 1, 0)
        mean = (level / steps) * area
        charge += mean + np.sqrt(mean) * rng.standard_normal(SHAPE, dtype=np.float32)
    return (charge + np.float32(NOISE_E) * rng.standard_normal(SHAPE, dtype=np.float32)) / np.float32(GAIN)


@pytest.fixture(scope="module")
def solved():
    rng = np.random.default_rng(20260812)
    rules, good = PairRules(lags=REACH + 1), np.zeros(SHAPE, bool)
    measured = [measure_pair(expose(e, rng), expose(e, rng), good, NOISE_E / GAIN, rules) for e in LEVELS_E]
    dims = ("pair", "detector", "amp")
    names = ("raw_mean", "raw_var", "valid", "covariance", "covariance_sqrt_weight")
    columns = {name: np.array([getattr(m, name) for m in measured])[:, None, None] for name in names}
    partial = xr.Dataset(
        {name: ((*dims, *("lag_i", "lag_j")[: v.ndim - 3]), v) for name, v in columns.items()},
        {"detector": [0], "amp": ["A"], "lag_i": range(REACH + 1), "lag_j": range(REACH + 1)},
    )
    return solve(partial, PtcSolveConfig(fit_type="FULLCOVARIANCE", n_sigma=20.0)).isel(detector=0, amp=0)


def test_the_model_moves_charge_and_makes_none():
    a = area_coefficients()
    full = np.pad(a, ((REACH, 0), (REACH, 0)), mode="reflect")
    assert a[0, 0] == pytest.approx(-2.9e-6, rel=0.1)
    assert a[0, 1] > a[1, 0] > 0
    assert abs(full.sum()) < 1e-12 * abs(a[0, 0])


def test_gain_and_noise_are_recovered(solved):
    assert solved["used"].all()
    assert abs(float(solved["gain"]) - GAIN) < 4 * float(solved["gain_err"])
    assert float(solved["gain_err"]) / GAIN < 6e-3
    assert abs(float(solved["noise"]) - NOISE_E) < 4 * float(solved["noise_err"])


def test_area_coefficients_are_recovered(solved):
    truth = area_coefficients()
    pulls = (solved["a_matrix"].values - truth) / solved["a_matrix_err"].values
    assert np.abs(pulls).max() < 4
    assert abs(truth[0, 0] / solved["a_matrix_err"].values[0, 0]) > 15  # the test can see the effect
    assert truth[0, 1] / solved["a_matrix_err"].values[0, 1] > 5

"""Counts of injected defects, exactly."""

import numpy as np

from camcal_dask.kernels.statistics.outlier_counts import Counts, bright, count, dark, vampires


def test_runs_make_columns_and_the_rest_pixels():
    bad = np.zeros((60, 10), bool)
    bad[5:27, 2] = True  # 22 in a run: a column
    bad[40:50, 2] = True  # 10 more in the same column
    bad[10:30, 5] = True  # 20: not more than 20
    bad[[0, 59], 7] = True
    bad[:, 9] = True
    assert count(bad, 20) == Counts(columns=2, pixels=10 + 20 + 2)
    assert count(~np.ones((4, 4), bool), 2) == (0, 0)
    assert count(np.ones((4, 4), bool), 4) == (0, 16)


def test_bright_and_dark_defects_of_a_noisy_image():
    rng = np.random.default_rng(0)
    rate = rng.normal(0.02, 0.01, (200, 100))
    rate[10, 10], rate[20, 20], rate[:, 50], rate[0, 0] = 5.1, 4.9, 9.0, np.nan
    assert bright(rate) == (1, 1)
    flat = rng.normal(1.3, 0.01, (200, 100))
    flat[5, 5], flat[6, 6], flat[30:140, 70], flat[30:130, 80] = 1.0, 1.1, 0.5, 0.5
    assert dark(flat) == (1, 101)  # 110 in a run are a column, 100 are not; 1.1 is 85 %


def test_vampires_are_counted_once_each_whatever_the_illumination():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:300, :200]
    flat = (1 + 0.3 * x / 200) * rng.normal(1, 0.01, (300, 200))
    for cy, cx in ((40, 40), (150, 100), (250, 170)):
        flat *= 1 + 0.8 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 3**2))
    assert vampires(flat) == 3
    assert vampires(np.full((100, 100), np.nan)) == 0

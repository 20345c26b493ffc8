"""Figures of photon transfer curves: every one is drawn and shows what it should; files are written."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from camcal_dask.calibs.ptc import figures
from tests.ptc_data import A, solved


@pytest.fixture(scope="module")
def curves():
    dataset = solved(detectors=(0,))
    for name in ("gain", "gain_err", "noise", "a00", "turnoff", "fit_pars", "a_matrix", "covariance_model"):
        dataset[name][0, 3] = np.nan
    dataset["bad"][0, 3], dataset["used"][0, 3] = True, False
    return dataset


@pytest.mark.parametrize("name", ["variance", "covariance_parallel"])
def test_panels_show_every_amp_its_points_and_the_bad_one(curves, name):
    figure = figures.FIGURES[name](curves, 0)
    assert isinstance(figure, Figure)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"{amp}{' (bad)' if amp == 'C13' else ''}" for amp in curves["amp"].values]
    shown = [point for axes in figure.axes for line in axes.lines for point in line.get_xdata()]
    assert set(curves["raw_mean"].values[0, 0]) <= set(shown)


def test_cumulative_sum_ends_at_the_sum_over_the_plane(curves):
    (axes,) = figures.cumulative_sum(curves, 0).axes
    middle = next(line for line in axes.lines if line.get_label() == "median of the amps")
    assert middle.get_ydata()[0] == A[0, 0]
    np.testing.assert_allclose(middle.get_ydata()[-1], 0.0, atol=1e-15)


def test_files_are_written(curves, tmp_path):
    written = figures.write_figures(curves, 0, tmp_path / "new", dpi=20)
    assert sorted(p.name for p in written) == sorted(f"{name}_000.png" for name in figures.FIGURES)
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in written)
    one_lag = curves.isel(lag_i=[0], lag_j=[0])
    names = [p.name for p in figures.write_figures(one_lag, 0, tmp_path / "linear", dpi=20)]
    assert names == ["variance_000.png", "variance_over_mean_000.png"]

"""Figures of a linearizer show what it holds."""

import numpy as np
import pytest

from camcal_dask.calibs.linearizer.config import LinearityConfig
from camcal_dask.calibs.linearizer.figures import FIGURES, plot_correction, plot_curve, plot_residuals, save_linearity
from camcal_dask.calibs.linearizer.fit import fit
from tests.calibs.linearizer.linearity_tables import Camera, ramp


@pytest.fixture(scope="module")
def linearizer():
    table, ratios = ramp(Camera(n_amp=5), 150)
    table["bad"][0, 3] = True
    return fit(table, LinearityConfig(abscissa="photodiode"), ratios=ratios).assign_attrs(instrument="TinyCam")


def test_residuals_have_a_panel_an_amp_with_both_turnoffs(linearizer):
    figure = plot_residuals(linearizer, 94)
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == 5
    verticals = [line.get_xdata()[0] for line in panels[0].lines if len(set(line.get_xdata())) == 1]
    expected = [linearizer[name].values[0, 0] for name in ("input_turnoff", "linearity_turnoff")]
    assert set(expected) <= set(verticals)
    notes = [text.get_text() for axes in panels for text in axes.texts]
    assert notes[0] == "C00"
    assert "no fit" in notes
    used = next(line for line in panels[0].lines if line.get_color() == "#1f4e79")
    assert len(used.get_xdata()) == int(linearizer["used"][0, 0].sum())


@pytest.mark.parametrize("kind", ["DoubleSpline", "Spline", "Polynomial"])
def test_corrections_are_those_of_the_isr(linearizer, kind):
    if kind != "DoubleSpline":
        linearizer = fit(ramp(Camera(n_amp=5), 150)[0], LinearityConfig(type=kind))
    axes = plot_correction(linearizer, 94).axes[1]
    curve = next(line for line in axes.lines if len(line.get_xdata()) == 400)
    x, y = curve.get_xdata(), curve.get_ydata()
    below = (x > 3000) & (x < linearizer["input_turnoff"].values[0, 1])
    bend = -100 * Camera(n_amp=5).c2 * x * 1.5  # percent; a constant is free
    difference = (y - bend)[below]
    assert np.ptp(difference) < 0.5 * np.ptp(bend[below]) + 0.15
    nodes = [line for line in axes.lines if line.get_marker() == "|"][0].get_xdata()
    assert (len(nodes) > 0) == (kind != "Polynomial")


def test_curve_shows_both_before_and_after(linearizer):
    top, bottom = plot_curve(linearizer, 94).axes
    assert top.get_ylabel() == "measured signal [adu]"
    assert bottom.get_xlabel() == "photodiode charge [nC]"
    before, after = (np.asarray(line.get_ydata()) for line in bottom.lines[:2])
    assert np.std(after) < 0.3 * np.std(before)


def test_files(linearizer, tmp_path):
    paths = save_linearity(linearizer, 94, tmp_path, dpi=40)
    assert [p.name for p in paths] == [f"linearizer_{name}_094.png" for name in FIGURES]
    assert all(p.stat().st_size > 5000 for p in paths)

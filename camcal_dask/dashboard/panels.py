"""Figures of the dashboard: the focal plane, and histogram, history, curve and pixels beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    HoverTool,
    LinearColorMapper,
    Range1d,
    Span,
    TapTool,
)
from bokeh.palettes import Greys256, RdBu11, Viridis256
from bokeh.plotting import figure
from numpy.typing import NDArray

from camcal_dask.dashboard.source import window
from camcal_dask.instruments import Detector
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.report.content.layout import Layout
from camcal_dask.report.figures.png import zscale

INK, ACCENT, SECOND, BAD, NONE = "#1d2126", "#2b6cb0", "#cf7a1c", "#b3261e", "#c9cdd2"
_SIDE, _WIDE, _LOW = 560, 340, 150
_BINS = 40


@dataclass(frozen=True)
class Map:
    """The focal plane and what changes in it."""

    plot: Any
    amps: ColumnDataSource
    colours: LinearColorMapper


def make_map(detectors: list[Detector], layout: Layout) -> Map:
    """Draw the focal plane, without values yet."""
    names = [detectors[i].full_name for i in layout.owner]
    labels = [detectors[i].amps[k].name for i, k in zip(layout.owner, layout.index, strict=True)]
    amps = ColumnDataSource(
        {**_sides(layout.amps), "value": np.full(len(names), np.nan), "detector": names, "amp": labels}
    )
    colours = LinearColorMapper(palette=Viridis256, nan_color=NONE)
    plot = _figure(
        frame_width=_SIDE, frame_height=_SIDE, tools="pan,wheel_zoom,box_zoom,reset,save", active_scroll="wheel_zoom",
        x_range=Range1d(), y_range=Range1d(), x_axis_label="x [mm]", y_axis_label="y [mm]", name="map",
    )  # fmt: skip
    drawn = plot.quad(
        "left", "right", "bottom", "top", source=amps, line_color=None,
        fill_color={"field": "value", "transform": colours},
        nonselection_fill_alpha=1.0, nonselection_line_color=None,
        selection_line_color=BAD, selection_line_width=3, selection_fill_alpha=1.0,
    )  # fmt: skip
    outlines = ColumnDataSource(_sides(layout.detectors))
    plot.quad("left", "right", "bottom", "top", source=outlines, fill_color=None, line_color="white", line_width=1)
    tips = [("", "@detector @amp"), ("value", "@value{0.0000a}")]
    plot.add_tools(HoverTool(renderers=[drawn], tooltips=tips), TapTool(renderers=[drawn]))
    plot.add_layout(ColorBar(color_mapper=colours, width=12, title=""), "right")
    return Map(plot, amps, colours)


def recolour(shown: Map, values: FloatArray, limits: tuple[float, float], *, diverging: bool) -> None:
    """Give every amp its value (in the order of the layout) and the scale its limits."""
    shown.amps.patch({"value": [(slice(len(values)), values)]})
    shown.colours.update(low=limits[0], high=limits[1], palette=RdBu11[::-1] if diverging else Viridis256)


def zoom(shown: Map, box: tuple[float, float, float, float]) -> None:
    """Show a square around x0, y0, width, height [mm]."""
    x0, y0, width, height = box
    half = 0.52 * max(width, height)
    x, y = x0 + width / 2, y0 + height / 2
    shown.plot.x_range.update(start=x - half, end=x + half)
    shown.plot.y_range.update(start=y - half, end=y + half)


def _sides(boxes: FloatArray) -> dict[str, FloatArray]:
    x, y, width, height = boxes.T
    return {"left": x, "right": x + width, "bottom": y, "top": y + height}


# ---------------------------------------------------------------------------- beside the map


@dataclass(frozen=True)
class Chart:
    """A small figure and the data it draws."""

    plot: Any
    data: ColumnDataSource
    line: ColumnDataSource | None = None
    mark: Span | None = None


def make_histogram() -> Chart:
    """Histogram of all amps of a vendor, with the chosen amp marked."""
    plot = _figure(title="Amps of the same vendor", frame_width=_WIDE, frame_height=_LOW, tools="", name="histogram")
    data = ColumnDataSource({"left": [], "right": [], "top": []})
    plot.quad("left", "right", 0, "top", source=data, fill_color=ACCENT, fill_alpha=0.35, line_color=ACCENT)
    mark = Span(dimension="height", line_color=BAD, line_width=2, visible=False)
    plot.add_layout(mark)
    return Chart(plot, data, mark=mark)


def fill_histogram(chart: Chart, values: FloatArray, limits: tuple[float, float], chosen: float) -> None:
    """Count the values between the limits of the colours; mark the chosen one."""
    counts, edges = np.histogram(values[np.isfinite(values)], bins=_BINS, range=limits)
    chart.data.data = {"left": edges[:-1], "right": edges[1:], "top": counts}
    chart.plot.x_range.update(start=limits[0], end=limits[1])
    chart.plot.y_range.update(start=0, end=1.05 * max(1, int(counts.max())))
    assert chart.mark is not None
    known = bool(np.isfinite(chosen))
    chart.mark.update(location=float(np.clip(chosen, *limits)) if known else 0.0, visible=known)


def make_history() -> Chart:
    """One amp in the exposures of all runs of the collection."""
    plot = _figure(
        title="History", frame_width=_WIDE, frame_height=_LOW, tools="hover", x_axis_label="MJD [d]", name="history"
    )
    data = ColumnDataSource({"x": [], "y": []})
    plot.scatter("x", "y", source=data, size=5, color=ACCENT)
    plot.line("x", "y", source=data, color=ACCENT, alpha=0.4)
    return Chart(plot, data)


def make_curve() -> Chart:
    """Curve of an amp, such as photon transfer; titles and labels come with the points."""
    plot = _figure(frame_width=_WIDE, frame_height=_LOW, tools="hover", name="curve")
    data = ColumnDataSource({"x": [], "y": [], "alpha": []})
    line = ColumnDataSource({"x": [], "y": []})
    plot.scatter("x", "y", source=data, size=5, color=ACCENT, fill_alpha="alpha")
    plot.line("x", "y", source=line, color=SECOND, line_width=2)
    return Chart(plot, data, line)


# ---------------------------------------------------------------------------- pixels


@dataclass(frozen=True)
class Pixels:
    """An image that is binned again whenever its ranges change."""

    plot: Any
    data: ColumnDataSource
    colours: LinearColorMapper


def make_pixels() -> Pixels:
    """Image of one detector, empty yet."""
    plot = _figure(
        frame_width=_SIDE, frame_height=_SIDE, tools="pan,wheel_zoom,box_zoom,save", active_scroll="wheel_zoom",
        x_range=Range1d(0, 1), y_range=Range1d(0, 1), x_axis_label="x [pixel]", y_axis_label="y [pixel]", name="pixels",
    )  # fmt: skip
    data = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []})
    colours = LinearColorMapper(palette=Greys256, nan_color="#3a5a7a")
    plot.image("image", "x", "y", "dw", "dh", source=data, color_mapper=colours)
    plot.add_layout(ColorBar(color_mapper=colours, width=12), "right")
    plot.add_tools(HoverTool(tooltips=[("x, y", "$x{0}, $y{0}"), ("value", "@image{0.000a}")]))
    return Pixels(plot, data, colours)


def frame_pixels(shown: Pixels, image: NDArray[np.float32]) -> None:
    """Show all of an image."""
    height, width = image.shape
    half = max(height, width) / 2
    shown.plot.x_range.update(start=width / 2 - half, end=width / 2 + half)
    shown.plot.y_range.update(start=height / 2 - half, end=height / 2 + half)
    low, high = zscale(image)
    shown.colours.update(low=low, high=high)


def refresh_pixels(shown: Pixels, image: NDArray[np.float32]) -> None:
    """Send the pixels between the ranges of the plot, binned to what a screen can show."""
    if not image.size:
        shown.data.data = {"image": [], "x": [], "y": [], "dw": [], "dh": []}
        return
    ranges = [(axis.start, axis.end) for axis in (shown.plot.x_range, shown.plot.y_range)]
    cut, (x, y, width, height) = window(image, ranges[0], ranges[1])
    shown.data.data = {"image": [cut], "x": [x], "y": [y], "dw": [width], "dh": [height]}


def show_points(chart: Chart, x: FloatArray, y: FloatArray, **others: FloatArray) -> None:
    """Give a chart its points and ranges around them."""
    chart.data.data = {"x": x, "y": y, **others}
    for axis, values in ((chart.plot.x_range, x), (chart.plot.y_range, y)):
        known = values[np.isfinite(values)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        axis.update(start=low - pad, end=high + pad)


def _figure(**options: Any) -> Any:
    options = {"x_range": Range1d(0, 1), "y_range": Range1d(0, 1), **options}
    plot = figure(toolbar_location="above" if options.get("tools") not in ("", "hover") else None, **options)
    plot.background_fill_color = plot.border_fill_color = "#ffffff"
    plot.outline_line_color = None
    plot.toolbar.logo = None
    plot.grid.grid_line_color = "#eeedea"
    for axis in (*plot.xaxis, *plot.yaxis):
        axis.update(axis_line_color="#d5d2cc", major_tick_line_color="#d5d2cc", minor_tick_line_color=None)
        axis.update(
            axis_label_text_font_style="normal", axis_label_text_color="#5d656f", major_label_text_color="#5d656f"
        )
    plot.title.update(text_font_size="12px", text_color=INK)
    return plot

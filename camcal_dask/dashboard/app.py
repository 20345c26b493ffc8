"""One page of the dashboard: choices on the left, the focal plane, and the chosen amp on the right."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.events import DoubleTap, RangesUpdate
from bokeh.layouts import column, row
from bokeh.models import CustomJS, Div, RadioButtonGroup, Select, TabPanel, Tabs

from camcal_dask.dashboard import panels
from camcal_dask.dashboard.source import ALL, Source
from camcal_dask.dashboard.state import COMPARISONS, LEVELS, State, others, settle
from camcal_dask.instruments import Detector
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.report.content.quantities import colour_limits

_REFRESH_MS = 60
_LEFT, _CENTRE, _RIGHT = 200, 650, 420
"""Widths of the columns [pixel]: together they fit a laptop."""
_TITLES = {
    "collection": "Collection",
    "run": "Run",
    "quantity": "Quantity",
    "filter": "Filter",
    "exposure": "Exposure",
    "compare": "Compare",
    "other": "with run",
    "detector": "Detector",
    "amp": "Amplifier",
}
TEMPLATE = """{% block preamble %}<style>
html, body { margin: 0; background: #fbfaf8; font-family: "Inter", "Segoe UI", system-ui, sans-serif; }
body { padding: 14px 18px; }
</style>{% endblock %}"""


class Page:
    """Widgets and figures of one browser tab, and the state they show."""

    def __init__(self, document: Document, source: Source, state: State) -> None:
        self.document, self.source, self.state = document, source, state
        self.detectors: list[Detector] = source.place(state.run)
        self.layout = source.layout(state.run)
        self.map = panels.make_map(self.detectors, self.layout)
        self.histogram, self.history, self.curve = (
            panels.make_histogram(), panels.make_history(), panels.make_curve(),
        )  # fmt: skip
        self.pixels, self.image = panels.make_pixels(), np.empty((0, 0), np.float32)
        self.waiting = self.busy = False
        self.title, self.about = (
            Div(name="title", width=_CENTRE, styles=_styles()),
            Div(name="chosen", width=_RIGHT, styles=_styles()),
        )
        self.address = Div(name="address", visible=False, text=state.query())
        self.choices = self._make_choices()
        self._wire()
        document.add_root(self._arranged())
        document.title = f"camcal · {state.run}"
        document.template = TEMPLATE
        self.update()

    # ------------------------------------------------------------------ building

    def _make_choices(self) -> dict[str, Select]:
        return {name: Select(title=title, name=name, width=_LEFT - 10) for name, title in _TITLES.items()}

    def _arranged(self) -> Any:
        self.level = RadioButtonGroup(labels=[n.capitalize() for n in LEVELS], name="level", width=_CENTRE)
        self.level.on_change("active", lambda _, __, new: self.change(level=LEVELS[new]))
        hint = Div(text="Click an amplifier; double-click goes one level in.", styles=_styles("#5d656f", "12.5px"))
        heading = Div(text="<b style='font-size:17px'>camcal</b>", styles=_styles())
        focal_plane = TabPanel(child=column(self.level, self.map.plot), title="Focal plane")
        pixels = TabPanel(child=self.pixels.plot, title="Pixels of the detector")
        self.tabs = Tabs(tabs=[focal_plane, pixels], name="tabs")
        self.tabs.on_change("active", lambda _, __, ___: self._show_pixels())
        return row(
            column(heading, *self.choices.values(), hint, self.address, width=_LEFT),
            column(self.title, self.tabs),
            column(self.about, self.histogram.plot, self.history.plot, self.curve.plot),
            spacing=16,
        )

    def _wire(self) -> None:
        for name, widget in self.choices.items():
            widget.on_change("value", self._chooser(name))
        self.map.amps.selected.on_change("indices", lambda _, __, new: self._tapped(new))
        self.map.plot.on_event(DoubleTap, lambda _: self._deeper())
        self.pixels.plot.on_event(RangesUpdate, lambda _: self._soon())
        self.address.js_on_change("text", CustomJS(code="history.replaceState(null, '', '?' + cb_obj.text)"))

    def _chooser(self, name: str) -> Callable[[str, str, str], None]:
        return lambda _, __, new: self.change(**{name: new})

    # ------------------------------------------------------------------ changing

    def change(self, **choices: str) -> None:
        """Set choices and show them; what contradicts them is reset to its default."""
        if self.busy:
            return
        state = settle(replace(self.state, **choices), self.source)
        if state == self.state:
            return
        moved = self.source.place(state.run) != self.detectors
        self.state = state
        if moved:
            self.document.clear()
            Page(self.document, self.source, state)
            return
        self.update()

    def update(self) -> None:
        """Make everything show the state."""
        self.busy = True
        try:
            self._fill_choices()
            values, limits, unit = self._values()
            flat = values[self.layout.owner, self.layout.index]
            panels.recolour(self.map, flat, limits, diverging=self._compared)
            self._select()
            self._write_title(unit, flat)
            self._show_amp(values, limits, unit)
            self.address.text = self.state.query()
        finally:
            self.busy = False

    @property
    def _compared(self) -> bool:
        return self.state.compare != "none" and bool(self.state.other)

    def _fill_choices(self) -> None:
        state, source = self.state, self.source
        numbers = source.numbers(state.run, state.quantity)
        runs = source.collections[state.collection]
        names = {d.full_name: d for d in self.detectors}
        amps = [amp.name for amp in names[state.detector].amps] if state.detector else []
        options = {
            "collection": list(source.collections),
            "run": list(runs),
            "quantity": source.names(state.run),
            "filter": [ALL, *sorted(set(numbers.filters) - {""})],
            "exposure": [(ALL, "median of all"), *numbers.exposures],
            "compare": list(COMPARISONS),
            "other": [("", "–"), *others(source, runs, state.run, state.quantity)],
            "detector": [("", "–"), *names],
            "amp": [("", "–"), *amps],
        }
        for name, widget in self.choices.items():
            widget.update(options=options[name], value=getattr(state, name))
        self.level.active = LEVELS.index(state.level)

    def _values(self) -> tuple[FloatArray, tuple[float, float], str]:
        """(detector, amp) values shown, the limits of their colours, their unit."""
        state = self.state
        numbers = self.source.numbers(state.run, state.quantity)
        values, unit = numbers.chosen(state.exposure, state.filter), numbers.unit
        vendors = [d.vendor for d in self.detectors]
        if not self._compared:
            return values, colour_limits(values, vendors), unit
        second = self.source.numbers(state.other, state.quantity)
        theirs = second.chosen(state.exposure, state.filter)
        aligned = np.full(values.shape, np.nan)
        for i, detector in enumerate(numbers.detectors):
            if detector in second.detectors:
                aligned[i] = theirs[second.detectors.index(detector)]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = values - aligned if state.compare == "difference" else values / aligned
        found[~np.isfinite(found)] = np.nan
        middle = 0.0 if state.compare == "difference" else 1.0
        low, high = colour_limits(found, vendors)
        half = max(abs(low - middle), abs(high - middle), 1e-12)
        return found, (middle - half, middle + half), unit if state.compare == "difference" else ""

    # ------------------------------------------------------------------ the map

    def _tapped(self, indices: list[int]) -> None:
        if self.busy or not indices:
            return
        data = self.map.amps.data
        self.change(detector=str(data["detector"][indices[0]]), amp=str(data["amp"][indices[0]]))

    def _deeper(self) -> None:
        if self.state.amp:
            self.change(level=LEVELS[min(LEVELS.index(self.state.level) + 1, len(LEVELS) - 1)])

    def _position(self) -> int:
        return next((i for i, d in enumerate(self.detectors) if d.full_name == self.state.detector), -1)

    def _select(self) -> None:
        """Mark the chosen amp and zoom to the level."""
        position, state = self._position(), self.state
        here = np.flatnonzero(self.layout.owner == position)
        names = [self.detectors[position].amps[self.layout.index[i]].name for i in here] if state.detector else []
        chosen = [int(here[names.index(state.amp)])] if state.amp in names else []
        self.map.amps.selected.indices = chosen
        boxes = {
            "focal plane": self.layout.detectors,
            "raft": self.layout.detectors[[d.raft == self.detectors[position].raft for d in self.detectors]],
            "detector": self.layout.detectors[[position]],
            "amp": self.layout.amps[chosen] if chosen else self.layout.detectors[[position]],
        }[state.level]
        corner = boxes[:, :2].min(axis=0)
        extent = (boxes[:, :2] + boxes[:, 2:]).max(axis=0) - corner
        panels.zoom(self.map, (*corner.tolist(), *extent.tolist()))

    def _write_title(self, unit: str, flat: FloatArray) -> None:
        state, numbers = self.state, self.source.numbers(self.state.run, self.state.quantity)
        known = flat[np.isfinite(flat)]
        median = f"median {np.median(known):.4g} of {known.size} amps" if known.size else "no values"
        words_below = f"{numbers.doc}; {median}" if numbers.doc else median
        versus = f" {'−' if state.compare == 'difference' else '/'} {state.other}" if self._compared else ""
        words = f"{state.run}{versus}: {state.quantity}{f' [{unit}]' if unit else ''}"
        none = f", {flat.size - known.size} without value" if known.size < flat.size else ""
        self.title.text = (
            f"<b style='font-size:16px'>{html.escape(words)}</b><br>"
            f"<span style='color:#5d656f'>{html.escape(words_below)}{none}</span>"
        )

    # ------------------------------------------------------------------ the chosen amp

    def _show_amp(self, values: FloatArray, limits: tuple[float, float], unit: str) -> None:
        state, position = self.state, self._position()
        if not state.amp:
            self.about.text = "<b style='font-size:16px'>No amplifier chosen</b><br>Click one in the focal plane."
            panels.fill_histogram(self.histogram, values, limits, float("nan"))
            self.histogram.plot.title.text = "All amplifiers"
            panels.show_points(self.history, np.empty(0), np.empty(0))
            self._show_curve(-1)
            self._show_pixels()
            return
        detector = self.detectors[position]
        amp = next(a for a in detector.amps if a.name == state.amp)
        value, vendor = float(values[position, amp.index]), detector.vendor
        same = np.array([d.vendor == vendor for d in self.detectors])
        panels.fill_histogram(self.histogram, values[same], limits, value)
        self.histogram.plot.title.text = f"{state.quantity} of all {vendor} amplifiers"
        runs = self.source.collections[state.collection]
        x, y = self.source.history(runs, state.quantity, detector.id, state.amp)
        panels.show_points(self.history, x, y)
        failing = ", ".join(self.source.failing(state.run, detector.id, state.amp))
        warning = f"<br><span style='color:#b3261e'>fails {html.escape(failing)}</span>" if failing else ""
        self.about.text = (
            f"<b style='font-size:16px'>{html.escape(state.detector)} {html.escape(state.amp)}</b> "
            f"<span style='color:#5d656f'>{vendor}, detector {detector.id}</span><br>"
            f"{html.escape(state.quantity)} = <b>{value:.5g}</b> {html.escape(unit)}{warning}"
        )
        self._show_curve(detector.id)
        self._show_pixels()

    def _show_curve(self, detector: int) -> None:
        chosen, every = self.state.run, self.source.collections[self.state.collection]
        runs = sorted(every, key=lambda run: run != chosen)
        found = self.source.curve(runs, detector, self.state.amp) if self.state.amp else None
        self.curve.plot.visible = found is not None
        if found is None or self.curve.line is None:
            return
        run, figures, curve = found
        self.curve.plot.title.text = f"{figures.title} of {run}"
        self.curve.plot.xaxis.axis_label, self.curve.plot.yaxis.axis_label = figures.axes
        panels.show_points(self.curve, curve.x, curve.y, alpha=curve.used.astype(float))
        line = np.full(curve.x.shape, np.nan) if curve.line is None else curve.line
        self.curve.line.data = {"x": curve.x, "y": line}

    # ------------------------------------------------------------------ pixels

    def _show_pixels(self) -> None:
        """Read the detector when its pixels are looked at."""
        position = self._position()
        if self.tabs.active != 1 or position < 0:
            return
        image, unit = self.source.pixels(self.state.run, self.detectors[position].id)
        label = f"{self.state.detector}, {unit}" if image.size else "this run has no pixels"
        self.pixels.plot.title.text = label
        if image is not self.image:
            self.image = image
            if image.size:
                panels.frame_pixels(self.pixels, image)
        panels.refresh_pixels(self.pixels, self.image)

    def _soon(self) -> None:
        """Bin anew a moment after the ranges changed, once for all changes of that moment."""
        if self.waiting:
            return
        self.waiting = True

        def refresh() -> None:
            self.waiting = False
            panels.refresh_pixels(self.pixels, self.image)

        self.document.add_timeout_callback(refresh, _REFRESH_MS)


def _styles(colour: str = "#1d2126", size: str = "14px") -> dict[str, str]:
    return {"font": f"{size}/1.5 system-ui, sans-serif", "color": colour}

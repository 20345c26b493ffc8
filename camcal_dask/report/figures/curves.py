"""Curves of every amp of a detector, as the room of the product offers them (`rooms.Figures`): small SVG charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from camcal_dask import rooms
from camcal_dask.instruments import Detector
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.report.pages.markup import Markup, join, number, tag
from camcal_dask.rooms import Curve, Figures

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 270, 170, 44, 26


def load(product: xr.Dataset | None) -> xr.Dataset | None:
    """What the charts of a product from ``Repo.open`` need of it, in memory; None if its type has no charts."""
    figures = _figures(product)
    if product is None or figures is None:
        return None
    names = [name for name in figures.needs if name in product]
    return product[names].load() if names else None


def charts(product: xr.Dataset | None, detector: Detector) -> list[Markup]:
    """Charts of one detector, one an amp, of what `load` returned."""
    figures = _figures(product)
    if product is None or figures is None or detector.id not in product["detector"].values:
        return []
    curves = [(curve_of(figures, product, detector.id, amp.name), amp.name) for amp in detector.amps]
    drawn = [tag("figure", chart(curve, name), class_="card") for curve, name in curves if curve is not None]
    return [join([tag("p", figures.words, class_="small"), tag("div", *drawn, class_="cards")])] if drawn else []


def curve_of(figures: Figures, product: xr.Dataset, detector: int, amp: str) -> Curve | None:
    """Curve of one amp; None without points."""
    assert figures.chart is not None
    return figures.chart(product.sel(detector=detector, amp=amp))


def _figures(product: xr.Dataset | None) -> Figures | None:
    figures = None if product is None else rooms.figures(product.attrs.get("dataset_type", ""))
    return None if figures is None or figures.chart is None else figures


def chart(curve: Curve, title: str) -> Markup:
    """Draw a curve as SVG."""
    shown = curve.used if curve.used.any() else np.ones(curve.x.shape, bool)
    x_limits = 0.0, float(curve.x.max()) * 1.05
    y_limits = _padded(curve.y[shown])
    px = _scale(x_limits, _LEFT, _WIDTH - 6)
    py = _scale(y_limits, _HEIGHT - _BOTTOM, 16)
    inside = (curve.y >= y_limits[0]) & (curve.y <= y_limits[1])
    marks: list[Markup] = []
    for x, y, used in zip(curve.x[inside], curve.y[inside], curve.used[inside], strict=True):
        fill = "var(--accent)" if used else "none"
        marks.append(tag("circle", cx=f"{px(x):.1f}", cy=f"{py(y):.1f}", r=2.2, fill=fill, stroke="var(--accent)"))
    if curve.line is not None:
        fit = np.isfinite(curve.line) & (curve.line >= y_limits[0]) & (curve.line <= y_limits[1])
        points = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in zip(curve.x[fit], curve.line[fit], strict=True))
        marks.append(tag("polyline", points=points, fill="none", stroke="var(--vendor-1)", stroke_width=1.3))
    return tag(
        "svg",
        tag("text", title, x=_LEFT, y=11, style="font-weight:600"),
        *_axes(x_limits, y_limits, px, py),
        *marks,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        width="100%",
        role="img",
        aria_label=title,
    )


def _padded(values: FloatArray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def _scale(limits: tuple[float, float], start: float, stop: float) -> Any:
    low, high = limits
    return lambda value: start + (value - low) * (stop - start) / (high - low)


def _axes(x_limits: Sequence[float], y_limits: Sequence[float], px: Any, py: Any) -> list[Markup]:
    left, bottom = px(x_limits[0]), py(y_limits[0])
    parts = [
        tag(
            "path",
            d=f"M{left:.1f} {py(y_limits[1]):.1f}V{bottom:.1f}H{px(x_limits[1]):.1f}",
            fill="none",
            stroke="var(--line)",
        )
    ]
    for value, anchor in ((x_limits[0], "start"), (x_limits[1], "end")):
        parts.append(tag("text", number(value), x=f"{px(value):.1f}", y=_HEIGHT - 10, text_anchor=anchor))
    parts += [
        tag("text", number(v), x=_LEFT - 4, y=f"{py(v) + dy:.1f}", text_anchor="end")
        for v, dy in ((y_limits[0], 0), (y_limits[1], 8))
    ]
    return parts

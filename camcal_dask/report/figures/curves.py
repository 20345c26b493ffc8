"""Curves of one detector: photon transfer and linearity of every amp, as small SVG charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask.instruments import Detector
from camcal_dask.report.pages.markup import Markup, join, number, tag

FloatArray = NDArray[np.float64]
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 270, 170, 44, 26


@dataclass(frozen=True)
class Curve:
    """One series of points and, where there is one, a line through them; used points are filled."""

    x: FloatArray
    y: FloatArray
    used: NDArray[np.bool_]
    line: FloatArray | None = None


def load(product: xr.Dataset | None) -> xr.Dataset | None:
    """What the curves need of a product, in memory; None if it has none."""
    if product is None:
        return None
    wanted = next((names for first, names in _NEEDED.items() if first in product), ())
    names = [n for n in wanted if n in product]
    return product[names].load() if names else None


_NEEDED = {
    "raw_mean": ("raw_mean", "raw_var", "final_model_var", "used"),
    "residual_unmasked": ("ordinate", "residual_unmasked", "model", "used"),
}
"""Variables of photon transfer curves and of linearizers, by the first of them."""


def charts(product: xr.Dataset | None, detector: Detector) -> list[Markup]:
    """Charts of one detector, one an amp: the photon transfer curve, or the residual of the linearizer."""
    if product is None or detector.id not in product["detector"].values:
        return []
    one = product.sel(detector=detector.id)
    linearizer = "residual_unmasked" in one
    curve_of, words = (residual_curve, _RESIDUAL) if linearizer else (transfer_curve, _TRANSFER)
    curves = [(curve_of(one.sel(amp=amp.name)), amp.name) for amp in detector.amps]
    figures = [tag("figure", chart(curve, name), class_="card") for curve, name in curves if curve is not None]
    return [join([tag("p", words, class_="small"), tag("div", *figures, class_="cards")])] if figures else []


_TRANSFER = "Variance over mean [adu] against mean [adu]: open circles were left out of the fit, the line is the model."
_RESIDUAL = "Residual [% of the signal] against signal [adu]: open circles were left out of the fit."


def residual_curve(amp: xr.Dataset) -> Curve | None:
    """Residual of the linearizer in percent against signal, of one amp; None without points."""
    signal = amp["ordinate"].values.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        percent = 100 * amp["residual_unmasked"].values.astype(float) / amp["model"].values.astype(float)
    known = np.isfinite(signal) & np.isfinite(percent)
    if not known.any():
        return None
    return Curve(signal[known], percent[known], amp["used"].values.astype(bool)[known])


def transfer_curve(amp: xr.Dataset) -> Curve | None:
    """Variance over mean against mean of one amp's pairs; None without points."""
    if "raw_mean" not in amp or "raw_var" not in amp:
        return None
    mean, variance = (amp[name].values.astype(float) for name in ("raw_mean", "raw_var"))
    used = amp["used"].values.astype(bool) if "used" in amp else np.ones(mean.shape, bool)
    model = amp["final_model_var"].values.astype(float) if "final_model_var" in amp else None
    known = np.isfinite(mean) & np.isfinite(variance) & (mean > 0)
    if not known.any():
        return None
    order = np.flatnonzero(known)[np.argsort(mean[known])]
    line = None if model is None else (model / np.where(mean > 0, mean, np.nan))[order]
    return Curve(mean[order], (variance / np.where(mean > 0, mean, np.nan))[order], used[order], line)


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

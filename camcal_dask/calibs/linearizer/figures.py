"""Figures of a linearizer: light against signal, residuals and corrections of all amps of a detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from camcal_dask.kernels.linearity.correct import TYPES, linearize, make_linearity

USED, UNUSED, CURVE, PTC_TURNOFF, LINEAR_TURNOFF = "#1f4e79", "#b8b8b8", "#1f4e79", "#e08a1e", "#b3261e"
_LEAST_SIGNAL = 30.0
_COLUMNS = 4


def plot_curve(linearizer: xr.Dataset, detector: int) -> Figure:
    """Signal of all amps against light, and its departure from proportionality before and after linearisation."""
    one = linearizer.sel(detector=detector).transpose("amp", "flat", ...)
    figure = Figure(figsize=(9, 8), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    diode = linearizer.attrs.get("abscissa") == "photodiode"
    x = one["abscissa"].values * (1e9 if diode else 1.0)
    y, used = one["ordinate"].values, one["used"].values
    line = (one["model"] - one["residual_unmasked"]).values
    before, after = 100 * (y / line - 1), 100 * (one["residual_unmasked"] / one["model"]).values
    top.plot(x[~used], y[~used], ".", ms=2, color=UNUSED, label="not used")
    top.plot(x[used], y[used], ".", ms=3, color=USED, label="used")
    top.set(xscale="log", yscale="log", ylabel="measured signal [adu]", ylim=(_LEAST_SIGNAL, None))
    top.set_title(f"{_title(linearizer, detector)}, {one.sizes['amp']} amps")
    bottom.plot(x[used], before[used], ".", ms=2, color=PTC_TURNOFF, label="measured")
    bottom.plot(x[used], after[used], ".", ms=2, color=USED, label="linearised")
    bottom.axhline(0, color="0.6", lw=0.8)
    bottom.set(xlabel="photodiode charge [nC]" if diode else "exposure time [s]", ylabel="off the straight line [%]")
    bottom.set_ylim(*_limits(bottom, least=0.05))
    for axes in (top, bottom):
        axes.legend(frameon=False, markerscale=3, loc="upper left")
        axes.grid(alpha=0.25)
    return figure


def plot_residuals(linearizer: xr.Dataset, detector: int) -> Figure:
    """Residual of every amp in percent of its signal, with both turnoffs; points off the scale sit at its edge."""
    one = linearizer.sel(detector=detector)
    relative = 100 * (one["residual_unmasked"] / one["model"]).transpose("amp", "flat").values
    shown = np.abs(relative[one["used"].transpose("amp", "flat").values & np.isfinite(relative)])
    limit = max(1.5 * float(np.quantile(shown, 0.99)), 0.01) if shown.size else 1.0

    def draw(axes: Axes, amp: int) -> str:
        a = one.isel(amp=amp)
        used, y = a["used"].values, np.clip(relative[amp], -limit, limit)
        for which, color, size in ((~used, UNUSED, 2), (used, USED, 3)):
            axes.plot(a["ordinate"].values[which], y[which], ".", color=color, ms=size)
        axes.axhline(0, color="0.6", lw=0.8)
        _turnoffs(axes, a)
        return f"scatter {100 * float(a['residual_sigma']):.3f} %" if used.any() else "no fit"

    figure = _amp_panels(
        one, draw, f"{_title(linearizer, detector)}: residual [% of signal]", (-1.05 * limit, 1.05 * limit)
    )
    _legend(figure, points=True)
    return figure


def plot_correction(linearizer: xr.Dataset, detector: int) -> Figure:
    """What is added to the signal of every amp, in percent of it; ticks at the foot mark the nodes of splines."""
    one = linearizer.sel(detector=detector)
    top = float(np.nanmax(one["linearity_max_signal"].values, initial=1e5))
    signal = np.geomspace(_LEAST_SIGNAL * 10, top, 400)
    types = [TYPES[int(t)] for t in one["type"].values]
    table = one["table"].values if "table" in one else None
    image = np.broadcast_to(signal.astype(np.float32), (len(types), 1, len(signal)))
    linear, _ = linearize(image, make_linearity(types, one["coefficients"].values, table=table))
    percent = 100 * (linear[:, 0].astype(np.float64) / signal - 1)
    below = signal <= np.nanmax(one["linearity_turnoff"].values, initial=1.0)
    limit = 1.2 * max(float(np.nanmax(np.abs(percent[:, below]), initial=0.0)), 0.01)

    def draw(axes: Axes, amp: int) -> str:
        axes.plot(signal, percent[amp], color=CURVE, lw=1.5)
        axes.axhline(0, color="0.6", lw=0.8)
        nodes = _nodes(types[amp], one["coefficients"].values[amp])
        axes.plot(nodes, np.full(len(nodes), -limit), "|", color="0.35", ms=8)
        _turnoffs(axes, one.isel(amp=amp))
        return types[amp]

    figure = _amp_panels(one, draw, f"{_title(linearizer, detector)}: correction [% of signal]", (-limit, limit))
    _legend(figure)
    return figure


FIGURES: Mapping[str, Callable[[xr.Dataset, int], Figure]] = MappingProxyType(
    {"curve": plot_curve, "residuals": plot_residuals, "correction": plot_correction}
)
"""All figures of a linearizer by name."""


def save_linearity(linearizer: xr.Dataset, detector: int, folder: str | Path, dpi: int = 110) -> list[Path]:
    """Write all figures of a detector as ``linearizer_<name>_<detector>.png``; return their paths."""
    paths = []
    for name, plot in FIGURES.items():
        paths.append(Path(folder) / f"linearizer_{name}_{detector:03d}.png")
        plot(linearizer, detector).savefig(paths[-1], dpi=dpi)
    return paths


def _title(linearizer: xr.Dataset, detector: int) -> str:
    camera = linearizer.attrs.get("instrument", "")
    return f"{camera} detector {detector}, {linearizer.attrs.get('linearity_type', 'linearizer')}".strip()


def _amp_panels(one: xr.Dataset, draw: Callable[[Axes, int], str], title: str, limits: tuple[float, float]) -> Figure:
    """One panel per amp with common axes; ``draw`` fills one and returns a note for its corner."""
    n_amp = one.sizes["amp"]
    rows = -(-n_amp // _COLUMNS)
    figure = Figure(figsize=(13, 2.4 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for amp, axes in enumerate(panels):
        if amp >= n_amp:
            axes.set_axis_off()
            continue
        note = draw(axes, amp)
        axes.set(xscale="log", ylim=limits)
        axes.text(0.02, 0.95, str(one["amp"].values[amp]), transform=axes.transAxes, va="top", weight="bold")
        axes.text(0.98, 0.95, note, transform=axes.transAxes, va="top", ha="right", fontsize=8, color="0.3")
        axes.grid(alpha=0.25)
    panels[0].set_xlim(left=_LEAST_SIGNAL * 10)
    figure.supxlabel("signal [adu]")
    figure.suptitle(title)
    return figure


def _turnoffs(axes: Axes, amp: xr.Dataset) -> None:
    for name, color, style in (("input_turnoff", PTC_TURNOFF, "--"), ("linearity_turnoff", LINEAR_TURNOFF, "-")):
        if np.isfinite(amp[name]):
            axes.axvline(float(amp[name]), color=color, ls=style, lw=1)


def _legend(figure: Figure, points: bool = False) -> None:
    entries: list[Any] = [
        Line2D([], [], color=PTC_TURNOFF, ls="--", label="PTC turnoff"),
        Line2D([], [], color=LINEAR_TURNOFF, label="linearity turnoff"),
    ]
    if points:
        entries += [Line2D([], [], color=USED, marker=".", ls="", label="used")]
        entries += [Line2D([], [], color=UNUSED, marker=".", ls="", label="not used")]
    else:
        entries += [Line2D([], [], color="0.35", marker="|", ls="", label="nodes")]
    figure.legend(handles=entries, loc="outside lower right", ncols=4, frameon=False, fontsize=9)


def _nodes(kind: str, row: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Nodes [adu] of a spline."""
    if kind == "DoubleSpline":
        n1, n2 = int(row[0]), int(row[1])
        return np.concatenate([row[2 : 2 + n1], row[2 + 2 * n1 : 2 + 2 * n1 + n2]])
    return row[: len(row) // 2] if kind == "Spline" else np.zeros(0)


def _limits(axes: Axes, least: float) -> tuple[float, float]:
    """Symmetric limits around the bulk of what is drawn."""
    values = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in axes.lines])
    values = np.abs(values[np.isfinite(values)])
    limit = max(1.3 * float(np.quantile(values, 0.98)), least) if values.size else 1.0
    return -limit, limit

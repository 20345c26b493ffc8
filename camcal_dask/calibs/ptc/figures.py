"""Figures of photon transfer curves of one detector, a function each (reference/verification.md 5.4).

They take a ``ptc`` product and a detector id and return a matplotlib Figure, made without pyplot so
that they can be drawn on any thread; `write_figures` writes all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.verify.measuring.curve import shot_variance

Panel = tuple[xr.Dataset, Axes, Axes | None]
"""Curve of an amp, its panel, and the panel of residuals below."""

BLUE, RED, DARK, GREY = "#2a6fbb", "#d1495b", "#222222", "#9aa3ad"
_SIZE = (15.0, 14.0)


def variance(ptc: xr.Dataset, detector: int) -> Figure:
    """Variance against mean with the fit, and residuals in percent below: one panel per amp."""
    figure, panels = _grid(ptc, detector, "variance [adu²]", "variance against mean", residuals=True)
    for amp, upper, lower in panels:
        mean, measured, used = (amp[n].values for n in ("raw_mean", "raw_var", "used"))
        model = _variance_model(amp)
        _points(upper, mean, measured, used)
        curve = np.geomspace(max(np.nanmin(mean), 1.0), np.nanmax(mean), 200)
        upper.plot(curve, model(curve), "-", color=DARK, lw=0.9, label="fit")
        upper.set(xscale="log", yscale="log")
        _mark_turnoff(upper, amp)
        text = f"gain {float(amp['gain']):.4f} ± {float(amp['gain_err']):.4f}\nnoise {float(amp['noise']):.2f} e"
        text += f"\na00 {1e6 * float(amp['a00']):.3f}e-6\nturnoff {float(amp['turnoff']):.0f} adu"
        upper.text(0.03, 0.95, text, transform=upper.transAxes, ha="left", va="top", fontsize=6.5)
        assert lower is not None
        with np.errstate(invalid="ignore", divide="ignore"):
            _residuals(lower, mean, 100 * (measured / model(mean) - 1), used)
    return _legend(figure, panels[0][1])


def variance_over_mean(ptc: xr.Dataset, detector: int) -> Figure:
    """Variance over mean against mean: 1/gain, bent down by the brighter-fatter effect."""
    figure, panels = _grid(ptc, detector, "variance / mean [adu]", "variance over mean")
    for amp, axes, _ in panels:
        mean, measured, used = (amp[n].values for n in ("raw_mean", "raw_var", "used"))
        _points(axes, mean, measured / mean, used)
        curve = np.linspace(max(np.nanmin(mean), 1.0), np.nanmax(mean), 200)
        axes.plot(curve, _variance_model(amp)(curve) / curve, "-", color=DARK, lw=0.9, label="fit")
        if np.isfinite(float(amp["gain"])):
            axes.set_ylim(0, 1.5 / float(amp["gain"]))
        _mark_turnoff(axes, amp)
    return _legend(figure, panels[0][1])


def covariance(ptc: xr.Dataset, detector: int, lag: tuple[int, int] = (0, 1)) -> Figure:
    """One covariance against mean with its model: one panel per amp; ``lag`` is (serial, parallel)."""
    name = f"C{lag[0]}{lag[1]}"
    figure, panels = _grid(ptc, detector, f"{name} [adu²]", f"covariance {name} (serial, parallel lag) against mean")
    for amp, axes, _ in panels:
        point = amp.isel(lag_i=lag[0], lag_j=lag[1])
        mean, measured, used = (point[n].values for n in ("raw_mean", "covariance", "used"))
        _points(axes, mean, measured, used, 1 / point["covariance_sqrt_weight"].values)
        order = np.argsort(mean)
        axes.plot(mean[order], point["covariance_model"].values[order], "-", color=DARK, lw=0.9, label="fit")
        axes.axhline(0, color=GREY, lw=0.5)
        _mark_turnoff(axes, amp)
    return _legend(figure, panels[0][1])


def decay(ptc: xr.Dataset, detector: int) -> Figure:
    """Absolute a_ij against distance: all amps, their median (negative values open), the error of an amp."""
    curves = _detector(ptc, detector)
    figure, axes = _single(curves, detector, "area coefficients against distance")
    distance, middle = _distance(curves), _middle(curves, "a_matrix")
    for values in curves["a_matrix"].values:
        axes.plot(distance.ravel(), np.abs(values).ravel(), ".", color=GREY, ms=3, alpha=0.5)
    for sign, face, label in ((1, BLUE, "median of the amps, positive"), (-1, "none", "negative")):
        chosen = np.sign(middle) == sign
        axes.plot(distance[chosen], np.abs(middle[chosen]), "o", mec=BLUE, mfc=face, ms=6, label=label)
    error = _middle(curves, "a_matrix_err")
    axes.plot(distance.ravel(), error.ravel(), "_", color=RED, ms=8, label="statistical error of an amp")
    axes.set(yscale="log", xlabel="distance [pixel]", ylabel="|a_ij| [1/electron]")
    axes.legend(frameon=False)
    return figure


def matrix(ptc: xr.Dataset, detector: int) -> Figure:
    """Matrices a_ij and b_ij, median of the amps, with their values."""
    curves = _detector(ptc, detector)
    figure = Figure(figsize=(14, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_title(curves, detector, "matrices a and b, median of the amps"))
    kinds = (("a_matrix", 1e7, "1e-7/electron"), ("b_matrix", 1e6, "1e-6/electron"))
    for axes, (name, scale, unit) in zip(figure.subplots(1, 2), kinds, strict=True):
        values = scale * _middle(curves, name)
        limit = float(np.nanmax(np.abs(np.where(_distance(curves) > 0, values, 0)), initial=0)) or 1.0
        image = axes.imshow(values.T, cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower")
        for (i, j), value in np.ndenumerate(values):
            colour = "white" if abs(value) > 0.7 * limit else DARK
            size = 6 if len(values) > 6 else 9
            axes.text(i, j, f"{value:.2g}", ha="center", va="center", fontsize=size, color=colour)
        axes.set(title=f"{name[0]}_ij [{unit}]", xlabel="serial lag i [pixel]", ylabel="parallel lag j [pixel]")
        figure.colorbar(image, ax=axes, shrink=0.85, label="range: the largest value besides (0, 0)")
    return figure


def cumulative_sum(ptc: xr.Dataset, detector: int) -> Figure:
    """Sum of a_ij over the plane out to a distance: 0 in the end if pixel boundaries only move charge."""
    curves = _detector(ptc, detector)
    figure, axes = _single(curves, detector, "cumulative sum of a_ij over the plane")
    distance = _distance(curves)
    order = np.argsort(distance.ravel(), kind="stable")
    i, j = np.indices(distance.shape)
    times = (1 + (i > 0)) * (1 + (j > 0))

    def line(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        return distance.ravel()[order], np.cumsum((times * values).ravel()[order])

    for values in curves["a_matrix"].values:
        axes.plot(*line(values), "-", color=GREY, lw=0.8)
    axes.plot(*line(_middle(curves, "a_matrix")), "o-", color=BLUE, ms=4, label="median of the amps")
    axes.axhline(0, color=DARK, lw=0.8)
    axes.set(xlabel="distance [pixel]", ylabel="sum of a_ij [1/electron]")
    axes.legend(frameon=False)
    return figure


FIGURES: Mapping[str, Callable[[xr.Dataset, int], Figure]] = MappingProxyType(
    {
        "variance": variance,
        "variance_over_mean": variance_over_mean,
        "covariance_serial": lambda ptc, detector: covariance(ptc, detector, (1, 0)),
        "covariance_parallel": lambda ptc, detector: covariance(ptc, detector, (0, 1)),
        "decay": decay,
        "matrix": matrix,
        "cumulative_sum": cumulative_sum,
    }
)
"""All figures by the name of their files."""


def write_figures(ptc: xr.Dataset, detector: int, folder: str | Path, *, dpi: int = 110) -> list[Path]:
    """Write all figures of a detector as PNG files ``<name>_<detector>.png``; those of lags if there are any.

    Returns
    -------
    list of Path
        The files written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    has_lags = ptc.sizes.get("lag_i", 1) > 1 and bool(ptc["a_matrix"].notnull().any())
    written = []
    for name, draw in FIGURES.items():
        if has_lags or name.startswith("variance"):
            written.append(target / f"{name}_{detector:03d}.png")
            draw(ptc, detector).savefig(written[-1], dpi=dpi)
    return written


def _detector(ptc: xr.Dataset, detector: int) -> xr.Dataset:
    """Curves of one detector, (amp, pair, ...), in memory."""
    one = ptc.sel(detector=detector) if "detector" in ptc.dims else ptc
    return one.transpose("amp", "pair", "lag_i", "lag_j", ..., missing_dims="ignore").load()


def _middle(curves: xr.Dataset, name: str) -> FloatArray:
    """Median over the good amps, (lag_i, lag_j); NaN without any."""
    values: FloatArray = curves[name].median("amp").values
    return values


def _title(curves: xr.Dataset, detector: int, title: str) -> str:
    kind = curves.attrs.get("fit_type", "")
    return f"PTC: {title} - {curves.attrs.get('instrument', '')} detector {detector}{f', {kind}' if kind else ''}"


def _single(curves: xr.Dataset, detector: int, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(_title(curves, detector, title), fontsize=10)
    return figure, axes


def _grid(
    ptc: xr.Dataset, detector: int, label: str, title: str, *, residuals: bool = False
) -> tuple[Figure, list[Panel]]:
    """Four columns of panels, an amp each, with a flat panel of residuals below each if asked for."""
    curves = _detector(ptc, detector)
    n_row = -(-curves.sizes["amp"] // 4)
    figure = Figure(figsize=_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_title(curves, detector, title))
    panels = list(_panels(figure, curves, n_row, residuals=residuals))
    for k, (_, upper, lower) in enumerate(panels):
        if k % 4 == 0:
            upper.set_ylabel(label)
        if k // 4 == n_row - 1:
            (lower or upper).set_xlabel("mean [adu]")
    return figure, panels


def _panels(figure: Figure, curves: xr.Dataset, n_row: int, *, residuals: bool) -> Iterator[Panel]:
    cells = figure.add_gridspec(n_row, 4)
    for k in range(curves.sizes["amp"]):
        amp, cell = curves.isel(amp=k), cells[k // 4, k % 4]
        lower = None
        if residuals:
            inner = cell.subgridspec(2, 1, height_ratios=(3, 1), hspace=0.0)
            upper = figure.add_subplot(inner[0])
            lower = figure.add_subplot(inner[1], sharex=upper)
            lower.tick_params(labelsize=7)
            upper.tick_params(labelbottom=False)
        else:
            upper = figure.add_subplot(cell)
        bad = bool(amp["bad"])
        upper.set_title(f"{amp['amp'].item()}{' (bad)' if bad else ''}", fontsize=9, color=RED if bad else DARK)
        upper.tick_params(labelsize=7)
        yield amp, upper, lower


def _points(
    axes: Axes, x: FloatArray, y: FloatArray, used: npt.NDArray[np.bool_], error: FloatArray | None = None
) -> None:
    for chosen, colour, label in ((~used, GREY, "not used"), (used, BLUE, "used")):
        bars = None if error is None else error[chosen]
        axes.errorbar(x[chosen], y[chosen], bars, fmt=".", color=colour, ms=4, lw=0.6, label=label)


def _residuals(axes: Axes, mean: FloatArray, percent: FloatArray, used: npt.NDArray[np.bool_]) -> None:
    good = np.abs(percent[used & np.isfinite(percent)])
    limit = max(float(np.percentile(good, 98)) * 1.3, 0.2) if good.size else 5.0
    axes.axhline(0, color=DARK, lw=0.6)
    axes.plot(mean[~used], np.clip(percent[~used], -limit, limit), ".", color=GREY, ms=3)
    axes.plot(mean[used], percent[used], ".", color=BLUE, ms=3)
    axes.set(xscale="log", ylim=(-limit, limit))
    axes.set_ylabel("%", fontsize=7)


def _mark_turnoff(axes: Axes, amp: xr.Dataset) -> None:
    turnoff = float(amp["turnoff"])
    if np.isfinite(turnoff):
        axes.axvline(turnoff, color=RED, lw=0.8, ls=":", label="turnoff")


def _legend(figure: Figure, axes: Axes) -> Figure:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _variance_model(amp: xr.Dataset) -> Callable[[FloatArray], FloatArray]:
    """Variance [adu^2] against the mean [adu], by the model that was fitted."""
    fitted = amp["gain_unadjusted"].fillna(amp["gain"]) if "gain_unadjusted" in amp else amp["gain"]
    gain, noise = float(fitted), float(amp["noise"])

    def variance(mean: FloatArray) -> FloatArray:
        signal = xr.DataArray(mean * gain, dims="mean")
        return (shot_variance(amp, signal).values + noise**2) / gain**2

    return variance


def _distance(curves: xr.Dataset) -> FloatArray:
    """Distance of every lag (lag_i, lag_j) [pixel]."""
    i, j = np.indices((curves.sizes["lag_i"], curves.sizes["lag_j"]))
    return np.asarray(np.hypot(i, j), np.float64)

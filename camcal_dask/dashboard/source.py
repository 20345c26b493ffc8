"""What the dashboard reads: numbers of every amp, one variable at a time, and pixels of one detector."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask import rooms
from camcal_dask.errors import RepoError
from camcal_dask.instruments import Detector
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.report.content.layout import Layout, make_layout
from camcal_dask.report.content.quantities import nan_median, quantities
from camcal_dask.report.content.subject import product_of, shown_types
from camcal_dask.report.figures.curves import curve_of
from camcal_dask.report.figures.images import assembled
from camcal_dask.rooms import Curve, Figures
from camcal_dask.schema import AMP_DIMS, STATISTIC_DIMS

ALL = "all"
"""Choice of everything: all runs, all filters, the median over the exposures."""
_HIDDEN = ("n_pixel", "force_failure")
_KEPT = 64


@dataclass(frozen=True)
class Numbers:
    """One quantity of a run.

    Attributes
    ----------
    values : (exposure, detector, amp) float64; of a product, one "exposure"
    exposures : ids as text; empty for a product
    filters, mjd : of each exposure
    detectors : ids
    """

    values: FloatArray
    unit: str
    doc: str
    exposures: tuple[str, ...]
    filters: tuple[str, ...]
    mjd: FloatArray
    detectors: tuple[int, ...]

    def chosen(self, exposure: str = ALL, band: str = ALL) -> FloatArray:
        """Return (detector, amp): one exposure, or the median over those of a filter."""
        if exposure in self.exposures:
            return np.asarray(self.values[self.exposures.index(exposure)])
        kept = [i for i, name in enumerate(self.filters) if band in (ALL, name)]
        return nan_median(self.values[kept] if kept else self.values)


class Source:
    """Cached reading of a repository, or of one camera in it; names it is asked for must be in one of its lists."""

    def __init__(self, repo: Repo, instrument: str | None = None) -> None:
        self.repo = repo
        self.instrument = None if instrument is None else repo.instrument(instrument).name
        self.opened = functools.lru_cache(maxsize=_KEPT)(self._open)
        self.numbers = functools.lru_cache(maxsize=4 * _KEPT)(self._numbers)
        self.pixels = functools.lru_cache(maxsize=2)(self._pixels)
        self.layout = functools.lru_cache(maxsize=_KEPT)(self._layout)

    # ------------------------------------------------------------------ lists

    @functools.cached_property
    def runs(self) -> Mapping[str, str]:
        """RUN collections that hold numbers of amps, newest name first, each with the dataset type shown."""
        found = {}
        for collection in self.repo.collections(kind="RUN"):
            if self.instrument is not None and self.instrument not in self.repo.cameras_of(collection.name):
                continue
            if held := shown_types(self.repo, collection.name):
                found[collection.name] = held[0]
        return dict(sorted(found.items(), reverse=True))

    @functools.cached_property
    def collections(self) -> Mapping[str, tuple[str, ...]]:
        """Runs by collection: all, and those in each CHAINED or CALIBRATION collection."""
        found = {ALL: tuple(self.runs)}
        for kind in ("CHAINED", "CALIBRATION"):
            for collection in self.repo.collections(kind=kind):
                inside = set(self.repo.runs_in(collection.name)) & set(self.runs)
                if inside:
                    found[collection.name] = tuple(run for run in self.runs if run in inside)
        return found

    def names(self, run: str) -> list[str]:
        """Quantities of a run."""
        return list(self.opened(run)[1])

    # ------------------------------------------------------------------ numbers

    def _open(self, run: str) -> tuple[xr.Dataset, tuple[str, ...]]:
        """Lazy statistics, or the small variables of a product; and the names of the quantities."""
        kind = self.runs[run]
        if not self.repo.is_statistics(kind):
            product = self.repo.open(kind, run=run, instrument=self.instrument)
            found = {q.key: (AMP_DIMS, q.values, {"units": q.unit, "long_name": q.doc})
                     for q in quantities(None, product)}  # fmt: skip
            coords = {"detector": product["detector"].values, "amp": product["amp"].values}
            return xr.Dataset(found, coords, {"instrument": product.attrs["instrument"]}), tuple(found)
        statistics = self.repo.stats(kind, run, instrument=self.instrument)
        numeric = [str(n) for n, v in statistics.data_vars.items() if v.dtype.kind in "fiub" and n not in _HIDDEN]
        names = [n for n in numeric if set(STATISTIC_DIMS) >= set(statistics[n].dims) >= {"detector", "amp"}]
        tests = [f"test {t}" for t in statistics["test"].values.tolist()] if "test" in statistics.coords else []
        return statistics, (*sorted(names), *tests)

    def _numbers(self, run: str, name: str) -> Numbers:
        dataset, names = self.opened(run)
        if name not in names:
            raise RepoError(f"{run} has no quantity {name!r}")
        array = dataset["value"].sel(test=name.removeprefix("test ")) if name.startswith("test ") else dataset[name]
        series = "exposure" in array.dims
        values = array.transpose(*(STATISTIC_DIMS if series else STATISTIC_DIMS[1:])).values.astype(np.float64)
        n = values.shape[0] if series else 0
        return Numbers(
            values=values if series else values[None],
            unit=str(array.attrs.get("units", "")),
            doc=str(array.attrs.get("long_name", "")),
            exposures=tuple(str(e) for e in dataset["exposure"].values) if series else (),
            filters=tuple(_texts(dataset, "physical_filter", n)),
            mjd=np.asarray(dataset["mjd"].values if series and "mjd" in dataset.coords else np.full(n, np.nan)),
            detectors=tuple(int(d) for d in dataset["detector"].values),
        )

    def place(self, run: str) -> list[Detector]:
        """Detectors of a run, in its order."""
        dataset = self.opened(run)[0]
        camera = self.repo.instrument(dataset.attrs["instrument"])
        return [camera.detectors[int(d)] for d in dataset["detector"].values]

    def _layout(self, run: str) -> Layout:
        return make_layout(self.place(run))

    def failing(self, run: str, detector: int, amp: str) -> list[str]:
        """Names of the tests that an amp fails, each with the number of exposures."""
        dataset = self.opened(run)[0]
        if "status" not in dataset:
            return []
        status = dataset["status"].sel(detector=detector, amp=amp)
        counts = (status == 0).sum("exposure").values
        return [f"{t} ({n})" for t, n in zip(dataset["test"].values.tolist(), counts.tolist(), strict=True) if n]

    def history(self, runs: Sequence[str], name: str, detector: int, amp: str) -> tuple[FloatArray, FloatArray]:
        """MJD (or running number) and values of one amp in the exposures of all runs that have the quantity."""
        times, values = [], []
        for run in runs:
            dataset, names = self.opened(run)
            if name not in names or detector not in dataset["detector"].values or amp not in dataset["amp"].values:
                continue
            found = self.numbers(run, name)
            if not found.exposures:
                continue
            column = (found.detectors.index(detector), dataset["amp"].values.tolist().index(amp))
            times.append(found.mjd)
            values.append(found.values[:, column[0], column[1]])
        x, y = (np.concatenate(parts) if parts else np.empty(0) for parts in (times, values))
        if not np.isfinite(x).all():
            x = np.arange(x.size, dtype=np.float64)
        order = np.argsort(x, kind="stable")
        return x[order], y[order]

    def curve(self, runs: Sequence[str], detector: int, amp: str) -> tuple[str, Figures, Curve] | None:
        """Curve of an amp from the first run that has one: the run, what is drawn, and the points."""
        for run in runs:
            figures = rooms.figures(self.runs[run])
            if figures is not None and figures.chart is not None:
                product = self.repo.open(self.runs[run], run=run, instrument=self.instrument)
                names = [n for n in figures.needs if n in product]
                if detector in product["detector"].values:
                    curve = curve_of(figures, product[names], detector, amp)
                    if curve is not None:
                        return run, figures, curve
        return None

    # ------------------------------------------------------------------ pixels

    def _pixels(self, run: str, detector: int) -> tuple[NDArray[np.float32], str]:
        """Assembled image of the calibration that a run made or tested, and its unit; empty if it has no pixels."""
        product = product_of(self.repo, run, self.runs[run])
        if product is None or detector not in product["detector"].values:
            return np.empty((0, 0), np.float32), ""
        camera = self.repo.instrument(product.attrs["instrument"])
        return assembled(product.sel(detector=detector), camera.detectors[detector])


def _texts(dataset: xr.Dataset, name: str, n: int) -> list[str]:
    return [str(v) for v in dataset[name].values] if n and name in dataset.coords else [""] * n


def window(
    image: NDArray[np.float32], x: tuple[float, float], y: tuple[float, float], most: int = 700
) -> tuple[NDArray[Any], tuple[float, float, float, float]]:
    """Cut what lies between coordinates out of an image, in bins so that at most about ``most`` pixels are left a side.

    Parameters
    ----------
    image : (y, x) float32
    x, y : (low, high) [pixel]

    Returns
    -------
    (y, x) float32 means of the bins, and x0, y0, width, height of the cut [pixel]
    """
    height, width = image.shape
    x0, x1 = _edges(x, width)
    y0, y1 = _edges(y, height)
    side = max(1, -(-max(x1 - x0, y1 - y0) // most))
    x1, y1 = x0 + max(1, (x1 - x0) // side) * side, y0 + max(1, (y1 - y0) // side) * side
    cut = image[y0 : min(y1, height), x0 : min(x1, width)]
    rows, columns = max(1, cut.shape[0] // side), max(1, cut.shape[1] // side)
    side_y, side_x = min(side, cut.shape[0]), min(side, cut.shape[1])
    cut = cut[: rows * side_y, : columns * side_x]
    binned = cut.reshape(rows, side_y, columns, side_x).mean(axis=(1, 3))
    return binned, (float(x0), float(y0), float(columns * side_x), float(rows * side_y))


def _edges(span: tuple[float, float], size: int) -> tuple[int, int]:
    low = int(np.clip(np.floor(min(span)), 0, size - 1))
    return low, int(np.clip(np.ceil(max(span)), low + 1, size))

"""Numbers of every amp that a report or dashboard can map: from statistics, from tests and from products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.linearity.fit import mad_sigma
from camcal_dask.schema import AMP_DIMS
from camcal_dask.verify.judging.account import bad_exposures

_MAX_LABELS = 12
_HIDDEN = frozenset({"n_pixel", "force_failure"})
_WIDTH_SIGMA = 4.0
"""Colour scales reach so many sigma_MAD from the median (reference/verification.md 5.3)."""
_SAME = 1e-6
"""Relative differences below are rounding."""


@dataclass(frozen=True)
class Quantity:
    """One number of every amp.

    Attributes
    ----------
    key : unique name
    label, unit, doc : for people
    group : ``tests``, ``statistics`` or ``product``
    values : (detector, amp) float64; NaN = none
    series : (exposure, detector, amp) float64, if it was measured in every exposure
    """

    key: str
    label: str
    unit: str
    doc: str
    group: str
    values: FloatArray
    series: FloatArray | None = None


def usual_range(values: FloatArray) -> tuple[float, float]:
    """Median +- 4 sigma_MAD, within the data; all the data where most are equal.

    Parameters
    ----------
    values : any shape, NaN ignored

    Returns
    -------
    low, high : NaN without values
    """
    known = values[np.isfinite(values)]
    if known.size == 0:
        return np.nan, np.nan
    low, high = float(known.min()), float(known.max())
    median = float(np.median(known))
    sigma = mad_sigma(known)
    if sigma <= _SAME * abs(median):
        return low, high
    return max(low, median - _WIDTH_SIGMA * sigma), min(high, median + _WIDTH_SIGMA * sigma)


def colour_limits(values: FloatArray, vendor: Sequence[str]) -> tuple[float, float]:
    """Limits of a colour scale: the usual ranges of all vendors, which often differ.

    Parameters
    ----------
    values : (detector, amp)
    vendor : of each detector

    Returns
    -------
    low, high : (0, 1) where there are no values, and never equal
    """
    names = np.array(vendor)
    ranges = np.array([usual_range(values[names == name]) for name in sorted(set(vendor))])
    known = ranges[np.isfinite(ranges[:, 0])]
    if not known.size:
        return 0.0, 1.0
    low, high = float(known[:, 0].min()), float(known[:, 1].max())
    if high - low > _SAME * max(abs(low), abs(high)):
        return low, high
    return low - 0.5 * max(abs(low), 1.0), high + 0.5 * max(abs(high), 1.0)


def quantities(verdict: xr.Dataset | None, product: xr.Dataset | None) -> list[Quantity]:
    """All per-amp quantities: of the tests, of the statistics, of the product."""
    found: list[Quantity] = []
    if verdict is not None:
        found += [*_of_tests(verdict), *_of_statistics(verdict)]
    if product is not None:
        aligned = product if verdict is None else product.reindex(detector=verdict["detector"].values)
        small = aligned[[n for n, v in aligned.data_vars.items() if not {"y", "x"} & set(v.dims)]]
        found += list(_of_product(small.load()))
    return found


def _of_tests(verdict: xr.Dataset) -> Iterator[Quantity]:
    """Share of exposures in which the amp failed, and the worst margin of each test."""
    if "amp_success" in verdict:
        failed = 100 * (~verdict["amp_success"]).transpose("exposure", *AMP_DIMS).values.astype(float)
        failed[:, ~_exists(verdict)] = np.nan
        bad = bad_exposures(verdict)
        share = failed[~bad].mean(axis=0) if (~bad).any() else failed.mean(axis=0)
        doc = "exposures in which a required test failed, without those that are bad as a whole"
        yield Quantity("failing", "exposures failed", "%", doc, "tests", share, failed)
    for i, test in enumerate(verdict["test"].values if "test" in verdict.coords else ()):
        value = verdict["value"].isel(test=i).transpose("exposure", *AMP_DIMS).values
        if np.isfinite(value).any():
            limit = f"{verdict['test_op'].values[i]} {verdict['test_threshold'].values[i]:g}"
            name = str(verdict["test_name"].values[i])
            doc = f"value of test {test}, which passes when {limit} (in units of its scale)"
            yield Quantity(f"test.{test}", f"test {name}", "", doc, "tests", _over_exposures(verdict, value), value)


def _of_statistics(verdict: xr.Dataset) -> Iterator[Quantity]:
    for name, variable in verdict.data_vars.items():
        key = str(name)
        if key in _HIDDEN or variable.dtype.kind not in "fiu" or set(variable.dims) - {"exposure", *AMP_DIMS}:
            continue
        unit, doc = str(variable.attrs.get("units", "")), str(variable.attrs.get("long_name", ""))
        label = key.replace("_", " ")
        if set(variable.dims) == {"exposure", *AMP_DIMS}:
            series = variable.transpose("exposure", *AMP_DIMS).values.astype(float)
            if np.isfinite(series).any():
                yield Quantity(key, label, unit, doc, "statistics", _over_exposures(verdict, series), series)
        elif set(variable.dims) == set(AMP_DIMS):
            values = variable.transpose(*AMP_DIMS).values.astype(float)
            if np.isfinite(values).any():
                yield Quantity(key, label, unit, doc, "references", values)


def _of_product(product: xr.Dataset) -> Iterator[Quantity]:
    """Every (detector, amp) variable, and every slice of those with one short further axis."""
    for name, variable in product.data_vars.items():
        if variable.dtype.kind not in "fiub" or not set(AMP_DIMS) <= set(variable.dims):
            continue
        extra = [d for d in variable.dims if d not in AMP_DIMS]
        if len(extra) > 1 or (extra and variable.sizes[extra[0]] > _MAX_LABELS):
            continue
        unit, doc = str(variable.attrs.get("units", "")), str(variable.attrs.get("long_name", ""))
        for label, part in _slices(variable, extra):
            values = part.transpose(*AMP_DIMS).values.astype(float)
            if np.isfinite(values).any():
                title = f"{name} {label}".replace("_", " ").strip()
                key = f"product.{name}" + (f".{label}" if label else "")
                yield Quantity(key, title, unit, doc, "product", values)


def _slices(variable: xr.DataArray, extra: list[object]) -> Iterator[tuple[str, xr.DataArray]]:
    if not extra:
        yield "", variable
        return
    (dim,) = extra
    labels = variable[dim].values if dim in variable.coords else range(variable.sizes[dim])
    for i, label in enumerate(labels):
        yield str(label), variable.isel({dim: i})


def _exists(verdict: xr.Dataset) -> NDArray[np.bool_]:
    """Whether the detector has the amp, (detector, amp)."""
    if "n_pixel" not in verdict:
        return np.ones((verdict.sizes["detector"], verdict.sizes["amp"]), bool)
    return np.asarray((verdict["n_pixel"] > 0).any("exposure").transpose(*AMP_DIMS).values)


def _over_exposures(verdict: xr.Dataset, series: FloatArray) -> FloatArray:
    """Median over the exposures, first ones after idle left out if there are others."""
    first = (
        verdict["first_in_set"].values.astype(bool) if "first_in_set" in verdict.coords else np.zeros(len(series), bool)
    )
    chosen = series[~first] if (~first).any() else series
    return nan_median(chosen)


def nan_median(values: FloatArray) -> FloatArray:
    """Median along the first axis without the NaN; NaN where there are only NaN."""
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)
    n = np.isfinite(values).sum(axis=0)
    middle = (np.maximum(n - 1, 0) // 2, np.minimum(n // 2, len(values) - 1))
    low, high = (np.take_along_axis(ordered, k[None], 0)[0] for k in middle)
    return np.asarray(np.where(n > 0, 0.5 * (low + high), np.nan))

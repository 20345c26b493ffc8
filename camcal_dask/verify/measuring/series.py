"""Statistics of a set of exposures in time: stability of bias and gain, persistence (reference 3.2, 3.19, 3.20)."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr

from camcal_dask.kernels.charge.persistence import persistence
from camcal_dask.schema import AMP_DIMS, STATISTIC_DIMS, described, number_variables, union

_OF_ALL = number_variables(
    AMP_DIMS,
    {
        "level_range": ("image", "95th minus 5th percentile of the mean over the exposures"),
        "corner_range": ("image", "the same of the mean at the readout corner"),
        "shift_frequency": ("1", "part of the exposures with a sudden step of the bias level"),
        "gain_drift": ("1", "largest departure of that ratio from the median of the focal plane"),
        "persistence": ("image", "first dark minus the mean of the last three"),
        "persistence_decay": ("s", "time in which that excess falls to 1/e"),
    },
)
_OF_EACH = number_variables(
    STATISTIC_DIMS,
    {"gain_ratio": ("1", "signal over photodiode charge, divided by its mean over the exposures of a filter")},
)
SERIES = union(_OF_ALL, _OF_EACH)
"""Numbers of an amp over all exposures, and what they are taken from."""


def series(statistics: xr.Dataset) -> xr.Dataset:
    """Measure a set of exposures from its statistics (computed, in memory).

    Parameters
    ----------
    statistics : Dataset
        From `verify.measuring.statistics.measure`.  Exposures that were the first of their set do not count in
        ranges; persistence needs at least four of ``observation_type`` dark, the first of them right after the
        light; gains need ``photo_charge`` (exposure) [C].

    Returns
    -------
    Dataset of those of `SERIES` that the exposures can give.
    """
    found: dict[str, xr.DataArray] = {}
    settled = _settled(statistics)
    for name, source in (("level_range", "mean"), ("corner_range", "amp_corner")):
        if source in statistics and settled.sizes["exposure"] > 1:
            with warnings.catch_warnings():  # a dead amp has no level: NaN, without a word
                warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
                ends = settled[source].quantile([0.05, 0.95], "exposure")
            found[name] = ends.isel(quantile=1, drop=True) - ends.isel(quantile=0, drop=True)
    if "bias_shift_count" in statistics:
        count = statistics["bias_shift_count"]
        found["shift_frequency"] = (count > 0).where(count.notnull()).mean("exposure")
    if "photo_charge" in statistics:
        found |= _gains(statistics)
    if _are_darks(statistics) and statistics.sizes["exposure"] >= 4:
        found |= _persistence(statistics)
    found = described(found, SERIES, statistics.attrs.get("units", ""))
    return xr.Dataset(found).drop_vars([c for c in statistics.coords if c not in statistics.dims], errors="ignore")


def _settled(statistics: xr.Dataset) -> xr.Dataset:
    """Exposures that were not the first after idle; all, if none is left."""
    if "seq_start" not in statistics or "seq_num" not in statistics:
        return statistics
    kept = np.flatnonzero(statistics["seq_num"].values != statistics["seq_start"].values)
    return statistics.isel(exposure=kept) if kept.size else statistics


def _are_darks(statistics: xr.Dataset) -> bool:
    return "observation_type" in statistics and bool((statistics["observation_type"] == "dark").all())


def _gains(statistics: xr.Dataset) -> dict[str, xr.DataArray]:
    charge = statistics["photo_charge"]
    response = statistics["mean"] / charge.where(charge > 0)
    filters = statistics.get("physical_filter", xr.zeros_like(statistics["exposure"]))
    ratio = response.groupby(filters.rename("of_filter")) / response.groupby(filters.rename("of_filter")).mean(
        "exposure"
    )
    ratio = ratio.reset_coords(drop=True).transpose(*statistics["mean"].dims)
    common = ratio.median(["detector", "amp"])  # the photodiode's own drift is that of all amps
    return {"gain_ratio": ratio, "gain_drift": abs(ratio / common - 1).max("exposure")}


def _persistence(statistics: xr.Dataset) -> dict[str, xr.DataArray]:
    known = "mjd" in statistics and bool(np.isfinite(statistics["mjd"]).all())
    when = statistics["mjd"].values * 86400.0 if known else np.arange(float(statistics.sizes["exposure"]))
    order = np.argsort(when, kind="stable")
    level = statistics["mean"].transpose(*STATISTIC_DIMS).isel(exposure=order)
    found = persistence(level.values.reshape(order.size, -1), when[order])
    decay = found.decay_s if known else np.full_like(found.decay_s, np.nan)
    template = level.isel(exposure=0, drop=True)
    return {
        "persistence": template.copy(data=found.amplitude.reshape(template.shape)),
        "persistence_decay": template.copy(data=decay.reshape(template.shape)),
    }

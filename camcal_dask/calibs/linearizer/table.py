"""What is judged of a linearizer (reference/verification.md 1.9, 3.16).

What is left of the non-linearity at the flats that made it; how flats come out that the fit did not know; and what the
correction does between the flats, where a spline with too many nodes runs away unseen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.calibs.linearizer.product import LINEARIZER as FITTED
from camcal_dask.calibs.ptc.table import NOMINAL, nominal
from camcal_dask.errors import DataError
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.linearity.akima import akima_spline
from camcal_dask.kernels.linearity.correct import TYPES, correct_signals
from camcal_dask.kernels.linearity.nodes import find_levels, level_medians, level_signals, measure_shape
from camcal_dask.kernels.linearity.proportionality import LINEAR_RANGE, ends_early, proportionality
from camcal_dask.kernels.linearity.spline import Ramp, SplineTerms, fit_spline, uniform_nodes
from camcal_dask.schema import AMP_DIMS, Variable, described, number_variables, union, variables
from camcal_dask.verify.judging.criterion import Criterion

REFIT_NODES = 15
_GRID = 200
_KEPT = ("residual_sigma", "linearity_turnoff", "linearity_max_signal", "input_gain", "input_turnoff")
_OF_AMP = number_variables(
    AMP_DIMS,
    {
        "refit": ("1", "largest relative correction of a second spline through linearised signals"),
        "refit_error": ("1", "standard error of refit"),
        "worst": ("1", "largest departure from proportionality to light"),
        "rms": ("1", "rms departure from proportionality to light"),
        "linear_to": ("electron", "largest signal that is proportional to light"),
        "left_out_worst": ("1", "largest departure of a level of light that the fit did not know"),
        "left_out_rms": ("1", "rms of that departure over all levels"),
        "least_slope": ("1", "least derivative of the corrected signal by the signal, between the flats"),
        "wander": ("1", "largest departure of the relative correction from the line through those at the flats"),
    },
)
LINEARIZER_NUMBERS = union(
    NOMINAL,
    variables(*(FITTED[name] for name in _KEPT)),
    _OF_AMP,
    variables(
        Variable("fitted", AMP_DIMS, "f8", "1", "1 where the amp has a linearizer"),
        Variable("n_used", AMP_DIMS, "i8", "1", "flats in use"),
        Variable(
            "short_ramp", AMP_DIMS, "f8", "1", "1 where no flat is brighter than the turnoff, below 90 000 electron"
        ),
    ),
)
"""Numbers of `linearizer_table`."""

LINEARIZER = (
    Criterion(
        id="linearizer.refit",
        name="LINEARITY",
        value="refit",
        threshold=0.01,
        required=True,
        source="cp_verify",
        doc="largest relative correction of a second spline through linearised signals; the node at 0 is skipped",
        error="refit_error",
    ),
    Criterion(
        id="linearizer.fitted",
        name="FITTED",
        value="fitted",
        threshold=1.0,
        required=True,
        source="ours",
        doc="the amp has a linearizer",
        op="==",
    ),
    Criterion(
        id="linearizer.deviation",
        name="MAX_FRACTIONAL_DEVIATION",
        value="worst",
        threshold=0.02,
        required=True,
        source="ours",
        doc="largest departure from proportionality to light, 1e3 to 9e4 electron (CCD-009) or the PTC turnoff",
    ),
    Criterion(
        id="linearizer.left_out",
        name="LEFT_OUT",
        value="left_out_worst",
        threshold=0.01,
        required=True,
        source="ours",
        doc="largest departure from linearity, from 1e3 electron, of a level of light that the fit did not know",
        if_measured=True,
    ),
    Criterion(
        id="linearizer.left_out_rms",
        name="LEFT_OUT_RMS",
        value="left_out_rms",
        threshold=0.003,
        required=False,
        source="ours",
        doc="rms of the same over all levels",
        if_measured=True,
    ),
    Criterion(
        id="linearizer.wander",
        name="CORRECTION_BOUNDED",
        value="wander",
        threshold=0.01,
        required=True,
        source="ours",
        doc="largest departure of the relative correction between the flats from the line through those at the flats",
    ),
    Criterion(
        id="linearizer.monotonic",
        name="CORRECTION_MONOTONIC",
        value="least_slope",
        threshold=0.5,
        required=True,
        source="ours",
        doc="least derivative of the corrected signal by the signal, between the flats",
        op=">=",
    ),
    Criterion(
        id="linearizer.scatter",
        name="RESIDUAL_SCATTER",
        value="residual_sigma",
        threshold=0.001,
        required=False,
        source="ours",
        doc="robust scatter of the residual relative to the signal; 1e-4 is good",
    ),
    Criterion(
        id="linearizer.turnoff",
        name="LINEARITY_TURNOFF",
        value="linearity_turnoff * input_gain",
        threshold=LINEAR_RANGE[1],
        required=False,
        source="ours",
        doc="signal [electron] up to which the amp can be linearised; not evaluated if a ramp that ends "
        "below the limit is linear throughout",
        op=">",
        cannot_tell="short_ramp",
    ),
    Criterion(
        id="linearizer.reach",
        name="COVERS_PTC_TURNOFF",
        value="linearity_turnoff / input_turnoff",
        threshold=0.95,
        required=False,
        source="ours",
        doc="the linearizer reaches the turnoff of the photon transfer curve",
        op=">=",
    ),
)
"""Tests of a linearizer."""


def linearizer_table(linearizer: xr.Dataset) -> xr.Dataset:
    """Numbers of each (detector, amp) that the tests ``linearizer`` read.

    Parameters
    ----------
    linearizer : Dataset
        A ``linearizer``, attribute ``instrument``.

    Returns
    -------
    Dataset of `LINEARIZER_NUMBERS`
        A linearizer from a file of the LSST stack, which has no place for the levels left out, has no
        ``left_out_worst`` and ``left_out_rms``, and attribute ``not_measured`` says so.
    """
    table = nominal(linearizer)
    table = table.assign({name: linearizer[name] for name in _KEPT})
    found = {name: np.full(table["input_gain"].shape, np.nan) for name in _OF_AMP}
    for d, a in np.ndindex(*table["input_gain"].shape):
        one = linearizer.isel(detector=d, amp=a)
        if one["used"].values.any():
            for name, value in amp_numbers(one).items():
                found[name][d, a] = value
    measured: dict[str, Any] = {name: (AMP_DIMS, values) for name, values in found.items()}
    fitted = (linearizer["type"] != TYPES.index("None")) & ~linearizer["bad"]
    measured |= {"fitted": fitted.astype(np.float64), "n_used": linearizer["used"].sum("flat")}
    ends = linearizer["linearity_turnoff"], linearizer["ordinate"].max("flat")
    short = ends_early(*((adu * linearizer["input_gain"]).transpose(*AMP_DIMS).values for adu in ends))
    measured["short_ramp"] = (AMP_DIMS, short.astype(np.float64))
    table = table.assign(measured)
    table = table.assign(described(dict(table.data_vars), LINEARIZER_NUMBERS, "adu"))
    if "left_out" in linearizer:
        return table
    return table.drop_vars(["left_out_worst", "left_out_rms"]).assign_attrs(not_measured="levels left out of the fit")


def amp_numbers(one: xr.Dataset) -> dict[str, float]:
    """Return the numbers of a single amp of a linearizer, see `linearizer_table`."""
    return dict(zip(_OF_AMP, (*_left(one), *_left_out(one), *_shape(one)), strict=True))


def _left(one: xr.Dataset) -> tuple[float, float, float, float, float]:
    """Values of ``refit`` to ``linear_to`` for one amp; light is what the line through the linearised signals says.

    Proportional to light can only be what is below the turnoff of the photon transfer curve.
    """
    model, residual, used = (one[name].values for name in ("model", "residual_unmasked", "used"))
    light = model - residual
    lit = np.isfinite(model) & ~(one["ordinate"].values > float(one["input_turnoff"]))
    departure = proportionality(np.where(lit, model, 0.0) * float(one["input_gain"]), np.nan_to_num(light))
    refit = _refit(light, model, used, float(one["input_turnoff"]))
    return (*refit, departure.worst, departure.rms, departure.turnoff)


def _left_out(one: xr.Dataset) -> tuple[float, float]:
    """Largest and rms departure of the levels of light left out of the fit; NaN if none was."""
    if "left_out" not in one:
        return np.nan, np.nan
    asked = np.isfinite(one["left_out"].values) & (one["ordinate"] * one["input_gain"] > LINEAR_RANGE[0]).values
    label = find_levels(one["abscissa"].values, one["group"].values, asked)
    each = level_medians(one["left_out"].values, label)
    return (float(np.abs(each).max()), float(np.sqrt(np.mean(each**2)))) if each.size else (np.nan, np.nan)


def _shape(one: xr.Dataset) -> tuple[float, float]:
    """Least slope and wandering of the correction between the flats, from what is applied to pixels."""
    used = one["used"].values & np.isfinite(one["abscissa"].values) & (one["ordinate"].values > 0)
    levels = level_signals(one["ordinate"].values, find_levels(one["abscissa"].values, one["group"].values, used))
    if not levels.size:
        return np.nan, np.nan
    kind, row = TYPES[int(one["type"])], one["coefficients"].values
    table = one["table"].values if "table" in one else None
    shape = measure_shape(lambda y: correct_signals(kind, row, y, table), levels)
    return shape.slope, shape.wander


def _refit(light: FloatArray, signal: FloatArray, used: npt.NDArray[np.bool_], turnoff: float) -> tuple[float, float]:
    """Largest |S / x| of a spline with offset through linearised signals, and its error; NaN with too few flats.

    Taken between the nodes as well, from the faintest flat on.
    """
    good = used & np.isfinite(signal) & np.isfinite(light) & (light > 0) & (signal > 0)
    if not good.any():
        return np.nan, np.nan
    zero = np.zeros(len(signal))
    ramp = Ramp(np.nan_to_num(light), np.nan_to_num(signal), np.zeros(len(signal), np.int64), zero, zero)
    try:
        fit = fit_spline(ramp, good, uniform_nodes(signal[good], REFIT_NODES), turnoff, SplineTerms(offset=True))
    except DataError:
        return np.nan, np.nan
    left = fit.signal(ramp)[fit.used] / (fit.slopes[0] * light[fit.used]) - 1
    error = float(left.std()) * np.sqrt(len(fit.nodes) / fit.used.sum())
    x = np.union1d(fit.nodes[1:], np.linspace(signal[good].min(), fit.nodes[-1], _GRID))
    return float(np.abs(akima_spline(fit.nodes, fit.values, x) / x).max()), float(error)

"""What is judged of a linearizer: what is left of the non-linearity after it (reference/verification.md 1.9, 3.16)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.errors import DataError
from camcal_dask.kernels.linearity import TYPES
from camcal_dask.kernels.linearity_spline import Ramp, SplineTerms, fit_spline, uniform_nodes
from camcal_dask.kernels.proportionality import proportionality
from camcal_dask.verify.criterion import Criterion
from camcal_dask.verify.ptc import nominal

FloatArray = npt.NDArray[np.float64]

REFIT_NODES = 15
_FLATS_PER_NODE = 3
_MEASURED = ("refit", "refit_error", "worst", "rms", "linear_to")

LINEARIZER = (
    Criterion(
        id="linearizer.refit",
        name="LINEARITY",
        value="refit",
        threshold=0.01,
        required=True,
        source="cp_verify",
        doc="largest relative correction of a second spline, made from linearised signals; the node at 0 is skipped",
        error="refit_error",
    ),
    Criterion(
        id="linearizer.fitted",
        name="FITTED",
        value="fitted",
        threshold=1.0,
        required=True,
        source="ours",
        doc="the amp has a linearity",
        op="==",
    ),
    Criterion(
        id="linearizer.deviation",
        name="MAX_FRACTIONAL_DEVIATION",
        value="worst",
        threshold=0.02,
        required=True,
        source="ours",
        doc="largest departure from proportionality to light, 1e3 to 9e4 electron (CCD-009)",
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
        threshold=90000.0,
        required=False,
        source="ours",
        doc="signal [electron] up to which the amp can be linearised",
        op=">",
    ),
    Criterion(
        id="linearizer.reach",
        name="COVERS_PTC_TURNOFF",
        value="linearity_turnoff / input_turnoff",
        threshold=0.95,
        required=False,
        source="ours",
        doc="the linearity reaches the turnoff of the photon transfer curve",
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
    Dataset
        ``refit`` and its error, ``worst``, ``rms`` (all relative), ``linear_to`` [electron], ``fitted``;
        residual_sigma, linearity_turnoff, linearity_max_signal, input_gain, input_turnoff as in the product;
        ``n_used`` flats; ``n_pixel``.
    """
    table = nominal(linearizer)
    kept = ("residual_sigma", "linearity_turnoff", "linearity_max_signal", "input_gain", "input_turnoff")
    table = table.assign({name: linearizer[name] for name in kept})
    dims = ("detector", "amp", "flat")
    model, unmasked, used = (linearizer[n].transpose(*dims).values for n in ("model", "residual_unmasked", "used"))
    gain, turnoff = table["input_gain"].values, table["input_turnoff"].values
    found = np.full((len(_MEASURED), *gain.shape), np.nan)
    for place in np.ndindex(*gain.shape):
        if used[place].any():
            found[(slice(None), *place)] = _left(
                model[place], unmasked[place], used[place], float(gain[place]), float(turnoff[place])
            )
    measured: dict[str, Any] = {
        name: (("detector", "amp"), values) for name, values in zip(_MEASURED, found, strict=True)
    }
    fitted = (linearizer["type"] != TYPES.index("None")) & ~linearizer["bad"]
    measured |= {"fitted": fitted.astype(np.float64), "n_used": linearizer["used"].sum("flat")}
    return table.assign(measured)


def _left(
    model: FloatArray, residual: FloatArray, used: npt.NDArray[np.bool_], gain: float, turnoff: float
) -> tuple[float, float, float, float, float]:
    """Values of `_MEASURED` for one amp; light is what the straight line through the linearised signals says."""
    light = model - residual
    departure = proportionality(np.where(np.isfinite(model), model, 0.0) * gain, np.nan_to_num(light))
    return (*_refit(light, model, used, turnoff), departure.worst, departure.rms, departure.turnoff)


def _refit(light: FloatArray, signal: FloatArray, used: npt.NDArray[np.bool_], turnoff: float) -> tuple[float, float]:
    """Largest |S / x| of a spline with offset through linearised signals, and its error; NaN with too few flats."""
    good = used & np.isfinite(signal) & np.isfinite(light) & (light > 0) & (signal > 0)
    n_node = min(REFIT_NODES, int(good.sum()) // _FLATS_PER_NODE)
    if n_node < 3:
        return np.nan, np.nan
    zero = np.zeros(len(signal))
    ramp = Ramp(np.nan_to_num(light), np.nan_to_num(signal), np.zeros(len(signal), np.int64), zero, zero)
    try:
        fit = fit_spline(ramp, good, uniform_nodes(signal[good], n_node), turnoff, SplineTerms(offset=True))
    except DataError:
        return np.nan, np.nan
    left = fit.signal(ramp)[fit.used] / (fit.slopes[0] * light[fit.used]) - 1
    error = float(left.std()) * np.sqrt(n_node / fit.used.sum())
    return float(np.abs(fit.values[1:] / fit.nodes[1:]).max()), float(error)

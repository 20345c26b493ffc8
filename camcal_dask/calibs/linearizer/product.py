"""Linearizers as a product cube: its variables, its layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.schema import AMP_DIMS, Variable, Variables, variables

FLAT = (*AMP_DIMS, "flat")

LINEARIZER: Variables = variables(
    Variable("type", AMP_DIMS, "i1", "1", "kind of correction, index into camcal_dask.kernels.linearity.correct.TYPES"),
    Variable("coefficients", (*AMP_DIMS, "coefficient"), "f8", "adu", "as the kind lays them out, padded with 0"),
    Variable("table", ("detector", "row", "column"), "f4", "adu", "rows of a LookupTable; empty for other kinds"),
    Variable("input_gain", AMP_DIMS, "f8", "electron/adu", "gain of the photon transfer curve it was made from"),
    Variable("input_turnoff", AMP_DIMS, "f8", "adu", "turnoff of that curve"),
    Variable("linearity_turnoff", AMP_DIMS, "f8", "adu", "largest signal that is linear"),
    Variable("linearity_max_signal", AMP_DIMS, "f8", "adu", "largest signal seen"),
    Variable("bad", AMP_DIMS, "?", "1", "the amp could not be fitted"),
    Variable("reference_amp", ("detector",), "i4", "1", "index of the reference amp of a DoubleSpline; -1: none"),
    Variable("fit_params", (*AMP_DIMS, "parameter"), "f8", "1", "polynomial, or slopes and nuisance terms of a Spline"),
    Variable("fit_params_err", (*AMP_DIMS, "parameter"), "f8", "1", "their errors"),
    Variable("fit_chi2", AMP_DIMS, "f8", "1", "reduced chi2 of the fit"),
    Variable("line", (*AMP_DIMS, "term"), "f8", "adu", "intercept and slope of the linearised signal against light"),
    Variable("residual_sigma", AMP_DIMS, "f8", "1", "robust scatter of the residual relative to the signal"),
    Variable("abscissa", FLAT, "f8", "1", "exposure time [s] or photodiode charge [C]"),
    Variable("normalization", ("detector", "flat"), "f8", "1", "factor on it, from the focal plane"),
    Variable("group", FLAT, "i8", "1", "group of equal illumination; -1: none"),
    Variable("ordinate", FLAT, "f8", "adu", "measured signal; 0 where unknown"),
    Variable("used", FLAT, "?", "1", "the fit used it"),
    Variable("model", FLAT, "f8", "adu", "linearised signal without offset and drift"),
    Variable("residual", FLAT, "f8", "adu", "linearised signal less slope times light, of used flats"),
    Variable("residual_unmasked", FLAT, "f8", "adu", "the same of all flats"),
    Variable("left_out", FLAT, "f8", "1", "departure from linearity if the fit does not know the flat's level"),
)
"""Variables of ``linearizer``."""
OF_FLATS: Variables = variables(Variable("exposure", ("flat",), "i8", "", "the exposure, or the first of the pair"))
"""What all detectors share."""


def shared(linearizer: xr.Dataset) -> xr.Dataset:
    """What all detectors of a product share: the flats and the axes of coefficients, parameters and lookup rows."""
    sizes = {name: linearizer.sizes.get(name, 1) for name in ("coefficient", "parameter", "row", "column")}
    axes = {name: range(n) for name, n in sizes.items()}
    return xr.Dataset(coords={"exposure": ("flat", linearizer["exposure"].values), "term": range(2), **axes})


def arrays_of(linearizer: xr.Dataset, detector: int) -> dict[str, npt.NDArray[Any]]:
    """Arrays of one detector as the product holds them."""
    one = linearizer.sel(detector=detector)
    arrays = {}
    for name, variable in LINEARIZER.items():
        values = one[name].transpose(*variable.dims[1:]).values if name in one else np.zeros((1, 1))
        arrays[name] = np.array(values, variable.dtype, order="C")
    return arrays

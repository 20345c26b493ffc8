"""Crosstalk between the amps: a table that the ISR applies and nothing here makes yet."""

from __future__ import annotations

from camcal_dask.rooms import CalibrationType
from camcal_dask.schema import AMP_DIMS, Product, Variable, variables

_PAIR = ("detector", "source", "target")
CROSSTALK = variables(
    Variable("linear", _PAIR, "f8", "1", "part of the signal of a source amp that appears in a target amp"),
    Variable("quadratic", _PAIR, "f8", "1/image", "the same per unit of signal"),
    Variable("valid", _PAIR, "?", "1", "the coefficient was measured"),
    Variable("fit_gain", AMP_DIMS, "f8", "electron/adu", "gains that the coefficients were measured with"),
)
CALIBRATION = CalibrationType(
    "crosstalk", products=(Product("crosstalk", "electron", "crosstalk between the amps", CROSSTALK),)
)

"""Adjustments of the gains: a table that the ISR applies and nothing here makes yet."""

from __future__ import annotations

from camcal_dask.rooms import CalibrationType
from camcal_dask.schema import AMP_DIMS, Product, Variable, variables

GAIN_CORRECTION = variables(Variable("adjustment", AMP_DIMS, "f8", "1", "factor on the gain of the amp"))
CALIBRATION = CalibrationType(
    "gain_correction", products=(Product("gain_correction", "1", "adjustments of the gains", GAIN_CORRECTION),)
)

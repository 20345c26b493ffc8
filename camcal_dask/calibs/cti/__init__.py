"""Serial deferred charge: a table that the ISR applies and nothing here makes yet."""

from __future__ import annotations

from camcal_dask.calibs.cti.fits import read
from camcal_dask.rooms import CalibrationType, FitsLayout
from camcal_dask.schema import AMP_DIMS, Product, Variable, variables

CTI = variables(
    Variable("drift_scale", AMP_DIMS, "f8", "1", "size of the electronic offset that follows a signal"),
    Variable("decay_time", AMP_DIMS, "f8", "pixel", "its decay"),
    Variable("global_cti", AMP_DIMS, "f8", "1", "charge left behind at a transfer"),
    Variable("trap_kind", AMP_DIMS, "i1", "1", "how the trap fills: none, linear, logistic, spline"),
    Variable("trap_size", AMP_DIMS, "f8", "electron", "most charge that it holds"),
    Variable("trap_emission_time", AMP_DIMS, "f8", "pixel", "time constant of its release"),
    Variable("trap_coefficients", (*AMP_DIMS, "coefficient"), "f8", "1", "of its filling", nan="padding"),
    Variable("input_gain", AMP_DIMS, "f8", "electron/adu", "gains that it was measured with", nan="unknown"),
)
CALIBRATION = CalibrationType(
    "cti",
    products=(Product("cti", "electron", "serial deferred charge", CTI),),
    layouts={"cti": FitsLayout(obstype="CTI", read=read)},
)

"""Brighter-fatter kernels: tables that the ISR applies and nothing here makes yet."""

from __future__ import annotations

from camcal_dask.rooms import CalibrationType
from camcal_dask.schema import Product, Variable, variables

BFK = variables(
    Variable("kernel", ("detector", "kernel_y", "kernel_x"), "f8", "1/electron", "kernel of Coulton et al. 2018")
)
CALIBRATION = CalibrationType("bfk", products=(Product("bfk", "electron", "brighter-fatter kernels", BFK),))

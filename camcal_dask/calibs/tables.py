"""Calibrations that are tables and have no maker here yet: the variables that the ISR takes from them.

They name what `camcal_dask.isr.corrected.isr` reads; a cube with these variables, registered under the dataset type, is
applied by every pipeline that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from camcal_dask.calibs.variable import Variable

_AMP = ("detector", "amp")
_PAIR = ("detector", "source", "target")
_BOUNDARY = ("detector", "i", "j")

CROSSTALK: Mapping[str, Variable] = MappingProxyType(
    {
        "linear": Variable(_PAIR, "f8", "1", "part of the signal of a source amp that appears in a target amp"),
        "quadratic": Variable(_PAIR, "f8", "1/image", "the same per unit of signal"),
        "valid": Variable(_PAIR, "?", "1", "the coefficient was measured"),
        "fit_gain": Variable(_AMP, "f8", "electron/adu", "gains that the coefficients were measured with"),
    }
)
CTI: Mapping[str, Variable] = MappingProxyType(
    {
        "drift_scale": Variable(_AMP, "f8", "1", "size of the electronic offset that follows a signal"),
        "decay_time": Variable(_AMP, "f8", "pixel", "its decay"),
        "global_cti": Variable(_AMP, "f8", "1", "charge left behind at a transfer"),
        "trap_kind": Variable(_AMP, "i1", "1", "how the trap fills: none, linear, logistic, spline"),
        "trap_size": Variable(_AMP, "f8", "electron", "most charge that it holds"),
        "trap_emission_time": Variable(_AMP, "f8", "pixel", "time constant of its release"),
        "trap_coefficients": Variable((*_AMP, "coefficient"), "f8", "1", "of its filling"),
        "input_gain": Variable(_AMP, "f8", "electron/adu", "gains that it was measured with"),
    }
)
BFK: Mapping[str, Variable] = MappingProxyType(
    {"kernel": Variable(("detector", "kernel_y", "kernel_x"), "f8", "1/electron", "kernel of Coulton et al. 2018")}
)
ELECTRO_BF: Mapping[str, Variable] = MappingProxyType(
    {
        f"a{side}": Variable(_BOUNDARY, "f8", "1/electron", f"shift of the {name} boundary by charge (i, j) away")
        for side, name in (("N", "upper"), ("S", "lower"), ("E", "right"), ("W", "left"))
    }
)
GAIN_CORRECTION: Mapping[str, Variable] = MappingProxyType(
    {"adjustment": Variable(_AMP, "f8", "1", "factor on the gain of the amp")}
)

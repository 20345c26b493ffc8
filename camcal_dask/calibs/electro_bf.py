"""Shifts of pixel boundaries by charge: a table that the ISR applies and nothing here makes yet."""

from __future__ import annotations

from camcal_dask.rooms import CalibrationType
from camcal_dask.schema import Product, Variable, variables

_SIDES = {"N": "upper", "S": "lower", "E": "right", "W": "left"}
ELECTRO_BF = variables(
    *(
        Variable(
            f"a{side}",
            ("detector", "i", "j"),
            "f8",
            "1/electron",
            f"shift of the {name} boundary by charge (i, j) away",
        )
        for side, name in _SIDES.items()
    )
)
CALIBRATION = CalibrationType(
    "electro_bf",
    products=(Product("electroBfDistortionMatrix", "electron", "shifts of pixel boundaries by charge", ELECTRO_BF),),
)

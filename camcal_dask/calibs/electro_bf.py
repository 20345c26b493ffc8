"""Shifts of pixel boundaries by charge: a table that the ISR applies and nothing here makes yet.

Layout of its files: reference/brighter_fatter_details.md 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from camcal_dask.errors import DataError
from camcal_dask.exchange.tables import Arrays, Rows
from camcal_dask.rooms import CalibrationType, FitsLayout
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


def read(tables: Sequence[Rows], cards: Mapping[str, Any], amps: Sequence[str]) -> tuple[str, Arrays]:
    """Read the shifts of a detector (`FitsLayout.read`)."""
    table = tables[0]
    sides = {f"a{side}": np.ravel(np.asarray(table[f"A_{side}"][0], np.float64)) for side in "NSEW"}
    n = round(np.sqrt(sides["aN"].size))
    if any(values.size != n * n for values in sides.values()):
        raise DataError(f"boundary shifts of {[v.size for v in sides.values()]} numbers; squares are needed")
    return "electron", {name: values.reshape(n, n) for name, values in sides.items()}


CALIBRATION = CalibrationType(
    "electro_bf",
    products=(Product("electroBfDistortionMatrix", "electron", "shifts of pixel boundaries by charge", ELECTRO_BF),),
    layouts={"electroBfDistortionMatrix": FitsLayout(obstype="BF_DISTORTION_MATRIX", read=read)},
)

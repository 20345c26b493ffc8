"""Crosstalk between the amps: a table that the ISR applies and nothing here makes yet.

Layout of its files: reference/raw_format.md 5.3 and reference/crosstalk_details.md 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camcal_dask.errors import DataError
from camcal_dask.exchange.tables import Arrays, Rows
from camcal_dask.rooms import CalibrationType, FitsLayout
from camcal_dask.schema import AMP_DIMS, Product, Variable, variables

_PAIR = ("detector", "source", "target")
CROSSTALK = variables(
    Variable("linear", _PAIR, "f8", "1", "part of the signal of a source amp that appears in a target amp"),
    Variable("quadratic", _PAIR, "f8", "1/image", "the same per unit of signal"),
    Variable("valid", _PAIR, "?", "1", "the coefficient was measured"),
    Variable("fit_gain", AMP_DIMS, "f8", "electron/adu", "gains that the coefficients were measured with"),
)


def read(tables: Sequence[Rows], cards: Mapping[str, Any], amps: Sequence[str]) -> tuple[str, Arrays]:
    """Read the matrices and gains of a detector (`FitsLayout.read`)."""
    if not cards.get("HAS_CROSSTALK", False):
        raise DataError("HAS_CROSSTALK is not set, so the file holds no crosstalk")
    table, n = tables[0], int(cards["NAMP"])
    if n != len(amps):
        raise DataError(f"crosstalk of {n} amps, the detector has {len(amps)}")
    version = float(cards.get("CROSSTALK_VERSION", 0))
    units = str(cards["CROSSTALK_RATIOS_UNITS"]) if version >= 1.1 else "adu"

    def matrix(column: str) -> NDArray[Any]:
        return np.array(table[column][0]).reshape(n, n)  # row-major [source, target]

    gains = np.ravel(table["CT_FIT_GAINS"][0]) if "CT_FIT_GAINS" in table else np.zeros(n)
    return units, {
        "linear": matrix("CT_COEFFS"),
        "quadratic": matrix("CT_COEFFS_SQR") if "CT_COEFFS_SQR" in table else np.zeros((n, n)),
        "valid": matrix("CT_VALID").astype(bool),
        "fit_gain": np.asarray(gains, np.float64) if gains.size == n else np.zeros(n),  # old files: one number, "none"
    }


CALIBRATION = CalibrationType(
    "crosstalk",
    products=(Product("crosstalk", "electron", "crosstalk between the amps", CROSSTALK),),
    layouts={"crosstalk": FitsLayout(obstype="CROSSTALK", read=read)},
)

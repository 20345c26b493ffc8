"""Adjustments of the gains: a table that the ISR applies and nothing here makes yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from camcal_dask.exchange.tables import Arrays, Rows, by_amp
from camcal_dask.rooms import CalibrationType, FitsLayout
from camcal_dask.schema import AMP_DIMS, Product, Variable, variables

GAIN_CORRECTION = variables(Variable("adjustment", AMP_DIMS, "f8", "1", "factor on the gain of the amp"))


def read(tables: Sequence[Rows], cards: Mapping[str, Any], amps: Sequence[str]) -> tuple[str, Arrays]:
    """Read the adjustments of a detector (`FitsLayout.read`)."""
    table = tables[0]
    values = by_amp(table, table["AMP_NAME"], "GAIN_ADJUSTMENT", amps)
    return "1", {"adjustment": np.asarray(values, np.float64)}


CALIBRATION = CalibrationType(
    "gain_correction",
    products=(Product("gain_correction", "1", "adjustments of the gains", GAIN_CORRECTION),),
    layouts={"gain_correction": FitsLayout(obstype="gainCorrection", read=read)},
)

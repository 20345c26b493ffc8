"""Brighter-fatter kernels: tables that the ISR applies and nothing here makes yet.

Layout of their files: reference/brighter_fatter_details.md 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from camcal_dask.exchange.tables import Arrays, Rows, by_amp
from camcal_dask.kernels.charge.brighter_fatter import detector_kernel
from camcal_dask.rooms import CalibrationType, FitsLayout
from camcal_dask.schema import Product, Variable, variables

BFK = variables(
    Variable("kernel", ("detector", "kernel_y", "kernel_x"), "f8", "1/electron", "kernel of Coulton et al. 2018")
)


def read(tables: Sequence[Rows], cards: Mapping[str, Any], amps: Sequence[str]) -> tuple[str, Arrays]:
    """Read the kernel of a detector (`FitsLayout.read`)."""
    width, height = int(cards["KERNEL_DX"]), int(cards["KERNEL_DY"])
    if len(tables) > 1 and len(tables[1].get("KERNEL", ())):
        kernel = np.asarray(tables[1]["KERNEL"][0], np.float64)
    else:
        table, names = tables[0], tables[0]["AMPLIFIER"]
        kernels = by_amp(table, names, "KERNEL", amps).reshape(len(amps), height, width)
        kernel = detector_kernel(kernels, by_amp(table, names, "VALID", amps).astype(bool))
    return "electron", {"kernel": kernel.reshape(height, width)}


CALIBRATION = CalibrationType(
    "bfk",
    products=(Product("bfk", "electron", "brighter-fatter kernels", BFK),),
    layouts={"bfk": FitsLayout(obstype="bfk", read=read)},
)

"""Defects as a product cube: its variables."""

from __future__ import annotations

from camcal_dask.kernels.pixels.defects import DEFECT_BITS
from camcal_dask.schema import AMP_DIMS, DETECTOR_DIMS, Product, Variable, variables

DEFECT_KINDS = ("bias", "dark", "flat")
"""Images that are searched for defects; all filters' flats count as one kind."""
_KIND = (*AMP_DIMS, "kind")
DEFECTS = variables(
    Variable("defects", DETECTOR_DIMS, "u1", "1", "why a pixel is a defect; 0 = it is none", flags=DEFECT_BITS),
    Variable("n_pixels", (*AMP_DIMS, "reason"), "i4", "pixel", "pixels that have the reason"),
    Variable("n_hot", _KIND, "i4", "pixel", "above the threshold, before the column rules"),
    Variable("n_cold", _KIND, "i4", "pixel", "below the threshold, before the column rules"),
    Variable("n_columns", _KIND, "i4", "column", "columns that are bad as a whole"),
    Variable("dead", _KIND, "i1", "1", "the amp is a defect as a whole"),
)
"""Variables of the defects; the boxes of each detector are in its record (`camcal_dask.calibs.defects.find`)."""
PRODUCT = Product(
    "defects",
    "1",
    "bad pixels",
    DEFECTS,
    labels={"reason": tuple(DEFECT_BITS), "kind": DEFECT_KINDS},
    pixels="defects",
)

"""Combined images as product cubes: their variables."""

from __future__ import annotations

from typing import Any

from camcal_dask.kernels.pixels.masks import MASK_PLANES
from camcal_dask.schema import AMP_DIMS, DETECTOR_DIMS, Product, Variable, variables

LEVELS = (0, 5, 16, 50, 84, 95, 100)
"""Percentiles kept of every amp of a combined image."""
OF_HALVES = ("mean", "noise", "expected", "n")
"""What is kept of the comparison of the halves: `camcal_dask.kernels.statistics.moments.compare_amp`."""
COMBINED = variables(
    Variable("image", DETECTOR_DIMS, "f4", "image", "combined image", nan="the amp is smaller than the cube"),
    Variable("variance", DETECTOR_DIMS, "f4", "image^2", "variance of the combined image", nan="as the image"),
    Variable(
        "mask",
        DETECTOR_DIMS,
        "i4",
        "1",
        "BAD: no usable input; NO_DATA: the amp has no such pixel",
        flags=MASK_PLANES,
    ),
    Variable("distribution", (*AMP_DIMS, "level"), "f8", "image", "percentiles of the amp", nan="no usable pixel"),
    Variable("n_bad", AMP_DIMS, "i4", "pixel", "pixels flagged BAD"),
    Variable(
        "halves", (*AMP_DIMS, "of_halves"), "f8", "image", "mean of even minus mean of odd inputs", nan="not compared"
    ),
    Variable("n_input", AMP_DIMS, "i4", "exposure", "exposures with a usable pixel in the amp"),
)
"""Variables of every combined image."""


def combined_product(name: str, unit: str, doc: str, **more: Any) -> Product:
    """Product of the combine engine; ``more`` as in `camcal_dask.schema.Product`."""
    labels = {"level": LEVELS, "of_halves": OF_HALVES}
    return Product(name, unit, doc, COMBINED, labels=labels, pixels="image", **more)

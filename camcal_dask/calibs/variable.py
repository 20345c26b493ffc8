"""One array of a calibration product, declared once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """One array of a product.  ``units`` "image" stands for the product's, "image^2" for its square."""

    dims: tuple[str, ...]
    dtype: str
    units: str
    doc: str

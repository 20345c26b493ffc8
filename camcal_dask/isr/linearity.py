"""Linearity (step 13; reference/isr.md 2.6)."""

from __future__ import annotations

from camcal_dask.isr.tables import Prepared
from camcal_dask.kernels.arrays import Pixels
from camcal_dask.kernels.linearity import correct


def linearize(pixels: Pixels, tables: Prepared) -> None:
    """Linearise (amp, y, x) [image unit] in place, if there is a linearizer."""
    if tables.linearity is not None:
        correct.linearize(pixels, tables.linearity, out=pixels)

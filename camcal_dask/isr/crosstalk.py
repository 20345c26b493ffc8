"""Crosstalk between the amps of a detector (step 10; reference/isr.md 2.5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.raw import RawRows, Region, Stripe
from camcal_dask.isr.tables import Prepared
from camcal_dask.kernels.arrays import Pixels
from camcal_dask.kernels.readout import crosstalk

_SAMPLE_ROWS, _SAMPLE_EVERY = 8, 128  # rows that the pedestal is measured from


def subtract(stripe: Stripe, pedestal: NDArray[np.float64] | None, config: IsrConfig, tables: Prepared) -> None:
    """Subtract crosstalk in place, if there is a table of it, and set CROSSTALK.

    Parameters
    ----------
    stripe : Stripe
    pedestal : (amp,) from `measure_pedestal`; None leaves the flags alone
    """
    if tables.couplings is None:
        return
    flag = None
    if pedestal is not None and config.crosstalk.mask:
        minimum = config.crosstalk.mask_above_e / tables.to_electron
        flag = crosstalk.CrosstalkFlag(stripe.flags, pedestal[: len(stripe.pixels)], minimum, stripe.data)
    pixels = stripe.pixels
    crosstalk.subtract(pixels, tables.couplings, iterations=config.crosstalk.iterations, out=pixels, flag=flag)


def has_pedestal(config: IsrConfig, tables: Prepared) -> bool:
    """Whether CROSSTALK is set, so that the pedestal of what is subtracted is needed."""
    return tables.couplings is not None and config.crosstalk.mask


def sample_regions(raw: RawRows) -> list[Region]:
    """Rows of the data that the pedestal is measured from: 8 of every 128."""
    box = raw.detector.amps[0].data
    stop = box.y0 + box.height
    return [(y, min(y + _SAMPLE_ROWS, stop), box.x0, box.x0 + box.width) for y in range(box.y0, stop, _SAMPLE_EVERY)]


def measure_pedestal(sample: list[Pixels], tables: Prepared) -> NDArray[np.float64]:
    """Median of the crosstalk that each amp receives, (n_amp,) [image unit]; ``sample`` are rows (amp, y, x)."""
    assert tables.couplings is not None
    return crosstalk.pedestal(np.concatenate(sample, axis=1), tables.couplings, (slice(None), slice(None)))

"""Serial deferred charge (step 14; reference/isr.md 2.7)."""

from __future__ import annotations

from camcal_dask.isr.raw import Stripe
from camcal_dask.isr.tables import Prepared
from camcal_dask.kernels.charge import cti


def correct(stripe: Stripe, tables: Prepared) -> None:
    """Put deferred charge back in place, if there is a calibration of it; the stripe starts in the prescan."""
    if tables.deferred_charge is not None:
        cti.correct(stripe.pixels, tables.deferred_charge, stripe.data, out=stripe.pixels)

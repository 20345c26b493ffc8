"""Cameras as tables: geometry, vendors, nominal values, filters.  A new camera is one folder."""

from camcal_dask.instruments.geometry import (
    Amp,
    Box,
    Detector,
    Instrument,
    get_instrument,
    instrument_names,
)

__all__ = ["Amp", "Box", "Detector", "Instrument", "get_instrument", "instrument_names"]

"""What a repository holds: dataset types and collections."""

from __future__ import annotations

from dataclasses import dataclass

from camcal_dask import rooms
from camcal_dask.schema import OF_INSTRUMENT

STORAGE_CLASS = "XarrayDataset"
"""Butler storage class of every cube; its Python type is ``xarray.Dataset``."""
RECORD_CLASS = "StructuredDataDict"
"""Butler storage class of provenance records (JSON)."""


@dataclass(frozen=True)
class DatasetTypeSpec:
    """One row of the table of Butler dataset types."""

    name: str
    dimensions: tuple[str, ...]
    doc: str
    is_calibration: bool = False
    storage_class: str = STORAGE_CLASS


OURS = (
    DatasetTypeSpec("raw", ("instrument", "exposure", "detector"), "pixels as read out, int32 [adu]"),
    DatasetTypeSpec(
        "photodiode", ("instrument", "exposure"), "samples of a photodiode reading", storage_class=RECORD_CLASS
    ),
    DatasetTypeSpec("runRecord", OF_INSTRUMENT, "provenance of a run", storage_class=RECORD_CLASS),
)
"""Dataset types of the repository itself."""


def dataset_types() -> tuple[DatasetTypeSpec, ...]:
    """Dataset types that every repository has from the start: its own, and those that the rooms declare."""
    declared = (DatasetTypeSpec(p.name, p.dimensions, p.doc, p.is_calibration) for p in rooms.products().values())
    return (*OURS, *declared)


def raw_run(instrument: str) -> str:
    """RUN collection of an instrument's raws."""
    return f"{instrument}/raw/all"


def photodiode_run(instrument: str) -> str:
    """RUN collection of an instrument's photodiode readings."""
    return f"{instrument}/calib/photodiode"

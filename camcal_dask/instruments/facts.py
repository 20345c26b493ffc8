"""Facts of sensors and vendors that no geometry tells, from the tables beside the cameras."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from camcal_dask.instruments.geometry import folders, get_instrument, instrument_names, read_table

Dips = dict[str, tuple[int, float]]
"""Least width [pixel] and depth relative to the background, by detector name."""


class Vendor(NamedTuple):
    """What is expected of the sensors of a vendor."""

    a00: tuple[float, float]
    """Ends of the band of a00 [1/electron], both excluded, as upstream has them."""
    gain_slope: float
    """Relative rise of the gain of a pair with its mean [1/adu] (DM-35790)."""


@functools.cache
def vendors() -> Mapping[str, Vendor]:
    """Vendors by name, from ``instruments/vendors.csv``."""
    rows = csv.DictReader(files("camcal_dask.instruments").joinpath("vendors.csv").read_text().splitlines())
    return MappingProxyType(
        {
            row["vendor"]: Vendor((float(row["a00_low"]), float(row["a00_high"])), float(row["gain_slope_per_adu"]))
            for row in rows
        }
    )


def itl_dips() -> Dips:
    """ITL sensors with dips (reference/isr.md 2.21), from ``dips.csv`` of the cameras that have one."""
    return dict(_dips())


@functools.cache
def _dips() -> Dips:
    found: Dips = {}
    for folder in folders().values():
        if folder.joinpath("dips.csv").is_file():
            for row in read_table(folder, "dips.csv"):
                found.setdefault(row["detector"], (int(row["width_pix"]), float(row["depth"])))
    return found


def known_bad_amps(instrument: str) -> Mapping[tuple[str, str], str]:
    """Amps of a camera, as (detector name, amp name), that are shown but not judged, and why.

    Those of ``known_bad_amps`` in ``instrument.yaml``; none for a camera that is not known.
    """
    if instrument not in instrument_names():
        return {}
    found = get_instrument(instrument).settings.known_bad_amps
    return {(name[:-4], name[-3:]): reason for name, reason in found.items()}

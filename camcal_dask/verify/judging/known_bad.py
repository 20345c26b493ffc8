"""Amps that are known to be bad, by camera."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

KNOWN_BAD: Mapping[str, Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        "LSSTCam": MappingProxyType(
            {
                ("R42_S21", "C07"): "inconsistent linearizer and gain",
                ("R03_S01", "C10"): "extreme charge-transfer inefficiency",
                ("R03_S11", "C00"): "dead",
                ("R30_S00", "C10"): "dead",
                ("R41_S21", "C02"): "noisy",
                ("R43_S20", "C14"): "noisy",
            }
        )
    }
)
"""Amps shown but not judged, by camera (reference 1.14 and 7.16)."""

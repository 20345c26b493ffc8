"""Mask planes (names, bit numbers and bit values: reference/isr.md 3), and the value of a lost raw pixel.

Bits 0-10 are those of the LSST stack; 11-14, assigned in order of first use upstream,
are fixed here so that masks of different runs can be combined.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

import numpy as np

FILL = np.int32(np.iinfo(np.int32).min)
"""Raw value of a pixel that was never written."""

MASK_PLANES = MappingProxyType(
    {
        "BAD": 0,
        "SAT": 1,
        "INTRP": 2,
        "CR": 3,
        "EDGE": 4,
        "DETECTED": 5,
        "DETECTED_NEGATIVE": 6,
        "SUSPECT": 7,
        "NO_DATA": 8,
        "VIGNETTED": 9,
        "STREAK": 10,
        "CROSSTALK": 11,
        "ITL_DIP": 12,
        "UNMASKEDNAN": 13,
        "PARTLY_VIGNETTED": 14,
    }
)

BAD, SAT, INTRP, CR, EDGE, DETECTED, DETECTED_NEGATIVE, SUSPECT = (1 << bit for bit in range(8))
NO_DATA, VIGNETTED, STREAK, CROSSTALK, ITL_DIP, UNMASKEDNAN, PARTLY_VIGNETTED = (1 << bit for bit in range(8, 15))


def bits(names: Iterable[str]) -> int:
    """Return the OR of the bit values of the named planes; ``KeyError`` for an unknown name."""
    value = 0
    for name in names:
        value |= 1 << MASK_PLANES[name]
    return value

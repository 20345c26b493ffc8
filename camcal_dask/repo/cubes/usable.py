"""Amps for which a product is of no use: found when a detector is written, kept in its marker, read by reports.

A detector without any usable amp is not written at all: its quantum fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from camcal_dask.errors import DataError

if TYPE_CHECKING:
    from camcal_dask.instruments.geometry import Detector

Reasons = Mapping[str, str]
"""Why amps (by name) of a detector cannot be used."""
_KEY = "reasons"
_NAMED = 4


def with_reasons(record: Mapping[str, Any], detector: Detector, reasons: Reasons) -> dict[str, Any]:
    """Add to the record of a detector why some of its amps cannot be used.

    Raises
    ------
    DataError
        If that is all of them.
    """
    mine = {amp.name: reasons[amp.name] for amp in detector.amps if amp.name in reasons}
    if len(mine) == len(detector.amps):
        raise DataError(f"detector {detector.full_name}: none of its {len(mine)} amps can be used: {summed_up(mine)}")
    return {**record, _KEY: mine}


def unusable(uri: str, detectors: Iterable[int]) -> dict[int, dict[str, str]]:
    """Reasons by detector (id) and amp, of those detectors of a product that are written and have such amps."""
    from camcal_dask.repo.cubes import products

    indices, wanted = products.finished(uri), set(detectors)
    chosen = [(d, i) for d, i in zip(products.finished_detectors(uri) if indices else [], indices, strict=True)]
    found = {d: dict((products.product_record(uri, i) or {}).get(_KEY, {})) for d, i in chosen if d in wanted}
    return {d: reasons for d, reasons in found.items() if reasons}


def told(found: Mapping[int, Reasons], most: int) -> list[str]:
    """Return lines that name the amps, one a detector, at most so many and one that counts the rest."""
    lines = [f"detector {d}: {summed_up(reasons)}" for d, reasons in found.items()]
    rest = [f"and amps of {len(lines) - most} more detectors"] if len(lines) > most else []
    return lines[:most] + rest


def counted(n: int) -> str:
    """Return a number of amps in words."""
    return "1 amp" if n == 1 else f"{n} amps"


def count(found: Mapping[int, Reasons]) -> int:
    """Return the number of amps."""
    return sum(map(len, found.values()))


def summed_up(reasons: Reasons) -> str:
    """One line: amps of the same reason together."""
    amps: dict[str, list[str]] = {}
    for amp, reason in reasons.items():
        amps.setdefault(reason, []).append(amp)
    return "; ".join(f"{_listed(names)}: {reason}" for reason, names in amps.items())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

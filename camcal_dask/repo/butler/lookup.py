"""Which calibration is valid for an exposure: the Butler's rule, applied to one query's rows at once.

The first collection of the search order that has a dataset valid at the time of the exposure
wins, even if its range starts later than that of another collection (reference/operations.md 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from camcal_dask.errors import RepoError

_NSEC_MIN, _NSEC_MAX = 0, 4102444800 * 10**9  # [ns] the Butler's "unbounded": 1970 and 2100
Key = tuple[object, ...]
"""Values of a dataset type's dimensions, in its order."""


@dataclass(frozen=True)
class CalibRef:
    """A calibration found: what a worker needs to open it, and what provenance records."""

    uri: str
    run: str
    uuid: str
    detector: int | None
    dataset_type: str


@dataclass(frozen=True)
class Candidate:
    """A dataset in a collection, valid in [begin, end) TAI ns; None = unbounded or a RUN."""

    key: Key
    collection: str
    run: str
    uuid: str
    begin: int | None = None
    end: int | None = None
    ref: Any = field(default=None, compare=False)
    """The registry's own reference."""

    def valid(self, begin: int, end: int) -> bool:
        """Whether the validity range overlaps [begin, end)."""
        return (self.begin is None or self.begin < end) and (self.end is None or self.end > begin)


@dataclass(frozen=True)
class Candidates:
    """All datasets of one type in a list of collections, in search order."""

    dataset_type: str
    order: Sequence[str]
    by_key: Mapping[tuple[str, Key], list[Candidate]] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset_type: str, order: Sequence[str], candidates: Iterable[Candidate]) -> Candidates:
        """Sort candidates into their places."""
        table: dict[tuple[str, Key], list[Candidate]] = {}
        for candidate in candidates:
            table.setdefault((candidate.collection, candidate.key), []).append(candidate)
        return cls(dataset_type, tuple(order), table)

    def find(self, key: Key, begin: int, end: int) -> Candidate | None:
        """Dataset for one data ID and time span [begin, end) [TAI ns]; None if there is none.

        Raises
        ------
        RepoError
            If two datasets of one collection are valid.
        """
        for collection in self.order:
            valid = [c for c in self.by_key.get((collection, key), ()) if c.valid(begin, end)]
            if len(valid) > 1:
                raise RepoError(
                    f"{self.dataset_type} {key}: {collection} holds two that are valid at the exposure, from "
                    f"{valid[0].run} and {valid[1].run}; decertify one of them"
                )
            if valid:
                return valid[0]
        return None


def exposure_key(dimensions: Sequence[str], row: Any, detector: int) -> Key:
    """Values of a calibration's dimensions for an exposure and detector."""
    exposure = {"instrument": row.instrument, "exposure": row.id, "detector": detector}
    return tuple(exposure[d] if d in exposure else getattr(row, d) for d in dimensions)


def open_bounds(span: Any) -> tuple[int | None, int | None]:
    """(begin, end) of a timespan [TAI ns]; None where it is unbounded."""
    begin, end = span.nsec
    return (None if begin <= _NSEC_MIN else begin), (None if end >= _NSEC_MAX else end)


def exposure_bounds(row: Any) -> tuple[int, int]:
    """[begin, end) [TAI ns] of an exposure record.

    Raises
    ------
    RepoError
        If its header gave no time.
    """
    if row.timespan is None:
        raise RepoError(f"{row.obs_id}: its header has no time, so no calibration can be looked up; name a RUN instead")
    begin, end = row.timespan.nsec
    return begin, end


def overlapping(refs: Sequence[Any], timespan: Any, certified: Candidates, collection: str) -> str | None:
    """Describe the first dataset whose certified range overlaps, or None."""
    low, high = timespan.nsec
    for ref in refs:
        for there in certified.by_key.get((collection, tuple(ref.dataId.required_values)), ()):
            if there.valid(low, high):
                other = range_text(there.begin, there.end)
                return (
                    f"{collection}: {ref.datasetType.name} of {ref.run}, {ref.dataId}, cannot be certified for "
                    f"{range_text(*open_bounds(timespan))}: {there.run} is valid for {other}; choose another range"
                )
    return None


def range_text(begin: int | None, end: int | None) -> str:
    """Validity range for messages."""
    times = ["unbounded" if n is None else time_text(n) for n in (begin, end)]
    return f"[{times[0]}, {times[1]})"


def time_text(nsec: int) -> str:
    """TAI time of nanoseconds since 1970, for messages."""
    return str(np.datetime64(nsec, "ns"))[:19] + " TAI"


def ranges(found: Candidates) -> set[tuple[str, int | None, int | None]]:
    """Datasets found, with their validity."""
    return {(c.uuid, c.begin, c.end) for group in found.by_key.values() for c in group}

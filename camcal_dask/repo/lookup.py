"""Which calibration is valid for an exposure: the Butler's rule, applied to one query's rows at once.

The first collection of the search order that has a dataset valid at the time of the exposure
wins, even if its range starts later than that of another collection (reference/operations.md 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from camcal_dask.errors import RepoError

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

"""Collections: which there are, their chains, and what is certified in them; the part of `Repo` that arranges."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, TypeVar

import numpy as np
from astropy.time import Time
from lsst.daf.butler import (
    CollectionType,
    DatasetRef,
    MissingCollectionError,
    MissingDatasetTypeError,
    Timespan,
)
from lsst.daf.butler._exceptions import ButlerUserError
from lsst.daf.butler.registry import RegistryError

from camcal_dask.errors import RepoError, nearest
from camcal_dask.repo import schema
from camcal_dask.repo.butler.lookup import Candidates, open_bounds, overlapping
from camcal_dask.repo.butler.queries import Names, ProductQueries
from camcal_dask.repo.storage import naming

T = TypeVar("T")
Moment = Any
"""A time in TAI: astropy Time, datetime, ISO text, an observing day YYYYMMDD (12:00 TAI), or None = unbounded."""
_EARLIEST, _LATEST = Time("1970-01-01", scale="tai"), Time("2100-01-01", scale="tai")
"""Between them lie the times that the registry can tell from unbounded."""
ChainMode = Literal["redefine", "extend", "remove", "prepend", "pop"]
USER_ERRORS = (ButlerUserError, RegistryError, MissingCollectionError, MissingDatasetTypeError, OverflowError)


@dataclass(frozen=True)
class Collection:
    """A collection: ``kind`` is RUN, TAGGED, CALIBRATION or CHAINED."""

    name: str
    kind: str
    children: tuple[str, ...] = ()


class Curation(ProductQueries):
    """Arranging collections; `Repo` inherits it."""

    @property
    def instruments(self) -> tuple[str, ...]:
        """Names of the registered cameras (`Repo.instruments`)."""
        raise NotImplementedError

    def _patiently(self, action: Callable[[], T], what: str) -> T:
        raise NotImplementedError

    def check_output(self, run: str) -> None:
        """Refuse what cannot be a RUN to write products into, before anything is done.

        Raises
        ------
        RepoError
            If the name cannot be one, is that of a collection of another kind, or holds what was ingested.
        """
        self._check_kind(run, "RUN")
        if run in {place(name) for name in self.instruments for place in (schema.raw_run, schema.photodiode_run)}:
            raise RepoError(f"{run}: holds what was ingested; choose another output collection, such as u/me/bias.1")

    def _check_kind(self, name: str, kind: str) -> Collection | None:
        """Return the collection of this name, if it is there; another kind of collection is refused."""
        naming.check_collection(name)
        found = next(iter(self.collections(name)), None)
        if found is not None and found.kind != kind:
            raise RepoError(f"{name}: is a {found.kind} collection, here a {kind} is needed; choose another name")
        return found

    def collections(self, glob: str = "*", kind: str | None = None) -> list[Collection]:
        """Collections whose name matches, of one kind (RUN, CALIBRATION ...) or all, with children."""
        try:
            found = self.butler.collections.query_info(glob)
        except MissingCollectionError:
            return []
        listed = [Collection(c.name, c.type.name, tuple(c.children)) for c in found]
        return sorted((c for c in listed if kind in (None, c.kind)), key=lambda c: c.name)

    def chain(self, parent: str, children: Names = (), mode: ChainMode = "redefine") -> tuple[str, ...]:
        """Change a CHAINED collection (made if needed) as ``butler collection-chain`` does; return its children.

        Parameters
        ----------
        parent : str
            The chain.
        children : str or list of str
            Collections, highest priority first; nothing for ``pop``, which takes the first child off.
        mode : str
            ``redefine``, ``extend``, ``remove``, ``prepend`` or ``pop``.
        """
        names = [children] if isinstance(children, str) else list(children)
        act = self.butler.collections
        modes = {
            "redefine": act.redefine_chain,
            "extend": act.extend_chain,
            "remove": act.remove_from_chain,
            "prepend": act.prepend_chain,
            "pop": lambda chain, _: act.remove_from_chain(chain, act.get_info(chain).children[:1]),
        }
        if mode not in modes:
            raise RepoError(f"chain {parent}: unknown mode {mode!r}{nearest(mode, modes)}")
        self._check_kind(parent, "CHAINED")
        grows = mode in {"redefine", "extend", "prepend"}
        if grows and parent in self._members(names):
            raise RepoError(f"chain {parent}: {', '.join(names)} would contain the chain itself")

        def change() -> tuple[str, ...]:
            if grows:
                act.register(parent, type=CollectionType.CHAINED)
            modes[mode](parent, names)
            return tuple(act.get_info(parent).children)

        try:
            return self._patiently(change, f"chain {parent}")
        except USER_ERRORS as error:
            raise RepoError(f"chain {parent} {mode} {names}: {error}") from error

    def certify(
        self,
        source: str,
        dataset_type: str,
        collection: str,
        begin: Moment = None,
        end: Moment = None,
        *,
        instrument: str | None = None,
    ) -> list[str]:
        """Give the datasets of a RUN a validity range in a CALIBRATION collection (made if needed).

        Repeating an identical certification changes nothing.

        Parameters
        ----------
        source : str
            RUN, or CHAINED collection of RUNs: of every data ID the first dataset in its order.
        dataset_type : str
            What to certify.
        collection : str
            Where.
        begin, end : Moment
            Half-open range in TAI; None is unbounded, as is what lies before 1970 or after 2100.
        instrument : str, optional
            Of the source take the datasets of this camera only.

        Returns
        -------
        list of str
            UUIDs of the datasets valid in that range.

        Raises
        ------
        RepoError
            If the range is empty or no time, nothing is there, the source is a CALIBRATION collection, or the range of
            another certified dataset overlaps.
        """
        timespan = validity(begin, end, f"certify {dataset_type} of {source}")
        self._check_kind(collection, "CALIBRATION")
        refs = self.certifiable(source, dataset_type, instrument)

        def insert() -> list[str]:
            self.butler.collections.register(collection, type=CollectionType.CALIBRATION)
            there = self._candidates(dataset_type, collection)  # once: another client may certify the same now
            done = ranges(there)
            fresh = [r for r in refs if (str(r.id), *open_bounds(timespan)) not in done]
            if clash := overlapping(fresh, timespan, there, collection):
                raise RepoError(clash)
            self.butler.registry.certify(collection, fresh, timespan)
            return [str(r.id) for r in refs]

        return self._patiently(insert, f"certifying {dataset_type} of {source} in {collection}")

    def certifiable(self, source: str, dataset_type: str, instrument: str | None = None) -> list[DatasetRef]:
        """References that `certify` takes: one for each data ID.

        Raises
        ------
        RepoError
            If there is none, or they have validity ranges already.
        """
        if not self.is_calibration(dataset_type):
            raise RepoError(f"{dataset_type} of {source}: is no calibration, so it cannot be certified")
        for name in self._flatten([source]):
            if self.butler.collections.get_info(name).type is CollectionType.CALIBRATION:
                raise RepoError(
                    f"{source}: {name} is a CALIBRATION collection, whose datasets have validity ranges already; name "
                    "the RUN that holds them"
                )
        camera = None if instrument is None else self.instrument(instrument).name
        first = self._first_by_key(dataset_type, source)
        refs = [c.ref for c in first.values() if camera in (None, c.ref.dataId["instrument"])]
        if not refs:
            of = "" if camera is None else f" of {camera}"
            raise RepoError(f"{source}: holds no {dataset_type}{of}; it is in {self._names(dataset_type)}")
        return refs

    def _members(self, collections: Sequence[str]) -> set[str]:
        """Collections, and all that their chains contain, chains too."""
        found = set(collections)
        for name in collections:
            self._flatten([name])  # names one that does not exist
            info = self.butler.collections.get_info(name)
            found |= self._members(info.children) if info.type is CollectionType.CHAINED else set()
        return found

    def _flatten(self, collections: Sequence[str]) -> list[str]:
        """Search order without chains."""
        order: list[str] = []
        for name in collections:
            try:
                info = self.butler.collections.get_info(name)
            except MissingCollectionError:
                known = [c.name for c in self.collections()]
                raise RepoError(f"{self.root}: no collection {name!r}{nearest(name, known)}") from None
            inner = self._flatten(info.children) if info.type is CollectionType.CHAINED else [name]
            order.extend(n for n in inner if n not in order)
        return order


def ranges(found: Candidates) -> set[tuple[str, int | None, int | None]]:
    """Datasets found, with their validity."""
    return {(c.uuid, c.begin, c.end) for group in found.by_key.values() for c in group}


def validity(begin: Moment, end: Moment, what: str) -> Timespan:
    """Validity range [begin, end).

    Raises
    ------
    RepoError
        If one of them is no time, or nothing lies between them.
    """
    try:
        first, last = _moment(begin), _moment(end)
        if first is not None and first.jd > _LATEST.jd or last is not None and last.jd <= _EARLIEST.jd:
            raise RepoError(f"validity from {begin} to {end} is outside of 1970 to 2100, which the registry knows")
        first = None if first is None or first.jd <= _EARLIEST.jd else first
        last = None if last is None or last.jd > _LATEST.jd else last
        timespan = Timespan(first, last, padInstantaneous=False)  # else begin = end would be valid for 1 ns
    except RepoError as error:
        raise RepoError(f"{what}: {error}") from None
    if timespan.isEmpty():
        raise RepoError(f"{what}: validity from {begin} to {end} is empty; it begins before it ends")
    return timespan


def _moment(value: Moment) -> Time | None:
    """Time in TAI; an observing day begins at 12:00."""
    value = getattr(value, "item", lambda: value)() if isinstance(value, np.integer | np.str_) else value
    try:
        if value is None:
            return None
        if isinstance(value, str) and re.fullmatch(r"[0-9]{8}", value) or type(value) is int:
            day = datetime.strptime(f"{int(value):08d}", "%Y%m%d")  # noqa: DTZ007 -- TAI has no zone
            return Time(day + timedelta(hours=12), scale="tai")
        if isinstance(value, Time):
            moment = value.tai
        elif isinstance(value, datetime) and value.tzinfo is not None:
            moment = Time(value.astimezone(UTC), scale="utc").tai
        elif isinstance(value, date | np.datetime64) or (isinstance(value, str) and value.strip()):
            with warnings.catch_warnings():  # a second 60, which TAI does not have, is only warned of
                warnings.simplefilter("error")
                moment = Time(str(value) if type(value) is date else value, scale="tai")
        else:
            raise ValueError
        if not moment.isscalar or not np.isfinite(moment.jd):
            raise ValueError
    except (ValueError, OverflowError, Warning) as error:
        raise RepoError(f"time {value!r}: expected 2026-08-12, 2026-08-12T12:00:00 (TAI) or 20260812") from error
    return moment

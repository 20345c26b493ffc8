"""Certification: the validity ranges of calibrations."""

from __future__ import annotations

import re
import warnings
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from astropy.time import Time
from lsst.daf.butler import CollectionType, DatasetRef, Timespan

from camcal_dask.errors import RepoError
from camcal_dask.repo.butler import arranging, finding, opened
from camcal_dask.repo.butler.lookup import open_bounds, overlapping, ranges
from camcal_dask.repo.butler.opened import Opened

Moment = Any
"""A time in TAI: astropy Time, datetime, ISO text, an observing day YYYYMMDD (12:00 TAI), or None = unbounded."""
_EARLIEST, _LATEST = Time("1970-01-01", scale="tai"), Time("2100-01-01", scale="tai")
"""Between them lie the times that the registry can tell from unbounded."""


def certify(
    repo: Opened,
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
    dataset_type, collection : str
        What to certify, and where.
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
        If the range is empty or no time, the source holds none or is a CALIBRATION collection, or ranges overlap.
    """
    timespan = validity(begin, end, f"certify {dataset_type} of {source}")
    arranging.check_kind(repo, collection, "CALIBRATION")
    refs = certifiable(repo, source, dataset_type, instrument)

    def insert() -> list[str]:
        repo.butler.collections.register(collection, type=CollectionType.CALIBRATION)
        there = finding.candidates_of(repo, dataset_type, collection)  # once: another client may certify the same now
        done = ranges(there)
        fresh = [r for r in refs if (str(r.id), *open_bounds(timespan)) not in done]
        if clash := overlapping(fresh, timespan, there, collection):
            raise RepoError(clash)
        repo.butler.registry.certify(collection, fresh, timespan)
        return [str(r.id) for r in refs]

    return opened.patiently(repo, insert, f"certifying {dataset_type} of {source} in {collection}")


def certifiable(repo: Opened, source: str, dataset_type: str, instrument: str | None = None) -> list[DatasetRef]:
    """References that `certify` takes: one for each data ID.

    Raises
    ------
    RepoError
        If there is none, or they have validity ranges already.
    """
    if not finding.is_calibration(repo, dataset_type):
        raise RepoError(f"{dataset_type} of {source}: is not a calibration, so it cannot be certified")
    for name in arranging.flatten(repo, [source]):
        if repo.butler.collections.get_info(name).type is CollectionType.CALIBRATION:
            raise RepoError(
                f"{source}: {name} is a CALIBRATION collection, whose datasets have validity ranges already; name "
                "the RUN that holds them"
            )
    camera = None if instrument is None else opened.instrument(repo, instrument).name
    first = finding.first_by_key(repo, dataset_type, source)
    refs = [c.ref for c in first.values() if camera in (None, c.ref.dataId["instrument"])]
    if not refs:
        of = "" if camera is None else f" of {camera}"
        raise RepoError(f"{source}: holds no {dataset_type}{of}; it is in {finding.holders(repo, dataset_type)}")
    return refs


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
            raise RepoError(
                f"validity from {begin} to {end} is outside the years 1970 to 2100, to which the registry is limited"
            )
        first = None if first is None or first.jd <= _EARLIEST.jd else first
        last = None if last is None or last.jd > _LATEST.jd else last
        timespan = Timespan(first, last, padInstantaneous=False)  # else begin = end would be valid for 1 ns
    except RepoError as error:
        raise RepoError(f"{what}: {error}") from None
    if timespan.isEmpty():
        raise RepoError(f"{what}: validity from {begin} to {end} is empty: it must begin before it ends")
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

"""Rows of the Butler's dimension tables, as plain dictionaries (reference/raw_format.md 1.8, universe 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any

from camcal_dask.instruments import Instrument
from camcal_dask.raw_fits.header import ExposureRecord

Row = dict[str, Any]
SpanFactory = Callable[[int | None, int | None], Any]
"""Makes the registry's timespan of TAI nanoseconds [begin, end)."""
NSEC_PER_DAY = 86_400 * 10**9
MJD_1970 = 40587.0
_LIMITS = {"obs_id": 64, "group": 64, "observation_type": 16, "observation_reason": 68, "target_name": 64}
_LIMITS |= {"science_program": 64, "physical_filter": 32}


def instrument_row(instrument: Instrument) -> Row:
    """``instrument`` record."""
    settings = instrument.settings
    return {
        "name": instrument.name,
        "exposure_max": settings.exposure_max,
        "visit_max": settings.exposure_max,
        "detector_max": settings.detector_max,
        "visit_system": 2,  # by-seq-start-end
        "class_name": settings.class_name,
    }


def detector_rows(instrument: Instrument) -> list[Row]:
    """``detector`` records; LATISS, which has no raft, as the LSST stack has it."""
    rows = []
    for d in instrument.detectors.values():
        raftless = d.raft == "RXX"
        rows.append(
            {
                "instrument": instrument.name,
                "id": d.id,
                "full_name": d.full_name,
                "raft": None if raftless else d.raft,
                "name_in_raft": d.full_name if raftless else d.name_in_raft,
                "purpose": d.purpose,
            }
        )
    return rows


def filter_rows(instrument: Instrument, names: Iterable[str] | None = None) -> list[Row]:
    """``physical_filter`` records of the named filters (default: all in the camera's table)."""
    chosen = sorted(set(instrument.filters if names is None else names))
    return [
        {"instrument": instrument.name, "name": _cut("physical_filter", n), "band": band(n, instrument)} for n in chosen
    ]


def band(physical_filter: str, instrument: Instrument) -> str:
    """Band of a filter; combinations that are not in the camera's table follow the first glass in it.

    ``a~b`` takes the band of ``a``; a neutral density behind it adds ``~nd`` (reference/raw_format.md 1.10).
    Anything else is ``unknown``: a strange filter wheel must not stop an ingest.
    """
    if physical_filter in instrument.filters:
        return instrument.filters[physical_filter]
    first, *rest = physical_filter.split("~")
    base = instrument.filters.get(first, "unknown")
    dense = any(part.startswith("ND_OD") for part in rest)
    return f"{base}~nd" if dense and base != "unknown" else base


def group_rows(records: Iterable[ExposureRecord]) -> list[Row]:
    """``group`` records of exposures."""
    pairs = sorted({(r.instrument, _cut("group", r.group)) for r in records})
    return [{"instrument": instrument, "name": name} for instrument, name in pairs]


def day_rows(records: Iterable[ExposureRecord], span: SpanFactory) -> list[Row]:
    """``day_obs`` records: 24 hours from TAI midnight plus the camera's offset."""
    rows = []
    for instrument, day, offset in sorted({(r.instrument, r.day_obs, r.day_offset_s) for r in records}):
        begin = day_begin_nsec(day, offset)
        rows.append({"instrument": instrument, "id": day, "timespan": span(begin, begin + NSEC_PER_DAY)})
    return rows


def day_begin_nsec(day_obs: int, offset_s: int) -> int:
    """Begin of an observing day YYYYMMDD, TAI ns since 1970; TAI has no leap seconds."""
    day = date(day_obs // 10000, day_obs // 100 % 100, day_obs % 100)
    return (day - date(1970, 1, 1)).days * NSEC_PER_DAY + offset_s * 10**9


def exposure_row(record: ExposureRecord, span: SpanFactory) -> Row:
    """``exposure`` record; a zero-length exposure becomes 1 ns."""
    timespan = None
    if record.begin_tai_nsec is not None:
        end = record.begin_tai_nsec if record.end_tai_nsec is None else record.end_tai_nsec
        timespan = span(record.begin_tai_nsec, max(end, record.begin_tai_nsec + 1))
    row: Row = {
        "instrument": record.instrument,
        "id": record.exposure,
        "exposure_time": record.exposure_time_s,
        "dark_time": record.dark_time_s,
        "tracking_ra": record.tracking_ra_deg,
        "tracking_dec": record.tracking_dec_deg,
        "sky_angle": record.sky_angle_deg,
        "azimuth": record.azimuth_deg,
        "zenith_angle": record.zenith_angle_deg,
        "timespan": timespan,
    }
    same = ("day_obs", "seq_num", "seq_start", "seq_end", "has_simulated", "can_see_sky")
    row |= {name: getattr(record, name) for name in same}
    row |= {name: _cut(name, getattr(record, name)) for name in _LIMITS}
    return row


def _cut(field: str, text: str | None) -> str | None:
    """Shorten to the Butler's column, which would refuse the exposure otherwise."""
    return text if text is None else text[: _LIMITS[field]]


def mjd(begin_tai_nsec: int | None) -> float:
    """TAI MJD [d] of a time in TAI nanoseconds since 1970; NaN for None."""
    return float("nan") if begin_tai_nsec is None else MJD_1970 + begin_tai_nsec / NSEC_PER_DAY


def one_per_exposure(records: Iterable[ExposureRecord]) -> list[ExposureRecord]:
    """First record of each exposure: the Butler keeps what came first (reference/raw_format.md 6.11)."""
    kept: dict[tuple[str, int], ExposureRecord] = {}
    for record in records:
        kept.setdefault((record.instrument, record.exposure), record)
    return list(kept.values())


def by_instrument(records: Iterable[ExposureRecord]) -> Mapping[str, list[ExposureRecord]]:
    """Group records by camera."""
    groups: dict[str, list[ExposureRecord]] = {}
    for record in records:
        groups.setdefault(record.instrument, []).append(record)
    return groups

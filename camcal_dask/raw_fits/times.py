"""Times of raw headers in integer TAI nanoseconds since 1970-01-01T00:00:00 TAI (reference/raw_format.md 1.4, 1.5).

Integers, because a float holds no nanoseconds, and because the Butler stores integers.  TAI
needs no tables, so the common path is arithmetic; other time scales go through astropy.
"""

from __future__ import annotations

import datetime
import functools
import math
import re

SECOND_NSEC = 1_000_000_000
DAY_NSEC = 86_400 * SECOND_NSEC
NOON_S = 43_200
"""Offset of ``day_obs`` on the mountain: a day runs from noon to noon TAI [s]."""

_EPOCH_MJD = 40_587
_EPOCH_ORDINAL = datetime.date(1970, 1, 1).toordinal()
_EPOCH_HALF_DAYS = 4_881_175  # 2 x Julian date 2440587.5
_SCALES = ("utc", "tt")
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d*))?)?)?Z?")


def mjd_to_nsec(mjd: float) -> int:
    """Convert a modified Julian date [day] to nanoseconds of the same time scale.

    A float64 MJD of this century resolves 0.6 us; its value is taken as exact.
    """
    day = math.floor(mjd)
    return (day - _EPOCH_MJD) * DAY_NSEC + round((mjd - day) * DAY_NSEC)


def iso_to_nsec(text: str) -> int:
    """Convert an ISO 8601 date and time to nanoseconds of the same time scale.

    Raises
    ------
    ValueError
        If the text is no date.
    """
    match = _ISO.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not YYYY-MM-DDThh:mm:ss")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError(f"{text!r} has no valid time of day")
    days = datetime.date(year, month, day).toordinal() - _EPOCH_ORDINAL
    fraction = int((match[7] or "0")[:9].ljust(9, "0"))
    return days * DAY_NSEC + ((hour * 60 + minute) * 60 + second) * SECOND_NSEC + fraction


@functools.lru_cache(maxsize=4096)
def to_tai_nsec(text: str, scale: str) -> int:
    """Convert an ISO date and time in a time scale (``tai``, ``utc`` or ``tt``) to TAI nanoseconds.

    Raises
    ------
    ValueError
        If the date or the scale is not valid.
    """
    if scale == "tai":
        return iso_to_nsec(text)
    if scale not in _SCALES:
        raise ValueError(f"time scale {scale!r} is none of tai, {', '.join(_SCALES)}")
    from astropy.time import Time  # slow to import, wanted by early headers only

    iso_to_nsec(text)  # one judgement of what a date is, for every scale
    tai = Time(text.strip().removesuffix("Z").replace(" ", "T"), scale=scale).tai
    # jd1 is a multiple of half a day: the sum below is exact to the nanosecond.
    return (int(2 * tai.jd1) - _EPOCH_HALF_DAYS) * (DAY_NSEC // 2) + round(float(tai.jd2) * DAY_NSEC)


def day_of(nsec: int) -> datetime.date:
    """Calendar day of a time."""
    return datetime.date.fromordinal(nsec // DAY_NSEC + _EPOCH_ORDINAL)


def pacific_offset_s(nsec: int) -> int:
    """Offset of US Pacific local time from UTC, west positive [s]: 25200 in summer, 28800 in winter.

    The laboratory years (2019-2024) counted days in local time.  The rule is that in force since
    2007: summer time from the second Sunday of March to the first Sunday of November, 2:00 local
    time.  The 37 s between TAI and UTC are ignored, as upstream does.
    """
    year = day_of(nsec).year
    march = _first_sunday(year, 3) + datetime.timedelta(days=7)
    november = _first_sunday(year, 11)
    start = iso_to_nsec(f"{march}T10:00:00")  # 2:00 standard time
    end = iso_to_nsec(f"{november}T09:00:00")  # 2:00 summer time
    return 25_200 if start <= nsec < end else 28_800


def _first_sunday(year: int, month: int) -> datetime.date:
    first = datetime.date(year, month, 1)
    return first + datetime.timedelta(days=(6 - first.weekday()) % 7)

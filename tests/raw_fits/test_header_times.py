"""Integer TAI times against astropy.time and against the time-zone database."""

from __future__ import annotations

import datetime
import zoneinfo

import pytest
from astropy.time import Time

from camcal_dask.raw_fits.times import DAY_NSEC, day_of, iso_to_nsec, mjd_to_nsec, pacific_offset_s, to_tai_nsec


def astropy_nsec(time: Time) -> int:
    delta = time.tai - Time("1970-01-01T00:00:00", scale="tai")
    return int(delta.jd1) * DAY_NSEC + round(delta.jd2 * DAY_NSEC) + round((delta.jd1 % 1.0) * DAY_NSEC)


@pytest.mark.parametrize("mjd", [51591.0934411944, 58562.5, 60781.03696264839, 61114.95202352386, 40587.0])
def test_mjd(mjd: float) -> None:
    assert mjd_to_nsec(mjd) == pytest.approx(astropy_nsec(Time(mjd, format="mjd", scale="tai")), abs=1)


@pytest.mark.parametrize(
    "text", ["2010-02-17T02:14:40.319", "2025-04-16T00:53:29.528000001", "2024-02-29", "2024-02-29T12:30"]
)
@pytest.mark.parametrize("scale", ["tai", "utc", "tt"])
def test_iso(text: str, scale: str) -> None:
    assert to_tai_nsec(text, scale) == pytest.approx(astropy_nsec(Time(text, scale=scale)), abs=1)


def test_leap_seconds() -> None:
    assert iso_to_nsec("1970-01-02") == DAY_NSEC
    shift = [to_tai_nsec(day, "utc") - iso_to_nsec(day) for day in ("2010-01-01", "2016-12-31", "2017-01-01")]
    assert shift == [34_000_000_000, 36_000_000_000, 37_000_000_000]


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2025-02-29", "2025-01-01T24:00:00", "2025-01-01T00:60:00", "01/02/2025"]
)
@pytest.mark.parametrize("scale", ["tai", "utc"])
def test_wrong_dates(text: str, scale: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        to_tai_nsec(text, scale)


def test_unknown_scale() -> None:
    with pytest.raises(ValueError, match="'local'"):
        to_tai_nsec("2025-01-01T00:00:00", "local")


@pytest.mark.parametrize("year", range(2018, 2025))
def test_pacific_offset_equals_the_time_zone_database(year: int) -> None:
    try:
        pacific = zoneinfo.ZoneInfo("America/Los_Angeles")
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip("needs a time-zone database")
    start = datetime.datetime(year, 1, 1, tzinfo=datetime.UTC)
    for hours in range(0, 365 * 24, 3):
        moment = start + datetime.timedelta(hours=hours)
        offset = moment.astimezone(pacific).utcoffset()
        assert offset is not None
        nsec = int(moment.timestamp()) * 1_000_000_000
        assert pacific_offset_s(nsec) == -offset.total_seconds(), moment


def test_day_of() -> None:
    assert day_of(iso_to_nsec("2024-02-29T23:59:59.999999999")) == datetime.date(2024, 2, 29)

"""Validity ranges."""

from datetime import UTC, datetime

import numpy as np
import pytest
from astropy.time import Time

from camcal_dask.errors import RepoError
from camcal_dask.repo.butler.certifying import validity
from tests.repo.conftest import EXPOSURES, NOON_20260812

INF = float("inf")

TAI_NOON = "2026-08-12T12:00:00"


def test_overlapping_certification_names_both(certified):
    with pytest.raises(RepoError) as caught:
        certified.certify("u/me/b2", "bias", "TinyCam/calib/a", "2026-08-12T18:00:00", None)
    for text in ("TinyCam/calib/a", "u/me/b2", "[2026-08-12T18:00:00 TAI, unbounded)", "u/me/b1"):
        assert text in str(caught.value)
    assert "[2026-08-12T12:00:00 TAI, 2026-08-13T12:00:00 TAI)" in str(caught.value)


def test_certifying_again_changes_nothing_and_adjacent_is_fine(certified):
    again = certified.certify("u/me/b1", "bias", "TinyCam/calib/a", 20260812, 20260813)
    assert len(again) == 2
    certified.certify("u/me/b2", "bias", "TinyCam/calib/a", "2026-08-13T12:00:00", None)
    assert certified.find_calib("bias", EXPOSURES[4], 1, "TinyCam/calib/a").run == "u/me/b2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("u/me/b1", "bias", "c", 20260813, 20260812), "is empty"),
        (("u/me/b1", "bias", "c", "yesterday"), "expected 2026-08-12"),
        (("u/me/b9", "bias", "c"), "u/me/b9"),
        (("u/me/b1", "biasBootstrap", "c"), "holds no biasBootstrap"),
    ],
)
def test_certifying_nonsense(certified, arguments, message):
    with pytest.raises(RepoError, match=message):
        certified.certify(*arguments)


@pytest.mark.parametrize(
    "begin",
    [20260812, np.int64(20260812), "20260812", np.str_("20260812"), TAI_NOON, f"{TAI_NOON[:10]} 12:00:00",
     Time(TAI_NOON, scale="tai"), Time("2026-08-12T11:59:23", scale="utc"), datetime.fromisoformat(TAI_NOON),
     datetime(2026, 8, 12, 11, 59, 23, tzinfo=UTC), np.datetime64(TAI_NOON)],
    ids=repr,
)  # fmt: skip
def test_times_are_tai_and_a_day_begins_at_noon(begin):
    assert validity(begin, None, "").nsec[0] == NOON_20260812


@pytest.mark.parametrize(
    "begin",
    ["", " ", "yesterday", "99999999", 99999999, 20261345, "2026-02-30", "2026", "nan", 0, -5, 1.5, INF, True,
     [20260812], "2026-08-12T25:00:00", Time([TAI_NOON], scale="tai"), "\u00b20260812", 2 * 10**9, b"20260812",
     "2026-08-12T12:00:00Z", "2016-12-31T23:59:60"],
    ids=repr,
)  # fmt: skip
def test_dates_that_are_none_are_refused_in_one_line(begin):
    for span in ((begin, None), (None, begin)):
        with pytest.raises(RepoError, match=r"certify x: time .* expected 2026-08-12") as caught:
            validity(*span, "certify x")
        assert "\n" not in str(caught.value)


def test_ranges_that_are_none_are_refused_and_far_ones_are_unbounded():
    for begin, end in ((20260812, 20260812), (20260813, 20260812), (TAI_NOON, "20260812")):
        with pytest.raises(RepoError, match="is empty: it must begin before it ends"):
            validity(begin, end, "certify x")
    for span in (("2150-01-01", None), (None, "1950-01-01"), ("2150-01-01", "2160-01-01")):
        with pytest.raises(RepoError, match="outside the years 1970 to 2100"):
            validity(*span, "certify x")
    assert validity("1950-01-01", "2150-01-01", "") == validity(None, None, "")
    assert validity("1950-01-01", "2050-01-01", "") == validity(None, "2050-01-01", "")


def test_a_chain_is_certified_in_search_order(certified):
    """Two datasets for detector 1 are in the chain: the first one is taken, as in a search."""
    certified.chain("u/both", ["u/me/b2", "u/me/b1"])
    assert len(certified.certify("u/both", "bias", "u/calib")) == 3
    assert {one.key[1]: one.run for one in certified.certified("bias", "u/calib")} == {
        0: "u/me/b1", 1: "u/me/b2", 3: "u/me/b2",
    }  # fmt: skip
    for source in ("TinyCam/calib/a", "TinyCam/calib"):
        with pytest.raises(RepoError, match="is a CALIBRATION collection, whose datasets have validity ranges already"):
            certified.certify(source, "bias", "u/calib2")
    with pytest.raises(RepoError, match="raw of TinyCam/raw/all: is not a calibration"):
        certified.certify("TinyCam/raw/all", "raw", "u/calib2")
    assert certified.collections("u/calib2") == []

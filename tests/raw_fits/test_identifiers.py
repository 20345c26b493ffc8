"""Ids against the values printed in reference/raw_format.md 1.2, 1.3 and 1.8."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camcal_dask.errors import DataError
from camcal_dask.raw_fits.identifiers import (
    detector_exposure_id,
    exposure_id,
    group_id,
    unpack_exposure_id,
)


@pytest.mark.parametrize(
    ("day_obs", "seq_num", "controller", "expected"),
    [
        (20240318, 43, None, 2024031800043),
        (20240318, 1, "H", 4024031800001),
        (20231004, 1, "C", 3023100400001),
        (20231005, 1, "C", 2023100500001),
        (20250417, 101, "P", 5025041700101),
        (20250418, 101, "P", 2025041800101),
        (20250417, 42, "S", 7025041700042),
        (20250418, 42, "Q", 2025041800042),
        (20260315, 99999, "H", 4026031599999),
        (20190319, 1, "O", 2019031900001),
    ],
)
def test_exposure_id(day_obs: int, seq_num: int, controller: str | None, expected: int) -> None:
    assert exposure_id(day_obs, seq_num, controller) == expected


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((20240318, 100_000, "O"), "100000"),
        ((20240318, -1, "O"), "-1"),
        ((20240318, 1, "X"), "'X'"),
        ((20240318, 1, "OC"), "'OC'"),
        ((20240318, 1, ""), "''"),
        ((20240332, 1, "O"), "20240332"),
        ((2024031, 1, "O"), "2024031"),
        ((30240318, 1, "O"), "30240318"),
    ],
)
def test_wrong_exposure_ids_are_refused(arguments: tuple[int, int, str], named: str) -> None:
    with pytest.raises(DataError, match=named):
        exposure_id(*arguments)


@given(
    st.dates(min_value=datetime.date(2000, 1, 1), max_value=datetime.date(2999, 12, 31)),
    st.integers(0, 99_999),
    st.sampled_from("OCHPQS"),
)
def test_unpacking_inverts(date: datetime.date, seq_num: int, controller: str) -> None:
    day_obs = int(f"{date:%Y%m%d}")
    exposure = exposure_id(day_obs, seq_num, controller)
    found = unpack_exposure_id(exposure)
    assert found[:2] == (day_obs, seq_num)
    assert found[2] == controller or (found[2] == "O" and exposure < 3_000_000_000_000)


@pytest.mark.parametrize("exposure", [0, 1024031800043, 8024031800043, 2024033200043])
def test_no_exposure_id(exposure: int) -> None:
    with pytest.raises(DataError, match="day_obs|exposure id"):
        unpack_exposure_id(exposure)


@pytest.mark.parametrize(
    ("exposure", "detector", "expected"), [(2026031500051, 1, 0xB8E803301), (3019031900001, 29, 0x269200011D)]
)
def test_detector_exposure_id(exposure: int, detector: int, expected: int) -> None:
    assert detector_exposure_id(exposure, detector) == expected


@pytest.mark.parametrize(("exposure", "detector"), [(2026031500051, 256), (2026031532768, 1), (2009123100001, 1)])
def test_detector_exposure_id_must_fit(exposure: int, detector: int) -> None:
    with pytest.raises(DataError, match="is not in 0"):
        detector_exposure_id(exposure, detector)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2026-03-15T22:50:34.110", 3535446341100000),
        ("2026-03-15T22:50:34.110#12", 3535446341100012),
        ("2026-03-15T22:50:34.110+3", 3535446341100003),
        ("4010021706001", 4010021706001),
        ("0017", 17),
    ],
)
def test_group_id(name: str, expected: int) -> None:
    assert group_id(name) == expected


def test_group_id_of_free_text_ends_with_its_length() -> None:
    # b2sum of the text "bias_0027_0100" starts 7f07aeca0ef733 (coreutils).
    assert group_id("bias_0027_0100") == int(f"{int(BIAS_GROUP_DIGEST, 16)}14")


BIAS_GROUP_DIGEST = "7f07aeca0ef733"

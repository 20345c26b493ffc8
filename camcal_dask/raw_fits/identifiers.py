"""Numbers that name exposures, groups and detectors of exposures (reference/raw_format.md 1.2, 1.3, 1.8)."""

from __future__ import annotations

import datetime
import hashlib
import re

from camcal_dask.errors import DataError

CONTROLLERS = "OCHPQS"
"""O observatory, C camera, H phosim, P simulated O, Q simulated C, S simulated images."""

_SEQ_LIMIT = 100_000
_CONTROLLER_STEP = 10_000_000
_LAST_DAY_OF_OFFSET = {"C": 20231004, "P": 20250417, "Q": 20250417, "S": 20250417}
_PACK_EPOCH = datetime.date(2010, 1, 1).toordinal()
_PACK_DETECTORS = 256
_PACK_SEQS = 32_768
_PACK_DAYS = 16_384
_GROUP_EPOCH = datetime.datetime(2015, 1, 1)  # noqa: DTZ001 (a group name carries no zone)
_GROUP_DATE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3})(?:[#+](\d+))?")


def exposure_id(day_obs: int, seq_num: int, controller: str | None) -> int:
    """Identify an exposure: ``(day_obs + 10000000 k) * 100000 + seq_num`` (reference/raw_format.md 1.2).

    ``k`` is the controller's place in ``OCHPQS``, 0 without a controller and for the controllers
    whose counter was joined to O's (C after 2023-10-04; P, Q, S after 2025-04-17).

    Raises
    ------
    DataError
        If the day is no date of this millennium, the sequence number does not fit or the controller is unknown.
    """
    if parse_day(day_obs).year // 1000 != 2:
        raise DataError(f"day_obs {day_obs} is not in the years 2000 to 2999 that exposure ids have room for")
    if not 0 <= seq_num < _SEQ_LIMIT:
        raise DataError(f"sequence number {seq_num} of day {day_obs} is not in 0..{_SEQ_LIMIT - 1}")
    offset = 0
    if controller is not None:
        if len(controller) != 1 or controller not in CONTROLLERS:
            raise DataError(f"controller {controller!r} of day {day_obs} is none of {', '.join(CONTROLLERS)}")
        if day_obs <= _LAST_DAY_OF_OFFSET.get(controller, day_obs):
            offset = CONTROLLERS.index(controller)
    return (day_obs + offset * _CONTROLLER_STEP) * _SEQ_LIMIT + seq_num


def unpack_exposure_id(exposure: int) -> tuple[int, int, str]:
    """Return (day_obs, seq_num, controller) of an exposure id.

    The controller is nominal (``O``) for ids without an offset.

    Raises
    ------
    DataError
        If it is no exposure id.
    """
    shifted, seq_num = divmod(exposure, _SEQ_LIMIT)
    index = shifted // _CONTROLLER_STEP - 2
    if not 0 <= index < len(CONTROLLERS):
        raise DataError(f"{exposure} is no exposure id (kYYYMMDDNNNNN with k from 2 to {len(CONTROLLERS) + 1})")
    day_obs = shifted - index * _CONTROLLER_STEP
    parse_day(day_obs)
    return day_obs, seq_num, CONTROLLERS[index]


def detector_exposure_id(exposure: int, detector: int) -> int:
    """Pack an exposure and a detector into at most 41 bits (reference/raw_format.md 1.3).

    Raises
    ------
    DataError
        If a part does not fit its bits.
    """
    day_obs, seq_num, controller = unpack_exposure_id(exposure)
    day = parse_day(day_obs).toordinal() - _PACK_EPOCH
    parts = (("detector", detector, _PACK_DETECTORS), ("seq_num", seq_num, _PACK_SEQS), ("day", day, _PACK_DAYS))
    for name, value, limit in parts:
        if not 0 <= value < limit:
            raise DataError(f"exposure {exposure}, detector {detector}: {name} {value} is not in 0..{limit - 1}")
    packed = CONTROLLERS.index(controller)
    for _, value, limit in reversed(parts):
        packed = packed * limit + value
    return packed


def group_id(name: str) -> int:
    """Return the number of an exposure group (reference/raw_format.md 1.8).

    A whole number is itself; a date with milliseconds (and ``#N`` or ``+N``) becomes seconds since
    2015, milliseconds and N in four digits; anything else a BLAKE2b hash and the name's length.
    """
    if name.isascii() and name.isdigit():
        return int(name)
    if match := _GROUP_DATE.fullmatch(name):
        seconds = int((datetime.datetime.fromisoformat(match[1]) - _GROUP_EPOCH).total_seconds())
        return int(f"{seconds}{match[2]}{int(match[3] or 0):04d}")
    digest = hashlib.blake2b(name.encode("ascii", "replace")).hexdigest()
    return int(f"{int(digest[:14], 16)}{len(name):02d}")


def parse_day(day_obs: int) -> datetime.date:
    """Return the date of a ``YYYYMMDD`` number.

    Raises
    ------
    DataError
        If it is no date.
    """
    try:
        if not 10_000_000 <= day_obs <= 99_999_999:
            raise ValueError
        return datetime.date(day_obs // 10_000, day_obs // 100 % 100, day_obs % 100)
    except ValueError:
        raise DataError(f"day_obs {day_obs} is no date YYYYMMDD") from None

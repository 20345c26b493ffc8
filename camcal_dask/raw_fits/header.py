"""What a raw header says, as the Butler wants it (reference/raw_format.md 1).

``translate`` picks the camera, applies the corrections of the observation and the repairs of the
camera to a private copy, and reads every field of the Butler's ``exposure`` record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from camcal_dask.errors import DataError
from camcal_dask.raw_fits import fields, repairs
from camcal_dask.raw_fits.cameras import Camera, choose
from camcal_dask.raw_fits.cards import Cards
from camcal_dask.raw_fits.identifiers import (
    detector_exposure_id,
    exposure_id,
    group_id,
    unpack_exposure_id,
)
from camcal_dask.raw_fits.sensor import check_sensor

__all__ = [
    "ExposureRecord",
    "RawIdentity",
    "check_sensor",
    "detector_exposure_id",
    "exposure_id",
    "group_id",
    "translate",
    "unpack_exposure_id",
]


@dataclass(frozen=True)
class ExposureRecord:
    """Every field of the Butler's ``exposure`` record as plain Python values (reference/raw_format.md 1.8).

    Times are TAI nanoseconds since 1970-01-01T00:00:00 TAI, half-open; ``end_tai_nsec`` is at
    least ``begin_tai_nsec + 1``, as the Butler stores an instant.  Both are None when the header
    has no date.  ``day_offset_s`` [s] is the offset of ``day_obs`` from the TAI calendar day.
    ``exposure_time_s`` is the requested time (``EXPTIME``); LATISS has -1 for unknown.
    None stands for NULL.
    """

    instrument: str
    exposure: int
    obs_id: str
    day_obs: int
    seq_num: int
    seq_start: int
    seq_end: int
    group: str
    physical_filter: str
    exposure_time_s: float | None
    dark_time_s: float | None
    observation_type: str
    observation_reason: str
    target_name: str | None
    science_program: str
    tracking_ra_deg: float | None
    tracking_dec_deg: float | None
    sky_angle_deg: float | None
    azimuth_deg: float | None
    zenith_angle_deg: float | None
    has_simulated: bool
    can_see_sky: bool | None
    begin_tai_nsec: int | None
    end_tai_nsec: int | None
    day_offset_s: int


@dataclass(frozen=True)
class RawIdentity:
    """One raw file: its exposure, the detector (slot), the serial of the sensor in it, and what became unknown."""

    record: ExposureRecord
    detector: int
    detector_serial: str
    remarks: tuple[str, ...] = ()


def translate(header: Mapping[str, object], *, file: str = "") -> RawIdentity:
    """Say which exposure and detector a raw file holds.

    Parameters
    ----------
    header : Mapping[str, object]
        Keyword to value: the primary header merged with ``REB_COND`` (reference/raw_format.md 1.6).  Cards
        without value are None or left out.  It is not changed.
    file : str
        Name of the file, for messages.

    Returns
    -------
    RawIdentity
        The exposure record, the detector id and the serial of the sensor.

    Raises
    ------
    DataError
        If no camera accepts the header, or a card that decides on pixels or identity is missing or wrong; file and
        card are named.  Cards that only describe become unknown, with a remark.
    """
    cards = Cards(header, file)
    camera = choose(cards)
    if "CALIB_ID" in cards:
        raise DataError(f"{cards.file}: has a CALIB_ID card: it is a calibration product, not a raw exposure")
    if not camera.simulator:
        repairs.correct(cards, camera.tables)
    camera.repair(cards)
    detector, serial = fields.detector(cards, camera)
    record = _record(cards, camera)
    return RawIdentity(record, detector, serial, tuple(cards.remarks))


def _record(cards: Cards, camera: Camera) -> ExposureRecord:
    """Read the exposure record from repaired cards."""
    begin = repairs.begin_nsec(cards)
    on_mountain = fields.on_mountain(cards, camera, begin)
    kind = fields.observation_type(cards, camera, begin)
    begin_day = fields.day(cards, camera, begin)
    number = fields.numbering(cards, begin_day.day_obs)
    times = fields.durations(cards, camera, kind)
    pointed = fields.pointing_of(cards, camera, kind, begin) if on_mountain else fields.NOWHERE
    return ExposureRecord(
        instrument=camera.name,
        exposure=number.exposure,
        obs_id=fields.observation_id(cards),
        day_obs=begin_day.day_obs,
        seq_num=number.seq_num,
        seq_start=number.seq_start,
        seq_end=number.seq_end,
        group=cards.limited("GROUPID", 64) or str(number.exposure),
        physical_filter=fields.physical_filter(cards, camera, kind),
        exposure_time_s=times.requested_s,
        dark_time_s=times.dark_s,
        observation_type=kind,
        observation_reason=fields.observation_reason(cards, kind),
        target_name=fields.target_name(cards, camera, kind, on_mountain=on_mountain),
        science_program=fields.science_program(cards, camera),
        tracking_ra_deg=pointed.ra_deg,
        tracking_dec_deg=pointed.dec_deg,
        sky_angle_deg=pointed.sky_angle_deg,
        azimuth_deg=pointed.azimuth_deg,
        zenith_angle_deg=pointed.zenith_angle_deg,
        has_simulated=fields.has_simulated(cards),
        can_see_sky=fields.can_see_sky(cards, camera, kind, on_mountain=on_mountain),
        begin_tai_nsec=begin,
        end_tai_nsec=fields.end_nsec(cards, begin, times.open_s),
        day_offset_s=begin_day.offset_s,
    )

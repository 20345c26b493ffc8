"""What a raw header says, as the Butler wants it (reference/raw_format.md section 1)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExposureRecord:
    """Every field of the Butler's ``exposure`` record as plain Python values (raw_format.md 1.8).

    Times are TAI nanoseconds since 1970-01-01T00:00:00 TAI, half-open; ``end_tai_nsec`` is at
    least ``begin_tai_nsec + 1``, as the Butler stores an instant.  Both are None when the header
    has no date.  ``day_offset_s`` [s] is the offset of ``day_obs`` from the TAI calendar day.
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
    """One raw file: its exposure, the detector (slot) and the serial of the sensor in it."""

    record: ExposureRecord
    detector: int
    detector_serial: str

"""Whether everything in a raw file agrees on which exposure it is.

The observation id, the cards it is made of, the date and the name of the file say the same thing in four ways.  Where
they differ, pixels would be stored under another exposure than they belong to, or found with calibrations of another
time.  Headers of simulations (reference/raw_format.md 1.2) have dates of the sky they show, so there it is a
remark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from camcal_dask.errors import DataError
from camcal_dask.raw_fits.cameras import CAMERAS
from camcal_dask.raw_fits.times import DAY_NSEC, SECOND_NSEC, iso_to_nsec, mjd_to_nsec

if TYPE_CHECKING:
    from camcal_dask.raw_fits.header import ExposureRecord

_OBS_ID = re.compile(r"[A-Z]+_([A-Z])_(\d{8})_(\d+)")
_FILE = re.compile(r"([A-Z]{2}_[A-Z]_\d{8}_\d{6})_(R\d\d_S[0-9A-Z]\d)\.fits(\.fz|\.gz)?", re.IGNORECASE)
_SIMULATED_CONTROLLERS = ("H", "P", "Q", "S")
_SLACK_NSEC = 3600 * SECOND_NSEC
"""Begin and ``day_obs`` come from the same clock; an hour is for changes to and from summer time."""
_SAME_BEGIN_S = 1.0
"""Both cards of the begin are written from one clock reading; a float holds an MJD to a microsecond [s]."""
_LATISS_CLOCK = iso_to_nsec("2020-02-01")
"""Before, LATISS wrote dates of 1970, repaired from the time of writing (reference/raw_format.md 6.3)."""


def check(header: Mapping[str, object], record: ExposureRecord, *, file: str) -> list[str]:
    """Compare everything that says which exposure and detector a file is.

    Parameters
    ----------
    header : Mapping[str, object]
        The merged header, as it was read.
    record : ExposureRecord
        What it was translated to.
    file : str
        Path or URI of the file.

    Returns
    -------
    list of str
        Remarks on a simulated exposure, and on what is doubtful of any.

    Raises
    ------
    DataError
        If a real exposure contradicts itself, or has no time.
    """
    found = [
        *_id_against_cards(header, record),
        *_date_against_day(record),
        *_name_against_header(header, record, file),
    ]
    if record.begin_tai_nsec is None:
        raise DataError(
            f"{file}: has no begin time (MJD-BEG, DATE-BEG, MJD-OBS, DATE-OBS), so no calibration can be valid for it; "
            "correct the card (header_corrections.csv of the instrument) or leave the file out"
        )
    if found and not _is_simulated(header, record):
        raise DataError(
            f"{file}: contradicts itself: {'; '.join(found)}; "
            "correct the card (header_corrections.csv of the instrument), or the file's name, or leave the file out"
        )
    return [*found, *_doubts(header, record)]


def _is_simulated(header: Mapping[str, object], record: ExposureRecord) -> bool:
    return CAMERAS[record.instrument].simulator or header.get("CONTRLLR") in _SIMULATED_CONTROLLERS


def _id_against_cards(header: Mapping[str, object], record: ExposureRecord) -> list[str]:
    match = _OBS_ID.fullmatch(record.obs_id)
    if match is None:
        return []
    controller, day, number = match.groups()
    found = []
    if int(day) != record.day_obs:
        found.append(f"OBSID is {record.obs_id}, DAYOBS {record.day_obs}")
    if int(number) != record.seq_num:
        found.append(f"OBSID is {record.obs_id}, SEQNUM {record.seq_num}")
    card = str(header.get("CONTRLLR") or "").strip()
    if card not in ("", controller):
        found.append(f"OBSID is {record.obs_id}, CONTRLLR {card}")
    return found


def _date_against_day(record: ExposureRecord) -> list[str]:
    begin = record.begin_tai_nsec
    if begin is None or (record.instrument == "LATISS" and begin < _LATISS_CLOCK):
        return []
    text = str(record.day_obs)
    start = iso_to_nsec(f"{text[:4]}-{text[4:6]}-{text[6:]}") + record.day_offset_s * SECOND_NSEC
    if start - _SLACK_NSEC <= begin < start + DAY_NSEC + _SLACK_NSEC:
        return []
    days = (begin - start) / DAY_NSEC
    return [f"it began {days:+.1f} days from the start of its DAYOBS {record.day_obs}"]


def _doubts(header: Mapping[str, object], record: ExposureRecord) -> list[str]:
    """What differs without a doubt on which exposure it is, or leaves its use open."""
    found = []
    match, code = _OBS_ID.fullmatch(record.obs_id), str(header.get("CAMCODE") or "").strip()
    if match and code and not record.obs_id.startswith(f"{code}_"):
        found.append(f"OBSID is {record.obs_id}, CAMCODE {code}")
    if record.observation_type == "unknown":
        found.append("no IMGTYPE, so no calibration will use it")
    if record.physical_filter == "unknown" and record.observation_type not in ("bias", "dark"):
        found.append("no FILTER, so its filter is unknown")
    days, date = header.get("MJD-BEG"), header.get("DATE-BEG")
    if isinstance(days, float) and isinstance(date, str) and date.strip():
        try:
            apart = abs(mjd_to_nsec(days) - iso_to_nsec(date)) / SECOND_NSEC
        except ValueError:
            found.append(f"card DATE-BEG is {date[:70]!r}, expected an ISO date and time; MJD-BEG {days} is used")
        else:
            if apart > _SAME_BEGIN_S:
                found.append(f"DATE-BEG {date} and MJD-BEG {days} are {apart:.0f} s apart; MJD-BEG is used")
    begin, end, lasted = record.begin_tai_nsec, record.end_tai_nsec, record.exposure_time_s
    if begin is not None and end == begin + 1 and (lasted or 0.0) > 0.0:
        found.append(f"DATE-END {header.get('DATE-END')} is not after its begin, EXPTIME is {lasted:g} s")
    return found


def _name_against_header(header: Mapping[str, object], record: ExposureRecord, file: str) -> list[str]:
    """A name in the observatory's own form says what is in the file; any other name says nothing."""
    name = PurePosixPath(file).name
    match = _FILE.fullmatch(name)
    if match is None:
        return []
    obs_id, slot = match[1].upper(), match[2].upper()
    found = [] if obs_id == record.obs_id.upper() else [f"the file's name says {obs_id}, OBSID {record.obs_id}"]
    place = f"{header.get('RAFTBAY')}_{header.get('CCDSLOT')}"
    if record.instrument != "LATISS" and slot != place.upper():
        found.append(f"the file's name says {slot}, the header {place}")
    return found

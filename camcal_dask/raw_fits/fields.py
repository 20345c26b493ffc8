"""Fields of the Butler's exposure record, each from its cards (reference/raw_format.md 1.4-1.11).

Every function takes repaired cards and returns a plain value; a wrong card is a ``DataError``
that names it.
"""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

from camcal_dask.errors import DataError, nearest
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.raw_fits import pointing
from camcal_dask.raw_fits.cameras import Camera
from camcal_dask.raw_fits.cards import Cards
from camcal_dask.raw_fits.identifiers import exposure_id, parse_day
from camcal_dask.raw_fits.times import NOON_S, SECOND_NSEC, day_of, pacific_offset_s, to_tai_nsec

_SIMULATED_CONTROLLERS = ("H", "P", "Q", "S")
_SCIENCE_TYPES = ("object", "skyexp")
_CALIBRATION_TYPES = ("bias", "dark", "flat")
_VIGNETTING = {"FULLY": False, "UNKNOWN": None}
_EMPTY_PLACE = {  # a filter "empty_frame" is a piece of hardware
    "FILTER": re.compile(r"empty([_ -]?\d+)?", re.IGNORECASE),
    "GRATING": re.compile(r"empty.*", re.IGNORECASE),
}
_TRACKED = ("RADEC",)
_TRACKED_LATISS = ("RADEC", "SIDEREAL", "")


class Day(NamedTuple):
    """``day_obs`` as YYYYMMDD and its offset from the TAI calendar day [s]."""

    day_obs: int
    offset_s: int


class Numbering(NamedTuple):
    """Exposure id, sequence number, and the numbers of the group's first and last exposure."""

    exposure: int
    seq_num: int
    seq_start: int
    seq_end: int


class Durations(NamedTuple):
    """Requested exposure time, time the shutter was open, dark time [s]; -1 is unknown."""

    requested_s: float
    open_s: float
    dark_s: float


class Pointing(NamedTuple):
    """Tracked ICRS position, sky angle, azimuth and zenith angle [deg]; None is unknown."""

    ra_deg: float | None
    dec_deg: float | None
    sky_angle_deg: float | None
    azimuth_deg: float | None
    zenith_angle_deg: float | None


MAX_SECONDS = 86_400.0
"""No exposure is longer than a day [s]."""

_DURATION = f"a time from 0 to {MAX_SECONDS:g} s"
_DARK_SLACK_S = 0.1, 60.0
"""A dark time so much shorter or longer than the exposure is a remark [s]."""

NOWHERE = Pointing(None, None, None, None, None)
"""The pointing of a camera in a laboratory."""


def observation_id(cards: Cards) -> str:
    """``OBSID``; the older LATISS name of the card was copied there by the repairs."""
    value = cards.text("OBSID")
    if value is None or len(value) > 64:
        raise cards.error("OBSID", "an observation id such as MC_O_20250415_000060")
    return value


def on_mountain(cards: Cards, camera: Camera, begin: int | None) -> bool:
    """Whether the camera was at the telescope; phosim (controller H) of the large cameras counts as such."""
    if camera.mountain is None or (cards.text("CONTRLLR") == "H" and not camera.latiss):
        return True
    return begin is not None and begin > camera.mountain


def day(cards: Cards, camera: Camera, begin: int | None) -> Day:
    """Observing day: ``DAYOBS``, else the day of the begin shifted by the camera's offset."""
    offset = NOON_S
    if camera.noon is not None and begin is not None:
        date = day_of(begin)
        if (date.year, date.month) < camera.noon:
            offset = pacific_offset_s(begin)
    day_obs = cards.integer("DAYOBS")
    if day_obs is None:
        if begin is None:
            raise cards.error("DAYOBS", "YYYYMMDD (and no date card to derive it from)")
        day_obs = int(f"{day_of(begin - offset * SECOND_NSEC):%Y%m%d}")
    try:
        parse_day(day_obs)
    except DataError:
        raise cards.error("DAYOBS", "a date YYYYMMDD") from None
    return Day(day_obs, offset)


def numbering(cards: Cards, day_obs: int) -> Numbering:
    """Exposure id and the sequence numbers of the exposure's group."""
    seq_num = cards.integer("SEQNUM")
    if seq_num is None:  # upstream takes 0, so that all of a day are one exposure
        raise cards.error("SEQNUM", "the exposure's number in its day")
    try:
        exposure = exposure_id(day_obs, seq_num, cards.text("CONTRLLR"))
    except DataError as error:
        raise DataError(f"{cards.file}: cards SEQNUM, CONTRLLR: {error}") from None
    index, count = cards.described("CURINDEX"), cards.described("MAXINDEX")
    start = (seq_num or exposure) if index is None else seq_num - int(index) + 1
    end = start if index is None or count is None else seq_num + int(count) - int(index)
    return Numbering(exposure, seq_num, start, end)


def durations(cards: Cards, camera: Camera, kind: str) -> Durations:
    """Exposure and dark times.

    The Butler's exposure time is the requested one.  The large cameras' shutter time, when there is
    a positive one, sets the end of the exposure and replaces a missing dark time.  LATISS: requested
    time -1 if absent, and a dark time never shorter than the exposure.

    Times that no exposure has are refused; a bias, which needs no dark time, keeps going without it.
    """
    requested = _duration(cards, "EXPTIME")
    if requested is None:
        if not camera.latiss:
            raise cards.error("EXPTIME", "the exposure time in seconds")
        if kind in ("dark", "flat"):
            cards.remarks.append(f"no EXPTIME: the exposure time of this {kind} is unknown")
        requested = -1.0
    shutter = None if camera.latiss else cards.described("SHUTTIME")
    opened = shutter if shutter is not None and 0.0 < shutter <= MAX_SECONDS else requested
    return Durations(requested, opened, _dark_time(cards, camera, kind, opened))


def _dark_time(cards: Cards, camera: Camera, kind: str, opened: float) -> float:
    """Dark time [s]; by default the time the shutter was open, with a remark where dark current counts."""
    try:
        dark = _duration(cards, "DARKTIME")
    except DataError:
        if kind != "bias":
            raise
        cards.forget("DARKTIME", _DURATION)
        return opened
    if dark is None:
        if kind in ("dark", "flat"):
            cards.remarks.append(f"no DARKTIME: the exposure time of {opened:g} s is used")
        return opened
    if camera.latiss and dark < opened:
        return opened
    if not -_DARK_SLACK_S[0] <= dark - opened <= _DARK_SLACK_S[1]:
        cards.remarks.append(f"DARKTIME is {dark:g} s, the shutter was open for {opened:g} s")
    return dark


def _duration(cards: Cards, card: str) -> float | None:
    """Seconds in a card, None if absent.  LATISS writes -1 for an unknown time."""
    seconds = cards.number(card)
    if seconds is not None and not 0.0 <= seconds <= MAX_SECONDS:
        raise cards.error(card, _DURATION)
    return seconds


def end_nsec(cards: Cards, begin: int | None, open_s: float) -> int | None:
    """End of the exposure [TAI ns since 1970], at least 1 ns after the begin; None without a begin.

    ``DATE-END`` is read in the scale of ``TIMESYS``, UTC if that is missing (reference/raw_format.md 1.5).
    """
    if begin is None:
        return None
    date = cards.text("DATE-END")
    if date is None:
        end = begin + round(max(open_s, 0.0) * SECOND_NSEC)
    else:
        scale = (cards.text("TIMESYS") or "UTC").lower()
        try:
            end = to_tai_nsec(date, scale)
        except ValueError:
            raise cards.error("DATE-END", f"an ISO date and time in TIMESYS {scale.upper()}") from None
    return max(end, begin + 1)


def observation_type(cards: Cards, camera: Camera, begin: int | None) -> str:
    """``IMGTYPE`` in lower case; ``object`` and ``skyexp`` become ``science`` (reference/raw_format.md 1.9)."""
    names = ("OBSTYPE", "IMGTYPE") if camera.latiss else ("IMGTYPE",)
    kind = (cards.text(*names) or "").lower()
    if not kind:
        return "bias" if camera.latiss and cards.number("EXPTIME") == 0.0 else "unknown"
    if camera.latiss and kind == "object" and not on_mountain(cards, camera, begin):
        return "labobject"
    if len(kind) > 16:
        raise cards.error(next(name for name in names if cards.text(name)), "at most 16 characters")
    return "science" if kind in _SCIENCE_TYPES else kind


def observation_reason(cards: Cards, kind: str) -> str:
    """``REASON``, then ``TESTTYPE``, in lower case; without them ``science`` or ``unknown``."""
    reason = cards.limited("REASON", 68) or cards.limited("TESTTYPE", 68)
    return reason.lower() if reason else "science" if kind == "science" else "unknown"


def target_name(cards: Cards, camera: Camera, kind: str, *, on_mountain: bool) -> str | None:
    """``OBJECT``, else ``UNKNOWN``; LATISS science on the mountain without it is unknown to the Butler too."""
    target = cards.limited("OBJECT", 64)
    if target is None and not (camera.latiss and kind == "science" and on_mountain):
        return "UNKNOWN"
    return target


def science_program(cards: Cards, camera: Camera) -> str:
    """``PROGRAM``, then the laboratory's ``RUNNUM``."""
    names = ("PROGRAM",) if camera.latiss else ("PROGRAM", "RUNNUM")
    return next((program for name in names if (program := cards.limited(name, 64))), "unknown")


def physical_filter(cards: Cards, camera: Camera, kind: str) -> str:
    """Glass in the beam, joined by ``~`` (reference/raw_format.md 1.10); refused for light where it is too long."""
    joined = _latiss_filter(cards) if camera.latiss else _filter(cards)
    if len(joined) <= 32:
        return joined
    expected = f"filter names of at most 32 characters together (they are {joined!r})"
    if kind not in ("bias", "dark"):
        raise cards.error("FILTER", expected)
    cards.forget("FILTER", expected)
    return "unknown"


def _filter(cards: Cards) -> str:
    names = [name for card in ("FILTER", "FILTER1", "FILTER2") if (name := cards.text(card))]
    joined = "~".join(names).replace("NONE", "none") or "unknown"
    while joined.endswith("~empty"):
        joined = joined.removesuffix("~empty")
    return joined


def _latiss_filter(cards: Cards) -> str:
    return "~".join(_latiss_element(cards, card) for card in ("FILTER", "GRATING"))


def _latiss_element(cards: Cards, card: str) -> str:
    """Element of one LATISS wheel: ``empty`` for an empty place however it is spelled, ``unknown`` without the card."""
    if card not in cards:
        return "unknown"
    name = cards.text(card)
    return "empty" if name is None or _EMPTY_PLACE[card].fullmatch(name) else name


def has_simulated(cards: Cards) -> bool:
    """Whether any component was simulated, or the controller makes images only."""
    if cards.text("CONTRLLR") in _SIMULATED_CONTROLLERS:
        return True
    return any("SIMULATE" in name and bool(value) for name, value in cards.items())


def can_see_sky(cards: Cards, camera: Camera, kind: str, *, on_mountain: bool) -> bool | None:
    """Whether light from the sky could reach the camera; None is unknown."""
    if not (on_mountain or camera.latiss) or cards.described("SHUTTIME") == 0.0:
        return False
    vignetting = cards.text("VIGN_MIN")
    if vignetting is not None:
        return _VIGNETTING.get(vignetting.upper(), True)
    # The large cameras' hardware always says; what is left are simulations and LATISS.
    if camera.latiss or camera.simulator or cards.text("CONTRLLR") == "H":
        return True if kind == "science" else False if kind in _CALIBRATION_TYPES else None
    return None


def pointing_of(cards: Cards, camera: Camera, kind: str, begin: int | None) -> Pointing:
    """Pointing of a camera at the telescope."""
    systems = _TRACKED_LATISS if camera.latiss else _TRACKED
    ra, dec = pointing.tracking(cards, kind, begin, tracked_systems=systems)
    azel = pointing.azel_of_simulation(cards, kind) if camera.name == "LSSTComCamSim" else pointing.azel(cards)
    tracked, known = not math.isnan(ra), not math.isnan(azel[0])
    return Pointing(
        ra if tracked else None,
        dec if tracked else None,
        pointing.sky_angle(cards, kind) if tracked else None,
        azel[0] if known else None,
        90.0 - azel[1] if known else None,
    )


def detector(cards: Cards, camera: Camera) -> tuple[int, str]:
    """Detector id of the slot, and serial of the sensor in it.

    The slot is the identity; the serial may differ from the tables in laboratory data (reference/raw_format.md 1.11).
    """
    if camera.latiss:
        return 0, cards.text("LSST_NUM", "DETSER") or "unknown"
    name = f"{cards.text('RAFTBAY')}_{cards.text('CCDSLOT')}"
    ids = _detector_ids(camera.tables)
    if name not in ids:
        place = f"cards RAFTBAY {cards.value('RAFTBAY')!r}, CCDSLOT {cards.value('CCDSLOT')!r}"
        raise DataError(f"{cards.file}: {place}: {camera.name} has no detector {name}{nearest(name, ids)}")
    return ids[name], cards.text("LSST_NUM") or "unknown"


@functools.cache
def _detector_ids(tables: str) -> dict[str, int]:
    return {d.full_name: d.id for d in get_instrument(tables).detectors.values()}

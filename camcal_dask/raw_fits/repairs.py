"""Wrong headers and what the observatory says they should hold (reference/raw_format.md 1.7).

First the corrections of single observations (``header_corrections.csv`` of the instrument), then
the rules of each camera below.  Every rule changes a private copy, never the caller's header.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from importlib.resources import files

from camcal_dask.errors import DataError
from camcal_dask.instruments.geometry import get_instrument, read_table
from camcal_dask.raw_fits.cards import Cards
from camcal_dask.raw_fits.times import iso_to_nsec, mjd_to_nsec

_ANY = (0, 99_999)
_MISNAMED_PINHOLE_DAYS = {20231107, 20231108, 20241015, 20241016}
_DOME_SHUT = {
    20250518: (_ANY,),
    20250703: ((743, 745),),
    20250704: ((832, 834),),
    20250705: ((1, 736),),
    20250707: ((744, 823), (864, 943)),
    20250714: ((258, 781),),
    20250715: ((205, 1218),),
    20250819: ((4, 1052),),
}
"""day_obs -> ranges of seq_num in which the dome was shut and ``VIGN_MIN`` does not say so."""
_WRONG_FILTER = {
    20250609: ((76, 578), {"FILTER": "z_20", "FILTBAND": "z", "FILTPOS": 201.0, "FILTSLOT": 4}),
    20260315: ((49, 109), {"FILTER": "i_39", "FILTBAND": "i", "FILTPOS": 304.0, "FILTSLOT": 1}),
}
_BLOCK_417_DAYS = {
    *(20250415, 20250416, 20250417, 20250418, 20250421, 20250423, 20250424, 20250425),
    *(20250503, 20250504, 20250512, 20250522, 20250524, 20250826, 20250827, 20250828),
}
_MJD_LIMIT = 110_000.0
"""In the year 2160; exposure ids last until 2999, cameras do not."""
_CASTS: dict[str, Callable[[str], object]] = {
    "str": str,
    "float": float,
    "int": int,
    "bool": lambda text: text.lower() in ("true", "t", "1"),
}


@functools.cache
def corrections(tables: str) -> dict[str, dict[str, object]]:
    """Return corrections of a camera: observation id -> cards to overwrite.  Read once per process."""
    found: dict[str, dict[str, object]] = {}
    for row in read_table(files("camcal_dask.instruments").joinpath(tables), "header_corrections.csv"):
        found.setdefault(row["obs_id"], {})[row["keyword"]] = _CASTS[row["type"]](row["value"])
    return found


def correct(cards: Cards, tables: str) -> None:
    """Apply the corrections of this observation, if there are any."""
    obs_id = cards.text("OBSID", "IMGNAME")
    if obs_id is not None:
        cards.update(corrections(tables).get(obs_id, {}))


def begin_nsec(cards: Cards) -> int | None:
    """Beginning of the exposure [TAI ns since 1970], None without a date.

    Read as TAI, whatever ``TIMESYS`` says, and the MJD form wins (reference/raw_format.md 1.5).  A card that is no
    date becomes undefined, with a remark, if another one is.

    Raises
    ------
    DataError
        If there are date cards, and none of them is a date.
    """
    wrong: list[str] = []
    for card in ("MJD-BEG", "DATE-BEG", "MJD-OBS", "DATE-OBS"):
        if cards.text(card) is None:
            continue
        try:
            begin = _moment(cards, card)
        except (ValueError, DataError):
            wrong.append(card)
            continue
        for name in wrong:
            cards.forget(name, f"a date and time ({card} is used)")
        return begin
    if wrong:
        raise cards.error(wrong[0], "an ISO date and time" if wrong[0].startswith("DATE") else "a modified Julian date")
    return None


def _moment(cards: Cards, card: str) -> int:
    """Time of a card [TAI ns since 1970]; ValueError or DataError if it is none."""
    if card.startswith("DATE"):
        return iso_to_nsec(cards.text(card) or "")
    mjd = cards.number(card) or 0.0
    if not 0.0 < mjd < _MJD_LIMIT:
        raise ValueError(card)
    return mjd_to_nsec(mjd)


def repair_none(_cards: Cards) -> None:
    """Leave the header as it is (cameras without known faults)."""


def repair_lsstcam(cards: Cards) -> None:
    """Repair LSSTCam headers: filters, rotator angle, shut dome, program."""
    if "FILTER" not in cards:
        cards.drop("FILTER2")
    day, seq = cards.integer("DAYOBS") or 0, cards.integer("SEQNUM") or 0
    if day in _MISNAMED_PINHOLE_DAYS and cards.text("FILTER") == "ph_05":
        cards.update({"FILTER": "ph_5"})
    angle = cards.described("ROTPA") if 20250301 < day <= 20250422 else None
    if angle is not None and day < 20250422:
        cards.update({"ROTPA": angle - 90.0})
    elif angle is not None and seq < 251:
        cards.update({"ROTPA": math.remainder(angle - 180.0, 360.0)})
    if any(first <= seq <= last for first, last in _DOME_SHUT.get(day, ())):
        cards.update({"VIGN_MIN": "FULLY"})
    (first, last), truth = _WRONG_FILTER.get(day, ((1, 0), {}))
    if first <= seq <= last:
        cards.update(truth)
    if day in _BLOCK_417_DAYS and cards.text("PROGRAM") == "BLOCK-417":
        cards.update({"PROGRAM": "BLOCK-T417"})


def repair_comcam(cards: Cards) -> None:
    """Repair LSSTComCam headers: filter names, camera name, serial, rotator angle."""
    if "FILTER" not in cards:
        cards.update({"FILTER": "unknown"})
    elif str(cards.value("FILTER")).strip() in ("r", ""):
        begin = begin_nsec(cards)
        late = begin is not None and begin > iso_to_nsec("2020-03-13")
        cards.update({"FILTER": "empty" if late else "r_03"})
    if cards.value("INSTRUME") == "LSST_CAMERA":
        cards.update({"INSTRUME": "ComCam"})
    if cards.text("LSST_NUM") is None:
        slot = f"{cards.text('RAFTBAY')}_{cards.text('CCDSLOT')}"
        detectors = get_instrument("LSSTComCam").detectors.values()
        cards.update({"LSST_NUM": next((d.serial for d in detectors if d.full_name == slot), None)})
    try:
        angle = cards.number("ROTPA")
    except DataError:
        angle = None
    if angle is None:
        cards.update({"ROTPA": 0.0})


def repair_comcamsim(cards: Cards) -> None:
    """Fill the pointing and camera code that simulated ComCam headers leave undefined."""
    for axis in ("RA", "DEC"):
        for name in (f"{axis}START", f"{axis}END"):
            if name not in cards:
                cards.update({name: cards.value(axis)})
    if cards.text("RADESYS") is None and "RA" in cards and "DEC" in cards:
        cards.update({"RADESYS": "ICRS"})
    if cards.text("TELCODE") is None:
        cards.update({"TELCODE": cards.text("CAMCODE") or (cards.text("OBSID") or "").partition("_")[0] or None})


def repair_latiss(cards: Cards) -> None:
    """Repair LATISS headers, in an order in which later rules can rely on earlier ones."""
    _latiss_names(cards)
    if (cards.text("DATE-OBS") or "").startswith("1970"):
        date, mjd = cards.value("DATE"), cards.value("MJD")
        cards.update({"DATE-OBS": date, "DATE-BEG": date, "MJD-OBS": mjd, "MJD-BEG": mjd})
        cards.drop("DATE-END", "MJD-END")
    if cards.value("SHUTTIME"):
        cards.drop("SHUTTIME")
    geocentric_z = cards.described("OBSGEO-Z")
    if geocentric_z is not None and geocentric_z > 0.0:
        cards.update({"OBSGEO-Z": -geocentric_z})
    begin = begin_nsec(cards)
    if begin is not None:
        _latiss_dated(cards, begin)
        _latiss_pointing(cards, begin)
    if "OBJECT" not in cards and cards.text("IMGTYPE") == "OBJECT":
        cards.update({"OBJECT": "NOTSET"})


def _latiss_names(cards: Cards) -> None:
    """Fill observation id, day and sequence number of early headers from each other."""
    if cards.text("OBSID") is None:
        cards.update({"OBSID": cards.text("IMGNAME")})
    parts = (cards.text("OBSID") or "").split("_")
    if cards.text("DAYOBS") is None:
        cards.update({"DAYOBS": parts[2] if len(parts) == 4 else cards.text("OBS-NITE")})
    if "SEQNUM" not in cards and len(parts) == 4:
        cards.update({"SEQNUM": parts[3]})


def _latiss_dated(cards: Cards, begin: int) -> None:
    """Apply the repairs that depend on when the exposure was taken."""
    cards.update({"LSST_NUM": "ITL-3800C-068" if begin > iso_to_nsec("2019-06-24") else "ITL-3800C-098"})
    if begin < iso_to_nsec("2020-02-01"):
        cards.drop("DATE-END", "MJD-END")
    if begin < iso_to_nsec("2019-11-07"):
        _latiss_type_from_group(cards)
    if begin < iso_to_nsec("2020-01-27T20:00:00") and cards.text("IMGTYPE") == "OBJECT":
        cards.update({"IMGTYPE": "ENGTEST"})
    target = cards.text("OBJECT")
    if target is not None and begin < iso_to_nsec("2022-07-10"):
        cards.update({"OBJECT": target.replace("spec:", "")})
    angle = cards.described("ROTPA")
    if angle is not None and iso_to_nsec("2020-11-19") <= begin <= iso_to_nsec("2021-10-29"):
        cards.update({"ROTPA": angle - 180.0})


def _latiss_type_from_group(cards: Cards) -> None:
    """Take the observation type from the group name, where 2019 observers wrote it."""
    kind, group = cards.text("IMGTYPE"), cards.text("GROUPID")
    if group is None or group.startswith("test"):
        return
    if kind is not None:
        if kind == group:
            cards.drop("GROUPID")
    elif "_" in group:
        cards.update({"IMGTYPE": group.partition("_")[0]})
    elif group.startswith("FOCUS"):
        cards.update({"IMGTYPE": "FOCUS"})
    else:
        cards.update({"IMGTYPE": group})
        cards.drop("GROUPID")


def _latiss_pointing(cards: Cards, begin: int) -> None:
    """Bring the pointing cards to ICRS degrees."""
    if begin < iso_to_nsec("2020-01-28T22:00:00"):
        for name in ("RA", "DEC"):
            angle = cards.described(name)
            if angle is not None:
                cards.update({name: math.degrees(angle)})
    if begin < iso_to_nsec("2020-05-01"):
        cards.drop("RASTART", "DECSTART", "RAEND", "DECEND")
        return
    for name in ("RASTART", "RAEND"):
        angle = cards.described(name)
        if angle is not None and begin < iso_to_nsec("2021-02-12"):
            hours = begin < iso_to_nsec("2021-02-11T18:45:00")
            # Sidereal time was computed from TAI taken as UTC: 37 s of time in right ascension.
            cards.update({name: (angle * 15.0 if hours else angle) + 37.0 * 15.0 / 3600.0})

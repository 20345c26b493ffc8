"""Whether the sensor that wrote a file matches the detector table (reference/raw_format.md 6.16)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from camcal_dask.errors import DataError
from camcal_dask.instruments.geometry import Detector

_SECTION = re.compile(r"\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]")


def check_sensor(header: Mapping[str, object], detector: Detector, *, file: str = "") -> list[str]:
    """Refuse a file whose sensor is not of the type that the tables have in its bay.

    Engineering rafts of 2019 had ITL sensors in bays that are E2V today; reading them with the
    table's boxes cuts the wrong pixels.  Compares whichever of these cards are defined: ``CCD_MANU``
    with the vendor, the size of ``DETSIZE`` with the assembled CCD, ``DATASEC`` with the data box of an
    amp.  A ``DATASEC`` that starts at [1, 1] counts from the data box (LATISS of 2021 wrote
    ``[1:509,1:2000]``), and wavefront sensors carry the ``DETSIZE`` of a full sensor.

    Parameters
    ----------
    header : Mapping[str, object]
        The primary (merged) header, an amp's header, or both in one: any that has the cards.
    detector : Detector
        The detector the header claims to be.
    file : str
        Name of the file, for messages.

    Returns
    -------
    list of str
        Remarks on what differs without harm.

    Raises
    ------
    DataError
        Naming file, detector, card and both values.
    """
    vendor = str(header.get("CCD_MANU") or "").strip().upper()
    if vendor and vendor != detector.vendor.upper():
        raise _conflict("CCD_MANU", vendor, detector.vendor, detector, file)
    width, height = detector.width_pix, detector.height_pix
    sizes = [(width, height), (width, 2 * height)] if detector.purpose == "WAVEFRONT" else [(width, height)]
    _check_size(header, "DETSIZE", sizes, detector, file)
    data = detector.amps[0].data
    begin = _check_size(header, "DATASEC", [(data.width, data.height)], detector, file)
    expected = data.x0 + 1, data.y0 + 1
    if begin in (None, expected):
        return []
    found = f"{header['DATASEC']}, which starts at {list(begin)}"  # type: ignore[arg-type]
    if begin != (1, 1):
        raise _conflict("DATASEC", found, f"a start at {list(expected)}", detector, file)
    return [f"DATASEC is {found}, not {list(expected)}; taken to count from the data box"]


def _check_size(
    header: Mapping[str, object], card: str, sizes: list[tuple[int, int]], detector: Detector, file: str
) -> tuple[int, int] | None:
    """Compare the (width, height) of a section card [pixel], if it is defined, with the allowed ones.

    Returns the (column, row) it starts at, as the card counts; None without the card.
    """
    value = header.get(card)
    if value is None or not str(value).strip():
        return None
    match = _SECTION.fullmatch(str(value).strip())
    if match is None:
        raise DataError(f"{file or 'header'}: card {card} is {value!r}, expected a section such as '[1:4072,1:4000]'")
    x0, x1, y0, y1 = (int(part) for part in match.groups())
    size = abs(x1 - x0) + 1, abs(y1 - y0) + 1
    if size not in sizes:
        expected = " or ".join(f"{width} x {height}" for width, height in sizes)
        raise _conflict(card, f"{value} ({size[0]} x {size[1]} pixels)", expected, detector, file)
    return x0, y0


def _conflict(card: str, found: str, expected: str, detector: Detector, file: str) -> DataError:
    return DataError(
        f"{file or 'header'}: detector {detector.name}: card {card} is {found}, but the tables have {expected} "
        f"({detector.physical_type}) in this bay. Another type of sensor was there: its pixels cannot be placed "
        "with these tables, leave the file out"
    )

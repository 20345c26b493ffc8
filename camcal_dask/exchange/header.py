"""Header cards that every table calibration of the LSST stack carries (reference/raw_format.md 5.1)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

from camcal_dask.errors import DataError
from camcal_dask.instruments.geometry import Detector
from camcal_dask.regular import check_regular

STATE_CARDS = ("SEQFILE", "SEQNAME", "SEQCKSUM", "ODP", "AP0_RC")
"""Camera state, which ISR compares between exposures and calibrations; copy them from the flats."""
_STRUCTURE = ("XTENSION", "SIMPLE", "BITPIX", "EXTEND", "PCOUNT", "GCOUNT", "TFIELDS", "EXTNAME")
_STRUCTURE_STEMS = ("NAXIS", "TTYPE", "TFORM", "TDIM", "TNULL", "TUNIT")


def opened(path: str | os.PathLike[str]) -> fits.HDUList:
    """Open a FITS file of the exchange; the caller closes it.

    Raises
    ------
    DataError
        If it cannot be opened, or is no file.
    """
    try:
        check_regular(path)
        return fits.open(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def calibration_header(
    obstype: str,
    schema: str,
    version: float,
    calibcls: str,
    detector: Detector,
    metadata: Mapping[str, Any] | None = None,
) -> fits.Header:
    """Return the cards of HDU 1 of a table calibration.

    Parameters
    ----------
    obstype : type of calibration, also the stem of its schema cards: ``"PTC"``
    schema, version : text and number of the layout
    calibcls : class that reads it, ``"lsst.ip.isr. ..."``
    detector : whose calibration it is
    metadata : further cards, which win: ``INSTRUME``, ``FILTER``, ``CALIBDATE`` (ISO), the camera state ``SEQFILE``
        ..., and those of the layout.  None is written as an empty string: undefined cards do not survive the stack.
    """
    now = datetime.now().astimezone()
    given = dict(metadata or {})
    cards: dict[str, Any] = {
        "OBSTYPE": obstype,
        f"{obstype}_SCHEMA": schema,
        f"{obstype}_VERSION": version,
        "INSTRUME": "",
        "RAFTNAME": detector.raft,
        "SLOTNAME": detector.name_in_raft,
        "DETECTOR": detector.id,
        "DET_NAME": detector.full_name,
        "DET_SER": detector.serial,
        "FILTER": "",
        "CALIB_ID": "",
        **dict.fromkeys(STATE_CARDS, ""),
        "CALIBCLS": calibcls,
        "CALIBDATE": now.isoformat(timespec="seconds"),
        "CALIB_CREATION_DATE": now.date().isoformat(),
        "CALIB_CREATION_TIME": now.time().isoformat(timespec="seconds"),
    }
    cards |= given
    cards["CALIB_ID"] = cards["CALIB_ID"] or (
        f"instrument={cards['INSTRUME']} raftName={detector.raft} detectorName={detector.name_in_raft} "
        f"detector={detector.id} filter={cards['FILTER'] or None} calibDate={cards['CALIBDATE']}"
    )
    header = fits.Header()
    for key, value in cards.items():
        header["HIERARCH " * (len(key) > 8) + key] = "" if value is None else value
    return header


def metadata_of(header: fits.Header) -> dict[str, Any]:
    """Return all cards but those that describe the table: what `calibration_header` takes as metadata."""
    return {
        key: value
        for key, value in header.items()
        if key not in _STRUCTURE and key.rstrip("0123456789") not in _STRUCTURE_STEMS
    }


def values_of_cards(
    headers: Mapping[int, Mapping[str, Any] | None], keywords: Sequence[str]
) -> dict[str, dict[Any, list[int]]]:
    """Values of each card in the headers of exposures, with the exposures that have them; cards of none are left out.

    Parameters
    ----------
    headers : header of each exposure id; None where there is none
    keywords : cards to look at
    """
    found: dict[str, dict[Any, list[int]]] = {}
    for keyword in keywords:
        for exposure, header in headers.items():
            value = (header or {}).get(keyword)
            if value is not None:
                found.setdefault(keyword, {}).setdefault(value, []).append(exposure)
    return found


def select_detector(table: xr.Dataset, detector: Detector, what: str) -> xr.Dataset:
    """Return one detector of a table calibration in memory, amps in the order of the camera.

    Raises
    ------
    DataError
        If ``what`` (for the message: "these curves") lacks the detector or one of its amps.
    """
    names = [amp.name for amp in detector.amps]
    here = table["detector"].values.tolist()
    if detector.id not in here or not set(names) <= set(table["amp"].values.tolist()):
        raise DataError(
            f"detector {detector.name} with amps {names[0]} to {names[-1]} is not in {what}: "
            f"detectors {here}, amps {table['amp'].values.tolist()}"
        )
    return table.sel(detector=detector.id, amp=names).load()


def native(values: Any) -> NDArray[Any]:
    """Return a column of a table in this machine's byte order; text as str, without blanks at the ends."""
    array = np.asarray(values)
    if array.dtype.kind in "SU":
        return np.char.strip(array.astype(str))
    return array.astype(array.dtype.newbyteorder("="))

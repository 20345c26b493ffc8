"""Files of photodiode readings: electrometer FITS, ECSV, or two columns of text (reference/raw_format.md 1.13)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from camcal_dask.errors import DataError
from camcal_dask.regular import check_regular

_NAME = re.compile(r"Photodiode_Readings.*\.txt|.*_photodiode\.ecsv|(Electrometer|EM).*\.fits", re.IGNORECASE)
_NUMBERED = re.compile(r"Photodiode_Readings_(\d{8})_(\d+)\.txt", re.IGNORECASE)
_GROUP = re.compile(r".+#.+")
_TIMES = ("TIME", "Elapsed Time", "RNUM")
"""Columns that may hold the time; the last one that is there counts."""
_CURRENTS = ("CURRENT", "Signal")


@dataclass(frozen=True)
class Reading:
    """One reading: ``time`` [s] and ``current`` [A] (sample,) float64, and what says which exposure it belongs to.

    ``key`` is ("day_obs, seq_num"), ("obs_id",) or ("group",) with their values, as the exposure record spells them.
    """

    time: NDArray[np.float64]
    current: NDArray[np.float64]
    key: Mapping[str, int | str]


def is_reading(path: str) -> bool:
    """Whether the name of a file is that of a photodiode reading."""
    return _NAME.fullmatch(Path(path).name) is not None


def read_reading(path: str) -> Reading:
    """Read one file.

    Raises
    ------
    DataError
        If it cannot be read, lacks a column, or does not say which exposure it belongs to.
    """
    try:
        check_regular(path)
        if path.lower().endswith(".fits"):
            return _from_fits(path)
        return _from_ecsv(path) if _is_ecsv(path) else _from_columns(path)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path}: not a photodiode reading ({error}); leave it out or write it again") from error


def _is_ecsv(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(6) == b"# %ECS"


def _from_fits(path: str) -> Reading:
    with fits.open(path) as hdus, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # units that astropy does not know
        table = Table.read(hdus, hdu=1)
        header = {**hdus[1].header, **hdus[0].header}
    group = str(header.get("GROUPID", ""))
    if not _GROUP.fullmatch(group):
        raise DataError(f"{path}: GROUPID = {group!r}, expected GROUP#N; it names the exposure of the reading")
    return Reading(*_columns(table, path), {"group": group})


def _from_ecsv(path: str) -> Reading:
    table = Table.read(path, format="ascii.ecsv")
    meta: dict[str, Any] = {str(k).lower(): v for k, v in table.meta.items()}
    name = meta.get("obsid")
    if not name:
        raise DataError(f"{path}: no obsId in its metadata, which names the exposure of the reading")
    return Reading(*_columns(table, path), {"obs_id": str(name)})


def _from_columns(path: str) -> Reading:
    match = _NUMBERED.fullmatch(Path(path).name)
    if match is None:
        raise DataError(f"{path}: expected the name Photodiode_Readings_YYYYMMDD_NNNNNN.txt, which says the exposure")
    values = np.loadtxt(path, dtype=np.float64, ndmin=2)
    if values.shape[1] != 2:
        raise DataError(f"{path}: {values.shape[1]} columns, expected two: time [s] and current [A]")
    return Reading(values[:, 0], values[:, 1], {"day_obs": int(match[1]), "seq_num": int(match[2])})


def _columns(table: Table, path: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Time and current; a table of one row holds them as vectors."""
    found = []
    for kind, names in (("time", _TIMES), ("current", _CURRENTS)):
        there = [name for name in names if name in table.colnames]
        if not there:
            raise DataError(f"{path}: no column of the {kind} ({', '.join(names)}), only {', '.join(table.colnames)}")
        found.append(np.asarray(table[there[-1]], np.float64).ravel())
    return found[0], found[1]

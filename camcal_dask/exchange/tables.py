"""Tables of the LSST stack: FITS files (a table an HDU, cards in HDU 1) and ECSV, reference/raw_format.md 5.3.

What their columns mean is said by the layouts that the rooms offer (`camcal_dask.rooms.FitsLayout`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from camcal_dask import rooms
from camcal_dask.errors import DataError, nearest
from camcal_dask.exchange.header import native
from camcal_dask.instruments.geometry import Detector, Instrument
from camcal_dask.regular import check_regular

Rows = Mapping[str, NDArray[Any]]
Arrays = dict[str, NDArray[Any]]


class Calibration(NamedTuple):
    """One detector's table: its dataset type, unit, and arrays without a detector axis."""

    dataset_type: str
    detector: Detector
    units: str
    arrays: Arrays


def read_table(path: str | Path, camera: Instrument) -> Calibration:
    """Read a calibration that a room has a layout for; amps come in the order of the camera's table.

    Raises
    ------
    DataError
        If it is none of these, lacks what the ISR takes from it, or is of another camera.
    """
    tables, cards = _tables(Path(path))
    known = {layout.obstype: (name, layout.read) for name, layout in rooms.layouts().items() if layout.read}
    obstype = str(cards.get("OBSTYPE", ""))
    if obstype not in known:
        raise DataError(f"{path}: OBSTYPE = {obstype!r} is not a table that can be read here{nearest(obstype, known)}")
    dataset_type, read = known[obstype]
    try:
        detector = _detector(cards, camera)
        units, arrays = read(tables, cards, tuple(amp.name for amp in detector.amps))
    except KeyError as error:
        raise DataError(f"{path}: a {dataset_type} without {error.args[0]}") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return Calibration(dataset_type, detector, units, arrays)


def _detector(cards: Mapping[str, Any], camera: Instrument) -> Detector:
    """Detector that a file is of; curated files name the camera as its policy does."""
    instrument, name = str(cards["INSTRUME"]), str(cards.get("DET_NAME", ""))
    if instrument.lower() not in (camera.name.lower(), camera.settings.policy_name.lower()):
        raise DataError(f"it is of {instrument}, the repository's camera is {camera.name}")
    number = int(cards["DETECTOR"])
    if number not in camera.detectors:
        raise DataError(f"{camera.name} has no detector {number}")
    detector = camera.detectors[number]
    if name and name != detector.full_name:
        raise DataError(f"it calls detector {number} {name}, but {camera.name} calls it {detector.full_name}")
    return detector


def _tables(path: Path) -> tuple[list[Rows], dict[str, Any]]:
    """All tables of a file, and the cards of the first."""
    try:
        check_regular(path)
        if path.suffix.lower() == ".ecsv":
            table = Table.read(path, format="ascii.ecsv")
            return [{name: np.asarray(table[name]) for name in table.colnames}], dict(table.meta)
        with fits.open(path) as hdus:
            data = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)]
            tables: list[Rows] = [{name: native(hdu.data[name]) for name in hdu.columns.names} for hdu in data]
            return tables, dict(data[0].header.items()) if data else {}
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: no table that can be read ({error})") from None


def by_amp(table: Rows, names: NDArray[Any], column: str, amps: Sequence[str]) -> NDArray[Any]:
    """Rows of a column in the order of the amps; refuses a table that lacks one."""
    where = {str(name): i for i, name in enumerate(names)}
    if missing := [amp for amp in amps if amp not in where]:
        raise DataError(f"no row of amp {', '.join(missing)}")
    return np.asarray(table[column])[[where[amp] for amp in amps]]


def write_tables(path: str | os.PathLike[str], header: fits.Header, *tables: Rows) -> None:
    """Write tables of columns by name (row, ...), an HDU each; the cards go into the first; replaces a file."""
    hdus = [fits.PrimaryHDU()]
    for k, columns in enumerate(tables):
        n_row = len(next(iter(columns.values())))
        table = np.empty(n_row, [(name, v.dtype, v.shape[1:]) for name, v in columns.items()])
        for name, values in columns.items():
            table[name] = values
        hdus.append(fits.BinTableHDU(table, None if k else header))
    fits.HDUList(hdus).writeto(path, overwrite=True)

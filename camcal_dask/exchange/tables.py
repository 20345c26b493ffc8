"""Tables of the LSST stack that the ISR applies: crosstalk, deferred charge, brighter-fatter, gain corrections.

FITS files (a table an HDU, cards in HDU 1) and, for crosstalk, ECSV; layouts: reference/raw_format.md 5.3,
cti_details.md 3 and 4, crosstalk_details.md 4, brighter_fatter_details.md 5.  Rows of amps are found by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from camcal_dask.errors import DataError, nearest
from camcal_dask.exchange.header import native
from camcal_dask.instruments.geometry import Detector, Instrument
from camcal_dask.kernels.charge.brighter_fatter import detector_kernel
from camcal_dask.kernels.charge.cti import TRAP_KINDS
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
    """Read a calibration of the kinds in :data:`READERS`; amps come in the order of the camera's table.

    Raises
    ------
    DataError
        If it is none of these, lacks what the ISR takes from it, or is of another camera.
    """
    tables, cards = _tables(Path(path))
    kind = str(cards.get("OBSTYPE", ""))
    if kind not in READERS:
        raise DataError(f"{path}: OBSTYPE = {kind!r} is no table that can be read here{nearest(kind, READERS)}")
    dataset_type, reader = READERS[kind]
    try:
        detector = _detector(cards, camera)
        units, arrays = reader(tables, cards, tuple(amp.name for amp in detector.amps))
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
        raise DataError(f"it calls detector {number} {name}, {camera.name} calls it {detector.full_name}")
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


def _by_amp(table: Rows, names: NDArray[Any], column: str, amps: tuple[str, ...]) -> NDArray[Any]:
    """Rows of a column in the order of the amps; refuses a table that lacks one."""
    where = {str(name): i for i, name in enumerate(names)}
    if missing := [amp for amp in amps if amp not in where]:
        raise DataError(f"no row of amp {', '.join(missing)}")
    return np.asarray(table[column])[[where[amp] for amp in amps]]


def _crosstalk(tables: list[Rows], cards: Mapping[str, Any], amps: tuple[str, ...]) -> tuple[str, Arrays]:
    if not cards.get("HAS_CROSSTALK", False):
        raise DataError("HAS_CROSSTALK is not set; it holds nothing")
    table, n = tables[0], int(cards["NAMP"])
    if n != len(amps):
        raise DataError(f"crosstalk of {n} amps, the detector has {len(amps)}")
    version = float(cards.get("CROSSTALK_VERSION", 0))
    units = str(cards["CROSSTALK_RATIOS_UNITS"]) if version >= 1.1 else "adu"

    def matrix(column: str) -> NDArray[Any]:
        return np.array(table[column][0]).reshape(n, n)  # row-major [source, target]

    gains = np.ravel(table["CT_FIT_GAINS"][0]) if "CT_FIT_GAINS" in table else np.zeros(n)
    return units, {
        "linear": matrix("CT_COEFFS"),
        "quadratic": matrix("CT_COEFFS_SQR") if "CT_COEFFS_SQR" in table else np.zeros((n, n)),
        "valid": matrix("CT_VALID").astype(bool),
        "fit_gain": np.asarray(gains, np.float64) if gains.size == n else np.zeros(n),  # old files: one number, "none"
    }


def _cti(tables: list[Rows], cards: Mapping[str, Any], amps: tuple[str, ...]) -> tuple[str, Arrays]:
    if float(cards["CTI_VERSION"]) < 1.1:
        raise DataError(f"CTI_VERSION {cards['CTI_VERSION']} is too old, 1.1 is the least")
    if len(tables) < 2:
        raise DataError("it has no table of traps")
    one, traps = tables[:2]
    names = one["AMPLIFIER"]
    columns = {"drift_scale": "DRIFT_SCALE", "decay_time": "DECAY_TIME", "global_cti": "GLOBAL_CTI"}
    arrays = {name: np.asarray(_by_amp(one, names, c, amps), np.float64) for name, c in columns.items()}
    arrays["input_gain"] = (
        _by_amp(one, names, "INPUT_GAIN", amps) if "INPUT_GAIN" in one else np.full(len(amps), np.nan)
    )
    rows = {str(name): i for i, name in enumerate(traps["AMPLIFIER"])}  # of two traps of an amp the second
    found = [_trap(traps, rows.get(amp)) for amp in amps]
    longest = max(len(coefficients) for *_, coefficients in found)
    padded = [np.pad(c, (0, longest - len(c)), constant_values=np.nan) for *_, c in found]
    return "electron", arrays | {
        "trap_kind": np.array([TRAP_KINDS.index(kind) for kind, *_ in found], np.int8),
        "trap_size": np.array([size for _, size, *_ in found]),
        "trap_emission_time": np.array([time for _, _, time, _ in found]),
        "trap_coefficients": np.array(padded).reshape(len(amps), longest),
    }


def _trap(traps: Rows, row: int | None) -> tuple[str, float, float, NDArray[np.float64]]:
    """Kind, size [electron], emission time [pixel] and coefficients of an amp's trap; ``none`` without one."""
    if row is None:
        return "none", 0.0, 1.0, np.zeros(1)
    kind = str(traps["TYPE"][row])
    if kind not in TRAP_KINDS:
        raise DataError(f"unknown kind of trap {kind!r}{nearest(kind, TRAP_KINDS)}")
    values = np.ravel(np.asarray(traps["COEFFS"][row], np.float64))
    finite = np.flatnonzero(np.isfinite(values))
    values = values[: finite[-1] + 1] if finite.size else values[:0]
    if kind == "spline":
        values = sorted_knots(values)
    least = {"none": 0, "linear": 1, "logistic": 2, "spline": 2}[kind]
    if values.size < least:
        raise DataError(f"a {kind} trap of amp {traps['AMPLIFIER'][row]} with {values.size} coefficients")
    return kind, float(traps["SIZE"][row]), float(traps["EMISSION_TIME"][row]), values


def sorted_knots(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring the table of a trap (all x, then all y) into rising order, with the constants of the file outside.

    The stack orders knots by the mean of the image, so that x need not rise; beyond its range it takes the values
    of the first and the last knot *of the file* (cti_details.md 3).

    Raises
    ------
    DataError
        For an odd number of coefficients, or no finite knot.
    """
    if values.size % 2 or not values.size:
        raise DataError(f"the table of a spline trap has {values.size} coefficients, an even number is needed")
    x, y = np.split(values, 2)
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        raise DataError("the table of a spline trap has no finite knot")
    x, y = x[good], y[good]
    first, last, order = y[0], y[-1], np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    if y[0] != first:
        x, y = np.append(x[0] - _STEP, x), np.append(first, y)
    if y[-1] != last:
        x, y = np.append(x, x[-1] + _STEP), np.append(y, last)
    return np.concatenate([x, y])


_STEP = 1e-3
"""Width [electron] of the step to a constant that differs from the table's end."""


def _kernel(tables: list[Rows], cards: Mapping[str, Any], amps: tuple[str, ...]) -> tuple[str, Arrays]:
    width, height = int(cards["KERNEL_DX"]), int(cards["KERNEL_DY"])
    if len(tables) > 1 and len(tables[1].get("KERNEL", ())):
        kernel = np.asarray(tables[1]["KERNEL"][0], np.float64)
    else:
        table, names = tables[0], tables[0]["AMPLIFIER"]
        kernels = _by_amp(table, names, "KERNEL", amps).reshape(len(amps), height, width)
        kernel = detector_kernel(kernels, _by_amp(table, names, "VALID", amps).astype(bool))
    return "electron", {"kernel": kernel.reshape(height, width)}


def _shifts(tables: list[Rows], cards: Mapping[str, Any], amps: tuple[str, ...]) -> tuple[str, Arrays]:
    table = tables[0]
    sides = {f"a{side}": np.ravel(np.asarray(table[f"A_{side}"][0], np.float64)) for side in "NSEW"}
    n = round(np.sqrt(sides["aN"].size))
    if any(values.size != n * n for values in sides.values()):
        raise DataError(f"boundary shifts of {[v.size for v in sides.values()]} numbers; squares are needed")
    return "electron", {name: values.reshape(n, n) for name, values in sides.items()}


def _gain_correction(tables: list[Rows], cards: Mapping[str, Any], amps: tuple[str, ...]) -> tuple[str, Arrays]:
    table = tables[0]
    values = _by_amp(table, table["AMP_NAME"], "GAIN_ADJUSTMENT", amps)
    return "1", {"adjustment": np.asarray(values, np.float64)}


Reader = Callable[[list[Rows], Mapping[str, Any], tuple[str, ...]], tuple[str, Arrays]]
READERS: Mapping[str, tuple[str, Reader]] = {
    "CROSSTALK": ("crosstalk", _crosstalk),
    "CTI": ("cti", _cti),
    "bfk": ("bfk", _kernel),
    "BF_DISTORTION_MATRIX": ("electroBfDistortionMatrix", _shifts),
    "gainCorrection": ("gain_correction", _gain_correction),
}
"""OBSTYPE of a file: dataset type here, and the function that reads it."""

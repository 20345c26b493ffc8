"""Linearizers in the FITS layout of the LSST stack, schema 1.8 (reference/ptc_linearity.md 10).

An empty primary HDU, a table with a row per amp, and for lookup tables a second one with a row per table row.  The
layout has no exposure ids: flats are known by their position.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask.errors import DataError, nearest
from camcal_dask.exchange.header import calibration_header, metadata_of, native, opened, select_detector
from camcal_dask.exchange.tables import write_tables
from camcal_dask.instruments.focal_plane import amp_boxes
from camcal_dask.instruments.geometry import Detector
from camcal_dask.kernels.linearity.correct import TYPES
from camcal_dask.schema import AMP_DIMS

SCHEMA = "Gen3 Linearizer"
VERSION = 1.8
CALIBCLS = "lsst.ip.isr.linearize.Linearizer"
_BOX = ("BBOX_X0", "BBOX_Y0", "BBOX_DX", "BBOX_DY")


class Column(NamedTuple):
    """A column, the variable it holds and its dimension beside amp."""

    name: str
    variable: str
    dim: str = ""
    dtype: str = "f8"


COLUMNS = (
    Column("INPUT_GAIN", "input_gain"),
    Column("INPUT_TURNOFF", "input_turnoff"),
    Column("TYPE", "type", dtype="S"),
    Column("COEFFS", "coefficients", "coefficient"),
    *(Column(name, "", dtype="i8") for name in _BOX),
    Column("INP_ABSCISSA", "abscissa", "flat"),
    Column("INP_ORDINATE", "ordinate", "flat"),
    Column("INP_MASK", "used", "flat", "?"),
    Column("INP_GROUPING_INDEX", "group", "flat", "i8"),
    Column("INP_NORMALIZATION", "normalization", "flat"),
    Column("FIT_PARAMS", "fit_params", "parameter"),
    Column("FIT_PARAMS_ERR", "fit_params_err", "parameter"),
    Column("RED_CHI_SQ", "fit_chi2"),
    Column("FIT_RES", "residual", "flat"),
    Column("FIT_RES_SIGMAD", "residual_sigma"),
    Column("FIT_RES_UNMASKED", "residual_unmasked", "flat"),
    Column("FIT_RES_MODEL", "model", "flat"),
    Column("LIN_FIT", "line", "term"),
    Column("LINEARITY_TURNOFF", "linearity_turnoff"),
    Column("LINEARITY_MAX_SIGNAL", "linearity_max_signal"),
    Column("ABS_REF_AMP", "reference_amp", dtype="S"),
)
"""Columns in the order of the file, after AMPLIFIER_NAME."""

_OF_THE_FIT = ("fit_params", "fit_params_err", "residual", "residual_unmasked", "model", "line")
"""Vectors that hold zeros in the rows of amps without linearity, as the LSST stack's do; here such values are NaN."""
_REQUIRED = ("AMPLIFIER_NAME", "TYPE", "COEFFS", *_BOX)


def write_linearizer(
    path: str | Path, linearizer: xr.Dataset, detector: Detector, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write the linearizer of one detector; an existing file is replaced.

    Parameters
    ----------
    path : file to write
    linearizer : Dataset
        From `camcal_dask.calibs.linearizer.fit.fit`, or the product.
    detector : Detector
        Must be in it; its amps give the rows.
    metadata : further header cards, see :func:`camcal_dask.exchange.header.calibration_header`

    Raises
    ------
    DataError
        If ``linearizer`` lacks the detector or its amps.
    """
    data = select_detector(linearizer, detector, "this linearizer")
    has_table = "table" in data
    cards = {
        "INSTRUME": data.attrs.get("instrument", ""),
        "FILTER": "NONE",
        "HAS_LINEARITY": True,
        "OVERRIDE": False,
        "HAS_TABLE": has_table,
        "LINEARITY_UNITS": data.attrs.get("units", "adu"),
        **(metadata or {}),
    }
    header = calibration_header("LINEARIZER", SCHEMA, VERSION, CALIBCLS, detector, cards)
    columns = {"AMPLIFIER_NAME": data["amp"].values.astype("S")}
    columns |= {c.name: _values(data, c, detector) for c in COLUMNS}
    lookup = [{"LOOKUP_VALUES": data["table"].values}] if has_table else []
    write_tables(path, header, columns, *lookup)


def read_linearizer(path: str | Path) -> xr.Dataset:
    """Read a file of :func:`write_linearizer` or of the LSST stack.

    Returns
    -------
    Dataset
        One detector, as `camcal_dask.calibs.linearizer.fit.fit` makes it; ``exposure`` holds positions.
        ``attrs["cards"]`` are the header cards.

    Raises
    ------
    DataError
        If it cannot be read, is no linearizer, or one without linearity.
    """
    with opened(path) as hdus:
        header = hdus[1].header if len(hdus) > 1 else hdus[0].header
        if header.get("OBSTYPE") != "LINEARIZER":
            raise DataError(f"{path}: no linearizer (OBSTYPE = {header.get('OBSTYPE')!r})")
        if not header.get("HAS_LINEARITY", False):
            raise DataError(f"{path}: HAS_LINEARITY is not set, so the file holds no linearity")
        table = {name: native(hdus[1].data[name]) for name in hdus[1].columns.names}
        lookup = native(hdus[2].data["LOOKUP_VALUES"]) if len(hdus) > 2 else None
        cards = metadata_of(header)
    missing = [name for name in _REQUIRED if name not in table]
    if missing:
        raise DataError(f"{path}: a linearizer without column {', '.join(missing)}")
    return _assembled(str(path), table, lookup, cards)


def _values(data: xr.Dataset, column: Column, detector: Detector) -> NDArray[Any]:
    """Content of a column, (n_amp,) or (n_amp, length)."""
    names = data["amp"].values
    if column.name in _BOX:
        return amp_boxes(detector)[:, _BOX.index(column.name)].astype(np.int64)
    if column.name == "TYPE":
        return np.array([TYPES[int(t)] for t in data["type"].values], "S")
    if column.name == "ABS_REF_AMP":
        index = int(data["reference_amp"])
        return np.array([names[index] if index >= 0 else ""] * len(names), "S")
    values = data[column.variable].values.astype(column.dtype)
    if column.dim and column.variable in _OF_THE_FIT:
        values[data["bad"].values] = 0
    if "amp" not in data[column.variable].dims:
        values = np.broadcast_to(values, (len(names), *values.shape))
    return values


def _assembled(
    path: str, table: dict[str, NDArray[Any]], lookup: NDArray[Any] | None, cards: dict[str, Any]
) -> xr.Dataset:
    names, kinds = table["AMPLIFIER_NAME"], table["TYPE"]
    unknown = sorted({str(kind) for kind in kinds} - set(TYPES))
    if unknown:
        raise DataError(f"{path}: linearity type {unknown[0]!r} is not known{nearest(unknown[0], TYPES)}")
    codes = np.array([TYPES.index(str(kind)) for kind in kinds], np.int8)
    bad = codes == TYPES.index("None")
    variables: dict[str, Any] = {"type": (AMP_DIMS, codes[None])}
    for column in COLUMNS:
        if column.name in table and column.dtype != "S" and column.variable:
            dims, values = ("amp", column.dim) if column.dim else ("amp",), table[column.name]
            values = values.reshape(len(names), -1) if column.dim else values
            if column.variable in _OF_THE_FIT:
                values = np.where(bad[:, None] & ~values.any(1, keepdims=True), np.nan, values)
            if column.variable == "normalization":
                dims, values = ("flat",), values[0]
            variables[column.variable] = (("detector", *dims), values[None])
    reference = str(table["ABS_REF_AMP"][0]) if "ABS_REF_AMP" in table else ""
    index = names.tolist().index(reference) if reference in names.tolist() else -1
    variables["reference_amp"] = (("detector",), np.array([index], np.int32))
    variables["bad"] = (AMP_DIMS, bad[None])
    if lookup is not None:
        variables["table"] = (("detector", "row", "column"), lookup[None])
    good = [str(kind) for kind in kinds if kind != "None"]
    attrs = {
        "instrument": cards.get("INSTRUME", ""),
        "units": cards.get("LINEARITY_UNITS", "adu"),
        "linearity_type": good[0] if good else "None",
        "cards": cards,
    }
    made = xr.Dataset(variables, {"detector": [int(cards["DETECTOR"])], "amp": names}, attrs)
    return made.assign_coords(exposure=("flat", range(made.sizes["flat"]))) if "flat" in made.sizes else made

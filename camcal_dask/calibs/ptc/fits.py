"""Photon transfer curves in the FITS layout of the LSST stack, schema 2.6 (reference/ptc_linearity.md 9).

An empty primary HDU and one table, a row per amp, fixed-length arrays.  Extracted pairs that are not solved yet are
written as type ``PARTIAL``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask.errors import DataError
from camcal_dask.exchange.header import calibration_header, metadata_of, native, opened, select_detector
from camcal_dask.exchange.tables import write_tables
from camcal_dask.instruments.geometry import Detector

SCHEMA = "Gen3 Photon Transfer Curve"
VERSION = 2.6
OLDEST = 1.9
"""Before, the noise was in electron^2 for some fit types."""
CALIBCLS = "lsst.ip.isr.ptcDataset.PhotonTransferCurveDataset"

_PAIR = ("pair",)
_LAGS = ("lag_i", "lag_j")
_ORDER, _ORDER_CARD = "covariance_order", "COVORDER"
"""Attribute that tells the model of a full covariance fit, and our card for it: the layout has no place."""


class Column(NamedTuple):
    """A column, the variable it holds, its dimensions beside amp; ``solved``: not in partial files."""

    name: str
    variable: str
    dims: tuple[str, ...] = ()
    dtype: str = "f8"
    solved: bool = True
    fitted_lags: bool = False


COLUMNS = (
    Column("INPUT_EXP_PAIR_MJD_START", "mjd", _PAIR, solved=False),
    Column("EXP_ID_MASK", "used", _PAIR, "?"),
    Column("EXP_ID_ROLLOFF_MASK", "rolloff_used", _PAIR, "?"),
    Column("RAW_EXP_TIMES", "exposure_time", _PAIR, solved=False),
    Column("RAW_MEANS", "raw_mean", _PAIR, solved=False),
    Column("RAW_VARS", "raw_var", _PAIR, solved=False),
    Column("RAW_DELTAS", "raw_delta", _PAIR, solved=False),
    Column("ROW_MEAN_VARIANCE", "row_mean_variance", _PAIR, solved=False),
    Column("GAIN", "gain"),
    Column("GAIN_ERR", "gain_err"),
    Column("GAIN_UNADJUSTED", "gain_unadjusted"),
    Column("GAIN_LIST", "pair_gain", _PAIR, solved=False),
    Column("OVERSCAN_MEDIAN_LIST", "overscan_median", _PAIR, solved=False),
    Column("OVERSCAN_MEDIAN", "overscan_median_level"),
    Column("OVERSCAN_MEDIAN_SIGMA", "overscan_median_sigma"),
    Column("NOISE_LIST", "noise_adu", _PAIR, solved=False),
    Column("NOISE", "noise"),
    Column("NOISE_ERR", "noise_err"),
    Column("HIST_VARS", "hist_var", _PAIR, solved=False),
    Column("HIST_CHI2_DOFS", "hist_chi2_dof", _PAIR, solved=False),
    Column("KS_PVALUES", "ks_pvalue", _PAIR, solved=False),
    Column("PTC_FIT_PARS", "fit_pars", ("parameter",)),
    Column("PTC_FIT_PARS_ERROR", "fit_pars_err", ("parameter",)),
    Column("PTC_FIT_CHI_SQ", "chi2"),
    Column("PTC_TURNOFF", "turnoff"),
    Column("PTC_TURNOFF_SAMPLING_ERROR", "turnoff_sampling_error"),
    Column("PTC_ROLLOFF", "rolloff"),
    Column("PTC_ROLLOFF_ERROR", "rolloff_err"),
    Column("PTC_ROLLOFF_TAU", "rolloff_tau"),
    Column("PTC_ROLLOFF_TAU_ERROR", "rolloff_tau_err"),
    Column("A_MATRIX", "a_matrix", _LAGS, fitted_lags=True),
    Column("B_MATRIX", "b_matrix", _LAGS, fitted_lags=True),
    Column("NOISE_MATRIX", "noise_matrix", _LAGS, fitted_lags=True),
    Column("BAD_AMPS", "bad"),
    Column("PHOTO_CHARGE", "photo_charge", _PAIR, solved=False),
    Column("PHOTO_CHARGE_DELTAS", "photo_charge_delta", _PAIR, solved=False),
    Column("AMP_OFFSETS", "amp_offset", _PAIR, solved=False),
    Column("NPIXEL_COVARIANCES", "n_pixel", (), "i8", solved=False),
    Column("COVARIANCES", "covariance", (*_PAIR, *_LAGS), solved=False),
    Column("COVARIANCES_MODEL", "covariance_model", (*_PAIR, *_LAGS), fitted_lags=True),
    Column("COVARIANCES_SQRT_WEIGHTS", "covariance_sqrt_weight", (*_PAIR, *_LAGS), solved=False),
    Column("FINAL_VARS", "final_var", _PAIR),
    Column("FINAL_MODEL_VARS", "final_model_var", _PAIR),
    Column("FINAL_MEANS", "final_mean", _PAIR),
)
"""Columns in the order of the file, after those of identity and before the auxiliary ones."""

_PAIR_COORDS = ("exposure_1", "exposure_2", "exposure_time", "mjd")
_ONE_AN_EXPOSURE = ("photo_charge", "photo_charge_delta")
"""Variables (pair,): the same number in every row of the file."""
_PARTIAL = {"used": "valid", "gain": "pair_gain", "noise": "noise_adu"}
"""What stands in the columns of solved variables in a partial file; the noise is in adu there, as upstream has it."""
_OVERSCAN = ("overscan_median_level", "overscan_median_sigma")
"""Of an amp without usable values they are 0 in a file, as the LSST stack has it; here they are NaN."""
_AUX, _AUX_COLUMN = "aux_", "PTCAUX_"


def write_ptc(path: str | Path, ptc: xr.Dataset, detector: Detector, metadata: Mapping[str, Any] | None = None) -> None:
    """Write the curves of one detector, solved or not; an existing file is replaced.

    Parameters
    ----------
    path : file to write
    ptc : Dataset
        Of `camcal_dask.calibs.ptc.solve.solve`, or of the extraction.  Pairs are sorted by the mean over the amps, as
        readers expect.  What is missing is written as NaN.
    detector : Detector
        Must be in ``ptc``; its amps give the rows.
    metadata : further header cards, see :func:`camcal_dask.exchange.header.calibration_header`

    Raises
    ------
    DataError
        If ``ptc`` lacks the detector or its amps.
    """
    data = _of_detector(ptc, detector)
    fit_type = str(data.attrs.get("fit_type", "PARTIAL"))
    cards = {"INSTRUME": data.attrs.get("instrument", ""), "PTC_FIT_TYPE": fit_type, **(metadata or {})}
    if _ORDER in data.attrs:
        cards[_ORDER_CARD] = int(data.attrs[_ORDER])
    header = calibration_header("PTC", SCHEMA, VERSION, CALIBCLS, detector, cards)
    columns = _identity(data, fit_type)
    for column in COLUMNS:
        columns[column.name] = _bad_amps(data) if column.name == "BAD_AMPS" else _values(data, column, fit_type)
    for name in data.variables:
        if str(name).startswith(_AUX):
            values = data[name].values
            text = values.dtype.kind not in "iufb"
            columns[_AUX_COLUMN + str(name).removeprefix(_AUX)] = _rows(data, values.astype("S") if text else values)
    write_tables(path, header, columns)


def read_ptc(path: str | Path) -> xr.Dataset:
    """Read a file of :func:`write_ptc` or of the LSST stack.

    Returns
    -------
    Dataset
        One detector; pairs in the order of the file; of type PARTIAL only what an extraction gives.  ``attrs["cards"]``
        are the header cards.  Columns that the version of the file does not have yet are missing.

    Raises
    ------
    DataError
        If it cannot be read, is no photon transfer curve, or of a version before 1.9.
    """
    with opened(path) as hdus:
        header = hdus[1].header if len(hdus) > 1 else hdus[0].header
        version = header.get("PTC_VERSION")
        if header.get("OBSTYPE") != "PTC" or version is None:
            raise DataError(f"{path}: no photon transfer curve (OBSTYPE = {header.get('OBSTYPE')!r})")
        if version < OLDEST:
            raise DataError(f"{path}: version {version} is too old (needs {OLDEST}); rewrite it with the LSST stack")
        table = {name: native(hdus[1].data[name]) for name in hdus[1].columns.names}
        cards = metadata_of(header)
    return _assembled(table, cards)


def _of_detector(ptc: xr.Dataset, detector: Detector) -> xr.Dataset:
    """Pairs of one detector in memory, sorted."""
    data = select_detector(ptc, detector, "these curves")
    return data.isel(pair=np.argsort(data["raw_mean"].mean("amp").values, kind="stable"))


def _identity(data: xr.Dataset, fit_type: str) -> dict[str, NDArray[Any]]:
    side = data.sizes.get("lag_i", 1)
    pairs = np.stack([data["exposure_1"].values, data["exposure_2"].values], axis=1).astype(np.int64)
    rows = np.ones(data.sizes["amp"], np.int64)
    return {
        "AMPLIFIER_NAME": data["amp"].values.astype("S"),
        "PTC_FIT_TYPE": np.full(len(rows), fit_type.encode()),
        "COV_MATRIX_SIDE": side * rows,
        "COV_MATRIX_SIDE_FULL_COV_FIT": _fitted_side(data) * rows,
        "INPUT_EXP_ID_PAIRS": _rows(data, pairs),
    }


def _fitted_side(data: xr.Dataset) -> int:
    """Lags of the fit of any amp, so that no matrix of the file has a NaN border of lags that none could fit."""
    side = int(data.attrs.get("covariance_lags", data.sizes.get("lag_i", 1)))
    fitted = int(data["lags"].max()) if "lags" in data else 0
    return min(side, fitted) if fitted else side


def _rows(data: xr.Dataset, values: NDArray[Any]) -> NDArray[Any]:
    """The same values in every row."""
    return np.broadcast_to(values, (data.sizes["amp"], *values.shape))


def _values(data: xr.Dataset, column: Column, fit_type: str) -> NDArray[Any]:
    """Content of a column, (n_amp, length) or (n_amp,)."""
    side = data.sizes.get("lag_i", 1)
    lags = _fitted_side(data) if column.fitted_lags else side
    no_parameters = column.dims == ("parameter",) and fit_type.startswith(("FULLCOVARIANCE", "PARTIAL"))
    name = _PARTIAL.get(column.variable, column.variable) if fit_type == "PARTIAL" else column.variable
    if name not in data.variables or no_parameters:
        sizes = {**data.sizes, "lag_i": lags, "lag_j": lags, "parameter": 1}
        missing = {"?": False, "i8": 0}.get(column.dtype, np.nan)
        values = np.full([sizes["amp"], *(sizes[dim] for dim in column.dims)], missing, column.dtype)
    else:
        variable = data[name].isel({dim: slice(lags) for dim in _LAGS if dim in data[name].dims})
        if "pair" in variable.dims and "pair" not in column.dims:
            variable = variable.max("pair") if column.dtype == "i8" else variable.median("pair")
        if "amp" not in variable.dims:
            variable = variable.expand_dims(amp=data["amp"].values)
        values = variable.transpose("amp", *column.dims).values.astype(column.dtype)
    if column.variable in _OVERSCAN:
        values = np.nan_to_num(values)
    return values.reshape(len(values), -1) if column.dims else values


def _bad_amps(data: xr.Dataset) -> NDArray[Any]:
    """The list of all bad amps, in every row."""
    names = data["amp"].values.astype("S")
    bad = data["bad"].values if "bad" in data else np.zeros(len(names), bool)
    return _rows(data, names[bad])


def _assembled(table: dict[str, NDArray[Any]], cards: dict[str, Any]) -> xr.Dataset:
    n_amp, names = len(table["AMPLIFIER_NAME"]), table["AMPLIFIER_NAME"]
    side, fitted = int(table["COV_MATRIX_SIDE"][0]), int(table["COV_MATRIX_SIDE_FULL_COV_FIT"][0])
    pairs = table["INPUT_EXP_ID_PAIRS"].reshape(n_amp, -1, 2)[0]
    fit_type = str(table["PTC_FIT_TYPE"][0])
    sizes = {"pair": len(pairs), "lag_i": side, "lag_j": side}
    variables: dict[str, Any] = {"exposure_1": ("pair", pairs[:, 0]), "exposure_2": ("pair", pairs[:, 1])}
    partial = fit_type == "PARTIAL"
    for column in COLUMNS:
        if column.name in table and column.variable != "bad" and not (partial and column.solved):
            lags = fitted if column.fitted_lags else side
            shape = [lags if dim in _LAGS else sizes.get(dim, -1) for dim in column.dims]
            values = table[column.name].reshape(n_amp, *shape)
            variables[column.variable] = _variable(column, values, side, len(pairs))
    for name, values in table.items():
        if name.startswith(_AUX_COLUMN):
            variables[_AUX + name.removeprefix(_AUX_COLUMN)] = ("pair", values.reshape(n_amp, -1)[0])
    if partial:
        variables["valid"] = (("amp", "pair"), table["EXP_ID_MASK"].reshape(n_amp, -1))
    else:
        variables |= _derived(variables, names, table["BAD_AMPS"], fit_type)
    coords = {"pair": range(len(pairs)), "detector": [int(cards["DETECTOR"])], "amp": names}
    coords |= {"lag_i": range(side), "lag_j": range(side)}
    attrs = {"instrument": cards.get("INSTRUME", ""), "fit_type": fit_type, "units": "adu", "covariance_lags": fitted}
    if _ORDER_CARD in cards:
        attrs[_ORDER] = int(cards[_ORDER_CARD])
    data = xr.Dataset(variables, coords, {**attrs, "cards": cards})
    data = data.set_coords([name for name in _PAIR_COORDS if name in data])
    in_detector = {
        name: v.expand_dims(detector=data["detector"]) for name, v in data.data_vars.items() if "amp" in v.dims
    }
    return data.assign(in_detector)


def _variable(column: Column, values: NDArray[Any], side: int, n_pairs: int) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Dims and values (amp, ...) of a column, without amp where all rows agree by definition."""
    if column.variable in (*_PAIR_COORDS, *_ONE_AN_EXPOSURE):
        return column.dims, values[0]
    if column.variable == "n_pixel":
        return ("amp", "pair"), np.repeat(values[:, None], n_pairs, axis=1)
    if column.fitted_lags:
        missing = side - values.shape[-1]
        values = np.pad(values, [(0, 0)] * (values.ndim - 2) + [(0, missing)] * 2, constant_values=np.nan)
    if column.dims == ("parameter",) and values.shape[1] < 3:
        values = np.full((len(values), 3), np.nan)
    return ("amp", *column.dims), values


def _derived(variables: dict[str, Any], names: NDArray[Any], bad_amps: NDArray[Any], fit_type: str) -> dict[str, Any]:
    """What the file holds in other words: bad amps, a00, validity of the pairs."""
    bad = np.isin(names, np.unique(bad_amps))
    if fit_type.startswith("FULLCOVARIANCE"):
        a00 = variables["a_matrix"][1][:, 0, 0]
    else:
        a00 = variables["fit_pars"][1][:, 2 if fit_type == "POLYNOMIAL" else 0]
    valid = np.isfinite(variables["raw_mean"][1]) & np.isfinite(variables["raw_var"][1])
    overscan = {name: variables[name] for name in _OVERSCAN if name in variables}
    if "overscan_median" in variables:
        known = (np.isfinite(variables["overscan_median"][1]) & variables["used"][1]).any(1)
        overscan = {name: (dims, np.where(known, values, np.nan)) for name, (dims, values) in overscan.items()}
    return overscan | {"bad": ("amp", bad), "a00": ("amp", a00), "valid": (("amp", "pair"), valid)}

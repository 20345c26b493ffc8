"""Linearizer from the table of a PTC (reference/ptc_linearity.md 10, 12), and its normalisation over the focal plane.

``fit`` makes what the ISR applies: ``type`` (index into `kernels.linearity.correct.TYPES`), ``coefficients``
and ``table``.  A double spline also needs the amp ratios of `camcal_dask.calibs.linearizer.ratios`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import spearmanr

from camcal_dask.calibs.linearizer.config import LinearityConfig, TermsConfig
from camcal_dask.calibs.linearizer.flats import Flats, linear_ranges, read_flats
from camcal_dask.calibs.linearizer.lengthen import concat
from camcal_dask.errors import ConfigError, DataError
from camcal_dask.kernels.arrays import BoolArray, FloatArray, IntArray
from camcal_dask.kernels.linearity import double
from camcal_dask.kernels.linearity.correct import TYPES, correct_signals, lengthen_spline
from camcal_dask.kernels.linearity.fit import Range, fit_polynomial, irls_fit, lookup_row, mad_sigma
from camcal_dask.kernels.linearity.nodes import find_levels, level_medians
from camcal_dask.kernels.linearity.spline import Ramp, SplineFit, SplineTerms, fit_spline, uniform_nodes

_MOST_RANK_CORRELATION = 0.8
"""Of time and signal, beyond which a drift cannot be told from a non-linearity."""
_FAINT, _FAINT_LEVELS = 0.02, 3
"""Signal, in units of the turnoff, below which so many levels can tell an offset from a non-linearity."""


class AmpFit(NamedTuple):
    """Result for one amp: coefficients, fit parameters and errors, reduced chi2, lookup row.

    ``signal`` (flat,) [adu] is linear in ``abscissa`` (flat,); ``used`` (flat,).
    """

    coefficients: FloatArray
    parameters: FloatArray
    errors: FloatArray
    chi2: float
    signal: FloatArray
    abscissa: FloatArray
    used: BoolArray
    row: FloatArray | None = None


class DetectorFit(NamedTuple):
    """Fits by amp index, why the others failed, and the reference amp (-1: none)."""

    fits: dict[int, AmpFit]
    problems: dict[int, str]
    reference_amp: int = -1


def fit(
    ptc: xr.Dataset,
    config: LinearityConfig,
    *,
    normalization: xr.DataArray | None = None,
    ratios: xr.Dataset | None = None,
    first_pass: bool = False,
    final: bool = True,
) -> xr.Dataset:
    """Make the linearizer of all detectors of a PTC.

    Parameters
    ----------
    ptc : Dataset
        Solved PTC of images that were not linearised [adu].
    config : LinearityConfig
    normalization : DataArray, optional
        (exposure,) factors on the abscissa, see `normalize`.
    ratios : Dataset, optional
        From `camcal_dask.calibs.linearizer.ratios.table`; a DoubleSpline needs it.
    first_pass : bool
        Coarser absolute nodes of a DoubleSpline: the result only serves `normalize`.
    final : bool
        Cross-validate: fit again without some levels at a time and see how linear these come out (``left_out``).

    Returns
    -------
    Dataset
        Variables as `camcal_dask.calibs.linearizer.product.LINEARIZER`; amps that fail have type None, and
        ``attrs["problems"]`` says why.
    """
    ids = np.atleast_1d(ptc["detector"].values).tolist()
    per_detector = ptc if "detector" in ptc.dims else ptc.expand_dims("detector")
    if config.type == "DoubleSpline" and ratios is None:
        raise ConfigError("a DoubleSpline needs the amp ratios of the exposures: ratios=linearity_ratios.table(..)")
    parts = []
    for detector in ids:
        flats = read_flats(per_detector, detector, config, normalization)
        ranges = linear_ranges(flats, config)
        mine = None if ratios is None else ratios.sel(detector=detector)
        result = _fit_detector(flats, ranges, mine, config, first_pass)
        left_out = np.full(flats.ordinate.shape, np.nan)
        if final:
            left_out = _cross_validate(flats, ranges, mine, config, result)
        parts.append(_dataset(flats, ranges, result, left_out, config))
    return concat(parts)


def _fit_detector(
    flats: Flats, ranges: list[Range], ratios: xr.Dataset | None, config: LinearityConfig, first_pass: bool = False
) -> DetectorFit:
    if config.type == "DoubleSpline" and ratios is not None:
        return _fit_double(flats, ranges, ratios, config, first_pass)
    return _fit_amps(flats, ranges, config)


def _cross_validate(
    flats: Flats, ranges: list[Range], ratios: xr.Dataset | None, config: LinearityConfig, result: DetectorFit
) -> FloatArray:
    """Departure from linearity (amp, flat) of flats that the fit did not know, relative to the signal.

    Whole levels are left out, every n-th one at a time.  A level outside those that are left is not predicted: nothing
    is claimed of a correction beyond its flats.
    """
    out = np.full(flats.ordinate.shape, np.nan)
    good = np.zeros(flats.ordinate.shape, bool)
    for amp, f in result.fits.items():
        good[amp] = f.used
    fold = _folds(flats, np.asarray(good.any(0)), config.folds)
    for k in range(fold.max() + 1):
        kept = fold != k
        try:
            trial = _fit_detector(flats.only(good & kept), ranges, ratios, config)
        except DataError:
            continue
        for amp, f in trial.fits.items():
            known, asked = f.used & kept, good[amp] & ~kept
            if known.any():
                inside = (flats.ordinate[amp] >= flats.ordinate[amp][known].min()) & asked
                inside &= flats.ordinate[amp] <= flats.ordinate[amp][known].max()
                slope = f.abscissa[known].sum() / (f.abscissa[known] ** 2 / f.signal[known]).sum()
                out[amp, inside] = 1 - slope * f.abscissa[inside] / f.signal[inside]
    return out


def _folds(flats: Flats, good: BoolArray, n: int) -> IntArray:
    """Share of each flat, 0 .. n - 1, levels in turn by signal; -1 of flats that are not good."""
    level = find_levels(flats.abscissa, flats.group, good)
    rank = np.argsort(np.argsort(level_medians(np.median(flats.ordinate, axis=0), level)))
    return np.array([rank[k] % n if k >= 0 else -1 for k in level.tolist()], np.int64)


def _fit_amps(flats: Flats, ranges: list[Range], config: LinearityConfig) -> DetectorFit:
    """All amps, one by one."""
    how: Mapping[str, Callable[[Flats, int, Range, LinearityConfig], AmpFit]] = {
        "Spline": _fit_spline,
        "LookupTable": _fit_polynomial,
        "Polynomial": _fit_polynomial,
        "Squared": _fit_polynomial,
        "Proportional": _fit_nothing,
        "None": _fit_nothing,
    }
    fits, problems = {}, _unusable(flats, ranges)
    for amp in set(range(len(flats.bad))) - set(problems):
        try:
            fits[amp] = how[config.type](flats, amp, ranges[amp], config)
        except DataError as error:
            problems[amp] = str(error)
    return DetectorFit(fits, problems)


def _unusable(flats: Flats, ranges: list[Range]) -> dict[int, str]:
    problems = {a: "bad in the PTC" for a in np.flatnonzero(flats.bad).tolist()}
    problems |= {
        a: "the PTC used no flat whose light is known"
        for a in np.flatnonzero(~flats.used.any(1)).tolist()
        if a not in problems
    }
    problems |= {a: "no linear range" for a, r in enumerate(ranges) if a not in problems and np.isnan(r.turnoff)}
    return problems


def _fit_polynomial(flats: Flats, amp: int, linear: Range, config: LinearityConfig) -> AmpFit:
    settings, y = config.polynomial, flats.ordinate[amp]
    used = flats.linear(amp, linear)
    result = fit_polynomial(
        flats.abscissa,
        y,
        used,
        order=settings.order,
        min_linear=settings.min_linear,
        max_linear=settings.max_linear,
        n_sigma=settings.n_sigma,
    )
    c, row = result.coefficients, None
    if config.type == "LookupTable":
        c, row = np.array([amp, 0.0]), lookup_row(result.fit, settings.n_column)
    elif config.type == "Squared":
        c = c[:1]
    table = None if row is None else row[None]
    signal = correct_signals(config.type, np.array([0.0, 0.0]) if row is not None else c, y, table)
    fit_ = result.fit
    return AmpFit(c, fit_.parameters, fit_.errors, fit_.chi2, signal, flats.abscissa, result.used, row)


def _fit_nothing(flats: Flats, amp: int, linear: Range, config: LinearityConfig) -> AmpFit:
    y = flats.ordinate[amp]
    zero = np.zeros(1)
    return AmpFit(zero, zero, zero, np.nan, y, flats.abscissa, flats.linear(amp, linear))


def _fit_spline(flats: Flats, amp: int, linear: Range, config: LinearityConfig) -> AmpFit:
    settings, ramp = config.spline, flats.ramp(amp)
    used = flats.linear(amp, linear)
    if not used.any():
        raise DataError("no good flat below the turnoff")
    terms = settings.terms()
    result = fit_spline(
        ramp, used, uniform_nodes(ramp.ordinate[used], settings.n_node), float(flats.ptc_turnoff[amp]), terms,
        settings.outer_rounds,
    )  # fmt: skip
    c = np.concatenate([result.nodes, result.values])
    parameters = result.parameters(terms)
    return AmpFit(
        c, parameters, np.zeros_like(parameters), result.chi2, result.signal(ramp), result.scaled_abscissa(ramp),
        result.used,
    )  # fmt: skip


def _fit_double(
    flats: Flats, ranges: list[Range], ratios: xr.Dataset, config: LinearityConfig, first_pass: bool
) -> DetectorFit:
    """Relative splines of all amps but the reference amp, and the absolute spline of that one."""
    problems = _unusable(flats, ranges)
    reference = int(ratios["reference_amp"])
    if reference < 0 or reference in problems:
        why = problems.get(reference, "none was found")
        raise DataError(f"detector {flats.detector}: no reference amp for a double spline: {why}")
    rows = _rows_of(ratios, flats)
    level = ratios["reference_level"].values[rows]
    absolute = _fit_absolute(flats, ranges[reference], reference, level, config, first_pass)
    relative: dict[int, SplineFit] = {}
    for amp in set(range(len(flats.bad))) - set(problems) - {reference}:
        ratio, scaling = ratios["gain_ratio"].isel(amp=amp).values[rows], float(ratios["amp_scaling"][amp])
        used = flats.linear(amp, ranges[amp]) & flats.linear(reference, ranges[reference])
        turnoff = ranges[amp].turnoff
        limits = (min(float(flats.ptc_turnoff[amp]), turnoff), turnoff)
        terms = config.double.relative.terms(config.double.max_relative)
        try:
            relative[amp] = double.fit_relative(
                level, ratio, scaling, used, limits, config.double.sizes(), terms, absolute
            )
        except DataError as error:
            problems[amp] = str(error)
    c = double.coefficients([relative.get(a) for a in range(len(flats.bad))], absolute)
    fits = {a: _double_amp(flats, a, ranges[a], c[a], absolute) for a in [*relative, reference]}
    return DetectorFit(fits, problems, reference)


def _rows_of(ratios: xr.Dataset, flats: Flats) -> list[int]:
    """Positions of the flats in the table of ratios."""
    index = {e: i for i, e in enumerate(ratios["exposure"].values.tolist())}
    missing = [e for e in flats.exposure.tolist() if e not in index]
    if missing:
        raise DataError(
            f"detector {flats.detector}: the amp ratios lack {len(missing)} exposures of the PTC, "
            f"first {missing[0]}; measure them again"
        )
    return [index[e] for e in flats.exposure.tolist()]


def _fit_absolute(
    flats: Flats, linear: Range, amp: int, level: FloatArray, config: LinearityConfig, first_pass: bool
) -> SplineFit:
    settings = config.double
    ptc_turnoff = min(float(flats.ptc_turnoff[amp]), linear.turnoff)
    size = settings.first_absolute_node if first_pass else settings.absolute_node
    ramp = flats.ramp(amp)
    ramp = type(ramp)(ramp.abscissa, np.nan_to_num(level), ramp.group, ramp.temperature, ramp.time)
    used = flats.linear(amp, linear) & np.isfinite(level)
    nodes = double.absolute_nodes(ptc_turnoff, linear.turnoff, size)
    try:
        return fit_spline(
            ramp,
            used,
            nodes,
            ptc_turnoff,
            _terms(settings.absolute, ramp, used, ptc_turnoff),
            settings.absolute.outer_rounds,
        )
    except DataError as error:
        raise DataError(f"detector {flats.detector}, reference amp {flats.names[amp]}: {error}") from None


def _terms(config: TermsConfig, ramp: Ramp, used: BoolArray, nearly_linear: float) -> SplineTerms:
    """Terms of the absolute spline that its flats can tell from the spline itself.

    No offset without faint levels: of a single one it takes all that is not linear there.  No drift where there is no
    time, or where time rises with the signal: the drift of flats taken in rising order is a non-linearity, fitted
    together they take any value, and what is applied to images is one without the other.
    """
    time, signal = ramp.time[used], ramp.ordinate[used]
    faint = find_levels(ramp.abscissa, ramp.group, used & (ramp.ordinate < _FAINT * nearly_linear)).max(initial=-1) + 1
    known = time.size > 1 and np.ptp(time) > 0 and np.ptp(signal) > 0
    apart = known and abs(float(spearmanr(time, signal).statistic)) < _MOST_RANK_CORRELATION
    able = {"offset": config.offset and faint >= _FAINT_LEVELS, "temporal": config.temporal and apart}
    return config.model_copy(update=able).terms()


def _double_amp(flats: Flats, amp: int, linear: Range, row: FloatArray, absolute: SplineFit) -> AmpFit:
    y = flats.ordinate[amp]
    drift = 1 + absolute.temporal * flats.time
    signal = correct_signals("DoubleSpline", row, y * drift) - absolute.offset
    used = flats.linear(amp, linear) & absolute.used
    zero = np.zeros(1)
    return AmpFit(row, zero, zero, absolute.chi2, signal, absolute.scaled_abscissa(flats.ramp(amp)), used)


def _nanmedian(values: FloatArray, axis: int) -> FloatArray:
    """Median of the finite values; NaN without any."""
    return np.asarray(xr.DataArray(values).median(f"dim_{axis}", skipna=True).values)


# ---------------------------------------------------------------------------- the Dataset


def _dataset(
    flats: Flats, ranges: list[Range], result: DetectorFit, left_out: FloatArray, config: LinearityConfig
) -> xr.Dataset:
    n_amp, n_flat = flats.ordinate.shape
    fits, amps = result.fits, list(flats.names)
    n_c = max([len(f.coefficients) for f in fits.values()], default=1)
    n_p = max([len(f.parameters) for f in fits.values()], default=1)
    out = {
        "coefficients": np.zeros((n_amp, n_c)),
        "fit_params": np.full((n_amp, n_p), np.nan),
        "fit_params_err": np.full((n_amp, n_p), np.nan),
        "fit_chi2": np.full(n_amp, np.nan),
        "line": np.full((n_amp, 2), np.nan),
        "residual_sigma": np.full(n_amp, np.nan),
        "type": np.full(n_amp, TYPES.index("None"), np.int8),
        "used": np.zeros((n_amp, n_flat), bool),
    }
    out |= {name: np.full((n_amp, n_flat), np.nan) for name in ("residual", "residual_unmasked", "model")}
    for amp, f in fits.items():
        row = lengthen_spline(f.coefficients, n_c) if config.type == "Spline" else f.coefficients
        out["coefficients"][amp, : len(row)] = row
        out["fit_params"][amp, : len(f.parameters)] = f.parameters
        out["fit_params_err"][amp, : len(f.errors)] = f.errors
        out["fit_chi2"][amp], out["type"][amp], out["used"][amp] = f.chi2, TYPES.index(config.type), f.used
        _add_residuals(out, amp, f)
    out |= {
        "abscissa": np.broadcast_to(flats.abscissa / flats.normalization, (n_amp, n_flat)),
        "ordinate": flats.ordinate,
        "left_out": left_out,
        "group": np.broadcast_to(flats.group, (n_amp, n_flat)),
        "input_gain": flats.gain,
        "input_turnoff": flats.ptc_turnoff,
        "linearity_turnoff": np.array([r.turnoff for r in ranges]),
        "linearity_max_signal": np.array([r.max_signal for r in ranges]),
        "bad": np.array([a not in fits for a in range(n_amp)]),
    }
    dims = {
        name: ("detector", *_DIMS.get(name, ("amp", "flat") if v.ndim == 2 else ("amp",))) for name, v in out.items()
    }
    variables = {name: (dims[name], v[None]) for name, v in out.items()}
    variables["normalization"] = (("detector", "flat"), flats.normalization[None])
    variables["reference_amp"] = (("detector",), np.array([result.reference_amp], np.int32))
    if config.type == "LookupTable":
        rows = [fits[a].row if a in fits else np.zeros(config.polynomial.n_column) for a in range(n_amp)]
        variables["table"] = (("detector", "row", "column"), np.array(rows, np.float32)[None])
    coords = {"detector": [flats.detector], "amp": amps, "exposure": ("flat", flats.exposure)}
    problems = {str(flats.detector): {amps[a]: why for a, why in sorted(result.problems.items())}}
    attrs = {"units": "adu", "linearity_type": config.type, "abscissa": config.abscissa, "problems": problems}
    return xr.Dataset(variables, coords, attrs)


_DIMS = {
    "coefficients": ("amp", "coefficient"),
    "fit_params": ("amp", "parameter"),
    "fit_params_err": ("amp", "parameter"),
    "line": ("amp", "term"),
}


def _add_residuals(out: dict[str, NDArray[Any]], amp: int, f: AmpFit) -> None:
    """Residual of the corrected signal about its line through the used points; the intercept stays in it."""
    usable = f.used & np.isfinite(f.abscissa) & np.isfinite(f.signal)
    if usable.sum() < 2:
        return
    line = irls_fit(f.abscissa[usable], f.signal[usable])
    residual = f.signal - line.parameters[1] * f.abscissa
    out["line"][amp], out["model"][amp], out["residual_unmasked"][amp] = line.parameters, f.signal, residual
    out["residual"][amp] = np.where(f.used, residual, np.nan)
    out["residual_sigma"][amp] = mad_sigma(residual[usable] / f.signal[usable])


def failures(linearizer: xr.Dataset) -> dict[int, dict[str, str]]:
    """Amps without linearity and the reasons, by detector."""
    return {int(d): dict(p) for d, p in linearizer.attrs["problems"].items() if p}

"""Verdicts: a pure function of statistics and criteria, never of pixels (reference/verification.md 1.15, 4.2-4.5)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.errors import ConfigError
from camcal_dask.instruments.facts import known_bad_amps
from camcal_dask.schema import AMP_DIMS, described
from camcal_dask.verify.judging.criterion import (
    LEVEL_DIMS,
    SIGNIFICANCE,
    Criterion,
    Level,
    digest,
    evaluate,
    names,
    to_json,
    with_thresholds,
)
from camcal_dask.verify.judging.levels import (
    FAIL,
    NOT_EVALUATED,
    PASS,
    PREFIX,
    VERDICT,
    detector_names,
    required_failures,
)
from camcal_dask.verify.judging.policies import majority, rubin
from camcal_dask.verify.measuring.derived import DERIVED, complete
from camcal_dask.verify.verdict import criteria_of

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, "==": operator.eq, ">=": operator.ge, ">": operator.gt}
)


def judge(
    statistics: xr.Dataset,
    tests: str | tuple[Criterion, ...] = "bias",
    *,
    thresholds: Mapping[str, float] | None = None,
    known_bad: Collection[tuple[str, str]] | None = None,
    role: str | Mapping[int, str] | None = None,
    first_in_set: Collection[int] | None = None,
) -> xr.Dataset:
    """Judge statistics by criteria.

    Parameters
    ----------
    statistics : Dataset
        From `camcal_dask.verify.measuring.statistics.measure`, computed.
    tests : str or tuple of Criterion
        The kind of calibration (`camcal_dask.verify.verdict.Verdict`), or the tests themselves.
    thresholds : mapping, optional
        Test id to threshold, in place of the table's.
    known_bad : collection of (detector name, amp name), optional
        Amps shown but not judged; default: the camera's table.
    role : str or mapping, optional
        ``construction`` or ``verification``, of all or by exposure id.
    first_in_set : collection of int, optional
        Exposures that were the first after idle; default: the coordinate of the statistics.

    Returns
    -------
    Dataset
        Of `camcal_dask.verify.judging.levels.VERDICT`, and the references of `complete`.  ``value``, ``limit``,
        ``margin`` and ``status`` are those of tests of the amp; ``detector_*``, ``exposure_*`` and ``run_*`` those of
        tests of these levels, if there are any.  Known-bad amps do not count above the amp; for ``decisive`` see
        `decisive`.  Attributes: the criteria, their hash, the automatic ``policy_rubin`` and ``policy_majority``.
    """
    shipped = criteria_of(tests) if isinstance(tests, str) else tests
    criteria = with_thresholds(shipped, thresholds or {})
    coordinates = _coordinates(statistics, role, first_in_set)
    statistics = complete(statistics.compute().assign_coords(coordinates))
    verdict = _judged(statistics, criteria, shipped, known_bad, coordinates)
    verdict.attrs = _attributes(statistics, criteria) | {"calibration": tests if isinstance(tests, str) else ""}
    verdict = verdict.assign(described({n: verdict[n] for n in VERDICT if n in verdict}, VERDICT, ""))
    policies = {"policy_rubin": rubin(verdict), "policy_majority": majority(verdict)}
    return verdict.assign_attrs({n: "accept" if policy.accepted else "reject" for n, policy in policies.items()})


def _judged(
    statistics: xr.Dataset,
    criteria: tuple[Criterion, ...],
    shipped: tuple[Criterion, ...],
    known_bad: Collection[tuple[str, str]] | None,
    coordinates: Mapping[str, Any],
) -> xr.Dataset:
    """Judge level by level: by ``criteria``, and for upstream's verdict by the ``shipped`` ones."""
    exists = statistics["n_pixel"] > 0 if "n_pixel" in statistics else None
    bad = _known_bad(statistics, known_bad)
    verdict = xr.Dataset({"decisive": decisive(statistics)}, coordinates)
    for level in LEVEL_DIMS:
        rows = tuple(c for c in criteria if c.level == level)
        if rows or level == "amp":
            judged = statistics if "amp" in LEVEL_DIMS[level] else _counted(statistics, exists, bad)
            if level == "run":
                judged = judged.isel(exposure=np.flatnonzero(verdict["decisive"]))
            verdict = verdict.merge(_judge_level(judged, rows, level, exists))
            whole = statistics if "amp" in LEVEL_DIMS[level] else _counted(statistics, exists, xr.zeros_like(bad))
            verdict = verdict.assign(_upstream(whole, tuple(c for c in shipped if c.level == level), level, exists))
    verdict["known_bad"] = bad
    verdict = verdict.assign(_success(verdict))
    return verdict.assign({name: statistics[name] for name in DERIVED if name in statistics})


def _attributes(statistics: xr.Dataset, criteria: tuple[Criterion, ...]) -> dict[str, Any]:
    """Say of what and by which tests; what the statistics say of the calibration."""
    return {
        "instrument": statistics.attrs.get("instrument", ""),
        "criteria": to_json(criteria),
        "criteria_hash": digest(criteria),
        **{key: value for key, value in statistics.attrs.items() if str(key).startswith("calib_")},
    }


def _coordinates(
    statistics: xr.Dataset, role: str | Mapping[int, str] | None, first_in_set: Collection[int] | None
) -> dict[str, Any]:
    dims = set(LEVEL_DIMS["amp"])
    found = {str(k): c.variable for k, c in statistics.coords.items() if set(c.dims) <= dims}
    exposures = [int(e) for e in statistics["exposure"].values]
    if role is not None:
        roles = [role if isinstance(role, str) else role.get(e, "") for e in exposures]
        found["role"] = xr.Variable("exposure", roles)
    if first_in_set is not None or "first_in_set" not in found:
        first = set(first_in_set or ())
        found["first_in_set"] = xr.Variable("exposure", [e in first for e in exposures])
    return found


def decisive(statistics: xr.Dataset) -> xr.DataArray:
    """Say of each exposure whether the verdict on the calibration rests on it.

    It does not on the first exposure of a set that did not make the calibration (``role`` verification): the detector
    was not flushed yet, and such exposures are left out of every calibration (reference/construction.md 19).  They are
    judged and shown.  If there are no others, the verdict rests on them.
    """
    first = statistics["first_in_set"].values.astype(bool)
    role = statistics["role"].values if "role" in statistics.coords else np.full(first.shape, "")
    aside = first & (role == "verification")
    return xr.DataArray(~aside | aside.all(), dims="exposure")


def _counted(statistics: xr.Dataset, exists: xr.DataArray | None, known_bad: xr.DataArray) -> xr.Dataset:
    """Statistics without the amps that do not count in those of a detector or exposure."""
    counted = ~known_bad if exists is None else exists & ~known_bad
    amp = set(LEVEL_DIMS["amp"])
    chosen = {n: v.where(counted) for n, v in statistics.data_vars.items() if "amp" in v.dims and set(v.dims) <= amp}
    return statistics.assign(chosen)


def _judge_level(
    statistics: xr.Dataset, criteria: tuple[Criterion, ...], level: Level, exists: xr.DataArray | None
) -> xr.Dataset:
    """Values, limits, margins and status of all tests of one level."""
    dims = LEVEL_DIMS[level]
    shape = tuple(statistics.sizes[d] for d in dims)
    arrays = {name: np.full((len(criteria), *shape), np.nan) for name in ("value", "limit", "margin")}
    status = np.full((len(criteria), *shape), NOT_EVALUATED, np.int8)
    for i, criterion in enumerate(criteria):
        if criterion.if_measured and _missing(statistics, criterion):
            continue
        value, limit = _value_and_limit(statistics, criterion, dims)
        arrays["value"][i], arrays["limit"][i] = value, limit
        arrays["margin"][i] = _margin(value, limit, criterion.op)
        status[i] = _status(value, limit, criterion)
        if names(criterion.cannot_tell) <= set(statistics.data_vars):
            blind = _array(evaluate(criterion.cannot_tell, statistics), _template(statistics, dims).fillna(0.0))
            status[i][blind.values > 0] = NOT_EVALUATED
        if "amp" in dims and exists is not None:
            there = exists if level == "amp" else exists.any("exposure")
            status[i][~there.transpose(*dims).values] = NOT_EVALUATED
    prefix = PREFIX[level]
    test = f"{prefix}test"
    columns = ("name", "dmtn", "op", "threshold", "required", "source", "upstream")
    types = {"required": bool, "upstream": bool}
    coords = {f"{test}_{c}": (test, np.array([getattr(r, c) for r in criteria], types.get(c))) for c in columns}
    variables = {f"{prefix}{name}": ((test, *dims), array) for name, array in arrays.items()}
    variables[f"{prefix}status"] = ((test, *dims), status)
    return xr.Dataset(variables, {test: [row.id for row in criteria], **coords})


def _upstream(
    statistics: xr.Dataset, criteria: tuple[Criterion, ...], level: Level, exists: xr.DataArray | None
) -> dict[str, Any]:
    """Status of upstream's tests by upstream's limits: neither own thresholds, nor an allowance for few pixels."""
    dims = LEVEL_DIMS[level]
    status = np.full((len(criteria), *(statistics.sizes[d] for d in dims)), NOT_EVALUATED, np.int8)
    for i, criterion in enumerate(criteria):
        if criterion.source == "cp_verify" and all(n in statistics for e in criterion.expressions for n in names(e)):
            value, limit = _value_and_limit(statistics, replace(criterion, error="0"), dims)
            status[i] = np.where(_COMPARE[criterion.op](value, limit), PASS, FAIL)  # undefined is failed, there
            if level == "amp" and exists is not None:
                status[i][~exists.transpose(*dims).values] = NOT_EVALUATED
    prefix = PREFIX[level]
    return {f"{prefix}upstream_status": ((f"{prefix}test", *dims), status)}


def _value_and_limit(
    statistics: xr.Dataset, criterion: Criterion, dims: tuple[str, ...]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Arrays over ``dims``; NaN where an advisory test lacks its statistics."""
    template = _template(statistics, dims)
    if _missing(statistics, criterion) and not criterion.required:
        return template.values, template.values
    value = _array(evaluate(criterion.value, statistics), template).values
    limit = _array(criterion.threshold * evaluate(criterion.scale, statistics), template).values
    if criterion.op in ("<", "<="):
        error = _array(evaluate(criterion.error, statistics), template).values
        limit = np.where(np.isnan(limit), np.nan, np.fmax(limit, SIGNIFICANCE * error))
    return value, limit


def _template(statistics: xr.Dataset, dims: tuple[str, ...]) -> xr.DataArray:
    """NaN over ``dims``."""
    template = xr.full_like(statistics["n_good"] if "n_good" in statistics else statistics["mean"], np.nan)
    return template.isel({d: 0 for d in template.dims if d not in dims}, drop=True).transpose(*dims)


def _missing(statistics: xr.Dataset, criterion: Criterion) -> set[str]:
    return {n for e in (criterion.value, criterion.scale, criterion.error) for n in names(e) if n not in statistics}


def _array(value: Any, template: xr.DataArray) -> xr.DataArray:
    """Broadcast a number or an array with fewer dims to those of the template."""
    filled: xr.DataArray = xr.zeros_like(template) + value
    extra = set(filled.dims) - set(template.dims)
    if extra:
        raise ConfigError(f"a test of level {template.dims[-1]} must reduce {', '.join(sorted(map(str, extra)))}")
    return filled.drop_vars([c for c in filled.coords if c not in filled.dims]).transpose(*template.dims)


def _margin(value: npt.NDArray[np.float64], limit: npt.NDArray[np.float64], op: str) -> npt.NDArray[np.float64]:
    distance = {"<": limit - value, "<=": limit - value, "==": -np.abs(value - limit)}.get(op, value - limit)
    with np.errstate(invalid="ignore"):  # of an infinite limit
        return np.asarray(distance / np.where(limit == 0, 1.0, np.abs(limit)))


def _status(
    value: npt.NDArray[np.float64], limit: npt.NDArray[np.float64], criterion: Criterion
) -> npt.NDArray[np.int8]:
    """Tri-state: an undefined comparison fails a required test and leaves an advisory one not evaluated (0.7)."""
    known = np.isfinite(value) & np.isfinite(limit)
    outcome = np.where(_COMPARE[criterion.op](value, limit), PASS, FAIL)
    return np.where(known, outcome, FAIL if criterion.required else NOT_EVALUATED).astype(np.int8)


def _known_bad(statistics: xr.Dataset, known_bad: Collection[tuple[str, str]] | None) -> xr.DataArray:
    instrument = statistics.attrs.get("instrument", "")
    pairs = known_bad_amps(instrument) if known_bad is None else known_bad
    labels = detector_names(statistics)
    amps = [str(a) for a in statistics["amp"].values]
    table = [[(label, amp) in pairs for amp in amps] for label in labels]
    return xr.DataArray(np.array(table, bool).reshape(len(labels), len(amps)), dims=AMP_DIMS)


def _success(verdict: xr.Dataset) -> dict[str, xr.DataArray]:
    """AND over tests and levels; a failure at any level fails all above it, the run by its decisive exposures."""
    amp = required_failures(verdict, "amp")
    counted = amp & ~verdict["known_bad"]
    detector = counted.any("amp") | required_failures(verdict, "detector")
    exposure = detector.any("detector") | required_failures(verdict, "exposure")
    found = {
        "amp_success": ~amp,
        "detector_success": ~detector,
        "exposure_success": ~exposure,
        "run_success": ~(
            (exposure & verdict["decisive"]).any() | (required_failures(verdict, "run") & ~verdict["known_bad"]).any()
        ),
        "n_failed": counted.sum("amp"),
    }
    return {name: array.drop_vars([c for c in array.coords if c not in array.dims]) for name, array in found.items()}

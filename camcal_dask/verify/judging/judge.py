"""Verdicts: a pure function of statistics and criteria, never of pixels (reference/verification.md 1.15, 4.2-4.5)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from camcal_dask.errors import ConfigError
from camcal_dask.instruments.facts import known_bad_amps
from camcal_dask.instruments.geometry import get_instrument
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
from camcal_dask.verify.measuring.references import DERIVED, complete
from camcal_dask.verify.verdict import criteria_of

PASS, FAIL, NOT_EVALUATED = 1, 0, -1
RUBIN_AMPS_PER_DETECTOR = 8
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, "==": operator.eq, ">=": operator.ge, ">": operator.gt}
)
PREFIX: Mapping[Level, str] = MappingProxyType(
    {"amp": "", "detector": "detector_", "exposure": "exposure_", "run": "run_"}
)
"""Of the names of what a verdict says at each level."""


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
        ``value``, ``limit``, ``margin`` float64 and ``status`` int8 (1 pass, 0 fail, -1 not evaluated), dims
        (test, exposure, detector, amp); the same named ``detector_*``, ``exposure_*`` and ``run_*`` for tests of
        these levels (`camcal_dask.verify.judging.criterion.LEVEL_DIMS`).
        ``amp_success``, ``detector_success``, ``exposure_success``, ``run_success`` bool: no required test failed
        there or below, known-bad amps left out above the amp.  ``n_failed`` (exposure, detector) amps.
        ``upstream_status`` as ``status``, of upstream's tests by upstream's limits, for ``policy_rubin``.  ``decisive``
        (exposure): whether ``run_success`` and tests of the run rest on the exposure, see `decisive`.  ``margin``
        is the signed distance to the limit in units of the limit, negative when failed.  The references of
        `camcal_dask.verify.measuring.references.complete`, which were compared with.  Attributes: the
        criteria, their hash, and the automatic verdicts ``policy_rubin`` and ``policy_majority``.
    """
    criteria = criteria_of(tests) if isinstance(tests, str) else tests
    original, criteria = criteria, with_thresholds(criteria, thresholds or {})
    coordinates = _coordinates(statistics, role, first_in_set)
    statistics = complete(statistics.compute().assign_coords(coordinates))
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
            shipped = tuple(c for c in original if c.level == level)
            verdict = verdict.assign(_upstream(whole, shipped, level, exists))
    verdict["known_bad"] = bad
    verdict = verdict.assign(_success(verdict))
    verdict = verdict.assign({name: statistics[name] for name in DERIVED if name in statistics})
    verdict.attrs = {
        "instrument": statistics.attrs.get("instrument", ""),
        "calibration": tests if isinstance(tests, str) else "",
        "criteria": to_json(criteria),
        "criteria_hash": digest(criteria),
        **{key: value for key, value in statistics.attrs.items() if str(key).startswith("calib_")},
    }
    verdict.attrs["policy_rubin"] = "accept" if rubin(verdict).accepted else "reject"
    verdict.attrs["policy_majority"] = "accept" if majority(verdict).accepted else "reject"
    return verdict


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
    return xr.DataArray(~aside | aside.all(), dims="exposure", attrs={"long_name": "the verdict rests on the exposure"})


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
    return xr.DataArray(np.array(table, bool).reshape(len(labels), len(amps)), dims=("detector", "amp"))


def detector_names(dataset: xr.Dataset) -> list[str]:
    """Full names of the detectors of a Dataset, ``R22_S11``."""
    if "detector_name" in dataset.coords:
        return [str(n) for n in dataset["detector_name"].values]
    detectors = get_instrument(dataset.attrs["instrument"]).detectors if dataset.attrs.get("instrument") else {}
    return [detectors[int(d)].full_name if int(d) in detectors else str(d) for d in dataset["detector"].values]


def _required_failures(verdict: xr.Dataset, level: Level) -> xr.DataArray:
    """Where any required test of the level failed."""
    prefix = PREFIX[level]
    if f"{prefix}status" not in verdict:
        return xr.DataArray(False)
    failed = verdict[f"{prefix}status"] == FAIL
    return failed.where(verdict[f"{prefix}test_required"], False).any(f"{prefix}test")


def _success(verdict: xr.Dataset) -> dict[str, xr.DataArray]:
    """AND over tests and levels; a failure at any level fails all above it, the run by its decisive exposures."""
    amp = _required_failures(verdict, "amp")
    counted = amp & ~verdict["known_bad"]
    detector = counted.any("amp") | _required_failures(verdict, "detector")
    exposure = detector.any("detector") | _required_failures(verdict, "exposure")
    found = {
        "amp_success": ~amp,
        "detector_success": ~detector,
        "exposure_success": ~exposure,
        "run_success": ~(
            (exposure & verdict["decisive"]).any() | (_required_failures(verdict, "run") & ~verdict["known_bad"]).any()
        ),
        "n_failed": counted.sum("amp"),
    }
    return {name: array.drop_vars([c for c in array.coords if c not in array.dims]) for name, array in found.items()}


@dataclass(frozen=True)
class Policy:
    """An automatic verdict: accepted or not, the exposures that count as bad and how many reject."""

    accepted: bool
    bad_exposures: tuple[int, ...]
    limit: int


def rubin_rule(
    counts: npt.NDArray[np.int64], n_detector: int, n_key: int, amps: int = RUBIN_AMPS_PER_DETECTOR
) -> Policy:
    """Apply the rejection rule of the daily calibration script, bit for bit (reference/operations.md 3).

    Parameters
    ----------
    counts : (exposure, test) int
        Failures of each test in each exposure, over all detectors and amps.
    n_detector : int
    n_key : int
        Entries of upstream's statistics dictionary: the exposures, SUCCESS, and any run-level block.
    amps : int
        Failing amps allowed per detector.

    Returns
    -------
    Policy
        ``bad_exposures`` are positions in ``counts``.
    """
    counts = np.asarray(counts).reshape(len(counts), -1)
    bad = np.flatnonzero((counts >= amps * (n_detector // 2 + 1)).any(axis=1))
    limit = n_key // 2 + 1
    return Policy(bool(bad.size < limit), tuple(int(i) for i in bad), limit)


def rubin(verdict: xr.Dataset) -> Policy:
    """Automatic verdict as upstream gives it: its tests and limits, all amps, advice counted in failed amps.

    Neither thresholds of the user nor the list of known-bad amps exist for it.
    """
    counts = []
    for level in ("amp", "detector", "exposure"):
        prefix = PREFIX[level]  # type: ignore[index]
        if f"{prefix}status" not in verdict:
            continue
        test = f"{prefix}test"
        status = verdict.get(f"{prefix}upstream_status", verdict[f"{prefix}status"])
        upstream = np.flatnonzero(verdict[f"{test}_source"].values == "cp_verify")
        failed = (status == FAIL).isel({test: upstream})
        if level == "amp":
            failed = failed & failed.where(verdict["test_upstream"].isel(test=upstream), False).any("test")
        rest = [d for d in failed.dims if d not in ("exposure", test)]
        counts.append(failed.sum(rest).transpose("exposure", test).values)
    n_exposure = verdict.sizes["exposure"]
    found = rubin_rule(np.concatenate(counts, axis=1), verdict.sizes["detector"], n_exposure + 1)
    return _named(found, verdict)


def majority(verdict: xr.Dataset) -> Policy:
    """Stricter rule: a required test fails in over half the amps of over half the detectors and decisive exposures."""
    verdict = verdict.isel(exposure=np.flatnonzero(verdict["decisive"]))
    judged = ~verdict["known_bad"] & (verdict["status"] != NOT_EVALUATED)
    failed = (verdict["status"] == FAIL) & judged & verdict["test_required"]
    detectors = failed.sum("amp") > 0.5 * judged.sum("amp")
    exposures = detectors.sum("detector") > 0.5 * verdict.sizes["detector"]
    rejected = exposures.sum("exposure") > 0.5 * verdict.sizes["exposure"]
    bad = np.flatnonzero(exposures.any("test").values)
    limit = verdict.sizes["exposure"] // 2 + 1
    return _named(Policy(not bool(rejected.any()), tuple(int(i) for i in bad), limit), verdict)


def _named(policy: Policy, verdict: xr.Dataset) -> Policy:
    exposures = verdict["exposure"].values
    return Policy(policy.accepted, tuple(int(exposures[i]) for i in policy.bad_exposures), policy.limit)


def failures(verdict: xr.Dataset, *, required_only: bool = False) -> pd.DataFrame:
    """Table of what failed, in order of exposure, detector, amp (as read out) and test.

    Returns
    -------
    DataFrame
        exposure, detector (full name), amp, test (id), name, value, limit, margin, required, known_bad, first_in_set;
        detector is empty in tests of an exposure, amp in tests of a detector; exposure is 0 in tests of a run.
    """
    tables = [_failures_of_level(verdict, level) for level in LEVEL_DIMS if f"{PREFIX[level]}status" in verdict]
    table = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    order = ["exposure", "_detector", "_amp", "_test"]
    table = table.sort_values(order, kind="stable").drop(columns=["_detector", "_amp", "_test"])
    if required_only:
        table = table[table["required"]]
    return table.reset_index(drop=True)


def _failures_of_level(verdict: xr.Dataset, level: Level) -> pd.DataFrame:
    prefix, dims = PREFIX[level], LEVEL_DIMS[level]
    test = f"{prefix}test"
    where = np.nonzero((verdict[f"{prefix}status"].transpose(test, *dims) == FAIL).values)
    index = dict(zip((test, *dims), where, strict=True))
    n = len(where[0])
    none = np.full(n, -1)
    at_detector, at_amp = index.get("detector", none), index.get("amp", none)
    at_exposure = index.get("exposure", none)
    exposures = np.array([*verdict["exposure"].values, 0])
    first = np.array([*verdict["first_in_set"].values.astype(bool), False])
    labels, amps = np.array([*detector_names(verdict), ""]), np.array([*verdict["amp"].values.astype(str), ""])
    return pd.DataFrame(
        {
            "exposure": exposures[at_exposure],
            "detector": labels[at_detector],
            "amp": amps[at_amp],
            "test": verdict[test].values[where[0]],
            "name": verdict[f"{test}_name"].values[where[0]],
            **{c: verdict[f"{prefix}{c}"].transpose(test, *dims).values[where] for c in ("value", "limit", "margin")},
            "required": verdict[f"{test}_required"].values[where[0]].astype(bool),
            "known_bad": verdict["known_bad"].values[at_detector, at_amp] & (at_amp >= 0),
            "first_in_set": first[at_exposure],
            "_detector": at_detector,
            "_amp": at_amp,
            "_test": where[0],
        }
    )


def summary(verdict: xr.Dataset, *, max_lines: int = 12) -> str:
    """Say in a few lines what failed, in the order in which it is looked at (reference 4.2).

    Bad exposures first (over half the judged amps fail), and those that do not count (`decisive`); then amps that fail
    in every other exposure, then the rest, then advice.  ``max_lines`` is the number of lines of each part.
    """
    failed = _required_failures(verdict, "amp") & ~verdict["known_bad"]
    bad = shown_apart(verdict)
    n_good = int((~bad).sum())
    permanent = failed.isel(exposure=~bad).all("exposure").values & (n_good > 0)
    table = failures(verdict)
    lines = [_headline(verdict, failed)]
    lines += _capped([_exposure_line(verdict, failed, table, int(e)) for e in np.flatnonzero(bad)], max_lines)
    required = table[table["required"] & ~table["known_bad"]]
    bad_ids = set(verdict["exposure"].values[bad].tolist())
    required = required[~required["exposure"].isin(bad_ids)]
    groups = [((str(d), str(a)), rows) for (d, a), rows in required.groupby(["detector", "amp"], sort=False)]  # type: ignore[misc]
    always = {
        (detector_names(verdict)[d], str(verdict["amp"].values[a])) for d, a in zip(*np.nonzero(permanent), strict=True)
    }
    groups.sort(key=lambda item: (item[0] not in always, -item[1]["exposure"].nunique()))
    lines += _capped([_amp_line(key, rows, n_good, key in always) for key, rows in groups], max_lines)
    advice = table[~table["required"] & ~table["known_bad"]]
    lines += _capped([_advice_line(str(name), rows) for name, rows in advice.groupby("name", sort=False)], max_lines)
    if "not_measured" in verdict.attrs:
        lines.append(f"  not measured: {verdict.attrs['not_measured']}")
    n_known = int((_required_failures(verdict, "amp") & verdict["known_bad"]).any("exposure").sum())
    if n_known:
        lines.append(f"  not judged: {n_known} known-bad amp{'s' * (n_known > 1)} fail as known")
    return "\n".join(lines)


def bad_exposures(verdict: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Return which exposures are bad as a whole, (exposure,): over half of the judged amps fail a required test."""
    failed = _required_failures(verdict, "amp") & ~verdict["known_bad"]
    judged = (verdict["status"] != NOT_EVALUATED).any("test") & ~verdict["known_bad"]
    bad = failed.sum(["detector", "amp"]) > 0.5 * judged.sum(["detector", "amp"])
    return np.asarray(bad.transpose("exposure").values, bool)


def shown_apart(verdict: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Return which exposures an account names as a whole, (exposure,): bad ones, and failing ones that do not count."""
    failed = ~verdict["exposure_success"].values.astype(bool)
    return bad_exposures(verdict) | (failed & set_aside(verdict))


def set_aside(verdict: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Return which exposures do not count in the verdict of the run, (exposure,); none in verdicts of old."""
    if "decisive" not in verdict:
        return np.zeros(verdict.sizes["exposure"], np.bool_)
    return ~verdict["decisive"].values.astype(bool)


def _headline(verdict: xr.Dataset, failed: xr.DataArray) -> str:
    counted = ~set_aside(verdict)
    failed, sizes = failed.isel(exposure=counted), verdict.isel(exposure=counted).sizes
    outcome = "passed" if bool(verdict["run_success"]) else "FAILED"
    return (
        f"verification of {verdict.attrs['calibration'] or 'calibration'} {outcome}: "
        f"{int(failed.sum())} of {sizes['exposure'] * sizes['detector'] * sizes['amp']} amp images fail a required "
        f"test ({sizes['exposure']} exposures, {sizes['detector']} detectors); automatic rule: "
        f"{verdict.attrs['policy_rubin']} (rubin), {verdict.attrs['policy_majority']} (majority)"
        + (f"; references: {verdict.attrs['references']}" if "references" in verdict.attrs else "")
    )


def _exposure_line(verdict: xr.Dataset, failed: xr.DataArray, table: pd.DataFrame, e: int) -> str:
    exposure = int(verdict["exposure"].values[e])
    rows = table[(table["exposure"] == exposure) & table["required"] & ~table["known_bad"]]
    first = " (first of its set)" if bool(verdict["first_in_set"].values[e]) else ""
    n = int(failed.isel(exposure=e).sum())
    aside = "; judged, but the verdict does not rest on it" if set_aside(verdict)[e] else ""
    return f"  bad exposure {exposure}{first}: {n} amps fail: {_worst_by_test(rows)}{aside}"


def _worst_by_test(rows: pd.DataFrame) -> str:
    parts = []
    for name, group in rows.groupby("name", sort=False):
        worst = group.iloc[int(group["margin"].fillna(-np.inf).argmin())]
        parts.append(f"{name} {worst['value']:.3g} (limit {worst['limit']:.3g})")
    return ", ".join(parts)


def _amp_line(key: tuple[str, str], rows: pd.DataFrame, n_exposure: int, permanent: bool) -> str:
    place = " ".join(part for part in key if part) or "all detectors"
    n = rows["exposure"].nunique()
    if permanent:
        return f"  bad amp {place}: fails in all {n} exposures: {_worst_by_test(rows)}"
    if (rows["exposure"] == 0).all():
        return f"  {place}: fails over all exposures: {_worst_by_test(rows)}"
    which = f" (exposure {rows['exposure'].iloc[0]})" if n == 1 else ""
    return f"  {place}: fails in {n} of {n_exposure} exposures{which}: {_worst_by_test(rows)}"


def _advice_line(name: str, rows: pd.DataFrame) -> str:
    worst = rows.iloc[int(rows["margin"].argmin())]
    what, when = ("amps", "") if worst["exposure"] == 0 else ("amp images", f" exposure {worst['exposure']}")
    return (
        f"  advisory {name}: {len(rows)} {what}; worst {worst['detector']} {worst['amp']}{when}: "
        f"{worst['value']:.3g} (limit {worst['limit']:.3g})"
    )


def _capped(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"  ... and {len(lines) - most} more"]

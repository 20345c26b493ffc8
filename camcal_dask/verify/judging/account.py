"""What failed, as a table and in words (reference/verification.md 4.2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from camcal_dask.verify.judging.criterion import (
    LEVEL_DIMS,
    Level,
)
from camcal_dask.verify.judging.levels import FAIL, NOT_EVALUATED, PREFIX, detector_names, required_failures, set_aside


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
    in every other exposure, then the rest, then advisory tests.  ``max_lines`` is the number of lines of each part.
    """
    failed = required_failures(verdict, "amp") & ~verdict["known_bad"]
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
    advisory = table[~table["required"] & ~table["known_bad"]]
    lines += _capped(
        [_advisory_line(str(name), rows) for name, rows in advisory.groupby("name", sort=False)], max_lines
    )
    if "not_measured" in verdict.attrs:
        lines.append(f"  not measured: {verdict.attrs['not_measured']}")
    n_known = int((required_failures(verdict, "amp") & verdict["known_bad"]).any("exposure").sum())
    if n_known:
        lines.append(f"  not judged: {n_known} known-bad amp{'s' * (n_known > 1)} fail as known")
    return "\n".join(lines)


def bad_exposures(verdict: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Return which exposures are bad as a whole, (exposure,): over half of the judged amps fail a required test."""
    failed = required_failures(verdict, "amp") & ~verdict["known_bad"]
    judged = (verdict["status"] != NOT_EVALUATED).any("test") & ~verdict["known_bad"]
    bad = failed.sum(["detector", "amp"]) > 0.5 * judged.sum(["detector", "amp"])
    return np.asarray(bad.transpose("exposure").values, bool)


def shown_apart(verdict: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Return which exposures an account names as a whole, (exposure,): bad ones, and failing ones that do not count."""
    failed = ~verdict["exposure_success"].values.astype(bool)
    return bad_exposures(verdict) | (failed & set_aside(verdict))


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


def _advisory_line(name: str, rows: pd.DataFrame) -> str:
    worst = rows.iloc[int(rows["margin"].argmin())]
    what, when = ("amps", "") if worst["exposure"] == 0 else ("amp images", f" exposure {worst['exposure']}")
    return (
        f"  advisory {name}: {len(rows)} {what}; worst {worst['detector']} {worst['amp']}{when}: "
        f"{worst['value']:.3g} (limit {worst['limit']:.3g})"
    )


def _capped(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"  ... and {len(lines) - most} more"]

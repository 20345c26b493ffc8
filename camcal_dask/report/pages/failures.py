"""What failed, in the order of looking: bad exposures, bad amps, the rest (reference/verification.md 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from camcal_dask.verify.judging.account import failures, shown_apart
from camcal_dask.verify.judging.levels import set_aside


@dataclass(frozen=True)
class Worst:
    """The worst case of a failing test."""

    name: str
    test: str
    value: float
    limit: float
    exposure: int


@dataclass(frozen=True)
class BadExposure:
    """An exposure in which most amps fail, or some fail and it does not count."""

    exposure: int
    first_in_set: bool
    n_amp: int
    worst: Sequence[Worst]
    counts: bool = True
    """Whether the verdict rests on it."""


@dataclass(frozen=True)
class BadPlace:
    """An amp, a detector (``amp`` empty) or all (both empty) that fails in some of the good exposures."""

    detector: str
    amp: str
    n_exposure: int
    always: bool
    known_bad: bool
    worst: Sequence[Worst]


@dataclass(frozen=True)
class Found:
    """All failures of a verdict, those of required tests first."""

    table: pd.DataFrame
    """Every failure, see `camcal_dask.verify.judging.account.failures`."""
    exposures: Sequence[BadExposure] = ()
    required: Sequence[BadPlace] = ()
    known: Sequence[BadPlace] = ()
    """Known-bad amps: shown, not counted."""
    advisory: Sequence[BadPlace] = ()
    n_good: int = 0
    """Exposures that are not bad as a whole."""


def find(verdict: xr.Dataset) -> Found:
    """Sort the failures of a verdict."""
    table = failures(verdict)
    bad, aside = shown_apart(verdict), set_aside(verdict)
    ids = verdict["exposure"].values
    bad_ids = set(ids[bad].tolist())
    exposures = [
        _exposure(int(e), bool(verdict["first_in_set"].values[i]), table, counts=not aside[i])
        for i, e in enumerate(ids)
        if int(e) in bad_ids
    ]
    rest = table[~table["exposure"].isin(bad_ids)]
    n_good = int((~bad).sum())
    required = rest[rest["required"]]
    return Found(
        table=table,
        exposures=exposures,
        required=_places(required[~required["known_bad"]], n_good),
        known=_places(required[required["known_bad"]], n_good),
        advisory=_places(rest[~rest["required"] & ~rest["known_bad"]], n_good),
        n_good=n_good,
    )


def _exposure(exposure: int, first: bool, table: pd.DataFrame, *, counts: bool) -> BadExposure:
    rows = table[(table["exposure"] == exposure) & table["required"] & ~table["known_bad"]]
    n = len(rows[rows["amp"] != ""][["detector", "amp"]].drop_duplicates())
    return BadExposure(exposure, first, n, worst(rows), counts)


def _places(rows: pd.DataFrame, n_good: int) -> list[BadPlace]:
    found = []
    for (detector, amp), group in rows.groupby(["detector", "amp"], sort=False):  # type: ignore[misc]
        n = int(group["exposure"].nunique())
        known = bool(group["known_bad"].any())
        found.append(BadPlace(str(detector), str(amp), n, n == n_good, known, worst(group)))
    return sorted(found, key=lambda p: (not p.always, -p.n_exposure))


def worst(rows: pd.DataFrame) -> list[Worst]:
    """Worst case of each test among failures, the farthest beyond its limit first."""
    ordered = rows.assign(margin=rows["margin"].fillna(-np.inf)).sort_values("margin", kind="stable")
    chosen = ordered.drop_duplicates("test")[["name", "test", "value", "limit", "exposure"]]
    return [
        Worst(str(name), str(test), float(value), float(limit), int(exposure))
        for name, test, value, limit, exposure in chosen.itertuples(index=False)
    ]

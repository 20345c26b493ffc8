"""Which flats have one illumination, from a table of their levels (reference/construction.md 3 and 19).

A flat is the pixel response only where the detector is linear and the noise is that of the light: flats of one lamp,
exposure time and level, well below the turnoff of the photon transfer curve.  A ramp of pairs has every level there
is, and a flat with the lamp off has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from camcal_dask.calibs.ptc.pairs import TIME_TOLERANCE, TIME_TOLERANCE_S
from camcal_dask.config import Config

RAMP_REASONS = ("ptc", "daily_ptc")
"""Observation reasons of ramps; others are known by their sequence."""
ENOUGH = 20
"""Of illuminations with so many exposures, the latest is taken."""
LIT_SIGMA = 5.0
"""A level below so many times the read noise of a pixel is that of a lamp that was off."""
_SAME_LEVEL = 0.1
"""ln of the ratio of levels of consecutive exposures that belong to one step of a ramp."""
_LONGEST_STEP = 2
_SHORTEST_RAMP = 3
_MOST_PER_LEVEL = 4
"""Exposures at each level of a ramp, on average; with more, lamps were alternated."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class SelectConfig(Config):
    """Which of the flats selected are combined."""

    illumination: Literal["one", "any"] = "one"
    """``one``: flats of one reason, exposure time and level; ``any``: all that are selected (``-d``)."""
    ramps: bool = False
    """Take flats of a ramp of pairs (photon transfer curve), of all levels within the limits."""
    reason: str = ""
    """Take flats of this observation reason only; empty: of any."""
    level_within: float = Field(0.2, gt=0)
    """The largest level exceeds the smallest one by at most this fraction."""
    least_fraction: float = Field(0.05, ge=0)
    """Least level, as a fraction of the turnoff of the photon transfer curve, or of the full well without one."""
    most_fraction: float = Field(0.6, gt=0)
    """Largest level, likewise."""


class Flats(NamedTuple):
    """Flats of one filter in the order of their exposure ids; arrays (n,).

    ``level`` and ``noise`` (of a pixel of the overscan) [adu]; ``fraction`` of the turnoff or full well; NaN: unknown.
    """

    exposure: NDArray[np.int64]
    day_obs: NDArray[np.int64]
    set_of: NDArray[np.int64]
    """The same for all exposures of one set of the acquisition (its first sequence number)."""
    exposure_time: Floats
    reason: NDArray[np.str_]
    level: Floats
    noise: Floats
    fraction: Floats


class Picked(NamedTuple):
    """Exposures of one illumination, and what was left out and why, one line each."""

    exposures: tuple[int, ...]
    reasons: tuple[str, ...]


def pick(flats: Flats, config: SelectConfig, of: str = "full well") -> Picked:
    """Choose the flats of one illumination.

    Parameters
    ----------
    flats : Flats
        Levels may be NaN for exposures of `RAMP_REASONS` when ramps are not asked for.
    config : SelectConfig
        The rules.
    of : str
        What ``fraction`` is a fraction of, for the account.

    Returns
    -------
    Picked
        No exposures if none will do; the account says why.
    """
    flats = flats._replace(exposure_time=_same_times(flats.exposure_time))
    left: Flags = np.ones(len(flats.exposure), np.bool_)
    lines: list[str] = []

    def leave_out(which: Flags, why: str) -> None:
        nonlocal left
        gone = left & which
        if gone.any():
            lines.append(f"{int(gone.sum())} left out: {why} ({listed(flats.exposure[gone].tolist())})")
        left = left & ~which

    if config.reason:
        leave_out(flats.reason != config.reason, f"their reason is not {config.reason}")
    by_reason: Flags = np.isin(flats.reason, RAMP_REASONS)
    if not config.ramps:
        leave_out(by_reason, f"{_ASK}, reason {', '.join(sorted(set(flats.reason[by_reason].tolist())))}")
    leave_out(~(flats.exposure_time >= 0), "their exposure time is not known")
    leave_out(~np.isfinite(flats.level), "no pixels of these detectors can be read")
    dark = flats.level <= LIT_SIGMA * flats.noise
    leave_out(dark, f"no light: level {_range(flats.level[left & dark])} adu, below {LIT_SIGMA:.0f} times the noise")
    if not config.ramps:
        leave_out(ramps(flats, left), f"{_ASK}, pairs of many levels")
    low, high = flats.fraction < config.least_fraction, flats.fraction > config.most_fraction
    for which, limit in ((low, f"below {config.least_fraction:.0%}"), (high, f"above {config.most_fraction:.0%}")):
        leave_out(which, f"level {_range(flats.level[left & which])} adu, {limit} of the {of}")
    groups = list(_groups(flats, left, config))
    if not groups:
        return Picked((), tuple(lines))
    best = max(groups, key=lambda g: (min(len(g), ENOUGH), flats.exposure[g].max()))
    others = left.copy()
    others[best] = False
    leave_out(others, f"another illumination, level {_range(flats.level[others])} adu")
    time, level, fraction = (values[best] for values in (flats.exposure_time, flats.level, flats.fraction))
    lines.append(
        f"one illumination: {len(best)} flats of reason {flats.reason[best[0]] or 'unknown'}, {_range(time)} s, level "
        f"{_range(level)} adu, {np.median(fraction):.0%} of the {of}"
    )
    return Picked(tuple(flats.exposure[best].tolist()), tuple(lines))


_ASK = "a ramp of a photon transfer curve (select.ramps=true takes it)"


def _same_times(times: Floats) -> Floats:
    """Exposure times (n,) [s], each the shortest of those that follow it without a gap: a shutter jitters by a ms.

    A gap is a difference with which flats are no pair.
    """
    order = np.argsort(times, kind="stable")
    same = times.copy()
    for before, i in zip(order, order[1:], strict=False):
        if times[i] - times[before] <= TIME_TOLERANCE_S + TIME_TOLERANCE * times[before]:
            same[i] = same[before]
    return same


def ramps(flats: Flats, among: Flags) -> Flags:
    """Flats that are steps of a ramp: alone or in pairs, between others of the same reason and day of other levels.

    Parameters
    ----------
    flats : Flats
    among : (n,) bool
        Flats to look at; the rest are not there.
    """
    found: Flags = np.zeros(len(among), np.bool_)
    keys = list(zip(flats.day_obs.tolist(), flats.reason.tolist(), strict=True))
    for key in {keys[i] for i in np.flatnonzero(among)}:
        members = [i for i in np.flatnonzero(among).tolist() if keys[i] == key]
        steps = [step for step in _steps(flats, members) if len(step) <= _LONGEST_STEP]
        levels = {(float(flats.exposure_time[s[0]]), round(np.log(flats.level[s[0]]) / _SAME_LEVEL)) for s in steps}
        if len(levels) >= _SHORTEST_RAMP and sum(map(len, steps)) <= _MOST_PER_LEVEL * len(levels):
            found[[i for step in steps for i in step]] = True
    return found


def _steps(flats: Flats, members: Sequence[int]) -> Iterator[list[int]]:
    """Runs of consecutive exposures of one time and level that the acquisition did not take as different sets."""
    sizes = Counter(flats.set_of[list(members)].tolist())
    step: list[int] = []
    for i in members:
        if step and not _continues(flats, step, i, sizes):
            yield step
            step = []
        step.append(i)
    if step:
        yield step


def _continues(flats: Flats, step: Sequence[int], i: int, sizes: Counter[int]) -> bool:
    first, before = step[0], step[-1]
    apart = flats.set_of[i] != flats.set_of[before] and min(sizes[flats.set_of[j]] for j in (i, before)) > 1
    same_level = abs(np.log(flats.level[i] / flats.level[first])) <= _SAME_LEVEL
    return bool(same_level and flats.exposure_time[i] == flats.exposure_time[first] and not apart)


def _groups(flats: Flats, left: Flags, config: SelectConfig) -> Iterator[NDArray[np.int64]]:
    """Positions of the flats of every illumination; of every reason, if ramps are asked for."""
    keys = [
        (reason, 0.0 if config.ramps else time)
        for reason, time in zip(flats.reason.tolist(), flats.exposure_time.tolist(), strict=True)
    ]
    for key in dict.fromkeys(keys[i] for i in np.flatnonzero(left)):
        members = np.array([i for i in np.flatnonzero(left) if keys[i] == key])
        if config.ramps:
            yield members
            continue
        members = members[np.argsort(flats.level[members], kind="stable")]
        while members.size:
            level = flats.level[members]
            stop = np.searchsorted(level, level * (1 + config.level_within), side="right")
            start = int(np.argmax(stop - np.arange(level.size)))
            yield np.sort(members[start : stop[start]])
            members = np.delete(members, np.s_[start : stop[start]])


def _range(values: Floats) -> str:
    low, high = (float(f"{v:.4g}") for v in (values.min(), values.max())) if values.size else (np.nan, np.nan)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def listed(ids: Sequence[int]) -> str:
    """First and last of some ids; all, if they are few."""
    return f"{ids[0]} .. {ids[-1]}" if len(ids) > 4 else ", ".join(map(str, ids)) or "none"

"""Which exposures a calibration is made from if the user does not say (reference/construction.md 19)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from camcal_dask.instruments import Instrument
from camcal_dask.repo.cubes import raw as cubes

if TYPE_CHECKING:  # workers import this, and they have no use for the Butler
    from camcal_dask.repo.butler.repository import Repo

State = tuple[Any, ...]


@dataclass(frozen=True)
class Chosen:
    """Exposures to combine, those kept for the verification, and why."""

    exposures: tuple[int, ...]
    kept_out: tuple[int, ...]
    """Of the same camera state, but the first of their set or more than are wanted."""
    reasons: tuple[str, ...]


def choose(raws: xr.DataArray, states: Mapping[int, State], keywords: Sequence[str], at_most: int) -> Chosen:
    """Drop the first exposure of each set, keep the commonest camera state and the latest exposures.

    Parameters
    ----------
    raws : DataArray
        With the coordinates of ``Repo.raws``.
    states : mapping
        Values of the camera's state keywords by exposure.
    keywords : sequence of str
        Their names, for the account.
    at_most : int
        Exposures wanted.
    """
    ids = [int(e) for e in raws["exposure"].values]
    reasons = [f"{len(ids)} exposures found"]
    firsts = first_in_set(raws)
    if firsts:
        reasons.append(f"{len(firsts)} left out: the first of their set, kept for the verification ({_list(firsts)})")
    left = [e for e in ids if e not in firsts]
    common = _commonest([states[e] for e in left])
    other = [e for e in left if states[e] != common]
    if other:
        differing = sorted({k for e in other for k, a, b in zip(keywords, states[e], common, strict=True) if a != b})
        reasons.append(f"{len(other)} left out: another camera state, {', '.join(differing)} differ ({_list(other)})")
    left = [e for e in left if states[e] == common]
    surplus, chosen = left[: max(len(left) - at_most, 0)], left[max(len(left) - at_most, 0) :]
    if surplus:
        reasons.append(f"{len(surplus)} left out: the latest {at_most} are taken ({_list(surplus)})")
    reasons.append(f"{len(chosen)} chosen: {_list(chosen)}")
    kept_out = [e for e in ids if e in firsts and states[e] == common] + surplus
    return Chosen(tuple(chosen), tuple(kept_out), tuple(reasons))


def camera_states(repo: Repo, raws: xr.DataArray, instrument: Instrument) -> dict[int, State]:
    """Values of the state keywords of every exposure, from the header of the first detector that has it."""
    headers = cubes.headers(repo.root, instrument.name, raws["exposure"].values, raws["detector"].values)
    keywords = instrument.settings.state_keywords
    return {exposure: tuple((header or {}).get(k) for k in keywords) for exposure, header in headers.items()}


def first_in_set(raws: xr.DataArray) -> list[int]:
    """First exposures of sets of which other exposures are present too; a single exposure is not a set."""
    day, seq, start = (raws[name].values for name in ("day_obs", "seq_num", "seq_start"))
    _, inverse, size = np.unique(np.stack([day, start]), axis=1, return_inverse=True, return_counts=True)
    first = (seq == start) & (size[inverse.ravel()] > 1)
    return [int(e) for e in raws["exposure"].values[first]]


def _commonest(states: Sequence[State]) -> State:
    return max(reversed(states), key=states.count) if states else ()


def _list(ids: Sequence[int]) -> str:
    return f"{ids[0]} .. {ids[-1]}" if len(ids) > 2 else ", ".join(map(str, ids)) or "none"

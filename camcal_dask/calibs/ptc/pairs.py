"""Pairs of equal flats among a set of exposures (reference/ptc_linearity.md 1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from camcal_dask.config import Config
from camcal_dask.errors import ConfigError, nearest

PairMode = Literal["time", "flux", "expid"]
TIME_TOLERANCE_S, TIME_TOLERANCE = 5e-3, 1e-5
"""Exposure times are equal within so many seconds plus this part of their value, as in upstream's isclose."""


class PairConfig(Config):
    """How flats are paired."""

    mode: PairMode = "time"
    """By exposure time, by flux, or simply two by two."""
    flux: str = "photodiode"
    """For ``mode: flux``: ``photodiode`` (charge), or the header keyword that holds the flux, such as ``CCOBFLUX``."""
    tolerance: float = 0.0
    """For ``mode: flux``: largest difference of equal fluxes, relative; a keyword is exact, a photodiode is not."""


class Pairs(NamedTuple):
    """Pairs of exposure ids, each in order of the ids; and the exposures without a partner, with the reason."""

    pairs: list[tuple[int, int]]
    odd: dict[int, str]

    @property
    def exposures(self) -> list[int]:
        """Ids of all paired exposures, ascending."""
        return sorted(e for pair in self.pairs for e in pair)

    def every(self, stride: int) -> Pairs:
        """Only every ``stride``-th pair: for a quick look."""
        return self._replace(pairs=self.pairs[::stride])

    def text(self) -> str:
        """One line for people: how many, and which are left over."""
        reasons: dict[str, list[int]] = {}
        for exposure, reason in self.odd.items():
            reasons.setdefault(reason, []).append(exposure)
        left = "; ".join(f"{len(ids)} odd: {reason} ({_list(ids)})" for reason, ids in reasons.items())
        return f"{len(self.pairs)} pairs" + (f"; {left}" if left else "")


def pair_exposures(
    exposure: Iterable[int],
    *,
    exposure_time: npt.ArrayLike | None = None,
    flux: npt.ArrayLike | None = None,
    mode: PairMode = "time",
    tolerance: float = 0.0,
) -> Pairs:
    """Pair neighbours, in the order of their ids, that had the same light.

    Parameters
    ----------
    exposure : iterable of int
        Ids, in any order.
    exposure_time : (exposure,) float [s]
        For ``mode="time"``: equal within 5 ms + 1e-5 of the time.
    flux : (exposure,) float
        For ``mode="flux"``: equal within ``tolerance`` (relative); NaN pairs with nothing.
    mode : "time", "flux" or "expid"
        ``expid`` takes them two by two without any check.

    Returns
    -------
    Pairs
        Of a run of equal neighbours the first two are a pair and the others odd: A A A A gives one pair, A B B A
        the pair B B.  Only adjacent exposures pair, so that the lamp has no time to drift.

    Raises
    ------
    ConfigError
        If the mode is unknown or its values are missing or of another length.
    """
    ids = [int(e) for e in exposure]
    order = np.argsort(ids, kind="stable")
    ordered = [ids[i] for i in order]
    if mode not in get_args(PairMode):
        raise ConfigError(f"pairs: mode {mode!r}{nearest(mode, get_args(PairMode))}")
    if mode == "expid":
        return _two_by_two(ordered)
    name, given = ("exposure_time", exposure_time) if mode == "time" else ("flux", flux)
    values = np.asarray(np.nan if given is None else given, np.float64)
    if values.shape != (len(ids),):
        raise ConfigError(f"pairs: mode {mode!r} needs {name} of shape ({len(ids)},), got {values.shape}")
    absolute, relative = (TIME_TOLERANCE_S, TIME_TOLERANCE) if mode == "time" else (0.0, tolerance)
    return _adjacent(ordered, values[order], "exposure time" if mode == "time" else "flux", absolute, relative)


def _two_by_two(ids: Sequence[int]) -> Pairs:
    last = {ids[-1]: "the last of an odd number of exposures"} if len(ids) % 2 else {}
    return Pairs(list(zip(ids[::2], ids[1::2], strict=False)), last)


def _adjacent(
    ids: Sequence[int], values: npt.NDArray[np.float64], what: str, absolute: float, relative: float
) -> Pairs:
    """Split into runs of values equal to the first of the run; two of each run are a pair."""
    found = Pairs([], {})
    begin = 0
    for i in range(1, len(ids) + 1):
        if i < len(ids) and abs(values[i] - values[begin]) <= absolute + relative * abs(values[begin]):
            continue
        run = ids[begin:i]
        if len(run) > 1:
            found.pairs.append((run[0], run[1]))
            found.odd.update(dict.fromkeys(run[2:], f"more than two neighbours of one {what}"))
        else:
            known = np.isfinite(values[begin])
            found.odd[run[0]] = f"no neighbour of the same {what}" if known else f"its {what} is not known"
        begin = i
    return found


def _list(ids: Sequence[int]) -> str:
    return f"{ids[0]} .. {ids[-1]}" if len(ids) > 2 else ", ".join(map(str, ids))

"""What is observed: exposures and the usual sets of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal

from camcal_dask.config import Config
from camcal_dask.errors import ConfigError

SET_UP_S = 3.0
"""Time between exposures besides exposure time [s]."""

FIRST_BEGIN_S = 6 * 3600.0
"""Begin of a day's first exposure after 12:00 TAI [s]: the afternoon on the mountain."""

LAST_SEQ_NUM = 99_999

DARK_OVERHEAD_S = 0.014
"""Dark time beyond exposure time [s]."""


class ExposureSpec(Config):
    """One exposure.

    ``begin_s`` counts TAI seconds from the beginning of ``day_obs`` (12:00 TAI).  ``light`` scales the lamp.
    ``physical_filter = None`` takes the camera's r band.  ``contaminated`` marks the first exposure after idle.
    """

    type: Literal["bias", "dark", "flat"]
    day_obs: int
    seq_num: int
    exposure_time_s: float = 0.0
    reason: str = ""
    physical_filter: str | None = None
    light: float = 1.0
    contaminated: bool = False
    begin_s: float = FIRST_BEGIN_S
    index: int = 1
    max_index: int = 1
    program: str | None = None

    @property
    def key(self) -> int:
        """``day_obs * 100000 + seq_num``: keys the random streams of the exposure."""
        return self.day_obs * 100_000 + self.seq_num

    @property
    def dark_time_s(self) -> float:
        """Time that dark current is collected [s]; 0 for a bias."""
        return 0.0 if self.type == "bias" else round(self.exposure_time_s + DARK_OVERHEAD_S, 6)

    @property
    def lit(self) -> bool:
        """Whether light falls on the sensor."""
        return self.type == "flat" and self.exposure_time_s > 0 and self.light > 0

    @property
    def begin_tai(self) -> datetime:
        """Begin of the exposure, TAI, to the millisecond."""
        noon = datetime.strptime(f"{self.day_obs}12", "%Y%m%d%H")  # noqa: DTZ007  TAI, no zone
        return noon + timedelta(milliseconds=round(self.begin_s * 1000))

    @property
    def end_tai(self) -> datetime:
        """End of the exposure, TAI, to the millisecond."""
        return self.begin_tai + timedelta(milliseconds=round((self.dark_time_s or 0.014) * 1000))


def bias_set(n: int, day_obs: int, first_seq_num: int = 1, *, contaminated_first: bool = False) -> list[ExposureSpec]:
    """``n`` biases; with ``contaminated_first`` the first of them is the one after idle."""
    one = ExposureSpec(type="bias", day_obs=day_obs, seq_num=first_seq_num, reason="bias")
    specs = _set_of(one, n)
    return [s.model_copy(update={"contaminated": contaminated_first and s.index == 1}) for s in specs]


def dark_set(n: int, exposure_time_s: float, day_obs: int, first_seq_num: int = 1) -> list[ExposureSpec]:
    """``n`` darks of one exposure time."""
    one = ExposureSpec(
        type="dark", day_obs=day_obs, seq_num=first_seq_num, reason="dark", exposure_time_s=exposure_time_s
    )
    return _set_of(one, n)


def flat_set(
    n: int,
    exposure_time_s: float,
    day_obs: int,
    first_seq_num: int = 1,
    *,
    physical_filter: str | None = None,
    light: float = 1.0,
    reason: str = "sflat",
) -> list[ExposureSpec]:
    """``n`` equal flats through one filter."""
    one = ExposureSpec(
        type="flat",
        day_obs=day_obs,
        seq_num=first_seq_num,
        reason=reason,
        exposure_time_s=exposure_time_s,
        physical_filter=physical_filter,
        light=light,
    )
    return _set_of(one, n)


def ptc_set(
    exposure_times_s: Sequence[float],
    day_obs: int,
    first_seq_num: int = 1,
    *,
    physical_filter: str | None = None,
    light: float = 1.0,
) -> list[ExposureSpec]:
    """Flat pairs for a photon transfer curve: two flats of each exposure time, in the given order."""
    pairs = [
        flat_set(2, t, day_obs, first_seq_num, physical_filter=physical_filter, light=light, reason="ptc")
        for t in exposure_times_s
    ]
    return list(schedule(itertools.chain.from_iterable(pairs), day_obs, first_seq_num))


def _set_of(one: ExposureSpec, n: int) -> list[ExposureSpec]:
    """``n`` exposures of one command, which the headers count (CURINDEX of MAXINDEX)."""
    numbered = [one.model_copy(update={"index": i, "max_index": n}) for i in range(1, n + 1)]
    return list(schedule(numbered, one.day_obs, one.seq_num))


def schedule(specs: Iterable[ExposureSpec], day_obs: int, first_seq_num: int = 1) -> Iterator[ExposureSpec]:
    """Give exposures consecutive numbers and times that do not overlap.

    Parameters
    ----------
    specs : Iterable[ExposureSpec]
        Several sets may be chained; their numbers and times are replaced.
    day_obs, first_seq_num : int
        Day and number of the first one.  The first begins ``first_seq_num`` x 40 s into the afternoon, so
        that sets made one by one with rising numbers rarely overlap in time.

    Raises
    ------
    ConfigError
        If the day is none, or the numbers leave 1 to 99999: both are part of names and of exposure ids.
    """
    try:
        datetime.strptime(str(day_obs), "%Y%m%d")  # noqa: DTZ007  TAI, no zone
    except ValueError:
        raise ConfigError(f"day_obs {day_obs}: expected a day, such as 20260812") from None
    begin_s = FIRST_BEGIN_S + 40.0 * (first_seq_num - 1)
    for seq_num, spec in enumerate(specs, first_seq_num):
        if not 1 <= seq_num <= LAST_SEQ_NUM:
            raise ConfigError(f"seq_num {seq_num} of {day_obs}: sequence numbers run from 1 to {LAST_SEQ_NUM}")
        yield spec.model_copy(update={"day_obs": day_obs, "seq_num": seq_num, "begin_s": begin_s})
        begin_s = round(begin_s + spec.dark_time_s + SET_UP_S, 3)

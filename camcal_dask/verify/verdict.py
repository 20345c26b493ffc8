"""What a room says of the verification of its calibrations, and where the engine finds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from camcal_dask import rooms
from camcal_dask.errors import ConfigError, nearest
from camcal_dask.isr.config import IsrConfig
from camcal_dask.verify.judging.criterion import Criterion

Calibs = Mapping[str, xr.Dataset]


@dataclass(frozen=True)
class Verdict:
    """How calibrations of one kind are verified.

    Attributes
    ----------
    kind : the word after ``kind:`` in a pipeline, and the name of the tests.
    criteria : the tests.
    table : numbers of the calibration itself, (detector, amp), from the product of one detector, in memory; a kind
        with a table is judged without exposures.
    numbers : numbers of the candidate that are added to the statistics of exposures, lazily; a Dataset.
    before : ``before(candidate, calibs, config)`` -> calibrations and configuration of the ISR by which the exposures
        are corrected, where these are not simply those of the pipeline.
    photodiode : whether the statistics have the photodiode charge of the exposures.
    """

    kind: str
    criteria: tuple[Criterion, ...]
    table: Callable[[xr.Dataset], xr.Dataset] | None = None
    numbers: Callable[[xr.Dataset], xr.Dataset] | None = None
    before: Callable[[xr.Dataset, Calibs, IsrConfig], tuple[Calibs, IsrConfig]] | None = None
    photodiode: bool = False


def verdict_of(kind: str) -> Verdict:
    """Verdict of a kind.

    Raises
    ------
    ConfigError
        If no room has one.
    """
    known: dict[str, Any] = rooms.verdicts()
    if kind not in known:
        raise ConfigError(f"there are no tests for {kind!r}{nearest(kind, known)}")
    found: Verdict = known[kind]
    return found


def criteria_of(kind: str) -> tuple[Criterion, ...]:
    """Tests of a kind; ConfigError if no room has any."""
    return verdict_of(kind).criteria

"""Settings of verifications."""

from __future__ import annotations

from typing import Literal

import pydantic

from camcal_dask import rooms
from camcal_dask.campaign.planning.recipe import IsrRecipe, Recipe, product_unit
from camcal_dask.config import Config
from camcal_dask.errors import ConfigError, nearest
from camcal_dask.isr.applied import is_known, with_images
from camcal_dask.verify.judging.criterion import with_thresholds
from camcal_dask.verify.measuring.readout import ReadoutConfig
from camcal_dask.verify.measuring.statistics import MeasureConfig
from camcal_dask.verify.verdict import criteria_of, verdict_of


class JudgeConfig(Config):
    """How a candidate is judged."""

    tests: str = ""
    """Kind whose tests are taken; default: that of the candidate."""
    thresholds: dict[str, float] = {}
    """Thresholds that replace those of the tests, by test id."""
    known_bad: tuple[tuple[str, str], ...] | None = None
    """(detector name, amp) that are measured and shown but do not count; default: the camera's list."""

    def check(self, kind: str) -> None:
        """Refuse tests that there are not, and thresholds of tests that they do not have; ValueError."""
        try:
            criteria = criteria_of(self.tests or kind)
        except ConfigError as error:
            raise ValueError(f"verify.tests: {error}") from None
        try:
            with_thresholds(criteria, self.thresholds)
        except ConfigError as error:
            raise ValueError(f"verify.thresholds: {error}") from None


class VerifyConfig(JudgeConfig):
    """What is measured of corrected exposures, and how it is judged."""

    measure: MeasureConfig = MeasureConfig()
    exposures: Literal["all", "internal", "external"] = "all"
    """Of those selected: all, those that made the candidate, or only others (does it still hold on other dates?)."""
    readout: ReadoutConfig = ReadoutConfig()
    """Statistics of the raw exposures: read noise by boxes, charge-transfer inefficiency."""
    raft: Literal["none", "overscan", "image"] = "none"
    """Correlate amps with those of their raft: in the overscan of the last exposure, or the image of the first pair."""


class VerifyRecipe(IsrRecipe):
    """Apply a candidate calibration to exposures and judge what is left."""

    task: Literal["verify"]
    kind: str
    """What the candidate is: the name of its tests, and that by which the ISR takes it if it does."""
    candidates: dict[str, dict[str, str] | tuple[dict[str, str], ...]]
    """Dataset types to test, with the other calibrations that are applied beside each: ``{dark: {bias: bias}}``, or
    several such sets, of which the first one is taken that the inputs hold.
    The first type found in ``-i`` is the candidate."""
    verify: VerifyConfig = VerifyConfig()

    def alternatives(self, candidate: str) -> tuple[dict[str, str], ...]:
        """Sets of calibrations beside a candidate, the best first."""
        beside = self.candidates[candidate]
        return (beside,) if isinstance(beside, dict) else beside

    def of_candidate(self, candidate: str) -> VerifyRecipe:
        """Return the recipe that tests this dataset type only."""
        return self.model_copy(update={"candidates": {candidate: self.candidates[candidate]}})

    def chosen(self, candidate: str, beside: dict[str, str]) -> VerifyRecipe:
        """Return the recipe of one candidate: the ISR applies it and the calibrations beside it, in their unit."""
        applied = {self.kind: candidate, **beside}
        in_adu = any(product_unit(dataset_type).startswith("adu") for dataset_type in applied.values())
        if_there = {name: dataset_type for name, dataset_type in self.if_there.items() if name not in applied}
        isr = with_images(self.isr, {*applied, *if_there, *self.calibs}, in_adu=in_adu)
        update = {"candidates": {candidate: beside}, "calibs": beside, "if_there": if_there, "isr": isr}
        return self.model_copy(update=update)

    @pydantic.model_validator(mode="after")
    def _contract(self) -> VerifyRecipe:
        _check_kind(self.kind, tables=False)
        self.verify.check(self.kind)
        for candidate in self.candidates:
            for beside in self.alternatives(candidate):
                recipe = self.chosen(candidate, beside)
                by_room = verdict_of(self.kind).before is not None and not is_known(self.kind)
                tested = {} if by_room else {self.kind: candidate}
                recipe.model_copy(update={"calibs": {**self.calibs, **tested, **beside}}).check_calibs()
        return self


class TableRecipe(Recipe):
    """Judge a calibration that is a table by its own numbers."""

    task: Literal["verify_table"]
    kind: str
    """What is judged, and the name of its tests."""
    candidates: tuple[str, ...]
    """Dataset types to test; the first one found in ``-i`` is the candidate."""
    verify: JudgeConfig = JudgeConfig()

    def of_candidate(self, candidate: str) -> TableRecipe:
        """Return the recipe that tests this dataset type only."""
        return self.model_copy(update={"candidates": (candidate,)})

    @pydantic.model_validator(mode="after")
    def _contract(self) -> TableRecipe:
        _check_kind(self.kind, tables=True)
        self.verify.check(self.kind)
        return self


def _check_kind(kind: str, *, tables: bool) -> None:
    """Refuse a kind that no room verifies, or of which none is a table; ValueError."""
    known = [name for name, verdict in rooms.verdicts().items() if verdict.table is not None or not tables]
    if kind not in known:
        missing = "is no table" if tables else "are no tests"
        raise ValueError(f"kind: there {missing} for {kind!r}{nearest(kind, known)}")

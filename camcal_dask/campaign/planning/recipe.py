"""Recipes: what a run makes, as data (``pipelines/<name>.yaml``, and for a camera that differs, in its folder).

A recipe names a task, the product it writes, the exposures it wants and the settings of every step.  What cameras share
is imported (``import: ../bias.yaml``, or a list of which the last wins) and overridden.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal, Self

import pydantic
import yaml

from camcal_dask.calibs.combined.combine import CombineConfig, scaled_units
from camcal_dask.calibs.combined.cosmic_rays import CosmicRayConfig
from camcal_dask.calibs.defects.config import DefectConfig
from camcal_dask.calibs.flat.illumination import SelectConfig
from camcal_dask.calibs.flat.levels import LevelConfig, VignetteConfig
from camcal_dask.calibs.linearizer.config import LinearityConfig
from camcal_dask.calibs.linearizer.product import LINEARIZER
from camcal_dask.calibs.products import PRODUCTS, get_product
from camcal_dask.calibs.ptc.extract import PtcExtractConfig
from camcal_dask.calibs.ptc.pairs import PairConfig
from camcal_dask.calibs.ptc.product import PTC
from camcal_dask.calibs.ptc.solve import PtcSolveConfig
from camcal_dask.campaign.planning.pipelines import find_pipeline
from camcal_dask.config import Config, apply_override, load_config
from camcal_dask.errors import ConfigError, nearest
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.tables import needs as tables_needed
from camcal_dask.kernels.light.photodiode import Method
from camcal_dask.verify.criteria import CRITERIA
from camcal_dask.verify.judging.criterion import with_thresholds
from camcal_dask.verify.measuring.readout import ReadoutConfig
from camcal_dask.verify.measuring.statistics import MeasureConfig
from camcal_dask.verify.tables import TABLES

CALIB_SWITCHES = tuple(name for name in ("bias", "dark", "flat", "defects") if name in IsrConfig.model_fields)
"""Switches of the ISR that ask for a calibration of the same name."""
_OFF = {
    "ptc": "read_noise=empirical",
    "linearizer": "linearity=false",
    "crosstalk": "crosstalk.terms=none",
    "cti": "deferred_charge=false",
    "brighter_fatter": "brighter_fatter=none",
}
"""Setting of the ISR that switches a calibration off, where that is not its name."""
CURVES = "curves"
"""Under this name a plan holds the photon transfer curves that a linearizer is made from."""


class Recipe(Config):
    """What all recipes have."""

    description: str
    instrument: str
    """Camera; where a pipeline is for all cameras, that of the repository."""
    product: str
    """Dataset type written."""
    where: str = ""
    """Butler expression that every input exposure satisfies; ANDed with ``-d``."""
    isr: IsrConfig = IsrConfig()
    calibs: dict[str, str] = {}
    """Dataset type behind each calibration that the ISR applies: ``{bias: biasBootstrap}``."""
    if_there: dict[str, str] = {}
    """Dataset types of calibrations that the ISR applies only where the inputs hold them (`resolved`)."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Dataset types that must be there before this recipe runs."""
        return tuple(self.calibs.values())

    @property
    def uses(self) -> tuple[str, ...]:
        """Dataset types that are applied where they are there."""
        return tuple(self.if_there[name] for name in self.applied if name in self.if_there)

    def resolved(self, there: Collection[str]) -> Self:
        """Return the recipe that applies those of ``if_there`` that are; without a ptc, nominal gains."""
        isr = self.isr.model_dump()
        for name in set(self.if_there) & set(self.applied) - set(there):
            apply_override(isr, _OFF.get(name, f"{name}=false"))
            if name == isr["gains"]:
                isr["gains"] = "nominal"
        calibs = self.calibs | {n: self.if_there[n] for n in self.applied if n in self.if_there and n in there}
        return type(self).model_validate(self.model_dump() | {"isr": isr, "calibs": calibs, "if_there": {}})

    @property
    def applied(self) -> tuple[str, ...]:
        """Calibrations that the ISR takes: images that it switches on, and tables."""
        return (*(name for name in CALIB_SWITCHES if getattr(self.isr, name)), *tables_needed(self.isr))

    def _check_calibs(self) -> None:
        """Refuse calibrations that are not applied, applied ones without a type, and mixed units."""
        expected = {"bias": self.isr.units, "dark": f"{self.isr.units}/s", "flat": "1", "defects": "1"}
        for name in sorted(set(self.applied) - set(self.calibs) - set(self.if_there)):
            raise ValueError(f"isr.{name} is on: say which dataset type it is, calibs: {{{name}: ...}}")
        if both := sorted(set(self.if_there) & set(self.calibs)):
            raise ValueError(f"{both[0]} is in calibs and in if_there; name it once")
        for name in sorted(set(self.calibs) - set(self.applied)):
            raise ValueError(f"calibs.{name} is given, but isr.{name} is off{nearest(name, self.applied)}")
        for name, dataset_type in (self.calibs | self.if_there).items():
            if dataset_type not in PRODUCTS:
                raise ValueError(f"calibs.{name} = {dataset_type!r}{nearest(dataset_type, PRODUCTS)}")
            units = PRODUCTS[dataset_type].units
            if units != expected.get(name, units):
                raise ValueError(
                    f"calibs.{name} = {dataset_type} is in {units}, but the exposures are corrected to "
                    f"{self.isr.units} (isr.gains={self.isr.gains}), which needs {expected[name]}; "
                    f"use a {name} in {expected[name]} or another isr.gains"
                )


class StackRecipe(Recipe):
    """Combine the exposures of each detector into one image."""

    task: Literal["stack"]
    combine: CombineConfig = CombineConfig()
    mixed_state: bool = False
    """Combine exposures although they were read out in different camera states."""
    check_powered: bool = False
    """Refuse exposures of sensors whose back-side bias was off (cameras that tell)."""
    find_cosmic_rays: bool = False
    """Search every exposure for cosmic rays first; they get the plane CR."""
    cosmic_rays: CosmicRayConfig = CosmicRayConfig()

    @pydantic.model_validator(mode="after")
    def _contract(self) -> StackRecipe:
        self._check_calibs()
        made, units = scaled_units(self.isr.units, self.combine.scale), get_product_units(self.product)
        if made != units:
            raise ValueError(
                f"product {self.product} is in {units}, but isr.gains={self.isr.gains} and "
                f"combine.scale={self.combine.scale} make {made}; change one of them"
            )
        if self.find_cosmic_rays and "CR" not in self.combine.reject_mask:
            raise ValueError("find_cosmic_rays is on, but combine.reject_mask has no CR: they would enter")
        return self


class FlatRecipe(StackRecipe):
    """Combine the flats of one filter, each divided by its level."""

    task: Literal["flat"]  # type: ignore[assignment]
    combine: CombineConfig = CombineConfig(scale="levels")
    select: SelectConfig = SelectConfig()
    levels: LevelConfig = LevelConfig()
    vignette: VignetteConfig = VignetteConfig()


class DefectsRecipe(Recipe):
    """Find the defects in combined images; no exposures."""

    task: Literal["defects"]
    images: dict[Literal["bias", "dark", "flat"], str]
    """Kind -> dataset type searched; all filters of a flat that the inputs hold."""
    defects: DefectConfig = DefectConfig()
    manual: dict[str, tuple[tuple[int, int, int, int], ...]] = {}
    """Detector name -> boxes x0, y0, width, height in the assembled CCD that are added."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Dataset types that must be there before this recipe runs."""
        return tuple(self.images.values())

    @pydantic.model_validator(mode="after")
    def _contract(self) -> DefectsRecipe:
        if self.product != "defects":
            raise ValueError(f"task defects makes the product defects, not {self.product!r}")
        for kind, dataset_type in self.images.items():
            units = get_product_units(dataset_type)
            allowed = {"bias": ("adu", "electron"), "dark": ("adu/s", "electron/s"), "flat": ("1",)}[kind]
            if units not in allowed:
                raise ValueError(f"images.{kind} = {dataset_type} is in {units}, needs {' or '.join(allowed)}")
        return self


class PhotodiodeConfig(Config):
    """How photodiode readings become charges."""

    method: Method = "trimmed_sum"
    scale: float | None = None
    """Factor of the current, -1 upstream; None: the sign that makes light positive."""


class PtcRecipe(Recipe):
    """Measure pairs of flats and fit photon transfer curves."""

    task: Literal["ptc"]
    pairing: PairConfig = PairConfig()
    stride: int = pydantic.Field(1, ge=1)
    """Take every so many-th pair only, for a quick look."""
    photodiode: PhotodiodeConfig = PhotodiodeConfig()
    aux: tuple[str, ...] = ()
    """Header keywords kept with the pairs as ``aux_<KEYWORD>``."""
    extract: PtcExtractConfig = PtcExtractConfig()
    solve: PtcSolveConfig = PtcSolveConfig()

    @property
    def n_parameter(self) -> int:
        """Parameters of the fit of the variance."""
        return self.solve.polynomial_degree + 1 if self.solve.fit_type == "POLYNOMIAL" else 3

    @pydantic.model_validator(mode="after")
    def _contract(self) -> PtcRecipe:
        self._check_calibs()
        if PRODUCTS[self.product].variables is not PTC:
            raise ValueError(f"task ptc makes linearizerPtc or ptc, not {self.product!r}")
        if self.isr.units != "adu":
            raise ValueError(f"pairs are measured in adu, but isr.gains={self.isr.gains}; set isr.gains=none")
        return self


class LinearityRecipe(Recipe):
    """Make linearizers from photon transfer curves, and for a double spline from the exposures of these."""

    task: Literal["linearity"]
    curves: str = "linearizerPtc"
    """Dataset type of the photon transfer curves."""
    linearity: LinearityConfig = LinearityConfig()

    @property
    def needs(self) -> tuple[str, ...]:
        """Dataset types that must be there before this recipe runs."""
        return (self.curves, *super().needs)

    @pydantic.model_validator(mode="after")
    def _contract(self) -> LinearityRecipe:
        self._check_calibs()
        if PRODUCTS[self.product].variables is not LINEARIZER:
            raise ValueError(f"task linearity makes the product linearizer, not {self.product!r}")
        if self.isr.units != "adu" or self.isr.linearity:
            raise ValueError(
                "amp ratios are measured in adu and without linearity; set isr.gains=none, linearity=false"
            )
        return self


class VerifyConfig(Config):
    """What is measured and how it is judged."""

    tests: str = ""
    """Name of a table of tests (`camcal_dask.verify.criteria`); default: that of the candidate's kind."""
    thresholds: dict[str, float] = {}
    """Thresholds that replace those of the table, by test id."""
    known_bad: tuple[tuple[str, str], ...] | None = None
    """(detector name, amp) that are measured and shown but do not count; default: the camera's list."""
    measure: MeasureConfig = MeasureConfig()
    exposures: Literal["all", "internal", "external"] = "all"
    """Of those selected: all, those that made the candidate, or only others (does it still hold on other dates?)."""
    readout: ReadoutConfig = ReadoutConfig()
    """Statistics of the raw exposures: read noise by boxes, charge-transfer inefficiency."""
    raft: Literal["none", "overscan", "image"] = "none"
    """Correlate amps with those of their raft: in the overscan of the last exposure, or the image of the first pair."""

    def check(self, kind: str) -> None:
        """Refuse tables of tests that there are not, and thresholds of tests that they do not have; ValueError."""
        name = self.tests or kind
        if name not in CRITERIA:
            raise ValueError(f"verify.tests: there are no tests for {name!r}{nearest(name, CRITERIA)}")
        try:
            with_thresholds(CRITERIA[name], self.thresholds)
        except ConfigError as error:
            raise ValueError(f"verify.thresholds: {error}") from None


class VerifyRecipe(Recipe):
    """Apply a candidate calibration to exposures and judge what is left."""

    task: Literal["verify"]
    kind: str
    """What the candidate is: the name by which the ISR takes it, and that of its tests."""
    candidates: dict[str, dict[str, str] | tuple[dict[str, str], ...]]
    """Dataset types to test, with the other calibrations that are applied beside each: ``{dark: {bias: bias}}``, or
    several such sets, of which the first one is taken that the inputs hold.
    The first type found in ``-i`` is the candidate."""
    verify: VerifyConfig = VerifyConfig()

    def alternatives(self, candidate: str) -> tuple[dict[str, str], ...]:
        """Sets of calibrations beside a candidate, the best first."""
        beside = self.candidates[candidate]
        return (beside,) if isinstance(beside, dict) else beside

    def chosen(self, candidate: str, beside: dict[str, str]) -> VerifyRecipe:
        """Return the recipe of one candidate: the ISR applies it and the calibrations beside it, in their unit.

        In adu there are no quadratic crosstalk and no brighter-fatter correction.
        """
        applied = {self.kind: candidate, **beside}
        in_adu = any(get_product_units(dataset_type).startswith("adu") for dataset_type in applied.values())
        if_there = {name: dataset_type for name, dataset_type in self.if_there.items() if name not in applied}
        values = self.isr.model_dump()
        switched = {*applied, *if_there, *self.calibs}
        values |= dict.fromkeys((name for name in CALIB_SWITCHES if name in switched), True)
        if in_adu:
            values |= {"gains": "none", "brighter_fatter": "none"}
            if self.isr.crosstalk.terms == "quadratic":
                values["crosstalk"] |= {"terms": "linear"}
        elif self.isr.gains == "none":
            values["gains"] = "nominal"
        isr = IsrConfig.model_validate(values)
        update = {"candidates": {candidate: beside}, "calibs": beside, "if_there": if_there, "isr": isr}
        return self.model_copy(update=update)

    @pydantic.model_validator(mode="after")
    def _contract(self) -> VerifyRecipe:
        if self.kind not in CRITERIA:
            raise ValueError(f"kind: there are no tests for {self.kind!r}{nearest(self.kind, CRITERIA)}")
        self.verify.check(self.kind)
        for candidate in self.candidates:
            for beside in self.alternatives(candidate):
                recipe = self.chosen(candidate, beside)
                recipe.model_copy(update={"calibs": {**self.calibs, self.kind: candidate, **beside}})._check_calibs()
        return self


class TableRecipe(Recipe):
    """Judge a calibration that is a table by its own numbers."""

    task: Literal["verify_table"]
    kind: str
    """What is judged (`camcal_dask.verify.tables.TABLES`), and the name of its tests."""
    candidates: tuple[str, ...]
    """Dataset types to test; the first one found in ``-i`` is the candidate."""
    verify: VerifyConfig = VerifyConfig()

    @pydantic.model_validator(mode="after")
    def _contract(self) -> TableRecipe:
        if self.kind not in TABLES:
            raise ValueError(f"kind: there is no table for {self.kind!r}{nearest(self.kind, TABLES)}")
        self.verify.check(self.kind)
        return self


AnyRecipe = StackRecipe | FlatRecipe | DefectsRecipe | PtcRecipe | LinearityRecipe | VerifyRecipe | TableRecipe
_TASKS: dict[str, type[Recipe]] = {
    "stack": StackRecipe,
    "flat": FlatRecipe,
    "defects": DefectsRecipe,
    "ptc": PtcRecipe,
    "linearity": LinearityRecipe,
    "verify": VerifyRecipe,
    "verify_table": TableRecipe,
}


def get_product_units(name: str) -> str:
    """Unit of a product; ValueError if there is none of that name."""
    try:
        return get_product(name).units
    except ConfigError as error:
        raise ValueError(str(error)) from None


def load_recipe(name: str, overrides: Iterable[str] = (), instrument: str | None = None) -> AnyRecipe:
    """Read and validate a recipe.

    Parameters
    ----------
    name : str
        Path of a YAML file, or the name of a shipped pipeline (`find_pipeline`).
    overrides : iterable of str
        ``step.key=value``; the value is read as YAML.
    instrument : str, optional
        Camera for which it is made if neither its name nor the file says: that of the repository.

    Raises
    ------
    ConfigError
        For an unknown file, key, task or a value of the wrong kind, naming the nearest valid one; if the camera is not
        known.
    """
    path, camera = find_pipeline(name, instrument)
    values = ({"instrument": camera} if camera else {}) | _read(path)
    for override in overrides:
        apply_override(values, override)
    if "instrument" not in values:
        raise ConfigError(f"{name}: is for any camera; say for which one with --instrument (instrument=...)")
    task = values.get("task")
    if task not in _TASKS:
        raise ConfigError(f"{path}: task {task!r}{nearest(str(task), _TASKS)}")
    return load_config(_TASKS[task], values, str(path))  # type: ignore[return-value]


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
    imported = values.pop("import", [])
    parents = [imported] if isinstance(imported, str) else imported
    return functools.reduce(_merge, [*(_read((path.parent / parent).resolve()) for parent in parents), values])


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged

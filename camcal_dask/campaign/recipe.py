"""Recipes: what a run makes, as data (``pipelines/<instrument>/<name>.yaml``).

A recipe names a task, the product it writes, the exposures it wants and the settings of every
step.  Parts shared by cameras are imported (``import: ../ingredients/x.yaml``) and overridden.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml

from camcal_dask.calibs.cosmic_rays import CosmicRayConfig
from camcal_dask.calibs.defects_config import DefectConfig
from camcal_dask.calibs.levels import LevelConfig, VignetteConfig
from camcal_dask.calibs.products import PRODUCTS, get_product
from camcal_dask.calibs.stack import CombineConfig, scaled_units
from camcal_dask.campaign.shipped import shipped
from camcal_dask.config import Config, apply_override, load_config
from camcal_dask.errors import ConfigError, nearest
from camcal_dask.isr.config import IsrConfig
from camcal_dask.verify.statistics import MeasureConfig

CALIB_SWITCHES = tuple(name for name in ("bias", "dark", "flat", "defects") if name in IsrConfig.model_fields)
"""Switches of the ISR that ask for a calibration of the same name."""


class Recipe(Config):
    """What all recipes have."""

    description: str
    instrument: str
    product: str
    """Dataset type written."""
    where: str = ""
    """Butler expression that every input exposure satisfies; ANDed with ``-d``."""
    isr: IsrConfig = IsrConfig()
    calibs: dict[str, str] = {}
    """Dataset type behind each calibration that the ISR applies: ``{bias: biasBootstrap}``."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Dataset types that must be there before this recipe runs."""
        return tuple(self.calibs.values())

    @property
    def applied(self) -> tuple[str, ...]:
        """Calibrations that the ISR switches on."""
        return tuple(name for name in CALIB_SWITCHES if getattr(self.isr, name))

    def _check_calibs(self, given: tuple[str, ...] = ()) -> None:
        """Refuse calibrations that are not applied, applied ones without a type, and mixed units."""
        expected = {"bias": self.isr.units, "dark": f"{self.isr.units}/s", "flat": "1", "defects": "1"}
        for name in sorted(set(self.applied) - set(given) - set(self.calibs)):
            raise ValueError(f"isr.{name} is on: say which dataset type it is, calibs: {{{name}: ...}}")
        for name, dataset_type in self.calibs.items():
            if name not in self.applied:
                raise ValueError(f"calibs.{name} is given, but isr.{name} is off{nearest(name, self.applied)}")
            if dataset_type not in PRODUCTS:
                raise ValueError(f"calibs.{name} = {dataset_type!r}{nearest(dataset_type, PRODUCTS)}")
            units = PRODUCTS[dataset_type].units
            if units != expected[name]:
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
            allowed = {"bias": ("adu",), "dark": ("adu/s", "electron/s"), "flat": ("1",)}[kind]
            if units not in allowed:
                raise ValueError(f"images.{kind} = {dataset_type} is in {units}, needs {' or '.join(allowed)}")
        return self


class VerifyConfig(Config):
    """What is measured and how it is judged."""

    tests: str = "bias"
    """Name of a table of tests (`camcal_dask.verify.criteria`)."""
    thresholds: dict[str, float] = {}
    """Thresholds that replace those of the table, by test id."""
    known_bad: tuple[tuple[str, str], ...] | None = None
    """(detector name, amp) that are measured and shown but do not count; default: the camera's list."""
    measure: MeasureConfig = MeasureConfig()


class VerifyRecipe(Recipe):
    """Apply a candidate calibration to exposures and judge what is left."""

    task: Literal["verify"]
    candidates: tuple[str, ...]
    """Dataset types to test, the first one found in ``-i`` is the candidate; its unit decides the ISR's."""
    verify: VerifyConfig = VerifyConfig()


AnyRecipe = StackRecipe | FlatRecipe | DefectsRecipe | VerifyRecipe
_TASKS: dict[str, type[Recipe]] = {
    "stack": StackRecipe,
    "flat": FlatRecipe,
    "defects": DefectsRecipe,
    "verify": VerifyRecipe,
}


def get_product_units(name: str) -> str:
    """Unit of a product; ValueError if there is none of that name."""
    try:
        return get_product(name).units
    except ConfigError as error:
        raise ValueError(str(error)) from None


def load_recipe(name: str, overrides: Iterable[str] = ()) -> AnyRecipe:
    """Read and validate a recipe.

    Parameters
    ----------
    name : str
        Path of a YAML file, or its name among the shipped pipelines.
    overrides : iterable of str
        ``step.key=value``; the value is read as YAML.

    Raises
    ------
    ConfigError
        For an unknown file, key, task or a value of the wrong kind, naming the nearest valid one.
    """
    path = shipped("pipelines", name)
    if path is None or path.is_dir():
        folder = shipped("pipelines", "")
        names = [str(p.relative_to(folder)) for p in folder.glob("[A-Z]*/*.yaml")] if folder else []
        raise ConfigError(f"no pipeline {name!r}{nearest(name, names)}")
    values = _read(path)
    for override in overrides:
        apply_override(values, override)
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
    parent = values.pop("import", None)
    return _merge(_read((path.parent / parent).resolve()), values) if parent else values


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged

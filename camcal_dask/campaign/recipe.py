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

from camcal_dask.calibs.products import get_product
from camcal_dask.calibs.stack import CombineConfig
from camcal_dask.campaign.shipped import shipped
from camcal_dask.config import Config, apply_override, load_config
from camcal_dask.errors import ConfigError, nearest
from camcal_dask.isr.config import IsrConfig
from camcal_dask.verify.statistics import MeasureConfig


class Recipe(Config):
    """What all recipes have."""

    description: str
    instrument: str
    product: str
    """Dataset type written."""
    where: str = ""
    """Butler expression that every input exposure satisfies; ANDed with ``-d``."""
    isr: IsrConfig = IsrConfig()


class StackRecipe(Recipe):
    """Combine the exposures of each detector into one image."""

    task: Literal["stack"]
    combine: CombineConfig = CombineConfig()
    mixed_state: bool = False
    """Combine exposures although they were read out in different camera states."""

    @pydantic.model_validator(mode="after")
    def _units(self) -> StackRecipe:
        wanted = get_product(self.product).units
        if wanted != self.isr.units:
            raise ValueError(f"{self.product} is in {wanted}, isr.gains={self.isr.gains} makes {self.isr.units}")
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


AnyRecipe = StackRecipe | VerifyRecipe
_TASKS: dict[str, type[StackRecipe] | type[VerifyRecipe]] = {"stack": StackRecipe, "verify": VerifyRecipe}


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
    return load_config(_TASKS[task], values, str(path))


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

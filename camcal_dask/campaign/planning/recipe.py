"""Recipes: what a run makes, as data (``pipelines/<name>.yaml``, and for a camera that differs, in its folder).

A recipe names a task, the product it writes, the exposures it wants and the settings of every step.  What cameras share
is imported (``import: ../bias.yaml``, or a list of which the last wins) and overridden.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from camcal_dask import rooms
from camcal_dask.campaign.planning.pipelines import find_pipeline
from camcal_dask.config import Config, apply_override, load_config, read_yaml
from camcal_dask.errors import ConfigError, nearest
from camcal_dask.isr.applied import applied_by, expected_unit, without
from camcal_dask.isr.config import IsrConfig


class Recipe(Config):
    """What all recipes have."""

    task: str
    """How the product is made: a task of a room, or of verification."""
    description: str
    instrument: str
    """Camera; where a pipeline is for all cameras, that of the repository."""
    product: str
    """Dataset type written."""
    where: str = ""
    """Butler expression that every input exposure satisfies; ANDed with ``-d``."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Dataset types that must be there before this recipe runs."""
        return ()

    @property
    def uses(self) -> tuple[str, ...]:
        """Dataset types that are applied where the inputs hold them."""
        return ()


class IsrRecipe(Recipe):
    """What recipes have that correct exposures."""

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
        """Dataset types that are applied where the inputs hold them."""
        return tuple(self.if_there[name] for name in self.applied if name in self.if_there)

    @property
    def applied(self) -> tuple[str, ...]:
        """Calibrations that the ISR takes: images that it switches on, and tables."""
        return applied_by(self.isr)

    def resolved(self, there: Collection[str]) -> Self:
        """Return the recipe that applies those of ``if_there`` that were found; without a ptc, nominal gains."""
        isr = without(self.isr, set(self.if_there) & set(self.applied) - set(there))
        calibs = self.calibs | {n: self.if_there[n] for n in self.applied if n in self.if_there and n in there}
        return type(self).model_validate(self.model_dump() | {"isr": isr, "calibs": calibs, "if_there": {}})

    def check_calibs(self) -> None:
        """Refuse calibrations that are not applied, applied ones without a type, and mixed units; ValueError."""
        for name in sorted(set(self.applied) - set(self.calibs) - set(self.if_there)):
            raise ValueError(f"isr.{name} is on: name its dataset type, calibs: {{{name}: ...}}")
        if both := sorted(set(self.if_there) & set(self.calibs)):
            raise ValueError(f"{both[0]} is in both calibs and if_there; name it in one of them")
        for name in sorted(set(self.calibs) - set(self.applied)):
            raise ValueError(f"calibs.{name} is given, but isr.{name} is off{nearest(name, self.applied)}")
        products = rooms.products()
        for name, dataset_type in (self.calibs | self.if_there).items():
            if dataset_type not in products:
                raise ValueError(f"calibs.{name} = {dataset_type!r}{nearest(dataset_type, products)}")
            unit = products[dataset_type].unit
            expected = expected_unit(self.isr, name) or unit
            if unit != expected:
                raise ValueError(
                    f"calibs.{name} = {dataset_type} is in {unit}, but the exposures are corrected to "
                    f"{self.isr.units} (isr.gains={self.isr.gains}), which needs {expected}; "
                    f"use a {name} in {expected} or another isr.gains"
                )


def product_unit(name: str) -> str:
    """Unit of a product; ValueError if there is none of that name."""
    try:
        return rooms.product(name).unit
    except ConfigError as error:
        raise ValueError(str(error)) from None


def task_of(name: str, where: str = "") -> Any:
    """Task of a recipe (`camcal_dask.campaign.task.Task`).

    Raises
    ------
    ConfigError
        If no room has a task of that name; ``where`` is what was read.
    """
    known = rooms.tasks()
    if name not in known:
        raise ConfigError(f"{where}: no calibration type has a task {name!r}{nearest(name, known)}".lstrip(": "))
    return known[name]


def load_recipe(
    name: str,
    overrides: Iterable[str] = (),
    instrument: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
) -> Any:
    """Read and validate a recipe.

    Parameters
    ----------
    name : str
        Path of a YAML file, or the name of a shipped pipeline (`find_pipeline`).
    overrides : iterable of str
        ``step.key=value``; the value is read as YAML.
    instrument : str, optional
        Camera for which it is made if neither its name nor the file says: that of the repository.
    settings : mapping, optional
        Nested settings, which take the place of those of the file one by one.

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
    values = _merge(values, settings or {})
    if "instrument" not in values:
        raise ConfigError(f"{name}: is for any camera; say for which one with --instrument (instrument=...)")
    return load_config(task_of(str(values.get("task")), str(path)).recipe, values, str(path))


def _read(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    imported = values.pop("import", [])
    parents = [imported] if isinstance(imported, str) else imported
    return functools.reduce(_merge, [*(_read((path.parent / parent).resolve()) for parent in parents), values])


def _merge(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged

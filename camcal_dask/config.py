"""Validated configuration: the base model of every settings class.

Unknown keys are refused with the nearest valid name; models are frozen, so a
configuration can be a dictionary key, travel to workers and be written to provenance.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, get_args

import pydantic
import yaml

from camcal_dask.errors import ConfigError, nearest


class Config(pydantic.BaseModel):
    """Base of all settings: immutable, no unknown keys."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


C = TypeVar("C", bound=Config)
Settings: TypeAlias = C | Mapping[str, Any] | Iterable[str] | None
"""Settings as a person gives them: a ready object, a mapping, or ``step.key=value``."""


def expanded(path: str | os.PathLike[str]) -> str:
    """Path in which ``~`` and ``~user`` are home folders, for every path that a person writes.

    As in a shell, which does not see paths in quotes, after ``=`` and in files; an unknown user, names and URIs stay
    as they are.
    """
    return os.path.expanduser(path)  # noqa: PTH111 -- Path.expanduser() fails for an unknown user


UserPath = Annotated[str, pydantic.AfterValidator(expanded)]
"""A path among settings."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of settings; an empty one has none.

    Raises
    ------
    ConfigError
        If it is not valid YAML, or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
    return values


def load_config(model: type[C], values: Mapping[str, Any], where: str) -> C:
    """Validate ``values`` against ``model``.

    Parameters
    ----------
    model : type[Config]
        The settings class.
    values : Mapping
        Raw values, as read from YAML.
    where : str
        What is being read (a file, an option), for the error.

    Raises
    ------
    ConfigError
        All faults at once, each with its dotted path and, for an unknown key, the nearest valid name.
    """
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        lines = [_describe(model, fault) for fault in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(lines)) from None


def settled(model: type[C], config: Settings[C], settings: Mapping[str, Any], where: str) -> C:
    """Return the settings that were given one way or the other; the defaults if there are none.

    Parameters
    ----------
    model : type[Config]
        The settings class.
    config : Config, mapping or iterable of str
        A ready object, a mapping of settings, or ``step.key=value``, the value read as YAML.
    settings : Mapping
        Keywords.
    where : str
        Who asks, for the error.

    Raises
    ------
    ConfigError
        If both are given, or as `load_config`.
    """
    if isinstance(config, Config) and not isinstance(config, model):
        raise ConfigError(f"{where}: config is of {type(config).__name__}, expected {model.__name__}")
    if settings and config is not None and config != ():
        raise ConfigError(f"{where}: settings are given as config and as keywords ({', '.join(settings)}); use one")
    if isinstance(config, model):
        return config
    values = dict(config if isinstance(config, Mapping) else settings)
    for override in () if config is None or isinstance(config, Config | Mapping) else config:
        apply_override(values, override)
    return load_config(model, values, where)


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one value of nested settings from ``step.key=value``, the value read as YAML.

    Raises
    ------
    ConfigError
        If it is not of that form, or goes through a value that has no keys.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"-c {override!r}: expected step.key=value, such as isr.dither=none")
    *parents, leaf = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"-c {override!r}: {parent!r} is a single value and has no keys")
    values[leaf] = yaml.safe_load(text)


def _describe(model: type[Config], fault: Any) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *parents, key = fault["loc"]
        return f"unknown key {path!r}{nearest(str(key), _fields(model, parents))}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    # A fault of the whole model has no place; of a step, its input is all of its settings.
    value = "" if isinstance(fault["input"], Mapping) else f" = {fault['input']!r}"
    return f"{path}{value}: {message}" if path else message


def _fields(model: Any, parents: list[Any]) -> list[str]:
    for parent in parents:
        field = getattr(model, "model_fields", {}).get(str(parent))
        choices = get_args(field.annotation) or (field.annotation,) if field else ()
        model = next((choice for choice in choices if hasattr(choice, "model_fields")), None)
    return list(getattr(model, "model_fields", {}))

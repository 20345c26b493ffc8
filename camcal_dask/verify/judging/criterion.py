"""One test as data: its fields and the small language of its expressions (reference/verification.md 1.16).

A row compares a value with a limit, both given as expressions over the variables of a
statistics Dataset.  With few pixels an estimator scatters by more than a threshold made for a
million, so a row may name the standard error of its value: then

    limit = max(threshold * scale, SIGNIFICANCE * error)

and 5 % on the noise stays 5 % for an amp of one million pixels (where 6 sigma is 0.4 %) but becomes
10 % for the 1800 pixels of TinyCam.  Rows of source ``cp_verify`` are upstream's tests; ``ours`` are not.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import xarray as xr

from camcal_dask.errors import ConfigError, nearest
from camcal_dask.schema import AMP_DIMS, STATISTIC_DIMS

Level = Literal["amp", "detector", "exposure", "run"]
LEVEL_DIMS: Mapping[Level, tuple[str, ...]] = MappingProxyType(
    {
        "amp": STATISTIC_DIMS,
        "detector": ("exposure", "detector"),
        "exposure": ("exposure",),
        "run": AMP_DIMS,
    }
)
"""Whose result a test is; ``run``: that of an amp over all exposures, or of the calibration itself."""

SIGNIFICANCE = 6.0
"""Standard errors that never fail a test: 3024 amps x 20 exposures x 10 tests fail by chance once in 1000 runs."""


@dataclass(frozen=True)
class Criterion:
    """One test: passes when ``value op limit``.

    Attributes
    ----------
    id : unique, ``<calibration>.<test>``; thresholds are overridden by it.
    name : what reports print; upstream's name where there is one.
    value : expression over statistics.
    threshold : limit in units of ``scale``.
    required : a failure fails the amp; otherwise the test only advises.
    source : ``cp_verify`` or ``ours``.
    doc : one line for people.
    dmtn : test number of DMTN-101.
    op : ``<``, ``<=``, ``==``, ``>=`` or ``>``.
    scale, error : expressions, see the module; no error for lower limits.
    required_upstream : whether upstream's verdict hangs on it, where that differs from ``required``.
    if_measured : not evaluated if its statistics were not measured at all; without, a required test needs them.
    cannot_tell : expression; where it is positive the data do not reach the limit: not evaluated.
    level : whose result it is (`LEVEL_DIMS`); tests above the amp reduce with ``mean_over_amps(...)`` and the like.
    """

    id: str
    name: str
    value: str
    threshold: float
    required: bool
    source: Literal["cp_verify", "ours"]
    doc: str
    dmtn: str = ""
    op: Literal["<", "<=", "==", ">=", ">"] = "<="
    scale: str = "1"
    error: str = "0"
    level: Level = "amp"
    required_upstream: bool | None = None
    if_measured: bool = False
    cannot_tell: str = "0"

    @property
    def expressions(self) -> tuple[str, str, str]:
        """What is evaluated: value, scale and error."""
        return self.value, self.scale, self.error

    @property
    def upstream(self) -> bool:
        """Whether a failure fails the amp in upstream's verdict."""
        chosen = self.required if self.required_upstream is None else self.required_upstream
        return chosen and self.source == "cp_verify"


def with_thresholds(criteria: tuple[Criterion, ...], overrides: Mapping[str, float]) -> tuple[Criterion, ...]:
    """Replace thresholds by test id.

    Raises
    ------
    ConfigError
        For an id that no test has.
    """
    ids = [c.id for c in criteria]
    for key in overrides:
        if key not in ids:
            raise ConfigError(f"threshold of unknown test {key!r}{nearest(key, ids)}")
    return tuple(dataclasses.replace(c, threshold=float(overrides.get(c.id, c.threshold))) for c in criteria)


def to_json(criteria: tuple[Criterion, ...]) -> str:
    """All rows, for the record of a verdict."""
    return json.dumps([dataclasses.asdict(c) for c in criteria], sort_keys=True)


def digest(criteria: tuple[Criterion, ...]) -> str:
    """Hash of the rows, so that verdicts by different limits cannot be confused."""
    return hashlib.sha256(to_json(criteria).encode()).hexdigest()[:16]


def _over(reduction: str, dim: str) -> Callable[[xr.DataArray], xr.DataArray]:
    """Reduce a dimension, unknown values left out; the scatter of a single value is zero."""
    if reduction == "std":
        return lambda array: array.std(dim, ddof=1).where(array.count(dim) != 1, 0.0)
    options: dict[str, Any] = {"min_count": 1} if reduction == "sum" else {}
    return lambda array: getattr(array, reduction)(dim, **options)


_ELEMENTWISE: dict[str, Callable[..., Any]] = {"abs": abs, "sqrt": np.sqrt, "isfinite": np.isfinite}
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    f"{r}_over_{d}s": _over(r, d)
    for r in ("mean", "std", "median", "max", "min", "sum")
    for d in ("amp", "detector", "exposure")
}
_FUNCTIONS = MappingProxyType(_ELEMENTWISE | _REDUCTIONS)
_OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        ast.Add: lambda a, b: a + b,
        ast.Sub: lambda a, b: a - b,
        ast.Mult: lambda a, b: a * b,
        ast.Div: lambda a, b: a / b,
        ast.Pow: lambda a, b: a**b,
    }
)


def names(expression: str) -> set[str]:
    """Variables that an expression reads."""
    tree = ast.parse(expression, mode="eval")
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - set(_FUNCTIONS)


def evaluate(expression: str, variables: Mapping[Any, Any]) -> Any:
    """Evaluate an arithmetic expression of `Criterion` over named arrays.

    Raises
    ------
    ConfigError
        For an unknown name or anything but numbers, names, + - * / **, and the functions of this module.
    """
    return _evaluate(ast.parse(expression, mode="eval").body, variables, expression)


def _evaluate(node: ast.AST, variables: Mapping[Any, Any], whole: str) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name) if name in variables:
            return variables[name]
        case ast.Name(id=name):
            raise ConfigError(f"test expression {whole!r}: no statistic {name!r}{nearest(name, map(str, variables))}")
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, variables, whole)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(left, variables, whole), _evaluate(right, variables, whole))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](_evaluate(argument, variables, whole))
    raise ConfigError(f"test expression {whole!r}: {ast.unparse(node)!r} is not allowed")

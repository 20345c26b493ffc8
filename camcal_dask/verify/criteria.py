"""The tests as data (reference/verification.md 1.3, 1.14, 1.16): a new test, or calibration type, is a row.

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

Level = Literal["amp", "detector", "exposure"]
LEVEL_DIMS: Mapping[Level, tuple[str, ...]] = MappingProxyType(
    {"amp": ("exposure", "detector", "amp"), "detector": ("exposure", "detector"), "exposure": ("exposure",)}
)

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
    level : whose result it is; a detector or exposure test reduces with ``mean_over_amps(...)`` and the like.
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


BIAS = (
    Criterion("bias.mean", "MEAN", "abs(mean)", 1.0, True, "cp_verify", "residual level", "4.2", "<", scale="noise"),
    Criterion(
        id="bias.noise",
        name="NOISE",
        value="(noise - noise_expected) / noise_expected",
        threshold=0.05,
        required=True,
        source="cp_verify",
        doc="excess noise over the read noise; one-sided as upstream",
        dmtn="4.3",
        error="1 / sqrt(2 * n_good)",
    ),
    Criterion(
        id="bias.cr",
        name="CR_NOISE",
        value="abs(noise - cr_noise) / cr_noise",
        threshold=0.05,
        required=True,
        source="cp_verify",
        doc="outliers that are no cosmic rays: unmasked hot pixels, bad columns",
        dmtn="4.4",
        error="1 / sqrt(2 * n_good)",
    ),
    Criterion("bias.processing", "PROCESSING", "force_failure", 0.0, True, "cp_verify", "amp was processed", op="=="),
    Criterion(
        id="bias.rn_consistent",
        name="READ_NOISE_CONSISTENT",
        value="(gain * read_noise_adu - read_noise) / read_noise",
        threshold=0.05,
        required=False,
        source="cp_verify",
        doc="noise of the serial overscan against the read noise",
        error="overscan_error",
    ),
    Criterion(
        id="bias.noise_low",
        name="NOISE_LOW",
        value="(noise_expected - noise) / noise_expected",
        threshold=0.2,
        required=True,
        source="ours",
        doc="less noise than an amplifier can have: it is dead (passes 4.3, which is one-sided)",
        error="1 / sqrt(2 * n_good)",
    ),
    Criterion(
        id="bias.structure",
        name="STRUCTURE",
        value="structure / noise_expected",
        threshold=1.0,
        required=True,
        source="ours",
        doc="peak to peak of the binned residual: charge not flushed, stripes, glow, corner",
        error="2 * bin_error / noise_expected",
    ),
    Criterion(
        id="bias.flatness",
        name="FLATNESS",
        value="structure / noise_expected",
        threshold=0.5,
        required=False,
        source="ours",
        doc="as STRUCTURE, the finer limit of the reference",
        error="2 * bin_error / noise_expected",
    ),
    Criterion(
        id="bias.level",
        name="LEVEL",
        value="abs(mean) / noise_expected",
        threshold=0.1,
        required=False,
        source="ours",
        doc="residual level in units of the read noise",
        op="<",
        error="mean_error / noise_expected",
    ),
    Criterion(
        id="bias.corner",
        name="AMP_CORNER",
        value="abs(amp_corner - mean) * to_electron",
        threshold=1.0,
        required=False,
        source="ours",
        doc="glow at the readout corner [electron] (yellow corner)",
        op="<",
        error="corner_error * to_electron",
    ),
    Criterion(
        "bias.dead",
        "DEAD",
        "noise * to_electron",
        4.0,
        False,
        "ours",
        "operational limit of a dead amp [electron]",
        op=">",
    ),
    Criterion("bias.shifts", "BIAS_SHIFT", "bias_shift_count", 0.0, False, "ours", "steps of the bias level", op="=="),
    Criterion("bias.masked", "MASKED", "n_masked / n_pixel", 0.3, False, "ours", "too few pixels to judge by"),
)

CRITERIA: Mapping[str, tuple[Criterion, ...]] = MappingProxyType({"bias": BIAS})
"""Tests of each calibration type."""

KNOWN_BAD: Mapping[str, Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        "LSSTCam": MappingProxyType(
            {
                ("R42_S21", "C07"): "inconsistent linearizer and gain",
                ("R03_S01", "C10"): "extreme charge-transfer inefficiency",
                ("R03_S11", "C00"): "dead",
                ("R30_S00", "C10"): "dead",
                ("R41_S21", "C02"): "noisy",
                ("R43_S20", "C14"): "noisy",
            }
        )
    }
)
"""Amps shown but not judged, by camera (reference 1.14 and 7.16)."""


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
    options: dict[str, Any] = {"ddof": 1} if reduction == "std" else {}
    return lambda array: getattr(array, reduction)(dim, **options)


_ELEMENTWISE: dict[str, Callable[..., Any]] = {"abs": abs, "sqrt": np.sqrt, "isfinite": np.isfinite}
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    f"{r}_over_{d}s": _over(r, d) for r in ("mean", "std", "median", "max") for d in ("amp", "detector")
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

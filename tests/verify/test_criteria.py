"""The table of tests and its small language."""

from pathlib import Path

import pytest
import xarray as xr

import camcal_dask
from camcal_dask import rooms
from camcal_dask.calibs.combined.criteria import BIAS
from camcal_dask.errors import ConfigError
from camcal_dask.verify.judging.criterion import digest, evaluate, names, with_thresholds
from camcal_dask.verify.verdict import criteria_of


@pytest.mark.parametrize(
    ("expression", "value"),
    [("1", 1), ("-a + 2 * b", 5), ("abs(a - b) / b", 2 / 3), ("sqrt(b) ** 2", 3), ("1 / sqrt(2 * n)", 0.5)],
)
def test_expressions(expression, value):
    assert evaluate(expression, {"a": 1.0, "b": 3.0, "n": 2.0}) == pytest.approx(value)


@pytest.mark.parametrize("expression", ["__import__('os')", "a.b", "a if b else c", "[a]", "open(a)", "a @ b"])
def test_nothing_but_arithmetic_is_allowed(expression):
    with pytest.raises(ConfigError):
        evaluate(expression, {"a": 1, "b": 2, "c": 3})


def test_unknown_statistic_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'noise'"):
        evaluate("abs(nois)", {"noise": 1})


def test_reductions_over_amps():
    array = xr.DataArray([[1.0, 3.0]], dims=("detector", "amp"))
    assert evaluate("std_over_amps(x) / mean_over_amps(x)", {"x": array}).item() == pytest.approx(2**0.5 / 2)


VERDICTS = [(room, verdict) for room in rooms.rooms().values() for verdict in room.verdicts]


@pytest.mark.parametrize(("room", "verdict"), VERDICTS, ids=[verdict.kind for _, verdict in VERDICTS])
def test_rows_are_unique_and_read_declared_statistics(room, verdict):
    declared = {name for p in room.products if not p.is_calibration for name in p.variables}
    assert len({c.id for c in verdict.criteria}) == len({c.name for c in verdict.criteria}) == len(verdict.criteria)
    for c in verdict.criteria:
        used = {name for e in (*c.expressions, c.cannot_tell) for name in names(e)}
        assert used <= declared, c.id


def test_upstream_tests_keep_their_numbers():
    upstream = {c.name: (c.dmtn, c.op, c.threshold, c.required) for c in BIAS if c.source == "cp_verify"}
    assert upstream == {
        "MEAN": ("4.2", "<", 1.0, True),
        "NOISE": ("4.3", "<=", 0.05, True),
        "CR_NOISE": ("4.4", "<=", 0.05, True),
        "PROCESSING": ("", "==", 0.0, True),
        "READ_NOISE_CONSISTENT": ("", "<=", 0.05, False),
    }


def test_thresholds_are_overridden_by_id_and_change_the_hash():
    changed = with_thresholds(BIAS, {"bias.noise": 0.1})
    assert {c.id: c.threshold for c in changed}["bias.noise"] == 0.1
    assert digest(changed) != digest(BIAS)
    with pytest.raises(ConfigError, match="did you mean 'bias.noise'"):
        with_thresholds(BIAS, {"bias.noize": 0.1})


def documented(c):
    """Row of docs/verification.md that belongs to a test."""
    limit = f"{c.threshold:g}" + ("" if c.scale == "1" else f" x {c.scale}")
    kind = ("required" if c.required else "advisory") + (", ours" if c.source == "ours" else "")
    return f"| {c.id} | `{c.value} {c.op} {limit}` | {c.level} | {c.dmtn} | {kind} |"


@pytest.mark.parametrize("kind", rooms.verdicts())
def test_documentation_has_every_test_with_its_limit(kind):
    text = (Path(camcal_dask.__file__).parent.parent / "docs" / "verification.md").read_text()
    lacking = [row for row in map(documented, criteria_of(kind)) if row not in text]
    assert not lacking, "docs/verification.md needs these rows:\n" + "\n".join(lacking)

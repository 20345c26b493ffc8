"""The size of the house: short modules and functions, no circle of imports, kernels with types."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import camcal_dask

ROOT = Path(camcal_dask.__file__).parent
MODULE_LINES = 450
FUNCTION_LINES = 50
LONG_SHARE = 0.01
"""Part of all lines that may stand in functions above ``FUNCTION_LINES``."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Graph = dict[str, set[str]]


def sources() -> dict[str, Path]:
    """Module name to file."""
    named = {path: ".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in ROOT.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in sorted(named.items())}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def n_lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def functions(path: Path) -> list[Function]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, Function)]


def length(function: Function) -> int:
    """Lines from ``def`` to the last, docstring included."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def listed(offenders: list[str]) -> str:
    return "\n".join(["", *offenders])


# ---------------------------------------------------------------------------- size


def test_no_module_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): n_lines(path) for path in sources().values()}
    long = [f"{path}: {n} lines, at most {MODULE_LINES}" for path, n in lengths.items() if n > MODULE_LINES]
    assert not long, listed(long)


def test_hardly_any_code_is_in_long_functions() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{f.lineno} {f.name}: {length(f)} lines": length(f)
        for path in sources().values()
        for f in functions(path)
        if length(f) > FUNCTION_LINES
    }
    share = sum(long.values()) / sum(map(n_lines, sources().values()))
    message = f"{100 * share:.2f} % of all lines are in functions above {FUNCTION_LINES}"
    assert share < LONG_SHARE, listed([*sorted(long, key=long.__getitem__, reverse=True), message])


# ---------------------------------------------------------------------------- circles


def statements(node: ast.AST, *, inside: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports at run time; with ``inside`` those in functions, too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from statements(other, inside=inside)
        elif inside or not isinstance(child, Function | ast.Lambda):
            yield from statements(child, inside=inside)


def targets(statement: ast.Import | ast.ImportFrom, modules: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that a statement names; that their parents run as well is not counted."""
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    else:
        inner = [f"{statement.module}.{alias.name}" for alias in statement.names]
        names = [name if name in modules else str(statement.module) for name in inner]
    yield from (name for name in names if name in modules)


def graph(*, inside: bool) -> Graph:
    modules = sources()
    return {
        name: {t for s in statements(tree(path), inside=inside) for t in targets(s, modules)} - {name}
        for name, path in modules.items()
    }


def circles(arrows: Graph) -> list[str]:
    """Groups of modules of which each imports, by way of others, every other one."""
    reached = {name: reach(arrows, name) for name in arrows}
    groups = {frozenset(b for b in reached[a] if a in reached[b]) for a in arrows}
    return sorted(", ".join(sorted(group)) for group in groups if group)


def reach(arrows: Graph, start: str) -> set[str]:
    """Modules at the end of all ways from ``start``."""
    seen: set[str] = set()
    waiting = list(arrows[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += arrows[name]
    return seen


@pytest.mark.parametrize("inside", [False, True], ids=["at the top of modules", "also in functions"])
def test_no_modules_import_each_other(inside: bool) -> None:
    found = circles(graph(inside=inside))
    assert not found, listed(found)


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b, c"]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_imports_for_types_and_in_functions_are_told_apart() -> None:
    code = "import a\nif TYPE_CHECKING:\n    import b\nclass C:\n    import c\n    def f(self):\n        import d\n"
    names = {inside: [s.names[0].name for s in statements(ast.parse(code), inside=inside)] for inside in (False, True)}
    assert names == {False: ["a", "c"], True: ["a", "c", "d"]}


# ---------------------------------------------------------------------------- types


def untyped(function: Function) -> list[str]:
    """What of a function has no annotation."""
    a = function.args
    arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    missing = [x.arg for x in arguments if x.annotation is None and x.arg not in ("self", "cls")]
    return missing + (["return"] if function.returns is None else [])


def test_kernels_are_typed() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}: {', '.join(untyped(function))}"
        for path in sources().values()
        if path.is_relative_to(ROOT / "kernels")
        for function in functions(path)
        if untyped(function)
    ]
    assert not offenders, listed(offenders)

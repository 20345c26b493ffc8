"""Kernels say what arrays they take, with the types of one module; functions and modules stay short."""

import ast
from pathlib import Path

import pytest

from camcal_dask import kernels

ROOT = Path(kernels.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py")


def functions(path):
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_function_is_annotated(path):
    for function in functions(path):
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        assert not bare, f"{function.name}: {bare}"
        assert function.returns is not None, function.name
    assert "no-untyped-def" not in path.read_text()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_floating_point_arrays_are_declared_once(path):
    text = path.read_text()
    assert path.name == "arrays.py" or not any(f"NDArray[np.float{n}]" in text for n in (32, 64))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_and_modules_are_short(path):
    assert len(path.read_text().splitlines()) <= 450
    assert not [f.name for f in functions(path) if f.end_lineno - f.lineno + 1 > 50]

"""Python in README and docs: it uses the front door, with names and arguments that there are."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import camcal_dask as cd

CHECKOUT = Path(cd.__file__).parents[1]


def blocks():
    for path in (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))):
        text = path.read_text()
        for found in re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M):
            line = text[: found.start()].count("\n") + 2
            yield pytest.param(found[1], id=f"{path.relative_to(CHECKOUT)}:{line}")


def test_there_are_python_blocks():
    assert len(list(blocks())) > 5


@pytest.mark.parametrize("block", blocks())
def test_python_in_the_documentation_uses_the_front_door(block):
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.module.startswith("camcal_dask"), f"from {node.module} import: use cd."
        if isinstance(node, ast.Import):
            ours = [(a.name, a.asname) for a in node.names if a.name.startswith("camcal_dask")]
            assert ours in ([], [("camcal_dask", "cd")])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cd":
            assert node.attr in cd.__all__, f"cd.{node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "cd":
                _accepts(getattr(cd, node.func.attr), node)


def _accepts(function, call):
    keywords = {k.arg: None for k in call.keywords if k.arg is not None}
    inspect.signature(function).bind(*call.args, **keywords)

"""The arrows of DESIGN.md: a package imports only packages below it; kernels know numpy and numba only."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import camcal_dask

ROOT = Path(camcal_dask.__file__).parent
LAYERS = [
    {"schema"},
    {"rooms"},
    {"kernels"},
    {"instruments"},
    {"raw_fits", "simulation", "exchange"},
    {"repo"},
    {"isr"},
    {"verify"},
    {"campaign"},
    {"calibs"},
    {"report"},
    {"dashboard"},
    {"notebook"},
    {"demo"},
    {"cli", "__init__"},
]
ANYWHERE = {"errors", "config", "redact", "regular", "progress"}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
SOURCES = sorted(ROOT.rglob("*.py"))
HOMES = {
    "lsst": {"repo/butler", "repo/formatter.py"},
    "zarr": {"repo"},
    "zarrs": {"repo"},
    "dask": {"repo", "isr", "calibs", "verify", "campaign"},
    "distributed": {"repo", "campaign", "notebook", "demo"},
    "matplotlib": {"report", "calibs"},
    "obstore": {"repo"},
    "dask_jobqueue": {"campaign"},
    "dask_kubernetes": {"campaign"},
    "dask_gateway": {"campaign"},
    "bokeh": {"dashboard"},
}
EXTRAS = {
    "report": ("plots",),
    "calibs": ("plots",),
    "repo": ("s3",),
    "campaign": ("jobqueue", "kubernetes", "gateway"),
    "dashboard": ("dashboard",),
}
"""Optional libraries that a layer may import, by the extra that installs them."""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "camcal_dask":
                yield from (f"camcal_dask.{alias.name}" for alias in node.names)


def part(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    here = part(path)
    for module in imports(path):
        top, *rest = module.split(".")
        if top == "camcal_dask" and rest and rest[0] not in ANYWHERE | {here, "__version__"}:
            assert here not in ANYWHERE, f"{here} must not import {module}"
            assert LEVEL[rest[0]] < LEVEL[here], f"{path} imports {module}: upwards or sideways"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_in_their_layer(path):
    relative = str(path.relative_to(ROOT))
    for module in imports(path):
        homes = HOMES.get(module.split(".")[0])
        if homes is not None:
            assert any(relative == home or relative.startswith(home + "/") for home in homes), f"{relative}: {module}"
        if module.startswith("astropy.io.fits"):
            assert part(path) in {"raw_fits", "simulation", "exchange"}, f"{relative}: FITS"
        if part(path) == "kernels" and relative != "kernels/compiled.py":  # it keeps machine code in files
            assert module.split(".")[0] in {
                "numpy",
                "scipy",
                "numba",
                "camcal_dask",
                "__future__",
                "math",
                "collections",
                "typing",
                "types",
                "functools",
                "dataclasses",
            }, f"{relative}: {module}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_declared_libraries_are_imported(path):
    pyproject = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    declared = {re.split(r"[<>=\[]", name)[0] for name in pyproject["project"]["dependencies"]}
    known = {"lsst-daf-butler": "lsst", "pyyaml": "yaml"}
    allowed = {known.get(name, name) for name in declared} | {"camcal_dask"} | set(sys.stdlib_module_names)
    for extra in EXTRAS.get(part(path), ()):
        names = pyproject["project"]["optional-dependencies"][extra]
        allowed |= {re.split(r"[<>=\[]", name)[0].replace("-", "_") for name in names}
    allowed |= {"sqlalchemy"}  # lsst-daf-butler's own registry layer, for its exceptions
    for module in imports(path):
        assert module.split(".")[0] in allowed, f"{path}: {module} is not a declared dependency"

"""The front door: what ``import camcal_dask as cd`` offers, what it costs, and its examples, which are run here."""

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import camcal_dask as cd
from camcal_dask.config import settled
from camcal_dask.errors import ConfigError, DataError
from camcal_dask.simulation import SimulationConfig

ROOT = Path(cd.__file__).parent
CHECKOUT = ROOT.parent
LIGHT = {"camcal_dask"}
OFF = {name: {"enabled": False} for name in ("serial_cti", "crosstalk", "non_linearity", "cosmic_rays")}
CURVE = """isr.defects=false isr.linearity=false calibs={} extract.lags=1 extract.edge_pixel=2 extract.min_pixels=500
solve.n_sigma=60 solve.fit_type=EXPAPPROXIMATION"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_loads_nothing_else():
    names = python(f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); import camcal_dask; print(*sys.modules)")
    foreign = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    loaded = {name for name in names if name.startswith("camcal_dask")}
    assert not foreign & {"numpy", "xarray", "dask", "distributed", "lsst", "numba", "astropy", "pandas", "zarr"}
    assert loaded == LIGHT


def test_every_name_leads_somewhere():
    assert cd.__all__ == sorted(cd.__all__)
    assert set(cd.__all__) <= set(dir(cd))
    for name in cd.__all__:
        assert getattr(cd, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'bais'"):
        _ = cd.bais


def test_what_type_checkers_see_is_what_is_loaded():
    """Names under TYPE_CHECKING come from where ``__getattr__`` takes them."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(seen) == set(cd.__all__) - {"__version__"}
    for name, module in seen.items():
        assert getattr(importlib.import_module(module), name) is getattr(cd, name)


def test_no_verb_has_the_name_of_a_package():
    """Importing a subpackage sets its name in the package, and would take the place of the verb."""
    parts = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert not parts & set(cd.__all__)


def test_types_are_shipped():
    wheel = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["camcal_dask"]
    assert (ROOT / "py.typed").is_file()


# ---------------------------------------------------------------------------- settings as keywords


@pytest.mark.parametrize(
    ("config", "keywords"),
    [
        (None, {"read_noise": {"enabled": False}}),
        ({"read_noise": {"enabled": False}}, {}),
        (["read_noise.enabled=false"], {}),
        (SimulationConfig(read_noise={"enabled": False}), {}),
    ],
)
def test_settings_may_be_given_in_four_ways(config, keywords):
    assert not settled(SimulationConfig, config, keywords, "simulate").read_noise.enabled


def test_unknown_settings_are_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"combine: unknown key 'sigmaclip'; did you mean 'sigma_clip'\?"):
        cd.combine(None, sigmaclip=3)
    with pytest.raises(ConfigError, match=r"unknown key 'read_noise.enable'; did you mean 'enabled'\?"):
        settled(SimulationConfig, None, {"read_noise": {"enable": False}}, "simulate")


def test_config_and_keywords_together_are_refused():
    with pytest.raises(ConfigError, match="as config and as keywords"):
        cd.combine(None, cd.CombineConfig(), sigma_clip=3)
    with pytest.raises(ConfigError, match="config is of CombineConfig, expected IsrConfig"):
        cd.correct(None, config=cd.CombineConfig())
    with pytest.raises(ConfigError, match="as config and as keywords"):
        cd.run("nowhere", "bias", ["isr.dither=none"], output="u/me", isr={"dither": "none"})


# ---------------------------------------------------------------------------- examples


@pytest.fixture(scope="session")
def night(tmp_path_factory):
    """A folder with a night of one detector of TinyCam in a repository, and a few calibrations."""
    folder = tmp_path_factory.mktemp("front")
    root = folder / "REPO"
    times = np.geomspace(0.3, 40, 6).round(3).tolist()
    sets = {"bias": 4, "ptc": times, "contaminated_first": False}
    cd.simulate(folder / "night", "TinyCam", detectors=[0], **sets, cluster="threads", **OFF)
    cd.create_repo(str(root), "TinyCam").close()
    cd.ingest(root, folder / "night")
    plain = {"inputs": "TinyCam/raw/all", "cluster": "threads"}
    assert cd.run(root, "bias", output="u/bias", **plain).complete
    assert cd.run(root, "ptc", CURVE.split(), output="u/ptc", **plain).complete
    return folder


def examples():
    finder = doctest.DocTestFinder()
    offered = [getattr(cd, name) for name in cd.__all__ if name != "__version__"]
    ours = [o for o in offered if inspect.isfunction(o) and o.__module__.startswith("camcal_dask.notebook")]
    found = [test for o in ours for test in finder.find(o, o.__name__, globs={})]
    return found + [test for test in finder.find(cd, "camcal_dask", globs={}) if test.name == "camcal_dask"]


@pytest.mark.parametrize("example", examples(), ids=lambda test: test.name)
def test_every_verb_has_an_example_that_runs(example, night, monkeypatch):
    assert example.examples, f"{example.name} has no example"
    monkeypatch.chdir(night)
    with cd.open_repo("REPO") as repo:
        example.globs = {"cd": cd, "repo": repo}
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert result.failed == 0


def test_a_notebook_and_the_command_line_make_the_same_bits(night, monkeypatch):
    from click.testing import CliRunner

    from camcal_dask.cli import main

    monkeypatch.chdir(night)
    settings = ["-c", "isr.dither=none", "-c", "combine.sigma_clip=4"]
    arguments = ["-p", "TinyCam/bias.yaml", "-i", "TinyCam/raw/all", "-o", "u/cli", "--cluster", "threads", *settings]
    typed = CliRunner().invoke(main, ["run", "-b", "REPO", *arguments])
    assert typed.exit_code == 0, typed.output
    more = {"isr": {"dither": "none"}, "combine": {"sigma_clip": 4}}
    made = cd.run("REPO", "bias", output="u/notebook", inputs="TinyCam/raw/all", cluster="threads", **more)
    assert made.complete
    with cd.open_repo("REPO") as repo:
        one, two = (repo.open("bias", run=name).load() for name in ("u/cli", "u/notebook"))
    assert one.attrs["provenance_id"] == two.attrs["provenance_id"]
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_a_plan_is_run_as_it_is(night, monkeypatch):
    monkeypatch.chdir(night)
    found = cd.plan("REPO", "bias", output="u/planned", inputs="TinyCam/raw/all")
    with pytest.raises(ConfigError, match="a plan has its output and settings already"):
        cd.run("REPO", found, output="u/other")
    with cd.start_cluster("threads", 2) as client:
        assert cd.run("REPO", found, cluster=client).complete


def test_verbs_say_what_a_dataset_lacks():
    curve = xr.Dataset({"raw_mean": (("pair", "detector", "amp"), np.ones((2, 1, 16)))})
    with pytest.raises(
        DataError, match=r"fit_linearizer: gain is missing, .*; turnoff is missing, .*; used is missing"
    ):
        cd.fit_linearizer(curve)
    with pytest.raises(
        DataError, match=r"judge: n_good has dims \(detector, amp\), expected \(exposure, detector, amp\)"
    ):
        cd.judge(xr.Dataset({"n_good": (("detector", "amp"), np.ones((1, 16)))}))

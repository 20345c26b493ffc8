"""Calibration types are found, not named: what the engine knows of them, and what it refuses."""

import ast
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml

import camcal_dask
from camcal_dask import rooms
from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.campaign.task import Task
from camcal_dask.errors import ConfigError
from camcal_dask.rooms import CalibrationType, FitsLayout
from camcal_dask.schema import Product
from camcal_dask.verify.verdict import Verdict

ROOT = Path(camcal_dask.__file__).parent
ENGINE = ("campaign", "repo", "verify", "report", "exchange", "cli", "dashboard")
"""Floors that name no type.  Those below speak of observation types (ingest, simulate), of the names by which the ISR
takes calibrations, and of physical effects (kernels)."""
ALLOWED = {
    "cli/stats.py": {"verifyBias"},  # what is listed if nothing is named
    "repo/butler/opening.py": {"verifyBias"},  # the same
    "dashboard/state.py": {"gain"},  # a quantity
    "verify/judging/judge.py": {"bias"},  # default of a function for notebooks
    "verify/measuring/derived.py": {"bias", "dark", "flat"},  # what the ISR took off
    "verify/measuring/masters.py": {"bias", "dark", "flat"},  # the same
    "verify/measuring/references.py": {"gain"},  # a variable
    "verify/measuring/series.py": {"persistence", "dark"},  # a variable; an observation type
    "verify/measuring/statistics.py": {"flat", "gain", "ptc"},  # what the ISR took; a variable
}


def own_names():
    """Dataset types, tasks and kinds of the rooms; those of the engine's own room are not among them."""
    others = [room for room in rooms.rooms().values() if room.name != "verification"]
    return {
        *(product.name for room in others for product in room.products),
        *(task.name for room in others for task in room.tasks),
        *(verdict.kind for room in others for verdict in room.verdicts),
    }


def constants(path):
    """Strings of a module that are no docstrings."""
    tree = ast.parse(path.read_text())
    lone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in lone
    }


@pytest.mark.parametrize("floor", ENGINE)
def test_the_engine_names_no_type(floor):
    names = own_names()
    for path in sorted((ROOT / floor).rglob("*.py")):
        relative = str(path.relative_to(ROOT))
        assert constants(path) & names <= ALLOWED.get(relative, set()), relative


def test_what_is_allowed_is_still_there():
    for relative, names in ALLOWED.items():
        assert names <= constants(ROOT / relative), relative


def test_no_recipe_is_told_by_its_class():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                assert not re.search(r"\w+Recipe\b", ast.unparse(node.args[1])), f"{path}:{node.lineno}"


def test_layouts_and_figures_are_of_products_of_their_room():
    for room in rooms.rooms().values():
        assert {*room.layouts, *room.figures} <= {product.name for product in room.products}, room.name


# ---------------------------------------------------------------------------- pipelines


def pipeline(tmp_path, **values):
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump({"description": "", "instrument": "TinyCam", **values}))
    return str(path)


def test_a_task_without_a_room_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="no calibration type has a task 'stakc'.*stack"):
        load_recipe(pipeline(tmp_path, task="stakc", product="bias"))
    with pytest.raises(ConfigError, match="no calibration type has a task 'None'"):
        load_recipe(pipeline(tmp_path, product="bias"))


@pytest.mark.parametrize(
    ("name", "setting", "key"),
    [
        ("verifyPtc", "verify.exposures=all", "exposures"),
        ("verifyPtc", "verify.raft=image", "raft"),
        ("verifyLinearizer", "isr.gains=nominal", "isr"),
        ("defects", "isr.gains=nominal", "isr"),
        ("bias", "pairing.header=x", "pairing"),
    ],
)
def test_settings_that_a_type_does_not_use_are_refused(name, setting, key):
    with pytest.raises(ConfigError, match=key):
        load_recipe(f"TinyCam/{name}.yaml", [setting])


# ---------------------------------------------------------------------------- the registry


@pytest.fixture
def registered():
    """Register rooms; they are taken back."""
    names = []

    def register(room):
        names.append(room.name)
        rooms.register(room)

    yield register
    for name in names:
        rooms.forget(name)


def task(name):
    return Task(name, rooms.tasks()["stack"].recipe, graph=lambda place, quantum: None)


@pytest.mark.parametrize(
    ("room", "message"),
    [
        (CalibrationType("x", products=(Product("bias", "1", "another"),)), "dataset type 'bias' is in two rooms"),
        (CalibrationType("x", tasks=(task("stack"),)), "task 'stack' is in two rooms: combined and x"),
        (CalibrationType("x", verdicts=(Verdict("ptc", ()),)), "kind 'ptc' is in two rooms: ptc and x"),
        (
            CalibrationType("x", layouts={"x": FitsLayout(obstype="CTI", read=print)}),
            "OBSTYPE 'CTI' is in two rooms: cti and x",
        ),
        (CalibrationType("x", choosers={"flat": print}), "'flat' is in two rooms: flat and x"),
        (CalibrationType("ptc"), "two rooms are called 'ptc'"),
    ],
)
def test_two_rooms_for_one_thing_are_refused(registered, room, message):
    with pytest.raises(ConfigError, match=message):
        registered(room)
    assert room.name == "ptc" or room.name not in rooms.rooms()


def test_a_room_of_this_process_is_known_until_it_is_taken_back(registered):
    registered(CalibrationType("x", products=(Product("xSky", "adu", "another"),), tasks=(task("x"),)))
    assert rooms.product("xSky").unit == "adu"
    assert "x" in rooms.tasks()
    rooms.forget("x")
    with pytest.raises(ConfigError, match="unknown product 'xSky'"):
        rooms.product("xSky")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_package:CALIBRATION", "'fringe' of no_such_package:CALIBRATION cannot be loaded .*uninstall it"),
        ("camcal_dask.calibs.ptc:NOTHING", "'fringe' of camcal_dask.calibs.ptc:NOTHING cannot be loaded"),
        ("camcal_dask.rooms:GROUP", "'fringe' leads to camcal_dask.rooms:GROUP, which is no CalibrationType"),
    ],
)
def test_a_broken_entry_point_says_whose_it_is(monkeypatch, value, message):
    monkeypatch.setattr(rooms, "entry_points", lambda group: [EntryPoint("fringe", value, group)])
    rooms.rooms.cache_clear()
    try:
        with pytest.raises(ConfigError, match=message):
            rooms.rooms()
    finally:
        monkeypatch.undo()
        rooms.rooms.cache_clear()

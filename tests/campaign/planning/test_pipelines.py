"""One file of a pipeline for all cameras, another where a camera has something of its own to say."""

import pytest

from camcal_dask.campaign.planning.pipelines import camera_of, find_pipeline, pipeline_names
from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.campaign.planning.shipped import shipped
from camcal_dask.errors import ConfigError
from tests.campaign.planning.test_dataflow import made_up, reads

ROOT = shipped("pipelines", "").resolve()
CAMERAS = ("LATISS", "LSSTCam", "LSSTComCam", "TinyCam")
NAMES = (
    "bias", "biasBootstrap", "dark", "darkBootstrap", "defects", "defectsAfterFlats", "eoBias", "eoDark", "eoFlat",
    "eoPersistence", "flat", "flatBootstrap", "linearizer", "linearizerPtc", "ptc", "verifyBias", "verifyDark",
    "verifyDefects", "verifyFlat", "verifyGain", "verifyLinearizer", "verifyPtc",
)  # fmt: skip
OWN = sorted(ROOT.glob("[A-Z]*/*.yaml"))


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("name", NAMES)
def test_every_pipeline_loads_and_is_planned_for_every_camera(name, camera):
    recipe = load_recipe(name, instrument=camera)
    assert recipe.instrument == camera
    assert name in (recipe.product, f"{recipe.product}AfterFlats")
    if recipe.task != "linearity" and recipe.task != "ptc":  # these need curves and pairs (test_dataflow)
        assert reads(made_up(name, calibs=("bias", getattr(recipe, "kind", "bias")), camera=camera))


def test_these_are_all_pipelines_that_there_are():
    assert {path.stem for path in ROOT.glob("*.yaml")} == set(NAMES)
    assert all(pipeline_names(camera) == sorted(NAMES) for camera in CAMERAS)


@pytest.mark.parametrize("path", OWN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_file_of_a_camera_says_something_of_its_own(path):
    camera, name = path.parent.name, path.stem
    other = next(one for one in CAMERAS if not (ROOT / one / path.name).exists())
    common = load_recipe(name, instrument=other).model_copy(update={"instrument": camera})
    own = load_recipe(str(path))
    assert own.instrument == camera
    assert own != common


@pytest.mark.parametrize(
    ("name", "instrument", "file", "camera"),
    [
        ("bias", "LSSTCam", "bias.yaml", "LSSTCam"),
        ("bias.yaml", "TinyCam", "bias.yaml", "TinyCam"),
        ("pipelines/bias.yaml", "LATISS", "LATISS/bias.yaml", "LATISS"),
        ("ptc", "LSSTCam", "LSSTCam/ptc.yaml", "LSSTCam"),
        ("ptc", "LSSTComCam", "ptc.yaml", "LSSTComCam"),
        ("ptc", None, "ptc.yaml", None),
        ("LSSTCam/bias.yaml", None, "bias.yaml", "LSSTCam"),
        ("LSSTCam/bias", "TinyCam", "bias.yaml", "LSSTCam"),
        ("pipelines/LSSTCam/bias.yaml", None, "bias.yaml", "LSSTCam"),
        ("pipelines/LSSTCam/ptc.yaml", "TinyCam", "LSSTCam/ptc.yaml", "LSSTCam"),
        (str(ROOT / "ptc.yaml"), "TinyCam", "TinyCam/ptc.yaml", "TinyCam"),
        (str(ROOT / "LATISS/ptc.yaml"), "TinyCam", "LATISS/ptc.yaml", "LATISS"),
    ],
)
@pytest.mark.parametrize("checkout", [True, False])
def test_a_name_means_the_same_wherever_one_is(name, instrument, file, camera, checkout, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT.parent if checkout else tmp_path)
    assert find_pipeline(name, instrument) == (ROOT / file, camera)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("bais", "'bias'"),
        ("bais.yaml", "'bias.yaml'"),
        ("LSSTCam/bais.yaml", "'LSSTCam/bias.yaml'"),
        ("LSTCam/bias.yaml", "'LSSTCam/bias.yaml'"),
        ("pipelines/TinyCam/verifyBais", "'TinyCam/verifyBias'"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=f"no pipeline '{name}'; did you mean {nearest}"):
        load_recipe(name, instrument="LSSTCam")


def test_a_file_of_your_own_needs_no_camera(tmp_path):
    own = tmp_path / "bias.yaml"
    own.write_text(f"import: {ROOT}/bias.yaml\ncombine: {{sigma_clip: 4.5}}\n")
    recipe = load_recipe(str(own), instrument="TinyCam")
    assert (recipe.instrument, recipe.combine.sigma_clip) == ("TinyCam", 4.5)
    with pytest.raises(ConfigError, match=r"bias\.yaml: is for any camera; say for which one with --instrument"):
        load_recipe(str(own))
    own.write_text(own.read_text() + "instrument: LSSTCam\n")
    assert load_recipe(str(own), instrument="TinyCam").instrument == "LSSTCam"
    assert load_recipe(str(own), ["instrument=LATISS"]).instrument == "LATISS"


def test_the_camera_is_that_of_the_repository(repo):
    assert camera_of(repo) == "TinyCam"
    assert camera_of(repo, "LSSTCam") == "LSSTCam"

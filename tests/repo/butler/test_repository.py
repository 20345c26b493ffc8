"""Making and opening of repositories."""

import pytest
from lsst.daf.butler import Butler

from camcal_dask.errors import RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler.repository import create_repo, open_repo
from tests.repo.conftest import CAMERA

BIASES = "exposure.observation_type='bias'"


def test_a_repository_knows_the_camera(tmp_path):
    root = str(tmp_path / "repo")
    create_repo(root, CAMERA)
    butler = Butler.from_config(root)
    detectors = butler.query_dimension_records("detector", instrument=CAMERA)
    camera = get_instrument(CAMERA)
    assert {(d.id, d.full_name, d.raft, d.name_in_raft, d.purpose) for d in detectors} == {
        (d.id, d.full_name, d.raft, d.name_in_raft, d.purpose) for d in camera.detectors.values()
    }
    filters = butler.query_dimension_records("physical_filter", instrument=CAMERA)
    assert {f.name: f.band for f in filters} == dict(camera.filters)
    (instrument,) = butler.query_dimension_records("instrument")
    assert (instrument.exposure_max, instrument.visit_system) == (7050123199999, 2)
    types = {t.name: t for t in butler.registry.queryDatasetTypes()}
    products = {"bias", "biasBootstrap", "dark", "darkBootstrap", "flat", "flatBootstrap", "defects"}
    products |= {"linearizerPtc", "linearizer", "ptc"}
    products |= {"crosstalk", "cti", "bfk", "electroBfDistortionMatrix", "gain_correction"}
    verifications = {f"verify{kind}" for kind in ("Bias", "Dark", "Flat", "Defects", "Ptc", "Gain", "Linearizer")}
    assert set(types) == {"raw", "photodiode", "runRecord"} | verifications | products
    assert types["bias"].isCalibration()
    assert set(types["raw"].dimensions.required) == {"instrument", "exposure", "detector"}
    assert types["raw"].storageClass.pytype.__name__ == "Dataset"


def test_creating_again_adds_an_instrument(tmp_path):
    root = str(tmp_path / "repo")
    create_repo(root, CAMERA)
    create_repo(root, CAMERA)
    repo = create_repo(root, "LATISS")
    assert repo.instruments == ("LATISS", CAMERA)
    (detector,) = repo.butler.query_dimension_records("detector", instrument="LATISS")
    assert (detector.raft, detector.name_in_raft, detector.full_name) == (None, "RXX_S00", "RXX_S00")
    with pytest.raises(RepoError, match="holds LATISS, TinyCam; say which"):
        repo.raws(BIASES)
    with pytest.raises(RepoError, match="no raws of LATISS.*camcal ingest"):
        repo.raws(f"instrument='LATISS' AND {BIASES}")


def test_a_strange_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RepoError, match="neither empty nor a repository"):
        create_repo(str(tmp_path), CAMERA)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RepoError, match="not a repository.*camcal create"):
        open_repo(str(tmp_path))


def test_another_registry_for_an_existing_repository_is_refused(tmp_path):
    root = str(tmp_path / "repo")
    create_repo(root, CAMERA)
    with pytest.raises(RepoError, match="is already a repository, with registry sqlite"):
        create_repo(root, CAMERA, "postgresql://me@db/calib")


@pytest.mark.parametrize(
    "spoil", [lambda b: b.replace(b"datastore", b"datast\xf2re", 1), lambda b: b[:-40] + b"\n  - [", lambda b: b"x"]
)
def test_a_damaged_configuration_is_named(tmp_path, spoil):
    create_repo(str(tmp_path / "r"), CAMERA).close()
    path = tmp_path / "r" / "butler.yaml"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(RepoError, match=r"butler\.yaml is damaged|registry cannot be opened"):
        open_repo(str(tmp_path / "r"))

"""The repository through its Python API."""

import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from astropy.time import Time
from lsst.daf.butler import Butler
from sqlalchemy import Engine, event

from camcal_dask.errors import RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler import expression, records
from camcal_dask.repo.butler.connection import registry_url, remedy
from camcal_dask.repo.butler.curation import validity
from camcal_dask.repo.butler.repository import create_repo, open_repo
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.storage import files
from tests.repo.conftest import CAMERA, DAYS, EXPOSURES, LOST, NOON_20260812, make_bias, pixels, record, write_bias

BIASES = "exposure.observation_type='bias'"


# ---------------------------------------------------------------------------- creating


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
    with pytest.raises(RepoError, match="not empty"):
        create_repo(str(tmp_path), CAMERA)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RepoError, match="not a repository.*camcal create"):
        open_repo(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("postgresql://me@db.host:5432/calib", "postgresql+psycopg2://me@db.host:5432/calib"),
        ("postgresql+psycopg2://me@db/calib", "postgresql+psycopg2://me@db/calib"),
        ("postgres://db/calib", "postgresql+psycopg2://db/calib"),
        ("postgresql:///calib?host=/run/pg", "postgresql+psycopg2:///calib?host=/run/pg"),
    ],
)
def test_registry_urls(text, url):
    assert registry_url(text) == url


def test_a_password_in_the_url_is_refused_and_not_repeated(tmp_path):
    with pytest.raises(RepoError, match=r"db-auth\.yaml.*PGPASSFILE") as caught:
        create_repo(str(tmp_path / "repo"), CAMERA, "postgresql://me:s3cret@db/calib")
    assert "s3cret" not in str(caught.value)
    assert not (tmp_path / "repo").exists()
    with pytest.raises(RepoError, match="expected postgresql://"):
        registry_url("mysql://db/calib")


def test_remedies_of_the_registry():
    assert "CREATE EXTENSION btree_gist" in remedy(RuntimeError("requires the btree_gist extension"))
    assert "camcal_dask[postgres]" in remedy(ImportError("No module named 'psycopg2'"))


def test_another_registry_for_an_existing_repository_is_refused(tmp_path):
    root = str(tmp_path / "repo")
    create_repo(root, CAMERA)
    with pytest.raises(RepoError, match="is a repository already, with registry sqlite"):
        create_repo(root, CAMERA, "postgresql://me@db/calib")


def test_reading_only(tiny_repo):
    repo = open_repo(tiny_repo.root)
    assert repo.raws().sizes["exposure"] == len(EXPOSURES)
    with pytest.raises(RepoError, match="opened for reading"):
        repo.register_raws(CAMERA, [(EXPOSURES[0], 0)])


# ---------------------------------------------------------------------------- exposures


def test_exposure_records_arrive_whole(tiny_reader):
    (row,) = tiny_reader.butler.query_dimension_records("exposure", exposure=EXPOSURES[2], instrument=CAMERA)
    begin = NOON_20260812 + (36_000 + 90) * 10**9
    assert row.timespan.nsec == (begin, begin + 1)
    assert (row.obs_id, row.group, row.physical_filter, row.dark_time) == (
        "TC_O_20260812_000003",
        "20260812#3",
        "none",
        0.5,
    )
    assert row.has_simulated is True
    assert row.can_see_sky is None
    (day,) = tiny_reader.butler.query_dimension_records("day_obs", day_obs=DAYS[0], instrument=CAMERA)
    assert day.timespan.nsec == (NOON_20260812, NOON_20260812 + 86_400 * 10**9)


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("g_6", "g"),
        ("none", "white"),
        ("g_6~ND_OD0.5", "g~nd"),
        ("g_6~blue", "g"),
        ("x_1", "unknown"),
        ("x~ND_OD1", "unknown"),
    ],
)
def test_band_of_a_filter(name, band):
    assert records.band(name, get_instrument(CAMERA)) == band


def test_odd_exposures_do_not_stop_an_ingest(tiny_repo):
    odd = record(
        2026081300009, physical_filter="never~seen", begin_tai_nsec=None, end_tai_nsec=None, target_name="x" * 99
    )
    tiny_repo.repo.register_exposures([odd, odd])
    tiny_repo.repo.register_raws(CAMERA, [(odd.exposure, 0)])
    raw = tiny_repo.repo.raws(f"exposure={odd.exposure}")
    assert raw["physical_filter"].item() == "never~seen"
    assert np.isnan(raw["mjd"].item())
    make_bias(tiny_repo.repo, "u/b", 1.0)
    with pytest.raises(RepoError, match="TC_O_20260813_000009: the header gave no time"):
        tiny_repo.repo.find_calib("bias", odd.exposure, 0, "u/b")


def test_a_contradicting_exposure_is_refused(tiny_repo):
    with pytest.raises(RepoError, match="registering 1 exposures from TC_O_20260812_000001"):
        tiny_repo.repo.register_exposures([record(2026081299999, obs_id="TC_O_20260812_000001")])


# ---------------------------------------------------------------------------- raws


def test_registering_again_changes_nothing(tiny_repo):
    repo = tiny_repo.repo
    assert repo.register_raws(CAMERA, tiny_repo.raws) == 0
    assert repo.registered_raws(CAMERA, EXPOSURES) == tiny_repo.raws
    assert repo.registered_raws(CAMERA, []) == set()


def test_raws_without_cube_are_refused(tiny_repo):
    tiny_repo.repo.register_exposures([record(2026090100001)])
    with pytest.raises(RepoError, match="write the cube before"):
        tiny_repo.repo.register_raws(CAMERA, [(2026090100001, 0)])
    assert tiny_repo.repo.registered_raws(CAMERA, [2026090100001]) == set()


def test_selection_is_labelled_and_lazy(tiny_reader, monkeypatch):
    read, original = [], cubes.read_raw
    monkeypatch.setattr(cubes, "read_raw", lambda *a, **k: read.append(a) or original(*a, **k))
    raw = tiny_reader.raws(BIASES)
    assert raw.dims == ("exposure", "detector", "amp", "y", "x")
    assert raw.shape == (6, 4, 16, 64, 56)
    assert raw.chunks is None
    assert raw["exposure"].values.tolist() == list(EXPOSURES)
    assert raw["seq_num"].values.tolist() == [1, 2, 3, 4, 1, 2]
    assert raw["day_obs"].values.tolist() == [DAYS[0]] * 4 + [DAYS[1]] * 2
    assert raw["vendor"].values.tolist() == ["E2V", "E2V", "ITL", "ITL"]
    assert raw["detector_name"].values.tolist() == ["R22_S00", "R22_S11", "R01_S00", "R01_S11"]
    assert raw["raft"].values[2] == "R01"
    assert raw["slot"].values[1] == "S11"
    assert raw["amp"].values[[0, 15]].tolist() == ["C10", "C00"]
    assert raw["dark_time"].values.tolist() == [0.5] * 6
    np.testing.assert_allclose(raw["mjd"][0], 61264.5 + 36_030 / 86_400, rtol=0, atol=1e-9)
    assert raw.attrs == {"instrument": CAMERA, "units": "adu"}
    part = raw.isel(detector=1, exposure=[3, 4], amp=2)
    assert read == []
    np.testing.assert_array_equal(part[0], pixels(EXPOSURES[3], 1)[2])
    np.testing.assert_array_equal(part[1], pixels(EXPOSURES[4], 1)[2])
    assert len(raw._repr_html_()) < 40_000


def test_a_lost_detector_is_fill(tiny_reader):
    raw = tiny_reader.raws(f"exposure={LOST[0]}", detectors=[0, 3])
    assert raw["detector"].values.tolist() == [0]
    raw = tiny_reader.raws(BIASES).sel(exposure=[LOST[0], EXPOSURES[0]], detector=LOST[1])
    assert (raw[0] == cubes.FILL).all()
    np.testing.assert_array_equal(raw[1], pixels(EXPOSURES[0], LOST[1]))


@pytest.mark.parametrize(
    ("where", "options", "shape"),
    [
        ("", {}, (6, 4)),
        (f"{BIASES} AND exposure.day_obs=20260812 AND detector IN (0..2)", {}, (4, 3)),
        ("exposure.seq_num > 1 OR exposure.day_obs = 20260813", {"detectors": ["R22_S11", 2]}, (5, 2)),
        ("detector.purpose = 'SCIENCE'", {"limit": 2}, (2, 4)),
        ("exposure IN (mine)", {"bind": {"mine": list(EXPOSURES[:2])}}, (2, 4)),
        ("instrument='TinyCam'", {"collections": ["TinyCam/raw/all"]}, (6, 4)),
    ],
)
def test_expressions(tiny_reader, where, options, shape):
    assert tiny_reader.raws(where, **options).shape[:2] == shape


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "exposure.observation_type='dark' AND exposure.day_obs=20260812",
            "observation_type='dark' finds none. There are 6",
        ),
        ("exposure.day_obs=20260812 AND exposure=2026081300001", "each term finds some"),
        (f"({BIASES} AND exposure.day_obs=19991231) AND detector=1", "exposure.day_obs=19991231 finds none"),
        ("exposure.observation_tpe='dark'", "observation_tpe"),
        ("exposure.observation_type=", "exposure.observation_type="),
        ("exposure.day_obs=nobody", "nobody"),
    ],
)
def test_what_matches_nothing_is_explained(tiny_reader, where, message):
    with pytest.raises(RepoError) as caught:
        tiny_reader.raws(where)
    assert message in str(caught.value)


def test_unknown_collection_and_detector(tiny_reader):
    with pytest.raises(RepoError, match="nowhere"):
        tiny_reader.raws(BIASES, collections="nowhere")
    with pytest.raises(Exception, match="did you mean 'R22_S11'"):
        tiny_reader.raws(BIASES, detectors=["R22_S12"])
    with pytest.raises(RepoError, match="no instrument 'LATISS'"):
        tiny_reader.raws(BIASES, instrument="LATISS")


@pytest.mark.parametrize(
    ("where", "terms"),
    [
        ("", []),
        ("a=1", ["a=1"]),
        ("a=1 AND b='x AND y' and (c=1 OR d=2 AND e=3)", ["a=1", "b='x AND y'", "(c=1 OR d=2 AND e=3)"]),
        ("(a=1 AND b IN (1, 2)) AND c=3", ["a=1", "b IN (1, 2)", "c=3"]),
        ("(a=1) AND (b=2)", ["(a=1)", "(b=2)"]),
        ("(a=1 OR b=2 AND c=3) AND d=4", ["(a=1 OR b=2 AND c=3)", "d=4"]),
        ("a=1 OR b=2 AND c=3", ["a=1 OR b=2 AND c=3"]),
    ],
)
def test_terms_of_an_expression(where, terms):
    assert expression.terms(where) == terms


def test_names_in_an_expression():
    assert expression.mentions("detector IN (1)", "detector")
    assert expression.mentions("a=1 AND detector.purpose='SCIENCE'", "detector")
    assert not expression.mentions("exposure.target_name='detector'", "detector")
    assert expression.instrument_of("instrument = 'LATISS' AND a=1") == "LATISS"


# ---------------------------------------------------------------------------- products and calibrations


def test_a_product_is_registered_when_whole(tiny_repo):
    repo = tiny_repo.repo
    uuids = make_bias(repo, "u/me/b1", 1.0, detectors=(0, 2))
    assert make_bias(repo, "u/me/b1", 1.0, detectors=(0, 2)) == uuids
    uri = f"{repo.root}/cubes/u/me/b1/bias.zarr"
    with pytest.raises(RepoError, match=r"detectors \[1\] are not completely written"):
        repo.register_product("u/me/b1", "bias", uri, [{"instrument": CAMERA, "detector": d} for d in (0, 1)])
    more = make_bias(repo, "u/me/b1", 1.0, detectors=(1,))
    listed = repo.datasets("bias", "u/me/b1")
    assert [(r.detector, r.run, r.uri) for r in listed] == [(d, "u/me/b1", uri) for d in (0, 1, 2)]
    assert {r.uuid for r in listed} == {*uuids, *more}


def test_open_by_run(tiny_repo):
    repo = tiny_repo.repo
    make_bias(repo, "u/me/b1", 1.0, detectors=(0, 1))
    make_bias(repo, "u/me/b2", 2.0, detectors=(1, 3))
    np.testing.assert_allclose(repo.open("bias", run="u/me/b2")["image"].mean(["amp", "y", "x"]), [2.1, 2.3], rtol=1e-6)
    both = repo.open("bias", collections=["u/me/b1", "u/me/b2"])
    np.testing.assert_allclose(both["image"].mean(["amp", "y", "x"]), [1.0, 1.1, 2.3], rtol=1e-6)
    assert repo.open("bias", run="u/me/b2", detector=3)["detector"].values.tolist() == [3]
    with pytest.raises(RepoError, match=r"no bias in u/me/b2 for detectors \[2\].*u/me/b1, u/me/b2"):
        repo.open("bias", run="u/me/b2", detector=[1, 2])
    with pytest.raises(RepoError, match="no dataset type 'bais'; did you mean 'bias'"):
        repo.open("bais", run="u/me/b2")
    with pytest.raises(RepoError, match="no collection 'u/me/b3'; did you mean 'u/me/b"):
        repo.open("bias", run="u/me/b3")
    with pytest.raises(RepoError, match="say where to search"):
        repo.open("bias")


def test_statistics_and_run_records(tiny_repo):
    repo = tiny_repo.repo
    uri = f"{repo.root}/cubes/u/me/v1/verifyBias.zarr"
    cubes.write_dataset(uri, repo.raws(BIASES)["mjd"].to_dataset(name="when"))
    repo.register_product("u/me/v1", "verifyBias", uri, [{"instrument": CAMERA}])
    assert repo.open("verifyBias", run="u/me/v1")["when"].shape == (6,)
    path = f"{repo.root}/cubes/u/me/v1/runRecord.json"
    with pytest.raises(RepoError, match="no such file"):
        repo.register_product("u/me/v1", "runRecord", path, [{"instrument": CAMERA}])
    files.write_json(path, {"run": 1})
    repo.register_product("u/me/v1", "runRecord", path, [{"instrument": CAMERA}])
    assert repo.butler.get("runRecord", instrument=CAMERA, collections="u/me/v1") == {"run": 1}
    assert "when" in repo.butler.get("verifyBias", instrument=CAMERA, collections="u/me/v1")


@pytest.mark.parametrize(
    ("exposure", "detector", "run"),
    [
        (EXPOSURES[0], 0, "u/me/b1"),
        (EXPOSURES[0], 1, "u/me/b1"),
        (EXPOSURES[0], 3, "u/me/b2"),
        (EXPOSURES[4], 1, "u/me/b2"),
        (EXPOSURES[4], 0, None),
        (EXPOSURES[0], 2, None),
    ],
)
def test_look_up_agrees_with_the_butler(certified_reader, exposure, detector, run):
    row = certified_reader._exposure_rows(CAMERA, [exposure])[0]
    theirs = certified_reader.butler.find_dataset(
        "bias", instrument=CAMERA, detector=detector, collections="TinyCam/calib", timespan=row.timespan
    )
    assert (theirs.run if theirs else None) == run
    found = certified_reader.find_calibs("bias", [exposure], [detector], "TinyCam/calib", required=False)
    assert {place: (ref.run, ref.uuid) for place, ref in found.items()} == (
        {(exposure, detector): (run, str(theirs.id))} if run else {}
    )


def test_look_up_in_bulk_and_open_by_exposure(certified_reader):
    found = certified_reader.find_calibs("bias", EXPOSURES, [1, 3], ["TinyCam/calib"])
    assert len(found) == 12
    assert {ref.run for (e, d), ref in found.items() if d == 1 and e in EXPOSURES[:4]} == {"u/me/b1"}
    opened = certified_reader.open("bias", collections="TinyCam/calib", exposure=EXPOSURES[0])
    assert opened["detector"].values.tolist() == [0, 1, 3]
    np.testing.assert_allclose(opened["image"].mean(["amp", "y", "x"]), [1.0, 1.1, 2.3], rtol=1e-6)


def test_look_up_that_fails_says_what_and_when(certified_reader):
    with pytest.raises(RepoError, match="exposure 2026081300001, detector 0, taken 2026-08-13T22:00:30 TAI"):
        certified_reader.find_calib("bias", EXPOSURES[4], 0, "TinyCam/calib")
    with pytest.raises(RepoError, match="exposure 2026081200099 of TinyCam is not registered"):
        certified_reader.find_calib("bias", 2026081200099, 0, "TinyCam/calib")
    with pytest.raises(RepoError, match="CALIBRATION collection; name the exposure"):
        certified_reader.open("bias", collections="TinyCam/calib")


def test_overlapping_certification_names_both(certified):
    with pytest.raises(RepoError) as caught:
        certified.certify("u/me/b2", "bias", "TinyCam/calib/a", "2026-08-12T18:00:00", None)
    for text in ("TinyCam/calib/a", "u/me/b2", "[2026-08-12T18:00:00 TAI, unbounded)", "u/me/b1"):
        assert text in str(caught.value)
    assert "[2026-08-12T12:00:00 TAI, 2026-08-13T12:00:00 TAI)" in str(caught.value)


def test_certifying_again_changes_nothing_and_adjacent_is_fine(certified):
    again = certified.certify("u/me/b1", "bias", "TinyCam/calib/a", 20260812, 20260813)
    assert len(again) == 2
    certified.certify("u/me/b2", "bias", "TinyCam/calib/a", "2026-08-13T12:00:00", None)
    assert certified.find_calib("bias", EXPOSURES[4], 1, "TinyCam/calib/a").run == "u/me/b2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("u/me/b1", "bias", "c", 20260813, 20260812), "is empty"),
        (("u/me/b1", "bias", "c", "yesterday"), "expected 2026-08-12"),
        (("u/me/b9", "bias", "c"), "u/me/b9"),
        (("u/me/b1", "biasBootstrap", "c"), "holds no biasBootstrap"),
    ],
)
def test_certifying_nonsense(certified, arguments, message):
    with pytest.raises(RepoError, match=message):
        certified.certify(*arguments)


INF = float("inf")
TAI_NOON = "2026-08-12T12:00:00"


@pytest.mark.parametrize(
    "begin",
    [20260812, np.int64(20260812), "20260812", np.str_("20260812"), TAI_NOON, f"{TAI_NOON[:10]} 12:00:00",
     Time(TAI_NOON, scale="tai"), Time("2026-08-12T11:59:23", scale="utc"), datetime.fromisoformat(TAI_NOON),
     datetime(2026, 8, 12, 11, 59, 23, tzinfo=UTC), np.datetime64(TAI_NOON)],
    ids=repr,
)  # fmt: skip
def test_times_are_tai_and_a_day_begins_at_noon(begin):
    assert validity(begin, None, "").nsec[0] == NOON_20260812


@pytest.mark.parametrize(
    "begin",
    ["", " ", "yesterday", "99999999", 99999999, 20261345, "2026-02-30", "2026", "nan", 0, -5, 1.5, INF, True,
     [20260812], "2026-08-12T25:00:00", Time([TAI_NOON], scale="tai"), "\u00b20260812", 2 * 10**9, b"20260812",
     "2026-08-12T12:00:00Z", "2016-12-31T23:59:60"],
    ids=repr,
)  # fmt: skip
def test_dates_that_are_none_are_refused_in_one_line(begin):
    for span in ((begin, None), (None, begin)):
        with pytest.raises(RepoError, match=r"certify x: time .* expected 2026-08-12") as caught:
            validity(*span, "certify x")
        assert "\n" not in str(caught.value)


def test_ranges_that_are_none_are_refused_and_far_ones_are_unbounded():
    for begin, end in ((20260812, 20260812), (20260813, 20260812), (TAI_NOON, "20260812")):
        with pytest.raises(RepoError, match="is empty; it begins before it ends"):
            validity(begin, end, "certify x")
    for span in (("2150-01-01", None), (None, "1950-01-01"), ("2150-01-01", "2160-01-01")):
        with pytest.raises(RepoError, match="outside of 1970 to 2100"):
            validity(*span, "certify x")
    assert validity("1950-01-01", "2150-01-01", "") == validity(None, None, "")
    assert validity("1950-01-01", "2050-01-01", "") == validity(None, "2050-01-01", "")


def test_a_chain_is_certified_in_search_order(certified):
    """Two datasets for detector 1 are in the chain: the first one is taken, as in a search."""
    certified.chain("u/both", ["u/me/b2", "u/me/b1"])
    assert len(certified.certify("u/both", "bias", "u/calib")) == 3
    assert {one.key[1]: one.run for one in certified.certified("bias", "u/calib")} == {
        0: "u/me/b1", 1: "u/me/b2", 3: "u/me/b2",
    }  # fmt: skip
    for source in ("TinyCam/calib/a", "TinyCam/calib"):
        with pytest.raises(RepoError, match="is a CALIBRATION collection, whose datasets have validity ranges already"):
            certified.certify(source, "bias", "u/calib2")
    with pytest.raises(RepoError, match="raw of TinyCam/raw/all: is no calibration"):
        certified.certify("TinyCam/raw/all", "raw", "u/calib2")
    assert certified.collections("u/calib2") == []


def test_chains(certified):
    children = {
        ("redefine", ("u/me/b1",)): ("u/me/b1",),
        ("extend", ("u/me/b2",)): ("u/me/b1", "u/me/b2"),
        ("prepend", ("TinyCam/raw/all",)): ("TinyCam/raw/all", "u/me/b1", "u/me/b2"),
        ("remove", ("u/me/b1",)): ("TinyCam/raw/all", "u/me/b2"),
        ("pop", ()): ("u/me/b2",),
    }
    for (mode, names), expected in children.items():
        assert certified.chain("u/chain", names, mode) == expected
    kinds = {c.name: c.kind for c in certified.collections("TinyCam/*")}
    assert kinds == {
        "TinyCam/calib": "CHAINED", "TinyCam/calib/a": "CALIBRATION", "TinyCam/calib/b": "CALIBRATION",
        "TinyCam/raw/all": "RUN",
    }  # fmt: skip
    assert [c.name for c in certified.collections(kind="CHAINED")] == ["TinyCam/calib", "u/chain"]
    with pytest.raises(RepoError, match="unknown mode 'prepand'; did you mean 'prepend'"):
        certified.chain("u/chain", ["u/me/b1"], "prepand")
    with pytest.raises(RepoError, match="u/nothing"):
        certified.chain("u/chain", ["u/nothing"])


def test_new_dataset_types(tiny_repo):
    tiny_repo.repo.register_dataset_type("flat", ["instrument", "detector", "physical_filter"], True)
    tiny_repo.repo.register_dataset_type("flat", ["instrument", "detector", "physical_filter"], True)
    with pytest.raises(RepoError, match="dataset type flat failed"):
        tiny_repo.repo.register_dataset_type("flat", ["instrument", "detector"], True)


def test_a_calibration_of_a_filter_follows_the_exposure(tiny_repo):
    repo = tiny_repo.repo
    repo.register_dataset_type("flat", ["instrument", "detector", "physical_filter"], True)
    repo.register_exposures([record(2026081300005, "flat", physical_filter="g_6")])
    uri = f"{repo.root}/cubes/u/f/flat.zarr"
    write_bias(uri, 3.0, detectors=(0,))
    repo.register_product("u/f", "flat", uri, [{"instrument": CAMERA, "detector": 0, "physical_filter": "g_6"}])
    repo.certify("u/f", "flat", "TinyCam/calib/f")
    found = repo.find_calibs("flat", [2026081300005, EXPOSURES[0]], [0], "TinyCam/calib/f", required=False)
    assert list(found) == [(2026081300005, 0)]


# ---------------------------------------------------------------------------- other processes


def _register(root, barrier):
    repo = open_repo(root, writeable=True)
    exposures = [2026081300011 + i for i in range(5)]
    barrier.wait()
    for exposure in exposures:
        cubes.ensure_raw_cube(cubes.raw_cube_uri(root, CAMERA, exposure), get_instrument(CAMERA))
        repo.register_exposures([record(exposure)])
        repo.register_raws(CAMERA, [(exposure, d) for d in range(4)])


def test_two_processes_register_the_same_raws(tiny_repo):
    context = get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_register, args=(tiny_repo.root, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(tiny_repo.repo.registered_raws(CAMERA, range(2026081300011, 2026081300016))) == 20


SCRIPT = """
import sys, json
from astropy.time import Time
from lsst.daf.butler import Butler
b = Butler.from_config(sys.argv[1])
raw = b.get("raw", instrument="TinyCam", exposure=2026081200003, detector=2, collections="TinyCam/raw/all")
bias = b.get("bias", instrument="TinyCam", exposure=2026081200003, detector=1, collections="TinyCam/calib")
run = b.get("bias", instrument="TinyCam", detector=3, collections="u/me/b2")
lazy = [type(d[n].variable._data).__name__ != "ndarray" for d, n in ((raw, "raw"), (bias, "image"), (run, "image"))]
values = [float(bias.image[0, 0, 0]), float(run.image[0, 0, 0])]
print(json.dumps([lazy, int(raw.raw[4, 5, 6]), raw.detector_name.item(), list(bias.image.dims), values]))
"""


def test_a_plain_butler_in_another_process_returns_lazy_datasets(certified_reader):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, certified_reader.root], capture_output=True, text=True, check=True
    )
    lazy, raw, name, dims, values = json.loads(done.stdout)
    assert lazy == [True, True, True]
    assert raw == pixels(2026081200003, 2)[4, 5, 6]
    assert (name, dims) == ("R01_S00", ["amp", "y", "x"])
    np.testing.assert_allclose(values, [1.1, 2.3], rtol=1e-6)


def test_permissions_are_the_users_umask(tiny_repo):
    umask = os.umask(0)
    os.umask(umask)
    shard = Path(tiny_repo.root) / "cubes/raw/TinyCam/20260812.zarr/raw/c/1/0/0/0/0"
    assert stat.S_IMODE(shard.stat().st_mode) == 0o666 & ~umask


@pytest.mark.slow
def test_a_night_of_the_whole_focal_plane_takes_few_statements(tmp_path):
    """18 900 raws: statements grow with the exposures, not with the raws."""
    repo = create_repo(str(tmp_path / "repo"), "LSSTCam")
    camera = get_instrument("LSSTCam")
    exposures = [2026081200001 + i for i in range(100)]
    cubes.ensure_raw_cube(cubes.raw_cube_uri(repo.root, "LSSTCam", exposures[0]), camera)
    repo.register_exposures(record(e, instrument="LSSTCam") for e in exposures)
    counts = []
    event.listen(Engine, "before_cursor_execute", count := lambda *_: counts.append(1))
    try:
        repo.register_raws("LSSTCam", [(e, d) for e in exposures for d in camera.science_detectors])
        registered = len(counts)
        raw = repo.raws(f"{BIASES} AND exposure.day_obs=20260812")
        resolved = len(counts) - registered
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert raw.shape == (100, 189, 16, 2048, 576)
    assert registered < 2000
    assert resolved < 100


@pytest.mark.parametrize(
    "spoil", [lambda b: b.replace(b"datastore", b"datast\xf2re", 1), lambda b: b[:-40] + b"\n  - [", lambda b: b"x"]
)
def test_a_damaged_configuration_is_named(tmp_path, spoil):
    create_repo(str(tmp_path / "r"), CAMERA).close()
    path = tmp_path / "r" / "butler.yaml"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(RepoError, match=r"butler\.yaml is damaged|registry cannot be opened"):
        open_repo(str(tmp_path / "r"))

"""S3-compatible storage through the same code paths, on a real server process (`tests.services`)."""

import json
import logging
import os

import numpy as np
import pytest
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.errors import DataError, RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler.repository import create_repo, open_repo
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.storage import files, objects
from camcal_dask.repo.storage.claims import raw_claim
from camcal_dask.simulation import SimulationConfig, bias_set, simulate

DAY = 20260812
WHERE = f"exposure.day_obs = {DAY} AND exposure.seq_num > 1"


def camcal(*arguments):
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_objects_like_files(s3_bucket):
    uri = f"{s3_bucket}/a/b"
    assert files.read_json(f"{uri}.json") is None
    assert not files.exists(uri)
    assert files.names(uri) == []
    files.write_json(f"{uri}/one.json", {"x": 1})
    files.write_json(f"{uri}/two.json", {"x": 2})
    assert files.exists(uri)
    assert files.names(uri) == ["one.json", "two.json"]
    assert files.names(f"{s3_bucket}/a") == ["b"]
    assert files.read_json(f"{uri}/two.json") == {"x": 2}
    files.remove(f"{uri}/two.json")
    files.remove(f"{uri}/two.json")
    assert files.names(uri) == ["one.json"]


def test_a_folder_becomes_visible_last_and_only_once(s3_bucket, tmp_path):
    def folder(content):
        stage = tmp_path / content
        (stage / "c").mkdir(parents=True)
        (stage / "zarr.json").write_text("{}")
        (stage / "c" / "0").write_text(content)
        return stage

    uri = f"{s3_bucket}/cube.zarr"
    assert files.publish(folder("first"), uri)
    assert not files.publish(folder("second"), uri)
    assert files.publish(folder("third"), uri, overwrite=True)
    assert files.read_text(f"{uri}/c/0") == "third"


def test_claims_are_exclusive(s3_bucket):
    claim = raw_claim(f"{s3_bucket}/day.zarr", 3, 0)
    assert claim.holder() is None
    assert claim.take("ours") == "ours"
    assert claim.take("theirs") == "ours"
    claim.release("theirs")
    assert claim.holder() == "ours"
    claim.seize("theirs")
    claim.release("theirs")
    assert claim.holder() is None


def test_raw_pixels_as_on_a_disk(s3_bucket):
    camera = get_instrument("TinyCam")
    uri = cubes.raw_cube_uri(s3_bucket, camera.name, DAY * 100_000 + 7)
    cubes.ensure_raw_cube(uri, camera)
    cubes.ensure_raw_cube(uri, camera)
    pixels = np.arange(np.prod(camera.raw_shape[1:]), dtype=np.int32).reshape(camera.raw_shape[1:])
    assert not cubes.has_raw(uri, 7, 2)
    cubes.write_raw(uri, 7, 2, pixels)
    assert cubes.has_raw(uri, 7, 2)
    np.testing.assert_array_equal(cubes.read_raw(uri, 7, 2), pixels)
    np.testing.assert_array_equal(cubes.read_raw(uri, 7, 2, y=slice(3, 9)), pixels[:, 3:9])
    with pytest.raises(DataError, match="detector 1 cannot be read: the file is lost"):
        cubes.read_raw(uri, 7, 1)


def test_credentials_are_refused_in_addresses(monkeypatch):
    with pytest.raises(RepoError, match=r"s3://\*\*\*@bucket/x: credentials do not belong") as caught:
        files.absolute("s3://key:secret@bucket/x")
    assert "secret" not in str(caught.value).replace("AWS_SECRET", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://key:secret@127.0.0.1:1")
    with pytest.raises(RepoError, match="would be logged"):
        objects.endpoint()


def test_sqlite_cannot_live_there(s3_bucket):
    with pytest.raises(RepoError, match="--registry postgresql"):
        create_repo(f"{s3_bucket}/repo", "TinyCam")


def test_a_wrong_bucket_is_named(s3_bucket):
    with pytest.raises(RepoError, match=r"storage cannot be reached: s3://no-such-bucket|not a repository"):
        open_repo("s3://no-such-bucket/repo")


@pytest.mark.postgres
@pytest.mark.cluster
def test_bias_on_an_object_store_with_a_shared_registry(s3_bucket, postgres_database, tmp_path, caplog):
    """Two worker processes, PostgreSQL and S3: the product has the same bits as on a disk, and no secret is written."""
    config = SimulationConfig()
    simulate(tmp_path / "raw", "TinyCam", bias_set(5, DAY, contaminated_first=True), [0, 2], config=config)
    remote, local = f"{s3_bucket}/repo", str(tmp_path / "repo")
    shared = ["--registry", postgres_database("objects")]
    for root, more, where in ((remote, shared, ["-j", 2]), (local, [], ["--cluster", "threads"])):
        camcal("create", root, "--instrument", "TinyCam", *more)
        assert "10 ingested" in camcal("ingest", root, tmp_path / "raw", *where)
        run = ["run", "-b", root, "-d", WHERE, *where]
        assert "2 done" in camcal(*run, "-p", "TinyCam/bias.yaml", "-i", "TinyCam/raw/all", "-o", "u/bias")
        camcal(*run, "-p", "TinyCam/verifyBias.yaml", "-i", "u/bias,TinyCam/raw/all", "-o", "u/verify")
        camcal("approve", root, "u/bias", "--by", "Ada", "--override", "four exposures are few")
        camcal("certify", root, "u/bias", "TinyCam/calib", "bias", "--begin-date", DAY)
    assert "2 skipped" in camcal("ingest", remote, tmp_path / "raw" / "*" / "*_000002*", "--cluster", "threads")
    with open_repo(remote) as there, open_repo(local) as here:
        with caplog.at_level(logging.DEBUG):
            found = there.open("bias", collections="TinyCam/calib", exposure=DAY * 100_000 + 3)
            expected = here.open("bias", collections="TinyCam/calib", exposure=DAY * 100_000 + 3)
            for name in ("image", "variance", "mask"):
                np.testing.assert_array_equal(found[name].values, expected[name].values)
            lazily = there.butler.get("bias", instrument="TinyCam", detector=2, exposure=DAY * 100_000 + 3,
                                      collections="TinyCam/calib")  # fmt: skip
            np.testing.assert_array_equal(lazily["image"].values, expected["image"].sel(detector=2).values)
            verdict = there.open("verifyBias", run="u/verify")
        assert verdict.sizes["exposure"] == 4
    assert "not-to-be-seen" not in caplog.text
    assert not any("not-to-be-seen" in text for text in _texts(remote))


def _texts(root):
    """All JSON of the repository: provenance, markers, manifests, cube attributes."""
    folders = [root]
    while folders:
        folder = folders.pop()
        for name in files.names(folder):
            uri = files.join(folder, name)
            if name.endswith((".json", ".yaml")):
                yield json.dumps(files.read_json(uri)) if name.endswith(".json") else files.read_text(uri)
            elif name not in {"c", "0"} and "." in name or not name.isdigit():
                folders.append(uri)
    yield json.dumps({k: v for k, v in os.environ.items() if k.startswith("AWS")})

"""Damage on purpose: flipped bits, cut and deleted files are named, mended if possible, never read in silence."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from zarr.codecs import GzipCodec

from camcal_dask.cli import main
from camcal_dask.errors import DataError, RepoError
from camcal_dask.repo.butler.repository import create_repo
from camcal_dask.repo.check import check
from camcal_dask.repo.cubes import products, small
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.incoming.ingest import ingest
from camcal_dask.repo.storage import files, parts, shards
from tests.raw_files import pixels, primary, write_raw_file

from .conftest import CAMERA, bias_template, make_bias, write_bias

EXPOSURE = 2026081200001
STATISTICS = "u/me/verify/verifyBias.zarr"


def build(folder):
    """Two raws of one exposure, a bias of two detectors, statistics, an approval, and parts of a run."""
    raws = folder / "raws"
    for detector in (0, 1):
        path = raws / f"TC_O_20260812_000001_{detector}.fits"
        write_raw_file(path, pixels(detector, detector), detector=detector, cards=primary(detector, 1))
    repo = create_repo(str(folder / "repo"), CAMERA)
    assert ingest(repo, [raws]).ingested == 2
    make_bias(repo, "u/me/bias", 1.0, detectors=(0, 1))
    dims = ("exposure", "detector", "amp")
    noise = np.random.default_rng(3).normal(5, 1, (1, 2, 16))
    statistics = xr.Dataset(
        {"noise": (dims, noise), "status": (dims, np.zeros((1, 2, 16), np.int8)), "run_success": ((), False)},
        {"exposure": [EXPOSURE], "detector": [0, 1], "amp": [f"C{i:02d}" for i in range(16)]},
        {"instrument": CAMERA},
    )
    uri = f"{repo.root}/cubes/{STATISTICS}"
    cubes.write_dataset(uri, statistics)
    repo.register_product("u/me/verify", "verifyBias", uri, [{"instrument": CAMERA}])
    files.write_json(f"{repo.root}/cubes/u/me/bias/sign-off/1.json", {"kind": "approval", "by": "me"})
    kept = parts.Parts(f"{repo.root}/cubes/u/me/bias/bias-1.parts")
    kept.add(("verify", "0"), parts.pack(statistics))
    kept.flush()
    return repo


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    with build(tmp_path_factory.mktemp("check")) as made:
        yield made


@pytest.fixture
def broken(repo):
    """The repository, put back afterwards; the registry does not change."""
    kept = Path(repo.root).parent / "kept"
    shutil.copytree(f"{repo.root}/cubes", kept)
    products.forget_opened()
    yield repo
    shutil.rmtree(f"{repo.root}/cubes")
    kept.rename(f"{repo.root}/cubes")
    products.forget_opened()


def everything(repo):
    """All values that readers return, by name; an error where one is raised."""

    def values(open_it):
        products.forget_opened()
        try:
            return open_it()
        except (DataError, RepoError) as error:
            return error

    def all_of(dataset):
        variables = {**dataset.variables, **{f"attr {k}": v for k, v in dataset.attrs.items()}}
        return {k: (np.asarray(v), getattr(v, "attrs", None)) for k, v in variables.items()}

    bias, raw = f"{repo.root}/cubes/u/me/bias/bias.zarr", cubes.raw_cube_uri(repo.root, CAMERA, EXPOSURE)
    found = {}
    for d in (0, 1):
        found[f"raw {d}"] = values(lambda d=d: cubes.read_raw(raw, 1, d))
        found[f"rows {d}"] = values(lambda d=d: cubes.read_raw(raw, 1, d, y=slice(3, 50), x=slice(2, 55)))
        found[f"manifest {d}"] = values(lambda d=d: cubes.read_raw_manifest(raw, 1, d))
        found[f"bias {d}"] = values(lambda d=d: all_of(cubes.open_products([(bias, d)])))
        found[f"record {d}"] = values(lambda d=d: cubes.product_record(bias, d))
    found["product"] = values(lambda: all_of(cubes.open_product(bias).isel(y=slice(3, 9))))
    found["statistics"] = values(lambda: all_of(cubes.open_dataset(f"{repo.root}/cubes/{STATISTICS}")))
    found["stats"] = values(lambda: all_of(repo.stats("verifyBias", "u/me/verify")))
    found["sign-off"] = values(lambda: files.read_json(f"{repo.root}/cubes/u/me/bias/sign-off/1.json"))
    return found


def same(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype.kind == "f":
        return np.array_equal(a, b, equal_nan=True)
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b)


def flip(path, position, bit):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_a_whole_repository_is_whole(repo):
    account = check(repo)
    assert (account.whole, account.left, account.raws, account.products) == (True, [], 2, 3)


def test_a_repository_that_cannot_be_written_is_checked(repo, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    assert check(repo).whole


def test_no_flipped_bit_anywhere_is_silent(broken):
    """Every file of the repository but SQLite's: the check names it, and readers give what they gave, or an error."""
    truth = everything(broken)
    rng = np.random.default_rng(1)
    paths = [Path(path) for path in files.walk(f"{broken.root}/cubes") if Path(path).stat().st_size]
    assert len(paths) > 30
    for n, path in enumerate(paths):
        content = path.read_bytes()
        first = max(0, len(content) - 60) if n % 2 else 0  # seals and the indices of shards lie at the end
        position, bit = int(rng.integers(first, len(content))), int(rng.integers(8))
        flip(path, position, bit)
        where = f"{path}, byte {position}, bit {bit}"
        named = [f.text() for f in check(broken).left if not f.harmless]
        assert any(str(path).split(".zarr/")[0] in text for text in named), (where, named)
        for name, value in everything(broken).items():
            assert isinstance(value, Exception) or same(value, truth[name]), f"{where}: {name} changed in silence"
        path.write_bytes(content)
    assert check(broken).whole


def test_no_lost_or_cut_file_is_silent(broken):
    truth = everything(broken)
    for n, path in enumerate(Path(path) for path in files.walk(f"{broken.root}/cubes")):
        content = path.read_bytes()
        if n % 2:
            path.write_bytes(content[: len(content) // 2])
        else:
            path.unlink()
        for name, value in everything(broken).items():
            # A document that is not there was never written; without its marker, a detector is not finished.
            gone = value is None or (path.parent.suffix == ".finished" and name == "product")
            assert gone or isinstance(value, Exception) or same(value, truth[name]), f"{path}: {name} changed"
        path.write_bytes(content)


SHARDS = {
    "raw": f"cubes/raw/{CAMERA}/20260812.zarr/raw/c/1/1/0/0/0",
    "manifest": f"cubes/raw/{CAMERA}/20260812.manifest/1/1.json",
    "raw metadata": f"cubes/raw/{CAMERA}/20260812.zarr/raw/zarr.json",
}


@pytest.mark.parametrize("harm", ["flip", "cut", "delete"])
@pytest.mark.parametrize("what", ["raw", "raw metadata"])
def test_raws_are_mended_from_their_files(broken, what, harm):
    path = Path(broken.root, SHARDS[what])
    spoil(path, harm)
    truth = pixels(1, 1)
    account = check(broken)
    assert not account.whole
    assert any(str(path.parent) in f.text() or "exposure 2026081200001, detector 1" in f.text() for f in account.left)
    account = check(broken, repair=True)
    assert account.whole, account.text()
    assert [str(path)] == [f.uri for f in account.mended]
    np.testing.assert_array_equal(cubes.read_raw(cubes.raw_cube_uri(broken.root, CAMERA, EXPOSURE), 1, 1), truth)


@pytest.mark.parametrize("harm", ["flip", "cut", "delete"])
def test_ingest_notices_damaged_pixels_and_damaged_manifests(broken, harm):
    raws = Path(broken.root).parent / "raws"
    spoil(Path(broken.root, SHARDS["raw"]), harm)
    summary = ingest(broken, [raws])
    assert (summary.ingested, summary.skipped) == (1, 1)
    spoil(Path(broken.root, SHARDS["manifest"]), harm)
    if harm != "delete":
        (reason,) = ingest(broken, [raws]).failed.values()
        assert "damaged" in reason
        assert "--replace" in reason
    assert not ingest(broken, [raws], replace=True).failed
    assert check(broken).whole


def spoil(path, harm):
    if harm == "delete":
        path.unlink()
    elif harm == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        flip(path, path.stat().st_size // 2, 3)
    products.forget_opened()


@pytest.mark.parametrize("harm", ["flip", "cut", "delete"])
@pytest.mark.parametrize("part", ["bias.zarr/image/c/1/0/0/0", "bias.finished/1.json"])
def test_a_damaged_detector_costs_no_other_and_can_be_made_again(broken, part, harm):
    path = Path(broken.root, "cubes/u/me/bias", part)
    spoil(path, harm)
    uri = f"{broken.root}/cubes/u/me/bias/bias.zarr"
    assert float(cubes.open_products([(uri, 0)])["image"].mean()) == 1.0
    with pytest.raises((DataError, RepoError), match="damaged|lost|not complete"):
        cubes.open_products([(uri, 1)]).load()
    account = check(broken, repair=True)
    assert [f.kind for f in account.left] == ["lost"], account.text()
    assert "detector 1: it has no marker; repeat the run" in account.text()
    assert products.finished(uri) == [0]
    arrays = {"image": np.full((16, 50, 36), 1.1, "f4"), "mask": np.full((16, 50, 36), 1, "i4")}
    cubes.write_product(uri, 1, arrays)
    assert check(broken).whole


def test_a_resumed_run_makes_a_detector_with_a_damaged_marker_again(broken):
    spoil(Path(broken.root, "cubes/u/me/bias/bias.finished/1.json"), "flip")
    assert products.damaged(f"{broken.root}/cubes/u/me/bias/bias.zarr", [0, 1]) == [1]


def test_strays_and_scratch_are_named_and_old_scratch_goes(broken):
    folder = Path(broken.root, "cubes/u/me/bias")
    (folder / "bias.finished" / "1 (copy).json").write_text("{}")
    (folder / "bias.finished" / "notes.txt").write_text("")
    assert products.finished(f"{folder}/bias.zarr") == [0, 1]
    for name, age in (("old", 2 * files.SCRATCH_S), ("young", 0.0)):
        scratch = folder / "bias.finished" / f".{name}.json.{'0' * 32}"
        (scratch / "value").mkdir(parents=True)
        os.utime(scratch, (now := folder.stat().st_mtime - age, now))
    account = check(broken, repair=True)
    assert account.whole
    assert [f.kind for f in account.left] == ["orphaned"] * 3
    assert all(name in account.text() for name in ("1 (copy).json", "notes.txt", ".young", "perhaps in use"))
    assert ["old" in f.uri for f in account.mended] == [True]


def test_old_scratch_beside_a_cube_that_is_there_is_swept(broken):
    scratch = Path(broken.root, "cubes/u/me/bias", f".bias.zarr.{'0' * 32}")
    scratch.mkdir()
    os.utime(scratch, (1.0, 1.0))
    cubes.create_product(f"{broken.root}/cubes/u/me/bias/bias.zarr", bias_template())
    assert not scratch.exists()


def test_what_older_versions_wrote_is_read_and_said_to_be_unverified(broken, monkeypatch):
    uri = f"{broken.root}/cubes/u/me/bias/bias.zarr"
    shutil.rmtree(uri)
    with monkeypatch.context() as older:
        for module in (shards, small):
            older.setattr(module, "CHECKSUM", GzipCodec())
        write_bias(uri, 2.0, detectors=(0, 1))
    for path in Path(uri).parent.rglob("*.json"):
        document = json.loads(path.read_text())
        for values in (document, document.get("attributes", {})):
            values.pop(files.SEAL, None)
        path.write_text(json.dumps(document))
    products.forget_opened()
    assert float(cubes.open_products([(uri, 0)])["image"].mean()) == 2.0
    account = check(broken)
    assert account.whole
    assert [(f.kind, f.uri) for f in account.left] == [("unverified", uri)]


ANCHORS = {"raw": "raw/TinyCam/20260812.butler", "product": "u/me/bias/bias.butler",
           "statistics": "u/me/verify/verifyBias.butler"}  # fmt: skip


@pytest.mark.parametrize("what", ANCHORS)
def test_a_lost_anchor_is_named_and_made_again(broken, what):
    """Pixels are whole and camcal reads them, but the Butler does not find them."""
    path = Path(broken.root, "cubes", ANCHORS[what])
    at = {"raw": ("raw", "TinyCam/raw/all", {"exposure": EXPOSURE, "detector": 1}),
          "product": ("bias", "u/me/bias", {"detector": 1}),
          "statistics": ("verifyBias", "u/me/verify", {})}  # fmt: skip
    dataset_type, run, data_id = at[what]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        broken.butler.get(dataset_type, instrument=CAMERA, collections=run, **data_id)
    account = check(broken, quick=True)
    assert [(f.kind, f.uri) for f in account.left] == [("lost", str(path))]
    assert not account.whole
    account = check(broken, repair=True)
    assert (account.whole, [f.uri for f in account.mended], account.left) == (True, [str(path)], [])
    assert broken.butler.get(dataset_type, instrument=CAMERA, collections=run, **data_id) is not None


def test_orphaned_anchors_go_unless_a_run_may_be_about_to_register(broken):
    folder = Path(broken.root, "cubes/u/me/bias")
    alone, used = folder / "dark.butler", folder / "flat.butler"
    for path in (alone, used):
        path.touch()
    write_bias(f"{folder}/flat.zarr", 1.0, detectors=(0,))
    account = check(broken)
    assert account.whole
    orphans = {f.uri for f in account.left}
    assert orphans == {str(alone), str(used), f"{folder}/flat.zarr"}
    account = check(broken, repair=True)
    assert [f.uri for f in account.mended] == [str(alone)]
    assert not alone.exists()
    assert used.exists()


def test_the_command_says_what_is_wrong_and_fails(broken):
    path = Path(broken.root, SHARDS["raw"])
    path.unlink()
    result = CliRunner().invoke(main, ["check", broken.root])
    assert result.exit_code == 1
    assert f"lost: {path}: pixels of exposure {EXPOSURE}, detector 1; ingest " in result.output
    assert result.output.endswith("2 raws and 3 products: 1 lost or damaged\n")
    result = CliRunner().invoke(main, ["check", broken.root, "--repair"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"mended: lost: {path}")
    assert CliRunner().invoke(main, ["check", broken.root, "--quick"]).output == (
        "2 raws and 3 products: nothing is lost or damaged\n"
    )

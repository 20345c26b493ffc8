"""Ingest: what ends up in cube and registry, however often, from however many sides, and wherever it is killed."""

import gzip
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.errors import DataError, RepoError
from camcal_dask.repo.butler import foreign
from camcal_dask.repo.butler.repository import create_repo, open_repo
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.incoming import ingest_file
from camcal_dask.repo.incoming.ingest import find_files, ingest
from camcal_dask.repo.storage.claims import Claim
from tests.raw_files import hdu_list, pixels, primary, write_raw_file

EXPOSURE = 2026081200001


@pytest.fixture
def repo(tmp_path):
    with create_repo(str(tmp_path / "repo"), "TinyCam") as opened:
        yield opened


def raw_file(folder, detector=0, seq_num=1, seed=None, name=None, **changes):
    values = pixels(detector, 10 * seq_num + detector if seed is None else seed)
    path = folder / (name or f"TC_O_20260812_{seq_num:06d}_{detector}.fits")
    return write_raw_file(path, values, detector=detector, cards=primary(detector, seq_num, **changes))


def counts(summary):
    return summary.ingested, summary.skipped, summary.replaced, len(summary.failed)


def cube_pixels(repo, exposure=EXPOSURE, detector=0):
    uri = cubes.raw_cube_uri(repo.root, "TinyCam", exposure)
    return cubes.read_raw(uri, cubes.raw_slot(exposure), detector, slice(None), slice(None), slice(None))


def manifest(repo, exposure=EXPOSURE, detector=0):
    uri = cubes.raw_cube_uri(repo.root, "TinyCam", exposure)
    return cubes.read_raw_manifest(uri, cubes.raw_slot(exposure), detector)


def registered(repo, *exposures):
    return repo.registered_raws("TinyCam", exposures or [EXPOSURE])


# ---------------------------------------------------------------------------- what is found


def test_folders_patterns_and_names_are_found_once_without_guider_files(tmp_path):
    names = [
        "a.fits",
        "b.fits.fz",
        "sub/c.fits.gz",
        "sub/d_guider.fits",
        "e_guider.fits.fz",
        "truth.npz",
        "f.fits.part",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_files([tmp_path, f"{tmp_path}/*.fits", f"{tmp_path}/**/c*", tmp_path / "a.fits"])
    assert [os.path.relpath(f, tmp_path) for f in found] == ["a.fits", "b.fits.fz", "sub/c.fits.gz"]
    assert find_files([tmp_path / "none.fits"]) == [str(tmp_path / "none.fits")]


def test_links_capitals_and_the_home_directory(tmp_path, monkeypatch):
    """Sites link the nights of several disks into one folder; a link back ends nowhere."""
    disk, site = tmp_path / "disk", tmp_path / "home/site"
    for folder in (disk / "night1", site):
        folder.mkdir(parents=True)
    for path in (disk / "night1/a.FITS", disk / "b.Fits.FZ", disk / "c_GUIDER.FITS", site / "d.fits.GZ"):
        path.touch()
    (site / "linked").symlink_to(disk)
    (disk / "night1/back").symlink_to(site)
    (site / "e.fits").symlink_to(disk / "b.Fits.FZ")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = ["d.fits.GZ", "e.fits", "linked/b.Fits.FZ", "linked/night1/a.FITS"]
    for given in ("~/site", site, f"{tmp_path}/home/si*"):
        assert [os.path.relpath(f, site) for f in find_files([given])] == expected
    assert find_files(["~/site/d.fits.GZ"]) == [str(site / "d.fits.GZ")]


def test_a_folder_that_may_not_be_read_fails_as_a_file_does(repo, tmp_path, monkeypatch):
    """root may read everything, so the refusal is put in."""
    good, locked = raw_file(tmp_path / "raws"), tmp_path / "raws/locked"
    locked.mkdir()
    scandir, read_bytes = os.scandir, Path.read_bytes

    def refuse(function, path):
        if path in (locked, str(locked)):
            raise PermissionError(13, "Permission denied", str(path))
        return function(path)

    monkeypatch.setattr(os, "scandir", lambda path=".": refuse(scandir, path))
    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(read_bytes, path))
    summary = ingest(repo, [tmp_path / "raws"])
    assert counts(summary) == (1, 0, 0, 1)
    assert summary.failed == {str(locked): f"{locked}: cannot be read: Permission denied"}
    assert registered(repo) == {(EXPOSURE, 0)}
    assert str(good) not in summary.text()


def test_nothing_found_is_said_with_every_name(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty, .*x\*\.fits: no raw files there"):
        find_files([tmp_path / "empty", f"{tmp_path}/x*.fits"])


# ---------------------------------------------------------------------------- the plain way


def test_pixels_manifest_and_references_are_there(repo, tmp_path):
    raws = tmp_path / "raws"
    for detector in (0, 2):
        for seq_num in (1, 2):
            raw_file(raws, detector, seq_num)
    seen = []
    summary = ingest(repo, [raws], progress=seen.append)
    assert counts(summary) == (4, 0, 0, 0)
    assert summary.raw_bytes == 4 * 16 * 64 * 56 * 4
    assert sorted(result.path for result in seen) == find_files([raws])
    for detector in (0, 2):
        for seq_num in (1, 2):
            exposure = EXPOSURE + seq_num - 1
            np.testing.assert_array_equal(
                cube_pixels(repo, exposure, detector), pixels(detector, 10 * seq_num + detector)
            )
    assert registered(repo, EXPOSURE, EXPOSURE + 1) == {(EXPOSURE + i, d) for i in (0, 1) for d in (0, 2)}
    assert manifest(repo)["header"]["CCDTEMP"] == -100.5
    assert manifest(repo)["header"]["RA"] is None
    assert not list(Path(repo.root).glob("**/*.claims/*"))


@pytest.mark.parametrize("name", ["a.fits", "a.fits.fz", "a.fits.gz"])
def test_every_kind_of_file(repo, tmp_path, name):
    path = raw_file(tmp_path, seed=4, name="plain.fits")
    data = path.read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert counts(ingest(repo, [tmp_path / name])) == (1, 0, 0, 0)
    np.testing.assert_array_equal(cube_pixels(repo), pixels(0, 4))


def test_a_second_time_nothing_is_decoded(repo, tmp_path, monkeypatch):
    raw_file(tmp_path / "raws")
    ingest(repo, [tmp_path / "raws"])
    monkeypatch.setattr(ingest_file, "unpack", pytest.fail)
    assert counts(ingest(repo, [tmp_path / "raws"])) == (0, 1, 0, 0)


def test_the_same_content_under_another_name_is_skipped(repo, tmp_path):
    path = raw_file(tmp_path)
    (tmp_path / "copy.fits").write_bytes(path.read_bytes())
    assert counts(ingest(repo, [path, tmp_path / "copy.fits"])) == (1, 1, 0, 0)


def test_smaller_readouts_leave_fill(repo, tmp_path):
    path = write_raw_file(tmp_path / "a.fits", pixels(shape=(16, 64, 50)), cards=primary())
    ingest(repo, [path])
    np.testing.assert_array_equal(cube_pixels(repo)[:, :, :50], pixels(shape=(16, 64, 50)))
    assert (cube_pixels(repo)[:, :, 50:] == cubes.FILL).all()
    assert manifest(repo)["shape"] == [16, 64, 50]


# ---------------------------------------------------------------------------- other content


def test_other_content_is_refused_and_the_old_stays(repo, tmp_path):
    first, second = raw_file(tmp_path, seed=1, name="a.fits"), raw_file(tmp_path, seed=2, name="b.fits")
    ingest(repo, [first])
    summary = ingest(repo, [second])
    assert counts(summary) == (0, 0, 0, 1)
    reason = summary.failed[str(second)]
    assert f"exposure {EXPOSURE}, detector 0" in reason
    assert str(first) in reason
    assert "--replace" in reason
    np.testing.assert_array_equal(cube_pixels(repo), pixels(0, 1))


def test_replace_puts_the_new_content_in_place(repo, tmp_path):
    first, second = raw_file(tmp_path, seed=1, name="a.fits"), raw_file(tmp_path, seed=2, name="b.fits")
    ingest(repo, [first])
    assert counts(ingest(repo, [second], replace=True)) == (0, 0, 1, 0)
    np.testing.assert_array_equal(cube_pixels(repo), pixels(0, 2))
    assert manifest(repo)["file"] == str(second)
    assert registered(repo) == {(EXPOSURE, 0)}
    assert counts(ingest(repo, [second])) == (0, 1, 0, 0)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("before", [False, True], ids=["new", "one of them is there"])
def test_two_contents_of_one_identity_in_one_call(repo, tmp_path, replace, before):
    paths = [raw_file(tmp_path, seed=1, name="a.fits"), raw_file(tmp_path, seed=2, name="b.fits")]
    if before:
        ingest(repo, paths[:1])
    summary = ingest(repo, paths, replace=replace)
    assert len(summary.failed) == 1
    (refused,) = summary.failed
    kept = next(path for path in paths if str(path) != refused)
    assert "both files are part of this ingest" in summary.failed[refused] or before
    np.testing.assert_array_equal(cube_pixels(repo), pixels(0, 1 + paths.index(kept)))
    assert manifest(repo)["file"] == str(kept)


def test_a_file_that_is_there_does_not_undo_the_replacement_beside_it(repo, tmp_path, monkeypatch):
    """The other file of the call replaces the pixels between this one's look at the manifest and its mark in it."""
    first, second = raw_file(tmp_path, seed=1, name="a.fits"), raw_file(tmp_path, seed=2, name="b.fits")
    ingest(repo, [first])
    read, results = cubes.read_raw_manifest, []

    def interrupted(*place):
        found = read(*place)
        monkeypatch.setattr(cubes, "read_raw_manifest", read)
        results.append(ingest_file.ingest_file(repo.root, repo.instruments, str(second), True, "call"))
        return found

    monkeypatch.setattr(cubes, "read_raw_manifest", interrupted)
    results.append(ingest_file.ingest_file(repo.root, repo.instruments, str(first), True, "call"))
    assert [r.status for r in results] == ["replaced", "failed"]
    assert "both files are part of this ingest" in results[1].reason
    np.testing.assert_array_equal(cube_pixels(repo), pixels(0, 2))
    assert manifest(repo)["file"] == str(second)


# ---------------------------------------------------------------------------- bad files


def test_bad_files_are_named_and_leave_no_reference(repo, tmp_path):
    good = raw_file(tmp_path, 0, 1)
    data = good.read_bytes()
    bad = {
        "cut.fits": data[: len(data) // 2],
        "text.fits": b"not pixels",
        "camera.fits": raw_file(tmp_path, 0, 2, name="x", INSTRUME="lsstCam").read_bytes(),
        "sensor.fits": raw_file(tmp_path, 0, 3, name="y", CCD_MANU="ITL").read_bytes(),
    }
    for name, content in bad.items():
        (tmp_path / "bad" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bad" / name).write_bytes(content)
    summary = ingest(repo, [tmp_path / "bad", tmp_path / "none.fits", good])
    assert summary.ingested == 1
    assert {Path(path).name for path in summary.failed} == {*bad, "none.fits"}
    assert all(path in reason and path in summary.text() for path, reason in summary.failed.items())
    assert "is a file of LSSTCam, the repository is for TinyCam" in summary.failed[str(tmp_path / "bad/camera.fits")]
    assert registered(repo, EXPOSURE, EXPOSURE + 1, EXPOSURE + 2) == {(EXPOSURE, 0)}


ODD_NAMES = ("b].fits", "[b] :b: [red].fits", "two\nlines.fits", "\x1b[2Jclear.fits", "\u202estif.fits")


def test_failures_and_remarks_are_one_line_each_and_say_names_as_they_are(repo, tmp_path, monkeypatch):
    folder = tmp_path / "["  # so that a path holds "[/b]"
    folder.mkdir()
    for name in ODD_NAMES:
        (folder / name).write_bytes(b"not pixels")
    raw_file(folder, name="[i]good.fits", FILTER="q_99", OBJECT="o" * 99)
    monkeypatch.setenv("COLUMNS", "40")
    found = CliRunner().invoke(main, ["ingest", repo.root, str(folder), "--cluster", "threads"])
    assert found.exit_code == 1
    lines = found.output.splitlines()
    failed = [line for line in lines if line.startswith("failed: ")]
    spelled = [re.sub("[\n\x1b\u202e]", lambda c: ascii(c[0])[1:-1], name) for name in sorted(ODD_NAMES)]
    assert [line.removeprefix(f"failed: {folder}/").partition(": is not")[0] for line in failed] == spelled
    (remark,) = [line for line in lines if line.startswith("remark: ")]
    assert remark.startswith(f"remark: {folder}/[i]good.fits: card OBJECT is")
    assert "filter 'q_99'" in remark


def test_an_empty_path_is_not_the_current_folder(repo, tmp_path, monkeypatch):
    raw_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="one of the paths is empty"):
        ingest(repo, [""])


def test_addresses_are_named_without_their_secrets(repo, tmp_path, monkeypatch):
    content, address = raw_file(tmp_path).read_bytes(), "https://me:hunter2@host/a.fits?X-Amz-Signature=hunter2&x=1"
    monkeypatch.setattr(foreign, "fetch", lambda path: b"not pixels")
    found = CliRunner().invoke(main, ["ingest", repo.root, address, "--cluster", "threads"])
    assert "failed: https://***@host/a.fits?X-Amz-Signature=***&x=1: is not a FITS file" in found.output
    assert "hunter2" not in found.output
    monkeypatch.setattr(foreign, "fetch", lambda path: content)
    assert ingest(repo, [address]).ingested == 1
    assert ingest(repo, [address]).skipped == 1
    texts = [path.read_bytes() for path in Path(repo.root).rglob("*") if path.is_file()]
    assert not any(b"hunter2" in text for text in texts)


def test_stale_checksums_are_accepted_only_when_asked(repo, tmp_path):
    path = tmp_path / "a.fits"
    hdu_list(pixels(), how="plain", cards=primary()).writeto(path, checksum=True)
    with fits.open(path) as hdus:
        place = hdus[3].fileinfo()["datLoc"]
    data = bytearray(path.read_bytes())
    data[place + 503] ^= 1  # the last byte of a pixel
    path.write_bytes(data)
    command = ["ingest", repo.root, str(path), "--cluster", "threads"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert f"failed: {path}: detector 0 (R22_S00), amp C12 (HDU 3): its data sum to" in refused.output
    assert registered(repo) == set()
    accepted = CliRunner().invoke(main, [*command, "--accept-checksum"])
    assert accepted.exit_code == 0, accepted.output
    assert f"remark: {path}: DATASUM does not match, accepted: C12" in accepted.output
    assert manifest(repo)["remarks"] == ["DATASUM does not match, accepted: C12"]
    assert registered(repo) == {(EXPOSURE, 0)}


def test_unexpected_faults_belong_to_their_file(repo, tmp_path, monkeypatch):
    monkeypatch.setattr(ingest_file, "_ingest_file", lambda *_: 1 // 0)
    summary = ingest(repo, [raw_file(tmp_path)])
    assert "ZeroDivisionError" in next(iter(summary.failed.values()))


def test_contradicting_headers_of_one_exposure_are_a_remark(repo, tmp_path):
    ingest(repo, [raw_file(tmp_path, 0)])
    other = raw_file(tmp_path, 1, IMGTYPE="DARK")
    summary = ingest(repo, [other])
    assert counts(summary) == (1, 0, 0, 0)
    assert "observation_type is 'dark', but exposure 2026081200001 is registered with 'bias'" in summary.text()


def test_repository_opened_for_reading_is_refused(repo, tmp_path):
    with open_repo(repo.root) as reader, pytest.raises(RepoError, match="opened for reading"):
        ingest(reader, [raw_file(tmp_path)])


def test_exposure_refused_by_the_registry_does_not_take_others_with_it(repo, tmp_path, monkeypatch):
    register = type(repo).register_exposures

    def refuse(self, records):
        records = list(records)
        if any(record.seq_num == 2 for record in records):
            raise RepoError("obs_id is taken")
        register(self, records)

    monkeypatch.setattr(type(repo), "register_exposures", refuse)
    paths = [raw_file(tmp_path, 0, seq_num) for seq_num in (1, 2, 3)]
    summary = ingest(repo, paths)
    assert counts(summary) == (2, 0, 0, 1)
    assert summary.failed == {str(paths[1]): f"{paths[1]}: obs_id is taken"}
    assert registered(repo, EXPOSURE, EXPOSURE + 1, EXPOSURE + 2) == {(EXPOSURE, 0), (EXPOSURE + 2, 0)}


# ---------------------------------------------------------------------------- crashes and company


class Killed(BaseException):
    """Stands for kill -9 at a chosen place."""


def die(*_, **__):
    raise Killed


STEPS = {
    "claim": (Claim, "take"),
    "pixels": (cubes, "write_raw"),
    "manifest": (cubes, "write_raw_manifest"),
    "release": (Claim, "release"),
}


@pytest.mark.parametrize("replace", [False, True], ids=["first", "replace"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_before_any_step_the_same_call_repairs(repo, tmp_path, monkeypatch, step, replace):
    old, new = raw_file(tmp_path, seed=1, name="a.fits"), raw_file(tmp_path, seed=2, name="b.fits")
    if replace:
        ingest(repo, [old])
    with monkeypatch.context() as context:
        context.setattr(*STEPS[step], die)
        with pytest.raises(Killed):
            ingest_file.ingest_file(repo.root, ("TinyCam",), str(new), replace, "killed")
    assert registered(repo) == ({(EXPOSURE, 0)} if replace else set())
    assert counts(ingest(repo, [new], replace=replace)) in {(1, 0, 0, 0), (0, 0, 1, 0)}
    np.testing.assert_array_equal(cube_pixels(repo), pixels(0, 2))
    assert manifest(repo)["file"] == str(new)
    assert registered(repo) == {(EXPOSURE, 0)}
    assert not list(Path(repo.root).glob("**/*.claims/*"))
    assert counts(ingest(repo, [new])) == (0, 1, 0, 0)


@pytest.mark.parametrize("step", ["pixels", "manifest", "release"])
def test_after_an_interrupted_replace_the_old_file_does_not_pass_for_whole(repo, tmp_path, monkeypatch, step):
    old, new = raw_file(tmp_path, seed=1, name="a.fits"), raw_file(tmp_path, seed=2, name="b.fits")
    ingest(repo, [old])
    with monkeypatch.context() as context:
        context.setattr(*STEPS[step], die)
        with pytest.raises(Killed):
            ingest_file.ingest_file(repo.root, ("TinyCam",), str(new), True, "killed")
    assert counts(ingest(repo, [old])) == (0, 0, 0, 1)
    assert ingest(repo, [old], replace=True).failed == {}
    np.testing.assert_array_equal(cube_pixels(repo), pixels(0, 1))


def test_a_skipped_file_whose_reference_is_missing_is_registered(repo, tmp_path):
    path = raw_file(tmp_path)
    assert ingest_file.ingest_file(repo.root, ("TinyCam",), str(path), False, "killed later").status == "ingested"
    assert registered(repo) == set()
    assert counts(ingest(repo, [path])) == (0, 1, 0, 0)
    assert registered(repo) == {(EXPOSURE, 0)}


COMMAND = """
import sys
from camcal_dask.repo.incoming.ingest import ingest
from camcal_dask.repo.butler.repository import open_repo
with open_repo(sys.argv[1], writeable=True) as repo:
    print("ready", flush=True)
    sys.stdin.readline()
    summary = ingest(repo, sys.argv[2:], progress=lambda result: print(result.status, flush=True))
    sys.exit(len(summary.failed))
"""


def start(repo, *paths):
    command = [sys.executable, "-c", COMMAND, repo.root, *map(str, paths)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def check_all(repo, raws, n_exposures):
    for seq_num in range(1, n_exposures + 1):
        for detector in range(4):
            exposure = EXPOSURE + seq_num - 1
            np.testing.assert_array_equal(
                cube_pixels(repo, exposure, detector), pixels(detector, 10 * seq_num + detector)
            )
    everything = {(EXPOSURE + i, d) for i in range(n_exposures) for d in range(4)}
    assert registered(repo, *(EXPOSURE + i for i in range(n_exposures))) == everything
    assert counts(ingest(repo, [raws])) == (0, 4 * n_exposures, 0, 0)
    assert not list(Path(repo.root).glob("**/*.claims/*"))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raws")
    for seq_num in range(1, 7):
        for detector in range(4):
            raw_file(folder, detector, seq_num)
    return folder


@pytest.mark.slow
def test_two_processes_at_once(repo, many):
    processes = [start(repo, many), start(repo, many)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=120) and process.returncode for process in processes] == [0, 0]
    check_all(repo, many, 6)


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again(repo, many):
    process = start(repo, many)
    process.stdin.write("\n")
    process.stdin.flush()
    for _ in range(10):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert len(registered(repo, *(EXPOSURE + i for i in range(6)))) < 24
    summary = ingest(repo, [many])
    assert summary.failed == {}
    assert summary.skipped >= 8
    check_all(repo, many, 6)


@pytest.mark.cluster
def test_on_a_cluster_of_processes(repo, many):
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        summary = ingest(repo, [many], client=client)
        assert counts(summary) == (24, 0, 0, 0)
        check_all(repo, many, 6)

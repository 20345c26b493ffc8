"""Raws of another Butler repository, as the LSST stack leaves it: classes of the stack are named, not installed."""

import sqlite3

import numpy as np
import pytest
from click.testing import CliRunner
from lsst.daf.butler import Butler, CollectionType, DatasetRef, DatasetType, FileDataset

from camcal_dask.cli import main
from camcal_dask.errors import DataError, RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.raw_fits.fits import Container
from camcal_dask.repo.butler import foreign, records
from camcal_dask.repo.butler.repository import _span, create_repo, open_repo
from camcal_dask.repo.incoming.ingest import ingest
from tests.raw_files import pixels, primary, write_raw_file

CAMERA = "TinyCam"


def raw_file(folder, number, detector):
    values = pixels(detector, 10 * number + detector)
    path = folder / f"{number}-{detector}.fits"
    return write_raw_file(path, values, detector=detector, cards=primary(detector, number))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Repository with three exposures of two detectors, FITS files ingested direct; (root, paths)."""
    folder = tmp_path_factory.mktemp("other")
    root, camera = str(folder / "repo"), get_instrument(CAMERA)
    butler = Butler.from_config(Butler.makeRepo(root), writeable=True)
    kind = DatasetType("raw", ("instrument", "exposure", "detector"), "StructuredDataDict", universe=butler.dimensions)
    registry = butler.registry
    registry.registerDatasetType(kind)
    butler.collections.register(f"{CAMERA}/raw/all", CollectionType.RUN)
    registry.insertDimensionData("instrument", records.instrument_row(camera))
    registry.insertDimensionData("detector", *records.detector_rows(camera))
    registry.insertDimensionData("physical_filter", *records.filter_rows(camera))
    paths = {}
    for number in (1, 2, 3):
        for detector in (0, 2):
            paths[number, detector] = raw_file(folder, number, detector)
        record = Container(paths[number, 0]).identity.record
        registry.insertDimensionData("physical_filter", *records.filter_rows(camera, {record.physical_filter}),
                                     skip_existing=True)  # fmt: skip
        registry.insertDimensionData("group", *records.group_rows([record]))
        registry.insertDimensionData("day_obs", *records.day_rows([record], _span), skip_existing=True)
        registry.insertDimensionData("exposure", records.exposure_row(record, _span))
        datasets = [
            FileDataset(str(paths[number, d]),
                        DatasetRef(kind, butler.registry.expandDataId(instrument=CAMERA, exposure=record.exposure,
                                                                      detector=d), run=f"{CAMERA}/raw/all"))
            for d in (0, 2)
        ]  # fmt: skip
        butler.ingest(*datasets, transfer="direct")
    butler.close()
    with sqlite3.connect(f"{root}/gen3.sqlite3") as database:  # what obs_lsst writes
        database.execute("UPDATE dataset_type SET storage_class = 'Exposure'")
        database.execute(
            "UPDATE file_datastore_records SET storage_class = 'Exposure', "
            "formatter = 'lsst.obs.lsst.rawFormatter.LsstCamRawFormatter'"
        )
    return root, paths


def test_raws_are_found_without_the_classes_that_read_them(other):
    root, paths = other
    assert foreign.raws_of(root) == [str(paths[n, d]) for n in (1, 2, 3) for d in (0, 2)]
    assert foreign.raws_of(root, "exposure.seq_num > 1 AND detector = 2") == [str(paths[n, 2]) for n in (2, 3)]


def test_the_command_takes_what_the_other_repository_knows(other, tmp_path):
    root, _ = other
    ours = str(tmp_path / "ours")
    create_repo(ours, CAMERA).close()
    where = ["--where", "exposure.seq_num IN (1, 3)", "--cluster", "threads"]
    result = CliRunner().invoke(main, ["ingest", ours, "--from-butler", root, *where], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "4 ingested" in result.output
    with open_repo(ours) as repo:
        raw = repo.raws(detectors=[0, 2])
        assert raw["seq_num"].values.tolist() == [1, 3]
        np.testing.assert_array_equal(raw.sel(detector=2).isel(exposure=1).values, pixels(2, 32))
    again = CliRunner().invoke(main, ["ingest", ours, "--from-butler", root, *where])
    assert "4 skipped" in again.output
    neither = CliRunner().invoke(main, ["ingest", ours])
    assert neither.exit_code == 2
    assert "--from-butler" in neither.output + neither.stderr


def test_files_on_an_object_store_are_fetched_by_the_workers(other, s3_bucket, tmp_path):
    import boto3

    _, paths = other
    key = paths[1, 0].name
    boto3.client("s3").upload_file(str(paths[1, 0]), s3_bucket.removeprefix("s3://"), key)
    with create_repo(str(tmp_path / "ours"), CAMERA) as repo:
        summary = ingest(repo, [f"{s3_bucket}/{key}", f"{s3_bucket}/nothing.fits"])
        assert summary.ingested == 1
        assert list(summary.failed) == [f"{s3_bucket}/nothing.fits"]
        assert "cannot be fetched" in summary.failed[f"{s3_bucket}/nothing.fits"]
        np.testing.assert_array_equal(repo.raws(detectors=[0]).values[0, 0], pixels(0, 10))


def test_what_cannot_be_taken_is_explained(other, tmp_path):
    root, _ = other
    with pytest.raises(RepoError, match="no raws in TinyCam/raw/all where 'exposure.seq_num = 9'"):
        foreign.raws_of(root, "exposure.seq_num = 9")
    with pytest.raises(RepoError, match="raws where 'exposure.sqnum = 9'"):
        foreign.raws_of(root, "exposure.sqnum = 9")
    with pytest.raises(RepoError, match="no/such"):
        foreign.raws_of(root, collections=["no/such"])
    with pytest.raises(RepoError, match="cannot be opened as a Butler repository"):
        foreign.raws_of(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="cannot be fetched"):
        foreign.fetch("file:///no/such/file.fits")

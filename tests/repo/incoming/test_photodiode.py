"""Photodiode readings in a repository: found with the raws, stored once, integrated on demand."""

import numpy as np
import pytest

from camcal_dask.errors import ConfigError
from camcal_dask.repo.butler.repository import create_repo
from camcal_dask.repo.incoming.ingest import ingest
from camcal_dask.repo.incoming.photodiode import reading_uri
from camcal_dask.simulation import SimulationConfig, flat_set, load_truth, simulate

DAY = 20260812
FIRST = DAY * 100_000 + 1


@pytest.fixture(scope="module")
def raws(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photodiode")
    simulate(folder, "TinyCam", flat_set(3, 4.0, DAY), [0], SimulationConfig.ideal(photodiode={"enabled": True}))
    return folder


@pytest.fixture
def repo(tmp_path):
    with create_repo(str(tmp_path / "repo"), "TinyCam") as opened:
        yield opened


def test_readings_are_ingested_beside_the_raws_and_give_the_true_charge(repo, raws):
    summary = ingest(repo, [raws])
    assert (summary.ingested, dict(summary.readings), summary.failed) == (3, {"ingested": 3}, {})
    assert "3 photodiode readings: 3 ingested" in summary.text()
    found = repo.photodiode([FIRST, FIRST + 1, FIRST + 2])
    true = [load_truth(raws).photodiode()[DAY * 100_000 + n] for n in (1, 2, 3)]
    np.testing.assert_allclose(found, true, rtol=1e-3)
    assert found.attrs["units"] == "C"
    np.testing.assert_allclose(repo.photodiode([FIRST], "direct_sum"), true[:1], rtol=1e-3)
    mean = repo.photodiode([FIRST], "mean")
    np.testing.assert_array_equal(repo.photodiode([FIRST], "mean", scale=-1.0), -mean)
    run = "TinyCam/calib/photodiode"
    reading = repo.butler.get("photodiode", instrument="TinyCam", exposure=FIRST, collections=run)
    assert len(reading["time"]) == len(reading["current"]) > 100
    uris = {ref.uri for ref in repo.datasets("photodiode", run)}
    assert uris == {reading_uri(repo.root, "TinyCam", FIRST + n) for n in range(3)}


def test_a_second_time_nothing_changes_and_other_content_is_refused(repo, raws, tmp_path):
    ingest(repo, [raws])
    again = ingest(repo, [raws])
    assert (again.skipped, dict(again.readings)) == (3, {"skipped": 3})
    other = tmp_path / f"Photodiode_Readings_{DAY}_000002.txt"
    other.write_text("0 0\n1 1E-9\n2 0\n")
    refused = ingest(repo, [other])
    assert dict(refused.readings) == {"failed": 1}
    assert "replace it with --replace" in refused.failed[str(other)]
    assert dict(ingest(repo, [other], replace=True).readings) == {"replaced": 1}
    assert float(repo.photodiode([FIRST + 1], "direct_sum").item()) == 1e-9


def test_an_exposure_without_a_reading_has_no_charge(repo, raws):
    ingest(repo, sorted(raws.glob("*/*.fits")))
    assert np.isnan(repo.photodiode([FIRST, FIRST + 1])).all()
    ingest(repo, [f"{raws}/*/*_000001.txt"])
    assert np.isfinite(repo.photodiode([FIRST, FIRST + 1])).values.tolist() == [True, False]


def test_a_reading_without_an_exposure_is_a_failure_by_name(repo, raws):
    summary = ingest(repo, [f"{raws}/*/*.txt"])
    assert len(summary.failed) == 3
    assert "0 registered exposures have day_obs 20260812, seq_num 1" in next(iter(summary.failed.values()))


def test_unknown_methods_are_refused(repo, raws):
    ingest(repo, [raws])
    with pytest.raises(ConfigError, match="did you mean 'trimmed_sum'"):
        repo.photodiode([FIRST], "trimmed")

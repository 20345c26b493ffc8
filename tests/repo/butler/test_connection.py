"""Addresses of registries, and what to do when one does not answer."""

import pytest

from camcal_dask.errors import RepoError
from camcal_dask.repo.butler.connection import registry_url, remedy
from camcal_dask.repo.butler.repository import create_repo
from tests.repo.conftest import CAMERA


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

"""A repository with verified biases of the tiny camera."""

import pytest

from camcal_dask.repo.butler.repository import create_repo
from tests.verified_runs import add_verification, make_bias, make_verdict


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A repository with two biases, u/bias that failed its verification and u/good that passed."""
    folder = tmp_path_factory.mktemp("report") / "repo"
    with create_repo(str(folder), "TinyCam") as repo:
        add_verification(repo, "u/bias.verify", make_verdict(), make_bias(repo, "u/bias"))
        clean = make_verdict(bad_first=False, dead=False)
        add_verification(repo, "u/good.verify", clean, make_bias(repo, "u/good", 9.0))
    return folder

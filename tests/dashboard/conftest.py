"""A repository for the dashboard."""

import pytest

from camcal_dask.repo.butler.repository import create_repo, open_repo
from tests.verified_runs import add_verification, make_bias, make_verdict


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """Two verified biases; the second is in a CHAINED collection and certified."""
    folder = tmp_path_factory.mktemp("dashboard") / "repo"
    with create_repo(str(folder), "TinyCam") as repo:
        add_verification(repo, "u/bias.verify", make_verdict(), make_bias(repo, "u/bias"))
        clean = make_verdict(bad_first=False, dead=False)
        add_verification(repo, "u/good.verify", clean, make_bias(repo, "u/good", 9.0))
        repo.chain("u/chain", ["u/good.verify", "u/good"])
        repo.certify("u/good", "bias", "calib", begin=20260812)
    return folder


@pytest.fixture(scope="session")
def repo(root):
    with open_repo(str(root)) as opened:
        yield opened

"""The stock ``butler`` command works on the repository."""

import pytest
from click.testing import CliRunner
from lsst.daf.butler.cli.butler import cli

from camcal_dask.repo.butler.repository import open_repo
from tests.repo.conftest import EXPOSURES, make_bias


def butler(*arguments):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def root(tiny_repo):
    make_bias(tiny_repo.repo, "u/me/b1", 1.0)
    make_bias(tiny_repo.repo, "u/me/b2", 2.0)
    return tiny_repo.root


def test_query_dimension_records(root):
    output = butler(
        "query-dimension-records", root, "exposure", "--where", "instrument='TinyCam' AND exposure.seq_num=4"
    )
    assert "TC_O_20260812_000004" in output
    assert "TC_O_20260812_000003" not in output
    assert "R22_S11" in butler("query-dimension-records", root, "detector")


def test_query_datasets(root):
    output = butler(
        "query-datasets", root, "raw", "--collections", "TinyCam/raw/all",
        "--where", f"instrument='TinyCam' AND exposure={EXPOSURES[1]}",
    )  # fmt: skip
    assert output.count("TinyCam/raw/all") == 3
    assert butler("query-datasets", root, "bias", "--collections", "u/me/*").count("u/me/b2") == 4


def test_certify_calibrations(root):
    butler("certify-calibrations", root, "u/me/b1", "TinyCam/calib/a", "bias", "--end-date", "2026-08-13T12:00:00")
    butler("certify-calibrations", root, "u/me/b2", "TinyCam/calib/a", "bias", "--begin-date", "2026-08-13T12:00:00")
    repo = open_repo(root)
    runs = [repo.find_calib("bias", e, 0, "TinyCam/calib/a").run for e in (EXPOSURES[0], EXPOSURES[4])]
    assert runs == ["u/me/b1", "u/me/b2"]
    assert "CALIBRATION" in butler("query-collections", root, "TinyCam/calib/*")
    overlap = CliRunner().invoke(cli, ["certify-calibrations", root, "u/me/b2", "TinyCam/calib/a", "bias"])
    assert overlap.exit_code == 1


def test_collection_chain_in_all_modes(root):
    steps = [
        (("u/chain", "u/me/b1"), "[u/me/b1]"),
        (("u/chain", "u/me/b2", "--mode", "extend"), "[u/me/b1, u/me/b2]"),
        (("u/chain", "TinyCam/raw/all", "--mode", "prepend"), "[TinyCam/raw/all, u/me/b1, u/me/b2]"),
        (("u/chain", "u/me/b1", "--mode", "remove"), "[TinyCam/raw/all, u/me/b2]"),
        (("u/chain", "--mode", "pop"), "[u/me/b2]"),
        (("u/chain", "u/me/b2,u/me/b1", "--mode", "redefine"), "[u/me/b2, u/me/b1]"),
    ]
    for arguments, expected in steps:
        assert expected in butler("collection-chain", root, *arguments)
    assert open_repo(root).collections("u/chain")[0].children == ("u/me/b2", "u/me/b1")
    output = butler("query-collections", root, "--chains", "flatten", "u/chain")
    assert [line.split()[0] for line in output.splitlines()[2:4]] == ["u/me/b2", "u/me/b1"]

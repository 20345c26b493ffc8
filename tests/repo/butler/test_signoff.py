import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.errors import RepoError
from camcal_dask.repo.butler.repository import create_repo
from camcal_dask.repo.butler.signoff import approve, certifications, record_certification, sign_offs, verifications
from camcal_dask.repo.cubes import products
from tests.verified_runs import add_verification, make_bias, make_verdict


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """Biases: bad and good (verified so), fresh (as good, for certifying), untested."""
    with create_repo(str(tmp_path_factory.mktemp("signoff") / "repo"), "TinyCam") as made:
        add_verification(made, "u/bias.verify", make_verdict(), make_bias(made, "u/bias"))
        clean = make_verdict(bad_first=False, dead=False)
        for run in ("u/good", "u/fresh"):
            add_verification(made, f"{run}.verify", clean, make_bias(made, run, 9.0))
        make_bias(made, "u/untested")
        yield made


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_verifications_are_found_by_what_they_tested(repo):
    (found,) = verifications(repo, "u/bias")
    assert (found.run, found.passed, found.detectors) == ("u/bias.verify", False, (0, 1, 2, 3))
    (found,) = verifications(repo, "u/good")
    assert found.passed
    with pytest.raises(RepoError, match="no collection"):
        verifications(repo, "u/nothing")


def test_approval_is_refused_when_blocking_tests_failed(repo):
    assert "u/good approved by Ada; rests on u/good.verify (passed)" in camcal(
        "approve", repo.root, "u/good", "--by", "Ada", "--note", "looked at the mosaic"
    )
    assert "required tests failed in u/bias.verify" in camcal("approve", repo.root, "u/bias", "--by", "Ada", code=1)
    assert sign_offs(repo, "u/bias") == []
    act = approve(repo, "u/bias", "Ada", override="known dead amp")
    assert sign_offs(repo, "u/bias") == [act]
    assert act.verifications[0]["passed"] is False
    assert [a.note for a in sign_offs(repo, "u/good")] == ["looked at the mosaic"]


def test_approval_needs_a_name_and_a_verification(repo):
    with pytest.raises(RepoError, match="say who"):
        approve(repo, "u/good", " ")
    with pytest.raises(RepoError, match="holds no calibrations; name the RUN of the calibration"):
        approve(repo, "u/good.verify", "Ada")
    repo.chain("u/chain", ["u/good", "u/fresh"])
    with pytest.raises(RepoError, match="is a CHAINED collection; RUNs are approved, one at a time: u/good, u/fresh"):
        approve(repo, "u/chain", "Ada")
    with pytest.raises(RepoError, match="no verification tested it"):
        approve(repo, "u/untested", "Ada")
    assert approve(repo, "u/untested", "Ada", override="only bias there is").verifications == ()


def test_an_approval_rests_on_verifications_of_every_detector(repo):
    ids = make_bias(repo, "u/half", 9.0)
    verdict = make_verdict(bad_first=False, dead=False, detectors=(0, 2))
    add_verification(repo, "u/half.verify", verdict, {d: ids[d] for d in (0, 2)})
    with pytest.raises(RepoError, match=r"no verification tested bias of 2 of its detectors \(1, 3\)"):
        approve(repo, "u/half", "Ada")
    verdict = make_verdict(bad_first=False, dead=False, detectors=(1, 3))
    add_verification(repo, "u/half.verify2", verdict, {d: ids[d] for d in (1, 3)})
    act = approve(repo, "u/half", "Ada")
    assert sorted(d for v in act.verifications for d in v["detectors"]) == [0, 1, 2, 3]
    (limits, again) = (v["thresholds"] for v in act.verifications)
    assert limits == again == {c["id"]: c["threshold"] for c in json.loads(verdict.attrs["criteria"])}
    assert limits["bias.noise"] == 0.05


def test_only_what_is_approved_is_certified(repo):
    ids = make_bias(repo, "u/stale", 9.0)
    clean = make_verdict(bad_first=False, dead=False)
    add_verification(repo, "u/stale.verify", clean, ids)
    arguments = ("certify", repo.root, "u/stale", "u/calib", "bias")
    assert "u/stale: has not been approved: camcal approve" in camcal(*arguments, code=1)
    approve(repo, "u/stale", "Ada")
    add_verification(repo, "u/stale.verify2", make_verdict(), ids)
    assert "required tests failed in u/stale.verify2 after it was approved" in camcal(*arguments, code=1)
    approve(repo, "u/stale", "Ada", override="one dead amp")
    products.amend(f"{repo.root}/cubes/u/stale/bias.zarr", {"provenance_id": "made again with other settings"})
    assert "was made again, or got other detectors, after Ada had approved it" in camcal(*arguments, code=1)
    assert repo.collections("u/calib") == []
    assert "without approval: no time" in camcal(*arguments, "--override", "no time")
    (found,) = certifications(repo, "u/stale")
    assert found.sign_off.override == "no time"


def test_a_verification_of_what_was_replaced_since_does_not_count(repo):
    ids = make_bias(repo, "u/again", 9.0)
    clean = make_verdict(bad_first=False, dead=False)
    made = dict.fromkeys(map(str, ids), "p")
    add_verification(repo, "u/again.verify", clean.assign_attrs(candidate_provenance=made), ids)
    assert len(verifications(repo, "u/again")) == 1
    products.amend(f"{repo.root}/cubes/u/again/bias.zarr", {"provenance_id": "q"})
    assert verifications(repo, "u/again") == []


def test_certify_records_who_when_and_why(repo):
    camcal("approve", repo.root, "u/fresh", "--by", "Ada")
    said = camcal("certify", repo.root, "u/fresh", "calib", "bias", "--begin-date", "20260812", "--by", "Grace")
    assert "by Grace; rests on u/fresh.verify (passed)" in said
    (found,) = certifications(repo, "u/fresh")
    assert found.sign_off.by == "Grace"
    assert found.sign_off.begin == "20260812"
    assert found.sign_off.verifications[0]["criteria_hash"]
    assert len(found.uuids) == 4
    assert found.validity == "[2026-08-12T12:00:00 TAI, unbounded)"
    record_certification(repo, "u/fresh", "bias", "elsewhere", (None, None), [], "")
    assert len(certifications(repo, "u/fresh")) == 1


def test_the_stock_command_certifies_without_sign_off(repo):
    command = Path(sys.executable).with_name("butler")
    subprocess.run(
        [command, "certify-calibrations", repo.root, "u/untested", "stock", "bias"], check=True, capture_output=True
    )
    repo.butler.registry.refresh()
    (found,) = certifications(repo, "u/untested")
    assert (found.collection, found.sign_off) == ("stock", None)


def test_records_are_json_that_anybody_can_read(repo):
    approve(repo, "u/fresh", "Ada", "ticket DM-1", override=" ")
    paths = Path(repo.root, "cubes", "u", "fresh", "sign-off").glob("*-approval-*.json")
    assert sorted(json.loads(path.read_text())["note"] for path in paths)[-1] == "ticket DM-1"

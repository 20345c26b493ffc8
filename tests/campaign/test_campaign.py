"""What a run leaves behind and how it is continued, repeated, replaced: record, status, history, logs, rerun."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from camcal_dask.campaign.past import attempts
from camcal_dask.campaign.past.history import outcomes, snapshots
from camcal_dask.campaign.past.record import provenance_id
from camcal_dask.campaign.past.rerun import replan
from camcal_dask.campaign.running import exclusive, process
from camcal_dask.campaign.running.job import Job, Place
from camcal_dask.campaign.running.run import Limits, Options, execute
from camcal_dask.cli import main
from camcal_dask.errors import RepoError, RunError
from camcal_dask.repo.cubes import products
from camcal_dask.repo.storage import files

from .conftest import assert_same, bias_plan, make_bias


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


def test_every_attempt_is_kept_and_told(repo, threads):
    first = make_bias(repo, "u/two", threads, where="detector IN (0, 1)", asked={"pipeline": "bias.yaml"})
    again = make_bias(repo, "u/two", threads, where="detector IN (0, 1)")
    assert (first.complete, first.total, again.text().count("2 skipped")) == (True, 2, 1)
    records = [attempts.read_record(a) for a in attempts.list_attempts(repo.root, "u/two")]
    assert [r["state"] for r in records] == ["done", "done"]
    assert [r["counts"]["done"] for r in records] == [2, 0]
    assert records[0]["cpu_s"] > 0
    assert records[0]["peak_mib"] > 10
    assert repo.butler.get("runRecord", instrument="TinyCam", collections="u/two")["attempts"] == records
    text = camcal("history", repo.root, "u/two", "--quanta")
    for part in ("bias.yaml", records[0]["provenance_id"], "numpy", "TinyCam/raw/all", "stack detector 1 done"):
        assert part in text, part


def test_status_from_outside(repo, threads):
    make_bias(repo, "u/status", threads)
    (snapshot,) = snapshots(repo.root, "u/status")
    assert (snapshot.state, snapshot.total, snapshot.done, snapshot.pending) == ("done", 4, 4, 0)
    assert "u/status: bias done: 4/4 done" in camcal("status", repo.root)
    assert "no run with this name is recorded" in camcal("status", repo.root, "u/nothing", code=1)


def test_a_killed_client_is_recognised(repo, threads):
    make_bias(repo, "u/killed", threads)
    (attempt,) = attempts.list_attempts(repo.root, "u/killed")
    values = files.read_json(attempts.progress_uri(attempt))
    files.write_json(attempts.progress_uri(attempt), values | {"state": "running", "pid": 2**22 + 1})
    assert "u/killed: bias killed" in camcal("status", repo.root, "u/killed")


def test_logs_are_found_by_detector(repo, threads):
    make_bias(repo, "u/logs", threads)
    text = camcal("logs", repo.root, "u/logs", "--detector", "R22_S11")
    assert "stack detector 1: done" in text
    assert "detector 2" not in text
    assert len(list(outcomes(repo.root, "u/logs"))) == 4


def test_a_rerun_repeats_exactly(repo, threads):
    text = camcal("rerun", repo.root, "u/clean", "-o", "u/again", "--cluster", "threads")
    assert "4 done" in text
    assert_same(repo, "u/again")
    one, two = (repo.open("bias", run=r).attrs["provenance_id"] for r in ("u/clean", "u/again"))
    assert one == two


def test_a_rerun_takes_the_recorded_calibrations(repo, threads):
    """A newer bias in front of the chain is not what the verification was made with."""
    verify = ["run", "-b", repo.root, "-p", "TinyCam/verifyBias.yaml", "--cluster", "threads"]
    camcal(*verify, "-i", "u/clean,TinyCam/raw/all", "-o", "u/v", "-d", "detector = 1")
    make_bias(repo, "u/newer", threads, where="detector = 1")
    plan = replan(repo, "u/v", "u/v.again")
    assert {ref.run for ref in plan.calibs["bias"].values()} == {"u/clean"}
    assert plan.detectors == (1,)
    camcal("rerun", repo.root, "u/v", "-o", "u/v.again", "--cluster", "threads")
    one, two = (repo.open("verifyBias", run=r) for r in ("u/v", "u/v.again"))
    assert one.drop_attrs().equals(two.drop_attrs())
    assert "1 skipped" in camcal(*verify, "-i", "u/clean,TinyCam/raw/all", "-o", "u/v", "-d", "detector = 1")
    repo.forget_product("u/newer", "bias")
    with pytest.raises(RepoError, match="no run with this name is recorded"):
        replan(repo, "u/unknown", "u/x")


def test_more_detectors_join_a_run_and_other_settings_do_not(repo, threads):
    make_bias(repo, "u/extend", threads, where="detector IN (0, 1)")
    with pytest.raises(RepoError, match="started with other settings"):
        make_bias(repo, "u/extend", threads, where="detector IN (1, 2, 3)", overrides=["isr.dither=none"])
    assert "2 done, 1 skipped" in make_bias(repo, "u/extend", threads, where="detector IN (1, 2, 3)").text()
    assert_same(repo, "u/extend")


def test_detectors_with_their_own_calibrations_join_with_extend(repo, threads):
    """The calibrations of other detectors are no difference; another one of the same detector is."""
    plan = bias_plan(repo, "u/clean", where="detector IN (1, 2)")
    calib = repo.datasets("bias", "u/clean")
    plan = replace(plan, calibs={"bias": {d: calib[d] for d in (1, 2)}})
    job = Job(repo, threads, Place(repo.root, plan, ""), "x", None)
    attrs = job.attributes()
    assert not job.differences(attrs | {"calibs": {"bias": {"0": calib[0].uuid, "1": calib[1].uuid}}})
    assert job.differences(attrs | {"calibs": {"bias": {"1": calib[0].uuid}}}) == ["calibrations"]
    assert job.differences(attrs | {"calibs": {}, "exposures": []}) == ["exposures", "calibrations"]


def test_a_calibration_that_was_made_again_in_its_run_is_another_one(repo, threads, monkeypatch):
    """Its dataset id is the same; what was made with it, or says that it is good, is out of date all the same."""
    calib = {ref.detector: ref for ref in repo.datasets("bias", "u/clean")}
    plan = replace(bias_plan(repo, "u/made"), calibs={"bias": calib})
    job = Job(repo, threads, Place(repo.root, plan, ""), "x", None)
    before, attrs = provenance_id(plan), job.attributes()
    assert attrs["calib_provenance"]["bias"]["0"] == repo.open("bias", run="u/clean").attrs["provenance_id"]
    monkeypatch.setattr("camcal_dask.campaign.past.record.check_format", lambda uri, kind: {"provenance_id": "other"})
    assert provenance_id(plan) != before
    assert job.differences(attrs) == ["calibrations"]


def test_other_settings_need_clobber_and_a_certified_product_stays(repo, threads):
    make_bias(repo, "u/clobber", threads, overrides=["isr.dither=none"])
    with pytest.raises(RepoError, match="other settings"):
        make_bias(repo, "u/clobber", threads)
    assert make_bias(repo, "u/clobber", threads, limits=Limits(clobber=True)).text().count("4 done")
    assert_same(repo, "u/clobber")
    repo.certify("u/clobber", "bias", "u/calib.clobber")
    with pytest.raises(RepoError, match=r"certified in u/calib\.clobber"):
        make_bias(repo, "u/clobber", threads, limits=Limits(clobber=True))
    assert_same(repo, "u/clobber")


def test_a_damaged_shard_is_made_again(repo, threads):
    uri = make_bias(repo, "u/damaged", threads).uri
    shard = files.local_path(f"{uri}/image/c/2/0/0/0")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    assert products.damaged(uri, range(4)) == [2]
    assert "1 done, 3 skipped" in make_bias(repo, "u/damaged", threads).text()
    assert shard.read_bytes() == whole


def test_two_clients_do_not_work_on_one_run(repo, threads, monkeypatch):
    plan = bias_plan(repo, "u/claimed")
    attempt = attempts.open_attempt(repo.root, "u/claimed", "bias")
    with exclusive.alone(attempt, "bias"), pytest.raises(RunError, match="another client works on this run"):
        execute(repo, plan, threads, options=Options())
    assert not repo.datasets("bias", "u/claimed")
    # A claim of a dead client, here and on a silent host, is taken over.
    monkeypatch.setattr(exclusive, "PATIENCE_S", 0.1)
    for dead in (f"0001-bias-x:{2**22 + 1}:{process.here().host}", "0001-bias-x:1:another.host"):
        exclusive.Claim(f"{attempts.attempts_uri(repo.root, 'u/claimed')}/claim-bias").seize(dead)
        assert execute(repo, plan, threads, options=Options()).complete
    assert_same(repo, "u/claimed")

"""What quanta read and write is known before a run: printed, saved, and what the run then does."""

import csv
import json
import time

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from camcal_dask.calibs.ptc.pairing import Paired
from camcal_dask.calibs.ptc.pairs import Pairs
from camcal_dask.campaign.planning import dataflow
from camcal_dask.campaign.planning.plan import Found, Plan
from camcal_dask.campaign.planning.quanta import Quantum
from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.cli import main
from camcal_dask.errors import ConfigError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler.lookup import CalibRef
from tests.campaign.conftest import bias_plan


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output


def made_up(
    pipeline, detectors=(0, 1), exposures=(11, 12, 13, 14), calibs=("bias",), camera="TinyCam", overrides=(), **more
):
    """A plan without a repository."""
    raws = xr.DataArray(
        np.zeros((len(exposures), len(detectors)), np.int32), {"exposure": list(exposures), "detector": list(detectors)}
    )
    refs = {
        name: {d: CalibRef(f"/{name}.zarr", f"u/{name}", f"{name}-{d}", d, name) for d in detectors} for name in calibs
    }
    recipe = load_recipe(f"{camera}/{pipeline}.yaml")
    return Plan(recipe, "u/x", ("u/bias",), "", get_instrument(camera), raws, tuple(detectors), refs, 1, 1, **more)


def reads(plan):
    """What the quanta of detector 1 read and write, by task."""
    return {
        f.quantum.task: (f.exposures, sorted(f.calibs), f.earlier, f.writes)
        for f in dataflow.flows(plan)
        if f.quantum.detector == 1
    }


def test_a_stack_reads_raws_and_calibrations():
    plan = made_up("dark", lacking={0: "no bias"})
    (flow,) = dataflow.flows(plan)
    assert flow.quantum == Quantum("stack", 1)
    assert (flow.exposures, flow.calibs["bias"].uuid, flow.earlier) == ((11, 12, 13, 14), "bias-1", ())
    assert (flow.writes, flow.run, flow.data_id) == ("dark", "u/x", {"instrument": "TinyCam", "detector": 1})
    assert flow.text() == (
        "stack detector 1: 4 raws (11 .. 14), bias of u/bias (bias-1) -> dark instrument=TinyCam detector=1 in u/x"
    )


def test_later_quanta_read_results_of_earlier_ones():
    raws, kept = (11, 12, 13, 14), dataflow.KEPT
    assert reads(made_up("flat", physical_filter="r_57")) == {
        "levels": (raws, ["bias"], (), kept),
        "stack": (raws, ["bias"], ("levels of all detectors",), "flat"),
    }
    pairs = Paired(Pairs([(11, 12), (13, 14)], {}), xr.DataArray(np.zeros(4)), {})
    assert reads(made_up("ptc", found=Found(pairs, tuple(pairs.pairs.pairs)))) == {
        "pairs": ((13, 14), ["bias"], (), kept),
        "ptc": ((), [], ("pairs of this detector",), "ptc"),
    }
    curves, ratios = ["curves"], "ratios of this detector"
    linearizer = made_up("linearizer", calibs=("bias", "curves"), camera="LSSTCam")
    assert reads(linearizer) == {
        "ratios": (raws, ["bias", "curves"], (), kept),
        "fit0": ((), curves, (ratios,), kept),
        "fit1": ((), curves, (ratios, "fit0 of all detectors"), kept),
        "linearity": ((), curves, (ratios, "fit1 of all detectors"), "linearizer"),
    }


def test_a_verification_writes_rows():
    assert reads(made_up("verifyBias"))["verify"] == ((11, 12, 13, 14), ["bias"], (), dataflow.ROW)
    table = reads(made_up("verifyGain", calibs=("gain",)))
    assert table["verify_table"] == ((), ["gain"], (), dataflow.ROW)


def test_the_command_lists_and_saves_what_the_run_reads(tmp_path, repo):
    command = [
        "run",
        "-b",
        repo.root,
        "-p",
        "TinyCam/verifyBias.yaml",
        "-i",
        "u/clean,TinyCam/raw/all",
        "-o",
        "u/listed",
    ]
    saved, table = tmp_path / "plan.json", tmp_path / "plan.csv"
    text = camcal(*command, "--dry-run", "--list-quanta", "--save-plan", saved)
    camcal(*command, "--dry-run", "--save-plan", table)
    refs = {ref.detector: ref for ref in repo.datasets("bias", "u/clean")}
    plan = json.loads(saved.read_text())
    rows = list(csv.DictReader(table.open()))
    assert len(plan["quanta"]) == len(rows) == 4
    for d, (quantum, row) in enumerate(zip(plan["quanta"], rows, strict=True)):
        uuid = refs[d].uuid
        assert (quantum["detector"], quantum["calibs"], quantum["run"]) == (d, {"bias": uuid}, "u/listed")
        assert plan["calibs"][uuid] == {"dataset_type": "bias", "run": "u/clean", "detector": d}
        assert [int(e) for e in row["exposures"].split()] == quantum["exposures"] == bias_plan(repo, "u/x").exposures
        assert row["calibs"] == f"bias=bias@u/clean#{uuid}"
        assert f"verify detector {d}: 4 raws (2026081200001 .. 2026081200004), bias of u/clean ({uuid})" in text
    assert not repo.collections("u/listed"), "nothing was run"
    with pytest.raises(ConfigError, match=r"plan\.txt: a plan is saved as \.json or \.csv"):
        dataflow.save(bias_plan(repo, "u/x"), str(tmp_path / "plan.txt"))


def test_a_focal_plane_of_pairs_is_listed_in_seconds(tmp_path):
    camera = get_instrument("LSSTCam")
    exposures = range(2026081200000, 2026081200000 + 2 * 337)
    pairs = Paired(Pairs(list(zip(exposures[::2], exposures[1::2], strict=True)), {}), xr.DataArray(np.zeros(674)), {})
    plan = made_up("ptc", tuple(camera.science_detectors), exposures, ("bias", "dark", "flat", "defects"), "LSSTCam",
                   found=Found(pairs, tuple(pairs.pairs.pairs)))  # fmt: skip
    began = time.process_time()
    lines = [flow.text() for flow in dataflow.flows(plan)]
    dataflow.save(plan, str(tmp_path / "plan.json"))
    assert len(lines) == 189 * 338
    assert time.process_time() - began < 30

"""The plan tells the truth: tasks, bytes, memory; building it reads nothing."""

import numpy as np
import pytest

from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.campaign.planning.request import make_plan
from camcal_dask.campaign.running.run import count_tasks
from camcal_dask.errors import PlanError
from camcal_dask.instruments import get_instrument
from camcal_dask.raw_fits.header import translate
from camcal_dask.repo.butler.repository import create_repo
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.simulation import SimulationConfig, bias_set
from camcal_dask.simulation.headers import primary_header


@pytest.fixture(scope="module")
def focal_plane(tmp_path_factory):
    """A registry that knows 20 biases of all 189 detectors; there are no pixels to read."""
    camera = get_instrument("LSSTCam")
    exposures = bias_set(20, 20260812)
    with create_repo(str(tmp_path_factory.mktemp("plan") / "repo"), "LSSTCam") as repo:
        cards = [primary_header(camera, camera.detectors[94], e, SimulationConfig()) for e in exposures]
        records = [translate(header).record for header in cards]
        repo.register_exposures(records)
        cubes.ensure_raw_cube(cubes.raw_cube_uri(repo.root, "LSSTCam", records[0].exposure), camera)
        repo.register_raws("LSSTCam", [(r.exposure, d) for r in records for d in camera.science_detectors])
        yield repo


@pytest.fixture
def no_reading(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("planning must not read pixels")

    monkeypatch.setattr(cubes, "read_raw", refuse)
    monkeypatch.setattr(np, "fromfile", refuse)


def plan_of(repo, **options):
    recipe = load_recipe("LSSTCam/biasBootstrap.yaml")
    return make_plan(repo, recipe, inputs=["LSSTCam/raw/all"], output="u/x", **options)


def test_a_focal_plane_stays_below_ten_thousand_tasks(focal_plane, no_reading):
    plan = plan_of(focal_plane)
    slabs = -(-2002 // plan.slab_rows)
    assert plan.exposures == [2026081200000 + s for s in range(1, 21)]
    assert len(plan.detectors) == 189
    others = 6  # of the detector as a whole, three of them write
    assert count_tasks(focal_plane, plan) == 189 * (20 + slabs + others) < 10_000
    assert plan.bytes_read == 189 * 20 * 16 * 2048 * 576 * 4
    assert plan.task_bytes < 2 * 2**30
    assert ("detectors (quanta)", "189: 0 .. 188") in plan.rows(tasks=0)


def test_too_little_memory_is_refused_with_the_numbers(focal_plane):
    with pytest.raises(
        PlanError, match=r"combining 20 exposures of LSSTCam takes \d+ MiB per task .* 50 MiB are allowed"
    ):
        plan_of(focal_plane, task_memory_bytes=50 * 2**20)

"""Bias, dark, flat and defects of simulated raws against what was simulated, by the command that a user types (TinyCam)."""

import itertools

import numpy as np
import pytest
from click.testing import CliRunner

from camcal_dask.cli import main
from camcal_dask.instruments.focal_plane import amp_boxes, assemble
from camcal_dask.kernels.defects import COLUMN, DARK, EDGE, FLAT, compare_defects
from camcal_dask.kernels.masks import BAD
from camcal_dask.kernels.regions import boxes_to_mask
from camcal_dask.repo import products
from camcal_dask.repo.registry import open_repo
from camcal_dask.simulate import SimulationConfig, bias_set, dark_set, flat_set, load_truth, schedule, simulate
from camcal_dask.simulate.config import CosmicRays, Crosstalk, SerialCti

DAY = 20260812
FLAT_S, DARK_S = 5.0, 60.0


def camcal(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output


def run(root, pipeline, inputs, output, *more, code=0):
    return camcal("run", "-b", root, "-p", f"TinyCam/{pipeline}.yaml", "-i", inputs, "-o", output,
                  "--cluster", "threads", *more, code=code)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Raws of 4 detectors in a repository: 8 biases, 8 darks, 8 flats in r and 7 in i."""
    folder = tmp_path_factory.mktemp("chain")
    config = SimulationConfig(
        cosmic_rays=CosmicRays(rate_per_cm2_s=2.0), crosstalk=Crosstalk(enabled=False), serial_cti=SerialCti(enabled=False)
    )
    sets = [bias_set(8, DAY), dark_set(8, DARK_S, DAY), flat_set(8, FLAT_S, DAY), flat_set(7, FLAT_S, DAY, physical_filter="i_39")]
    exposures = list(schedule(itertools.chain.from_iterable(sets), DAY))
    simulate(folder / "raw", "TinyCam", exposures, config=config)
    root = folder / "repo"
    camcal("create", root, "--instrument", "TinyCam")
    camcal("ingest", root, folder / "raw", "--cluster", "threads")
    text = ""
    text += run(root, "biasBootstrap", "TinyCam/raw/all", "u/biasBootstrap")
    text += run(root, "darkBootstrap", "u/biasBootstrap,TinyCam/raw/all", "u/darkBootstrap")
    (folder / "runs.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def repo(folder):
    with open_repo(folder / "repo") as opened:
        yield opened


def test_it(folder, repo):
    d = repo.open("darkBootstrap", run="u/darkBootstrap")
    print(d)

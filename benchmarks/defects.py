"""Defects of a full-size detector against those that were simulated, from raw files to the product.

* ``completeness``: part of the true defects that are in the product; ``purity``: part of the product's that are true.
  True are pixels with more dark current than the threshold of the search (3 electron/s) and those with less than
  0.7 of the response of their neighbours; the frame of the detector, which is masked as a whole, counts nowhere.
* ``search_s``: the search of one detector, on one core.
"""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path

from camcal_dask.campaign.cluster.workers import connect, load_profile
from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.campaign.planning.request import make_plan
from camcal_dask.campaign.running.run import execute
from camcal_dask.campaign.simulation import simulate_on
from camcal_dask.instruments import get_instrument
from camcal_dask.instruments.focal_plane import assemble
from camcal_dask.kernels.pixels.defects import COLUMN, DARK, EDGE, FLAT, compare_defects
from camcal_dask.repo.butler.repository import Repo, create_repo
from camcal_dask.repo.incoming.ingest import find_files, ingest
from camcal_dask.simulation import bias_set, dark_set, flat_set, load_truth, schedule

DAY = 20260812
HOT_E_PER_S, COLD = 3.0, 0.7
FILTER = "r_57"


def run(workdir: Path, quick: bool) -> dict[str, float]:
    """Measure; ``quick`` uses the tiny camera."""
    camera, detector, n = ("TinyCam", 1, 5) if quick else ("LSSTCam", 94, 6)
    sets = bias_set(n, DAY), dark_set(n, 60.0, DAY), flat_set(n, 10.0, DAY, physical_filter=FILTER)
    specs = list(schedule(chain.from_iterable(sets), DAY))
    with connect(load_profile("local", 2)) as client, create_repo(str(workdir / "repo"), camera) as repo:
        simulate_on(client, workdir / "raw", camera, specs, [detector])
        ingest(repo, find_files([str(workdir / "raw")]), client=client)
        made: list[str] = []
        for name in ("biasBootstrap", "darkBootstrap", "flatBootstrap", "defects"):
            plan = make_plan(
                repo, load_recipe(f"{camera}/{name}.yaml"), inputs=[*made, f"{camera}/raw/all"], output=f"b/{name}"
            )
            start = time.perf_counter()
            outcome = execute(repo, plan, client)
            if outcome.failed:
                raise RuntimeError(outcome.text())
            made.append(f"b/{name}")
        return {**_recovery(repo, workdir / "raw", camera, detector), "search_s": time.perf_counter() - start}


def _recovery(repo: Repo, raw: Path, camera: str, number: int) -> dict[str, float]:
    truth, detector = load_truth(raw), get_instrument(camera).detectors[number]
    bits = repo.open("defects", run="b/defects", detector=number).isel(detector=0)["defects"].values
    known = truth.bad_pixels(number, FILTER, bits.shape, hot=HOT_E_PER_S, cold=COLD)
    found, ignore = (bits & (DARK | FLAT | COLUMN)) > 0, (bits & EDGE) > 0
    recovery = compare_defects(*(assemble(mask, detector) for mask in (found, known, ignore)))
    return {
        "completeness": recovery.completeness,
        "purity": recovery.purity,
        "n_true": float(recovery.n_known),
        "n_found": float(recovery.n_found),
    }

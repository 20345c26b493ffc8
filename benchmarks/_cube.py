"""What several benchmarks need: a raw cube as a selection of raws, a graph on a worker, the memory of a process."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xarray as xr

from camcal_dask.instruments import Instrument
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.storage.shards import lazy_variable
from camcal_dask.schema import EXPOSURE_DIMS as DIMS


def open_cube(uri: str, camera: Instrument, detector: int, exposures: list[int]) -> xr.DataArray:
    """Return the exposures of one detector of a raw cube, lazily, as ``Repo.raws`` does."""
    n = len(exposures)
    slots = [cubes.raw_slot(e) for e in exposures]
    lazy = cubes.RawCubeArray([uri] * n, slots, [detector], camera.raw_shape[1:])
    coords = {"exposure": exposures, "detector": [detector], "amp": list(camera.amp_names)}
    return xr.DataArray(lazy_variable(DIMS, lazy), coords=coords, attrs={"instrument": camera.name})


def seconds_on_worker(client: Any, graph: Any) -> float:
    """Wall time of a graph on two threads of one worker, as `camcal run` computes a single detector on two cores."""
    start = time.perf_counter()
    client.submit(_compute, graph, pure=False).result()
    return time.perf_counter() - start


def _compute(graph: Any) -> None:
    with ThreadPoolExecutor(2) as pool:
        graph.compute(scheduler="threads", pool=pool)


def peak_mib() -> float:
    """Return the largest resident memory that this process ever had [MiB]."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

"""What several benchmarks need: a raw cube as a selection of raws, and the memory of a process."""

from __future__ import annotations

import xarray as xr

from camcal_dask.instruments import Instrument
from camcal_dask.isr.blocks import DIMS
from camcal_dask.repo import cubes
from camcal_dask.repo.shards import lazy_variable


def open_cube(uri: str, camera: Instrument, detector: int, exposures: list[int]) -> xr.DataArray:
    """Return the exposures of one detector of a raw cube, lazily, as ``Repo.raws`` does."""
    n = len(exposures)
    slots = [cubes.raw_slot(e) for e in exposures]
    lazy = cubes.RawCubeArray([uri] * n, slots, [detector], camera.raw_shape[1:])
    coords = {"exposure": exposures, "detector": [detector], "amp": list(camera.amp_names)}
    return xr.DataArray(lazy_variable(DIMS, lazy), coords=coords, attrs={"instrument": camera.name})


def peak_mib() -> float:
    """Return the largest resident memory that this process ever had [MiB]."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

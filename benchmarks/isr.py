"""Instrument signature removal of a full-size detector, and a stack of darks, from the raw cube.

* ``isr_s_per_detector_exposure``: CPU seconds of one core for all slab-local steps of one exposure of one
  detector (decoding, dither, both overscans, saturation, gains, quadratic crosstalk, double-spline linearity,
  deferred charge, bias, dark, defects, flat): image and masks, calibrations in memory.  ``variance_s`` is what
  the variance plane adds when it is asked for, ``decode_s`` the part that reading the cube takes.
* ``stack_raw_MB_per_s``: int32 raw pixels of 20 darks over the wall time to the written product (bias subtracted,
  divided by the dark time), two threads of one worker process, as a run of a single detector has them on two cores;
  ``final_dark_raw_MB_per_s`` the same for a final dark, whose exposures are searched for cosmic rays first.
* ``tasks_189x20``: tasks of that stack for the whole focal plane, as the plan counts them.

The best of a few runs is taken: other work on the machine only slows down.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks._cube import open_cube, peak_mib, seconds_on_worker
from camcal_dask.calibs.combined.combine import combined_blocks
from camcal_dask.calibs.combined.cosmic_rays import find_hits
from camcal_dask.calibs.combined.recipe import StackRecipe
from camcal_dask.calibs.combined.task import written
from camcal_dask.campaign.cluster.workers import Profile, connect
from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.instruments import Instrument, get_instrument
from camcal_dask.isr.blocks import Corrected
from camcal_dask.isr.config import CrosstalkConfig, IsrConfig, SaturationConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.isr.cost import slab_rows_for
from camcal_dask.repo.cubes import products
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.cubes.layout import template

DETECTOR = 94
FIRST = 2026081200001
BUDGET = 1_400 * 2**20
DARK_TIME_S = 30.0
FULL = IsrConfig(
    gains="ptc",
    read_noise="ptc",
    saturation=SaturationConfig(saturated="turnoff", suspect="turnoff"),
    crosstalk=CrosstalkConfig(terms="quadratic"),
    linearity=True,
    deferred_charge=True,
    bias=True,
    dark=True,
    defects=True,
    flat=True,
)
"""All steps that a slab needs no more than itself for."""


def run(workdir: Path, quick: bool) -> dict[str, float]:
    """Measure; ``quick`` uses the tiny camera and 6 exposures."""
    camera, detector, n = (get_instrument("TinyCam"), 1, 6) if quick else (get_instrument("LSSTCam"), DETECTOR, 20)
    exposures = [FIRST + i for i in range(n)]
    uri = cubes.raw_cube_uri(str(workdir / "repo"), camera.name, FIRST)
    _make_raw(uri, camera, detector, exposures)
    raw = open_cube(uri, camera, detector, exposures)
    raw = raw.assign_coords(dark_time=("exposure", np.full(n, DARK_TIME_S)))
    calibs = make_calibs(camera, detector)
    numbers = _one_exposure(raw.isel(exposure=slice(0, 1)), calibs)
    return numbers | _stacks(workdir, camera, detector, raw, calibs)


def _make_raw(uri: str, camera: Instrument, detector: int, exposures: list[int]) -> None:
    """Faint frames of a pedestal and read noise."""
    cubes.ensure_raw_cube(uri, camera)
    rng = np.random.default_rng(7)
    level = 25000 + 300 * np.arange(camera.raw_shape[1])[:, None, None]
    for exposure in exposures:
        noise = rng.standard_normal(camera.raw_shape[1:], np.float32) * np.float32(5.5)
        cubes.write_raw(uri, cubes.raw_slot(exposure), detector, np.round(level + noise).astype(np.int32))


def make_calibs(camera: Instrument, detector: int) -> dict[str, xr.Dataset]:
    """Plausible calibrations of one detector, in memory; two nodes of the double spline per 10 000 adu."""
    rng = np.random.default_rng(8)
    n = len(camera.amp_names)
    nodes = np.linspace(0, 150_000, 16)
    spline = np.concatenate([[16, 16], nodes, 20 * np.sin(nodes / 2e4), nodes, 1e-4 * nodes])
    linear = rng.uniform(1e-5, 1e-3, (1, n, n))
    each = ("detector", "amp")
    tables = {
        "ptc": {"gain": (each, np.full((1, n), 1.5)), "noise": (each, np.full((1, n), 6.0))}
        | {"turnoff": (each, np.full((1, n), 9e4))},
        "crosstalk": {
            "linear": (("detector", "source", "target"), linear),
            "quadratic": (("detector", "source", "target"), linear * 1e-5),
        },
        "linearizer": {
            "type": (each, np.full((1, n), "DoubleSpline")),
            "coefficients": ((*each, "coefficient"), np.broadcast_to(spline, (1, n, spline.size))),
        },
        "cti": {
            **{name: (each, np.full((1, n), value)) for name, value in _CTI.items()},
            "trap_kind": (each, np.full((1, n), "linear")),
            "trap_coefficients": ((*each, "coefficient"), np.full((1, n, 1), 0.05)),
        },
    }
    units = {"crosstalk": "electron", "linearizer": "adu", "cti": "electron"}
    found = {k: xr.Dataset(v, {"detector": [detector]}, {"units": units.get(k, "")}) for k, v in tables.items()}
    shape = (1, n, *camera.trimmed_shape)
    for name, level, unit in (("bias", 0.0, "electron"), ("dark", 0.02, "electron/s"), ("flat", 1.0, "1")):
        found[name] = _image(rng, shape, detector, level, unit)
    bad = (rng.random(shape, np.float32) < 1e-4).astype(np.int32)
    found["defects"] = xr.Dataset({"mask": (("detector", "amp", "y", "x"), bad)}, {"detector": [detector]})
    return found


_CTI = {
    "drift_scale": 2e-4,
    "decay_time": 2.4,
    "global_cti": 1e-7,
    "trap_size": 20.0,
    "trap_emission_time": 0.4,
}


def _image(rng: np.random.Generator, shape: tuple[int, ...], detector: int, level: float, units: str) -> xr.Dataset:
    dims = ("detector", "amp", "y", "x")
    planes = {
        "image": (dims, np.float32(level) + np.float32(1e-3) * rng.standard_normal(shape, np.float32)),
        "variance": (dims, np.full(shape, 1e-6, np.float32)),
        "mask": (dims, np.zeros(shape, np.int32)),
    }
    return xr.Dataset(planes, {"detector": [detector]}, {"units": units, "dark_time_s": 1.0})


def _one_exposure(raw: xr.DataArray, calibs: dict[str, xr.Dataset]) -> dict[str, float]:
    """CPU seconds of one exposure in this thread."""
    one = isr(raw, calibs, FULL).by_exposure().to_delayed().item()

    def correct() -> Corrected:
        return one.compute(scheduler="sync")  # type: ignore[no-any-return]

    block = correct()
    assert block.slab is not None
    source = block.slab.source
    return {
        "isr_s_per_detector_exposure": _best_cpu(correct),
        "variance_s": _best_cpu(lambda: block.variance),
        "decode_s": _best_cpu(lambda: source.read_all(0, 0)),
    }


def _best_cpu(function: Any, repeat: int = 5) -> float:
    seconds = []
    for _ in range(repeat):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def _stacks(
    workdir: Path, camera: Instrument, detector: int, raw: xr.DataArray, calibs: dict[str, xr.Dataset]
) -> dict[str, float]:
    """From the cube to the product on one worker process."""
    import dask

    n_bytes = raw.sizes["exposure"] * int(np.prod(camera.raw_shape[1:])) * 4
    place = str(workdir), camera, detector
    rows = slab_rows_for(BUDGET, raw.sizes["exposure"], camera, 4, halves=True)
    numbers = {}
    with (
        dask.config.set({"distributed.worker.memory.spill": False}),
        connect(Profile(workers=1, memory_per_worker="2 GiB")) as client,
    ):
        for key, name in (("stack", "darkBootstrap"), ("final_dark", "dark")):
            recipe = load_recipe(f"{camera.name}/{name}.yaml").resolved(())
            assert isinstance(recipe, StackRecipe)
            kept = {k: _on_disk(*place, t, calibs[k]) for k, t in recipe.calibs.items()}
            graphs = [_stack(raw, kept, recipe, rows, *place, f"{name}{i}.zarr") for i in range(4)]
            seconds = min(seconds_on_worker(client, graph) for graph in graphs[:3])
            numbers[f"{key}_raw_MB_per_s"] = n_bytes / seconds / 1e6
            if key == "stack":
                numbers["tasks_189x20"] = 189.0 * len(dict(graphs[3].__dask_graph__()))
        numbers["peak_worker_MiB"] = max(client.run(peak_mib).values())
    return numbers


def _on_disk(folder: str, camera: Instrument, detector: int, dataset_type: str, calib: xr.Dataset) -> xr.Dataset:
    """Write a calibration as the product it stands for and open it as a run does."""
    uri, layout = f"{folder}/{dataset_type}.zarr", template(dataset_type, camera)
    products.create_product(uri, layout)
    arrays = {str(k): np.zeros(v.shape[1:], v.dtype) for k, v in layout.data_vars.items()}
    given = {"defects" if dataset_type == "defects" else str(k): v.values[0] for k, v in calib.data_vars.items()}
    arrays |= {k: v.astype(arrays[k].dtype) for k, v in given.items()}
    products.write_product(uri, list(camera.detectors).index(detector), arrays)
    return products.open_products([(uri, detector)])


def _stack(
    raw: xr.DataArray, calibs: dict[str, xr.Dataset], recipe: StackRecipe, rows: int, folder: str, camera: Instrument,
    detector: int, name: str,
) -> Any:  # fmt: skip
    """Graph from the cube to the written product, as `camcal_dask.calibs.combined.task` makes it."""
    import dask

    uri = f"{folder}/{name}"
    products.create_product(uri, template(recipe.product, camera))
    corrected = isr(raw, calibs, recipe.isr)
    hits = find_hits(corrected, recipe.cosmic_rays) if recipe.find_cosmic_rays else None
    (blocks,) = dask.optimize(combined_blocks(corrected, recipe.combine, slab_rows=rows, hits=hits))
    return written(uri, list(camera.detectors).index(detector), blocks.to_delayed()[0], dask.delayed({}))

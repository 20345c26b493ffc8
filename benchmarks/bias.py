"""Combined bias: raw cube to product on two cores, against ccdproc; cube reads against FITS readers.

What is compared:

* ``raw_MB_per_s``: int32 raw pixels over the wall time from submission to the written product shard
  (reading, overscans, dither, clipped mean, variance, masks, writing), two threads of one worker process, as a run
  of a single detector has them.
* ``ratio_vs_ccdproc``: ccdproc as it is used, in one process (median overscans along both axes, trim,
  3-sigma clipped average), on pixels already in memory: neither its reading nor its writing is counted.
  It is timed on a few amps and extrapolated to all.  ``ratio_vs_ccdproc_per_core`` is half of that: as if
  ccdproc ran on both cores at no cost.
* ``cube_read_vs_*``: one exposure of one detector, all amps, one thread, files in the page cache.

The numbers vary by tens of percent on a machine that does other work; the best of a few runs is taken.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from benchmarks._cube import open_cube, peak_mib, seconds_on_worker
from camcal_dask.calibs.combined.combine import CombineConfig, combine, combined_blocks
from camcal_dask.calibs.combined.task import written
from camcal_dask.campaign.cluster.workers import Profile, connect
from camcal_dask.instruments import Instrument, get_instrument
from camcal_dask.isr.corrected import isr
from camcal_dask.isr.cost import slab_rows_for
from camcal_dask.repo.cubes import products
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.cubes.layout import template
from camcal_dask.schema import EXPOSURE_DIMS as DIMS

DETECTOR = 94
FIRST = 2026081200001
BUDGET = 1_400 * 2**20


def run(workdir: Path, quick: bool) -> dict[str, float]:
    """Measure; ``quick`` uses 4 exposures of the tiny camera."""
    camera, detector, n = (get_instrument("TinyCam"), 1, 4) if quick else (get_instrument("LSSTCam"), DETECTOR, 20)
    exposures = [FIRST + i for i in range(n)]
    uri = cubes.raw_cube_uri(str(workdir / "repo"), camera.name, FIRST)
    files = _make_data(workdir, uri, camera, detector, exposures)
    numbers = _cube(workdir, uri, camera, detector, exposures)
    peer = _ccdproc_seconds(uri, camera, detector, exposures, n_amp=1 if quick else 2)
    n_bytes = n * int(np.prod(camera.raw_shape[1:])) * 4
    numbers["ratio_vs_ccdproc"] = peer / numbers["seconds"]
    numbers["ratio_vs_ccdproc_per_core"] = peer / numbers["seconds"] / 2
    numbers["ccdproc_MB_per_s"] = n_bytes / peer / 1e6
    numbers |= _reads(uri, detector, files[0])
    return numbers


def _make_data(workdir: Path, uri: str, camera: Instrument, detector: int, exposures: list[int]) -> list[Path]:
    """Bias frames of a pedestal, row structure, a 2-D pattern and read noise, into the cube and as RICE FITS."""
    from astropy.io import fits

    cubes.ensure_raw_cube(uri, camera)
    rng = np.random.default_rng(7)
    n_amp, ny, nx = camera.raw_shape[1:]
    pattern = np.zeros((n_amp, ny, nx), np.float32)
    for amp in camera.detectors[detector].amps:
        box = amp.index, amp.data.y, amp.data.x
        pattern[box] = rng.normal(0, 2, pattern[box].shape)
    level = 25000 + 300 * np.arange(n_amp)[:, None, None]
    files = []
    for exposure in exposures:
        rows = rng.normal(0, 1.5, (n_amp, ny, 1))
        noise = rng.standard_normal((n_amp, ny, nx), np.float32) * np.float32(5.5)
        pixels = np.round(level + rows + pattern + noise).astype(np.int32)
        cubes.write_raw(uri, cubes.raw_slot(exposure), detector, pixels)
        files.append(workdir / f"{exposure}_{detector}.fits")
        hdus = [fits.CompImageHDU(amp, compression_type="RICE_1") for amp in pixels]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(files[-1], overwrite=True)
    return files


def _cube(workdir: Path, uri: str, camera: Instrument, detector: int, exposures: list[int]) -> dict[str, float]:
    """From the cube to the product on one worker process."""
    import dask

    raw = open_cube(uri, camera, detector, exposures)
    rows = slab_rows_for(BUDGET, len(exposures), camera)
    seconds = []
    with (
        dask.config.set({"distributed.worker.memory.spill": False}),
        connect(Profile(workers=1, memory_per_worker="2 GiB")) as client,
    ):
        client.run(_warm_up)
        for attempt in range(3):
            out = str(workdir / f"product{attempt}.zarr")
            products.create_product(out, template("biasBootstrap", camera))
            config = CombineConfig(reject_mask=("DETECTED", "INTRP"))
            (blocks,) = dask.optimize(combined_blocks(isr(raw), config, slab_rows=rows))
            index = list(camera.detectors).index(detector)
            graph = written(out, index, blocks.to_delayed()[0], dask.delayed({}))
            seconds.append(seconds_on_worker(client, graph))
        peak = max(client.run(peak_mib).values())
    n_bytes = len(exposures) * int(np.prod(camera.raw_shape[1:])) * 4
    return {
        "raw_MB_per_s": n_bytes / min(seconds) / 1e6,
        "seconds": min(seconds),
        "slab_rows": float(rows),
        "peak_worker_MiB": peak,
    }


def _warm_up() -> None:
    """Compile or load every kernel of the path, on a worker."""
    camera = get_instrument("TinyCam")
    pixels = np.random.default_rng(0).integers(20000, 20020, (6, 1, *camera.raw_shape[1:]), dtype=np.int32)
    coords = {"exposure": range(6), "detector": [1], "amp": list(camera.amp_names)}
    raw = xr.DataArray(pixels, dims=DIMS, coords=coords, attrs={"instrument": camera.name})
    combine(isr(raw)).compute(scheduler="sync")


def _ccdproc_seconds(uri: str, camera: Instrument, detector: int, exposures: list[int], *, n_amp: int) -> float:
    """Seconds that ccdproc would need for all amps on one core, from a few of them."""
    amps = camera.detectors[detector].amps
    seconds = []
    for amp in amps[:n_amp]:
        one = slice(amp.index, amp.index + 1)
        frames = [cubes.read_raw(uri, cubes.raw_slot(e), detector, one)[0].astype(np.float32) for e in exposures]
        start = time.perf_counter()
        _ccdproc_bias(frames, amp)
        seconds.append(time.perf_counter() - start)
    return min(seconds) * len(amps)


def _ccdproc_bias(frames: list[NDArray[np.float32]], amp: Any) -> NDArray[np.float32]:
    import ccdproc
    from astropy.nddata import CCDData

    data, serial, parallel = amp.data, amp.serial_overscan, amp.parallel_overscan
    images = []
    for frame in frames:
        ccd = CCDData(frame, unit="adu")
        strip = ccd[:, serial.x0 + 3 : serial.x0 + serial.width - 3]
        ccd = ccdproc.subtract_overscan(ccd, overscan=strip, overscan_axis=1, median=True)
        ccd = ccdproc.trim_image(ccd[:, data.x])
        strip = ccd[parallel.y0 + 3 : parallel.y0 + parallel.height - 3, :]
        ccd = ccdproc.subtract_overscan(ccd, overscan=strip, overscan_axis=0, median=True)
        images.append(ccdproc.trim_image(ccd[data.y, :]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        combiner = ccdproc.Combiner(images)
        combiner.sigma_clipping(low_thresh=3, high_thresh=3, func=np.ma.median, dev_func=np.ma.std)
        return np.asarray(combiner.average_combine().data)


def _reads(uri: str, detector: int, file: Path) -> dict[str, float]:
    """Read one exposure of one detector from the cube and from FITS, and compare sizes."""
    import fitsio
    from astropy.io import fits

    slot = cubes.raw_slot(FIRST)

    def cube() -> list[Any]:
        return [cubes.read_raw(uri, slot, detector)]

    def astropy() -> list[Any]:
        with fits.open(file) as hdus:
            return [hdu.data for hdu in hdus[1:]]

    def by_fitsio() -> list[Any]:
        with fitsio.FITS(str(file)) as hdus:
            return [hdu.read() for hdu in hdus[1:]]

    for other in (astropy(), by_fitsio()):
        if not np.array_equal(np.stack(other), cube()[0]):
            raise RuntimeError(f"{file} and {uri} differ")
    seconds = {f.__name__: _best(f) for f in (cube, astropy, by_fitsio)}
    shards = sum(p.stat().st_size for p in Path(uri).rglob("*") if p.is_file())
    sizes = sum(p.stat().st_size for p in file.parent.glob("*.fits"))
    return {
        "cube_read_MB_per_s": cube()[0].nbytes / seconds["cube"] / 1e6,
        "cube_read_vs_astropy": seconds["astropy"] / seconds["cube"],
        "cube_read_vs_fitsio": seconds["by_fitsio"] / seconds["cube"],
        "cube_bytes_over_fits_bytes": shards / sizes,
    }


def _best(function: Callable[[], Any], repeat: int = 5) -> float:
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)

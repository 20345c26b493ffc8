"""Ingest of full-size raw files against the bare decoding of the same files, on the same two processes.

``ratio_vs_decode_limit`` compares with our own decoder alone, the fastest there is here: reading the file and
nothing but int32 planes out, no hash, header, cube or registry.  The libraries' decoders stand beside it.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from distributed import Client

from camcal_dask.campaign.cluster.workers import connect, load_profile
from camcal_dask.instruments import get_instrument
from camcal_dask.raw_fits import decode
from camcal_dask.raw_fits.fits import Container
from camcal_dask.repo.butler.repository import create_repo
from camcal_dask.repo.incoming.ingest import ingest
from camcal_dask.simulation.exposures import bias_set
from camcal_dask.simulation.run import simulate

PROCESSES = 2
REPEATS = 3


def run(workdir: Path, quick: bool) -> dict[str, float]:
    """Measure ingest and decoders; MB are raw pixels as int32.

    Parameters
    ----------
    workdir : Path
        Where files and repositories are made.
    quick : bool
        Tiny camera: does it run, not how fast.
    """
    instrument, n_files = ("TinyCam", 8) if quick else ("LSSTCam", 20)
    with connect(load_profile("local", PROCESSES)) as client:
        files = _make(workdir / "raws", instrument, n_files, client)
        # In turns, so that whatever else the machine does meets all alike; the first round warms up.
        rounds = [_round(workdir / f"repo{i}", instrument, files, client) for i in range(REPEATS + 1)][1:]
    megabytes = len(files) * float(np.prod(get_instrument(instrument).raw_shape[1:])) * 4 / 1e6
    rates = {name: megabytes / min(times[name] for times in rounds) for name in rounds[0]}
    numbers = {
        "ingest_MB_per_s": rates["ingest"],
        "ratio_vs_decode_limit": rates["ingest"] / rates["decode"],
        "skip_files_per_s": n_files * rates["skip"] / megabytes,
        "files": float(n_files),
        "raw_MB": megabytes,
        "decode_MB_per_s": rates["decode"],
    }
    for name in rates.keys() - {"ingest", "skip", "decode"}:
        numbers[f"{name}_decode_MB_per_s"] = rates[name]
        numbers[f"ratio_vs_{name}_decode"] = rates["ingest"] / rates[name]
    return numbers


def _make(folder: Path, instrument: str, n_files: int, client: Client) -> list[str]:
    """Bias files of one E2V detector."""

    def mapper(function: Callable[[Any], Any], units: Sequence[Any]) -> list[Any]:
        return list(client.gather(client.map(function, units, pure=False)))

    detector = 0 if instrument == "TinyCam" else 94
    return list(simulate(folder, instrument, bias_set(n_files, 20260812), [detector], mapper=mapper).files)


def _decoders() -> dict[str, Callable[[str], int]]:
    decoders = {"decode": decode_ours, "astropy": decode_astropy}
    if importlib.util.find_spec("fitsio"):
        decoders["fitsio"] = decode_fitsio
    return decoders


def decode_ours(path: str) -> int:
    """Read and decode with the decoder of the ingest; return the bytes of the pixels."""
    container = Container(path)
    images = [hdu for hdu in container.hdus if decode.image_shape(hdu)]
    out = np.empty((len(images), *decode.image_shape(images[0])), np.int32)
    for plane, hdu in zip(out, images, strict=True):
        if not decode.decode_tiles(container.data, hdu, plane):
            raise AssertionError(f"{path}: not RICE_1 row tiles")
    return out.nbytes


def decode_astropy(path: str) -> int:
    """Read and decode with astropy's public API."""
    with fits.open(path) as hdus:
        return np.array([hdu.data for hdu in hdus[1:17]], np.int32).nbytes


def decode_fitsio(path: str) -> int:
    """Read and decode with fitsio."""
    import fitsio

    with fitsio.FITS(path) as hdus:
        return np.array([hdus[i].read() for i in range(1, 17)], np.int32).nbytes


def _round(root: Path, instrument: str, files: list[str], client: Client) -> dict[str, float]:
    """Times [s] of every decoder, of an ingest into a new repository, and of its repetition."""
    times = {}
    for name, reader in _decoders().items():
        begin = time.perf_counter()
        client.gather(client.map(reader, files, pure=False))
        times[name] = time.perf_counter() - begin
    with create_repo(str(root), instrument) as repo:
        summary = ingest(repo, files, client=client)
        again = ingest(repo, files, client=client)
    shutil.rmtree(root)
    if summary.ingested != len(files) or again.skipped != len(files):
        raise AssertionError(summary.text() + again.text())
    return times | {"ingest": summary.seconds, "skip": again.seconds}

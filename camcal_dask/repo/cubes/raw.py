"""Cubes of raw pixels, and the one door to all cubes (products and statistics are in `products`).

The rules that make locks unnecessary:

* The address of an exposure's pixels is computed (`raw_cube_uri`, `raw_slot`), never allocated.
* Shards are written whole and atomically (`shards`).
* What says "complete" is written after the pixels: the manifest of a raw shard, the marker of a
  product's detector; the Butler's reference comes last of all.
* Fill values cannot pass for data: the smallest int32 for raws, NaN for floats.
* A task that is repeated writes the same bytes to the same place.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.codecs import BloscCodec, BloscShuffle
from zarr.storage import LocalStore

from camcal_dask.errors import DataError, RepoError
from camcal_dask.instruments import Instrument
from camcal_dask.kernels.arrays import Int32Array
from camcal_dask.kernels.pixels.masks import FILL
from camcal_dask.repo.cubes.products import (
    check_whole,
    create_product,
    finished,
    finished_detectors,
    forget_opened,
    open_product,
    open_products,
    product_record,
    write_product,
)
from camcal_dask.repo.cubes.small import open_dataset, write_dataset
from camcal_dask.repo.storage import files
from camcal_dask.repo.storage.shards import (
    FORMAT,
    Selection,
    check_format,
    create_array,
    cube_exists,
    cube_kind,
    lazy_variable,
    opened,
    pick,
    publish,
    read_into,
    shard_path,
    span,
    write_metadata,
    write_shard,
)
from camcal_dask.schema import RAW

__all__ = [
    "FILL",
    "N_SLOTS",
    "RawCubeArray",
    "check_whole",
    "create_product",
    "cube_exists",
    "cube_kind",
    "ensure_raw_cube",
    "finished",
    "finished_detectors",
    "has_raw",
    "headers",
    "lazy_variable",
    "open_dataset",
    "open_product",
    "open_products",
    "product_record",
    "raw_cube_uri",
    "raw_damage",
    "raw_manifest_uri",
    "raw_shard_uri",
    "raw_slot",
    "read_raw",
    "read_raw_manifest",
    "renew_metadata",
    "write_dataset",
    "write_product",
    "write_raw",
    "write_raw_manifest",
]


N_SLOTS = 100_000
"""Exposures of one day and controller: exposure ids are day * 100000 + sequence number."""
RAW_COMPRESSOR = BloscCodec(cname="zstd", clevel=1, shuffle=BloscShuffle.shuffle, typesize=4, blocksize=1 << 20)
"""Measured per core on full-size bias / flat frames, lz4-5 + bitshuffle in brackets: 7.2 / 3.1 times smaller
than int32 (5.4 / 2.8; RICE FITS 5.9 / 3.1), read at 1260 / 755 MB/s (840 / 940), written at 500 / 330 MB/s
(400 / 500).  Into memory that is mapped already, reading reaches 1800 / 1200 MB/s.  One block per chunk."""


# ---------------------------------------------------------------------------- raw cubes


def raw_cube_uri(root: str, instrument: str, exposure: int) -> str:
    """URI of the cube that holds an exposure: one a day_obs and controller."""
    return files.join(root, "cubes", "raw", instrument, f"{exposure // N_SLOTS}.zarr")


def raw_slot(exposure: int) -> int:
    """Place of an exposure in its cube: the sequence number."""
    return exposure % N_SLOTS


def ensure_raw_cube(uri: str, instrument: Instrument) -> None:
    """Create the empty cube of a day unless it exists; any number of processes may do so at once.

    The array is ``raw``, int32 [adu], shape (100000, n_detectors, n_amps, y, x) in readout
    coordinates; absent shards take no space.

    Raises
    ------
    RepoError
        If a cube of another layout is in the way.
    """
    shape = (N_SLOTS, *instrument.raw_shape)
    _sweep_once(uri)
    if not cube_exists(uri):
        with files.staging(uri) as stage:
            _lay_out(stage / "cube", instrument)
            publish(stage / "cube", uri)
    attributes, found = check_format(uri, "raw"), opened(files.join(uri, "raw")).shape
    if attributes.get("instrument") != instrument.name or found != shape:
        raise RepoError(
            f"{uri}: holds {attributes.get('instrument')} with shape {found}, "
            f"{instrument.name} needs {shape}; ingest into another repository"
        )


@functools.cache
def _sweep_once(uri: str) -> None:
    files.sweep(uri)


def _lay_out(path: Path, instrument: Instrument) -> None:
    attributes = {"camcal_kind": "raw", "camcal_format": FORMAT, "instrument": instrument.name}
    group = zarr.create_group(LocalStore(path), attributes=attributes)
    shape, units = (N_SLOTS, *instrument.raw_shape), {"units": "adu"}
    create_array(group, RAW.name, RAW.dims, shape, np.dtype("i4"), units, leading=2, compressor=RAW_COMPRESSOR)


def renew_metadata(uri: str, instrument: Instrument) -> None:
    """Write the metadata of a day's cube again; the shards stay, and their checksums say whether it fits them."""
    with files.staging(uri) as stage:
        _lay_out(stage, instrument)
        for name in ("raw", ""):
            document = json.loads((stage / name / "zarr.json").read_text())
            write_metadata(files.join(uri, name).rstrip("/"), document)
    forget_opened()


def write_raw(uri: str, slot: int, detector: int, amps: Int32Array) -> None:
    """Write the raw pixels of one detector of one exposure: one whole shard, atomically.

    Parameters
    ----------
    uri : str
        The day's cube.
    slot, detector : int
        `raw_slot` of the exposure; detector id.
    amps : (n_amp, ny, nx) int32 [adu]
        In HDU order and readout coordinates.  Fewer amps (wavefront sensors) or a smaller readout
        than the cube's leave FILL in the rest.

    Raises
    ------
    DataError
        If the pixels are not int32 or do not fit.
    """
    array = opened(files.join(uri, "raw"))
    room = array.shape[2:]
    where = f"{uri}: exposure slot {slot}, detector {detector}"
    if not (0 <= slot < N_SLOTS and 0 <= detector < array.shape[1]):
        raise DataError(f"{where}: outside the cube of {N_SLOTS} slots and {array.shape[1]} detectors")
    if amps.dtype != np.int32 or amps.ndim != 3 or any(n > m for n, m in zip(amps.shape, room, strict=True)):
        raise DataError(f"{where}: pixels are {amps.dtype} {amps.shape}, the cube takes int32 up to {room} (amp, y, x)")
    block = amps[None, None]
    if amps.shape != room:
        block = np.full((1, 1, *room), FILL, dtype=np.int32)
        block[0, 0, : amps.shape[0], : amps.shape[1], : amps.shape[2]] = amps
    write_shard(files.join(uri, "raw"), (slot, detector, 0, 0, 0), block)


def read_raw(
    uri: str,
    slot: int,
    detector: int,
    amp: slice = slice(None),
    y: slice = slice(None),
    x: slice = slice(None),
    *,
    out: Int32Array | None = None,
) -> Int32Array:
    """Read a contiguous part of one detector of one exposure.

    Returns
    -------
    (amp, y, x) int32 [adu]
        FILL where the readout was smaller than the cube's.

    Raises
    ------
    DataError
        If the shard is damaged, or there is none.
    RepoError
        If the day's cube does not exist.
    """
    array = files.join(uri, "raw")
    if out is None:
        room = opened(array).shape[2:]
        shape = tuple(len(range(*s.indices(n))) for s, n in zip((amp, y, x), room, strict=True))
        out = np.empty(shape, dtype=np.int32)
    exposure = f"{uri.removesuffix('.zarr').rpartition('/')[2]}{slot:05d}"
    remedy = "ingest its file again (a damaged one is noticed and replaced)"
    read_into(array, (slot, detector, amp, y, x), out, f"exposure {exposure}, detector {detector}", remedy)
    return out


def raw_damage(uri: str, slot: int, detector: int) -> str:
    """Say what is wrong with the pixels of a detector of an exposure, all of which are read; empty if nothing is."""
    try:
        read_raw(uri, slot, detector)
    except (DataError, RepoError) as error:
        return str(error)
    return ""


def has_raw(uri: str, slot: int, detector: int) -> bool:
    """Whether pixels were written there (the manifest and the Butler say whether they are complete)."""
    return files.exists(raw_shard_uri(uri, slot, detector))


def raw_shard_uri(uri: str, slot: int, detector: int) -> str:
    """File of the pixels of a detector of an exposure."""
    return shard_path(files.join(uri, "raw"), (slot, detector, 0, 0, 0))


def raw_manifest_uri(uri: str, slot: int, detector: int) -> str:
    """File that says where the pixels of a detector of an exposure came from."""
    return files.join(uri.removesuffix(".zarr") + ".manifest", str(slot), f"{detector}.json")


def write_raw_manifest(uri: str, slot: int, detector: int, manifest: Mapping[str, Any]) -> None:
    """Record where pixels came from (``content_hash``, ``file``, ``header`` ...); after the pixels, atomically."""
    files.write_json(raw_manifest_uri(uri, slot, detector), manifest)


def read_raw_manifest(uri: str, slot: int, detector: int) -> dict[str, Any] | None:
    """Read what `write_raw_manifest` wrote; None if the pixels were never completely written."""
    return files.read_json(raw_manifest_uri(uri, slot, detector))


def headers(
    root: str, instrument: str, exposures: Iterable[int], detectors: Iterable[int]
) -> dict[int, dict[str, Any] | None]:
    """Header of each exposure, from the first of some detectors that was ingested of it.

    Parameters
    ----------
    root : str
        Of the repository.
    instrument : str
        Name of the camera.
    exposures, detectors : iterable of int
        Ids.

    Returns
    -------
    dict
        Exposure id to the cards, in the order of ``exposures``; None where none of the detectors was ingested.
    """
    found: dict[int, dict[str, Any] | None] = {}
    chosen = [int(d) for d in detectors]
    for exposure in map(int, exposures):
        uri, slot = raw_cube_uri(root, instrument, exposure), raw_slot(exposure)
        manifests = (read_raw_manifest(uri, slot, detector) for detector in chosen)
        found[exposure] = next((m["header"] for m in manifests if m is not None), None)
    return found


class RawCubeArray(BackendArray):
    """Raw pixels of chosen exposures and detectors, over any number of days, read when indexed.

    Only paths and numbers live here, so it travels to workers in a few kB.  Every read is a
    contiguous part of one shard, straight into the result; integer arrays along ``amp``, ``y``
    and ``x`` are taken in memory, because zarr is about 10 times slower with them.

    Parameters
    ----------
    uris : sequence of str
        The day's cube of each exposure.
    slots : sequence of int
        Slot of each exposure.
    detectors : sequence of int
        Detector ids.
    room : (n_amp, y, x)
        Of the cubes.
    present : (exposure, detector) bool, optional
        False = not registered: reads as FILL, whatever the cube holds there.
    """

    def __init__(
        self,
        uris: Sequence[str],
        slots: Sequence[int],
        detectors: Sequence[int],
        room: tuple[int, ...],
        *,
        present: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.present = None if present is None or present.all() else present
        self.days = tuple(dict.fromkeys(uris))
        self.day_index = np.array([self.days.index(uri) for uri in uris], dtype=np.int32)
        self.slots = np.asarray(slots, dtype=np.int32)
        self.detectors = np.asarray(detectors, dtype=np.int32)
        self.shape = (len(self.slots), len(self.detectors), *room)
        self.dtype = np.dtype(np.int32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Read; ``key`` is xarray's."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._select)

    def _select(self, key: Selection) -> Int32Array:
        spans = [span(k, n) for k, n in zip(key, self.shape, strict=True)]
        exposures, detectors = (
            np.arange(n)[span][local] for n, (span, local) in zip(self.shape[:2], spans, strict=False)
        )
        inner = tuple(span for span, _ in spans[2:])
        out = np.empty((len(exposures), len(detectors), *(span.stop - span.start for span in inner)), dtype=np.int32)
        for i, exposure in enumerate(exposures):
            uri, slot = self.days[self.day_index[exposure]], int(self.slots[exposure])
            for j, detector in enumerate(detectors):
                if self.present is not None and not self.present[exposure, detector]:
                    out[i, j] = FILL
                    continue
                read_raw(uri, slot, int(self.detectors[detector]), *inner, out=out[i, j])
        return cast(Int32Array, pick(out, key, [None, None, *(local for _, local in spans[2:])]))

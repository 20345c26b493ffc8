"""Cubes: zarr v3 arrays of raw and product pixels, read and written through ``zarrs``.

Nothing else in the package touches zarr.  The rules that make locks unnecessary:

* The address of an exposure's pixels is computed (`raw_cube_uri`, `raw_slot`), never allocated.
* One shard is one detector (of one exposure); it is always written whole, by one task, into a
  private folder and then renamed.  A reader sees no shard, the old one, or the new one.
* What says "complete" is written after the pixels: the manifest of a raw shard, the marker of a
  product's detector; the Butler's reference comes last of all.
* Fill values cannot pass for data: the smallest int32 for raws, NaN for floats.
* A task that is repeated writes the same bytes to the same place.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.codecs import BloscCodec, BloscShuffle
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore

from camcal_dask.errors import DataError, RepoError
from camcal_dask.instruments import Instrument
from camcal_dask.repo import files

Int32Array = npt.NDArray[np.int32]
Selection = tuple["int | slice | npt.NDArray[np.int64]", ...]

N_SLOTS = 100_000
"""Exposures of one day and controller: exposure ids are day * 100000 + sequence number."""
FILL = int(np.iinfo(np.int32).min)
"""Value of raw pixels that were never written."""
ROWS_MAX = 288
"""Most rows in one inner chunk: 2048 raw rows give 8 chunks of 256, 2002 product rows 7 of 286.
Measured on a full-size bias: 128 rows compress 1 % worse, whole amps make a slab read 6 times slower."""
FORMAT = 1
"""Version of the layout below; raised when an old reader would misread it."""
RAW_DIMS = ("exposure", "detector", "amp", "y", "x")
RAW_COMPRESSOR = BloscCodec(cname="zstd", clevel=1, shuffle=BloscShuffle.shuffle, typesize=4, blocksize=1 << 20)
"""Measured per core on full-size bias / flat frames, against lz4-5 + bitshuffle in brackets: size
7.0x / 2.9x smaller than int32 (5.4x / 2.8x), read 1260 / 755 MB/s (840 / 940), write 470 / 290 MB/s (400 / 500).
RICE FITS: 5.9x / 3.1x.  One block a chunk: zstd needs the length."""
_SMALL = 1 << 22  # [bytes] a detector's array below this is one chunk without inner chunks

zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})


# ---------------------------------------------------------------------------- opening arrays


@functools.cache
def _prime_threads(pid: int) -> None:
    """Give zarr's event loop room for every worker thread of this process.

    zarr sizes its pool by ``threading.max_workers`` at the first call, the same setting that
    limits the threads *inside* one zarrs call.  Without this, "one core per call" (`_open`)
    would also mean one call at a time.
    """
    with zarr.config.set({"threading.max_workers": 64}):
        zarr.create_group(MemoryStore())


_opening = threading.Lock()


def _open(uri: str, mode: str = "r") -> zarr.Array:
    """Open an array so that one call uses one core: dask's threads are the parallelism."""
    with _opening:  # zarr's configuration is global
        _prime_threads(os.getpid())
        with zarr.config.set({"threading.max_workers": 1}):
            store = LocalStore(files.local_path(uri), read_only=mode == "r")
            return zarr.open_array(store, mode=cast(Any, mode), config={"write_empty_chunks": True})


@functools.lru_cache(maxsize=256)
def _array(uri: str) -> zarr.Array:
    """Opened array, kept: opening costs 2 ms, reading a slab 10."""
    try:
        return _open(uri)
    except FileNotFoundError:
        raise RepoError(f"{uri}: no such cube; is the repository mounted on this host?") from None


def _check_format(uri: str, kind: str) -> dict[str, Any]:
    """Attributes of a cube's group, if it is one that this version can read."""
    document = files.read_json(files.join(uri, "zarr.json"))
    if document is None:
        raise RepoError(f"{uri}: no such cube")
    attributes: dict[str, Any] = document.get("attributes", {})
    if attributes.get("camcal_kind") != kind:
        raise RepoError(f"{uri}: holds {attributes.get('camcal_kind')!r}, expected a {kind!r} cube")
    if attributes.get("camcal_format") != FORMAT:
        raise RepoError(
            f"{uri}: written in format {attributes.get('camcal_format')}, this version of camcal_dask reads "
            f"format {FORMAT}; use the version that wrote it or make the cube again"
        )
    return attributes


def cube_kind(uri: str) -> str:
    """``"raw"``, ``"product"`` or ``"dataset"``: which function opens the cube.

    Raises
    ------
    RepoError
        If there is no cube of this package at the URI.
    """
    document = files.read_json(files.join(uri, "zarr.json"))
    if document is None or "camcal_kind" not in document.get("attributes", {}):
        raise RepoError(f"{uri}: no camcal_dask cube")
    return str(document["attributes"]["camcal_kind"])


def _rows(height: int) -> int:
    """Rows of an inner chunk: the largest divisor of ``height`` up to ROWS_MAX, or all if that is tiny."""
    divisor = max(n for n in range(1, min(height, ROWS_MAX) + 1) if height % n == 0)
    return divisor if divisor >= 64 else height


# ---------------------------------------------------------------------------- shards


def _shard_path(array_uri: str, index: Sequence[int]) -> str:
    return files.join(array_uri, "c", *(str(i) for i in index))


def _write_shard(array_uri: str, index: Sequence[int], block: npt.NDArray[Any]) -> None:
    """Write one whole shard atomically; ``index`` counts shards along each axis.

    The shard is encoded as the only one of an array of its size in a scratch folder beside the
    cube and renamed into place.  zarr itself writes in place: a second writer or a kill would
    leave half a shard.
    """
    target = files.local_path(_shard_path(array_uri, index))
    meta = json.loads(_metadata(array_uri))
    meta["shape"] = meta["chunk_grid"]["configuration"]["chunk_shape"]
    meta["chunk_key_encoding"] = {"name": "default", "configuration": {"separator": "."}}
    with files.staging(files.join(array_uri, "shard")) as stage:
        (stage / "zarr.json").write_text(json.dumps(meta))
        _open(str(stage), "r+")[...] = block
        target.parent.mkdir(parents=True, exist_ok=True)
        (stage / ".".join(["c", *("0" for _ in index)])).replace(target)


@functools.lru_cache(maxsize=256)
def _metadata(array_uri: str) -> str:
    try:
        return files.local_path(files.join(array_uri, "zarr.json")).read_text()
    except FileNotFoundError:
        raise RepoError(f"{array_uri}: no such cube; create it before writing") from None


def _read(array_uri: str, selection: tuple[slice | int, ...], out: npt.NDArray[Any], what: str) -> None:
    """Read a contiguous selection into ``out`` (C-contiguous, of the selection's shape)."""
    buffer = default_buffer_prototype().nd_buffer.from_numpy_array(out)
    try:
        _array(array_uri).get_basic_selection(selection, out=buffer)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{array_uri}: {what} cannot be read ({error}): the shard is damaged; write it again"
        ) from error


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
    if not files.exists(files.join(uri, "raw", "zarr.json")):
        with files.staging(uri) as stage:
            group = zarr.create_group(
                LocalStore(stage / "cube"),
                attributes={"camcal_kind": "raw", "camcal_format": FORMAT, "instrument": instrument.name},
            )
            _create_array(
                group, "raw", RAW_DIMS, shape, np.dtype("i4"), {"units": "adu"}, leading=2, compressor=RAW_COMPRESSOR
            )
            files.publish(stage / "cube", uri)
    attributes, found = _check_format(uri, "raw"), _array(files.join(uri, "raw")).shape
    if attributes.get("instrument") != instrument.name or found != shape:
        raise RepoError(
            f"{uri}: holds {attributes.get('instrument')} with shape {found}, "
            f"{instrument.name} needs {shape}; ingest into another repository"
        )


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
    array = _array(files.join(uri, "raw"))
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
    _write_shard(files.join(uri, "raw"), (slot, detector, 0, 0, 0), block)


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
        FILL where nothing was written.

    Raises
    ------
    DataError
        If the shard is damaged.
    RepoError
        If the day's cube does not exist.
    """
    array = files.join(uri, "raw")
    if out is None:
        room = _array(array).shape[2:]
        shape = tuple(len(range(*s.indices(n))) for s, n in zip((amp, y, x), room, strict=True))
        out = np.empty(shape, dtype=np.int32)
    _read(array, (slot, detector, amp, y, x), out, f"exposure slot {slot}, detector {detector}")
    return out


def has_raw(uri: str, slot: int, detector: int) -> bool:
    """Whether pixels were written there (the manifest and the Butler say whether they are complete)."""
    return files.exists(_shard_path(files.join(uri, "raw"), (slot, detector, 0, 0, 0)))


def _manifest_uri(uri: str, slot: int, detector: int) -> str:
    return files.join(uri.removesuffix(".zarr") + ".manifest", str(slot), f"{detector}.json")


def write_raw_manifest(uri: str, slot: int, detector: int, manifest: Mapping[str, Any]) -> None:
    """Record where pixels came from (``content_hash``, ``file``, ``header`` ...); after the pixels, atomically."""
    files.write_json(_manifest_uri(uri, slot, detector), manifest)


def read_raw_manifest(uri: str, slot: int, detector: int) -> dict[str, Any] | None:
    """Read what `write_raw_manifest` wrote; None if the pixels were never completely written."""
    return files.read_json(_manifest_uri(uri, slot, detector))


# ---------------------------------------------------------------------------- lazy arrays


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
    """

    def __init__(
        self, uris: Sequence[str], slots: Sequence[int], detectors: Sequence[int], room: tuple[int, int, int]
    ) -> None:
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
        spans = [_span(k, n) for k, n in zip(key, self.shape, strict=True)]
        exposures, detectors = (
            np.arange(n)[span][local] for n, (span, local) in zip(self.shape[:2], spans, strict=False)
        )
        inner = tuple(span for span, _ in spans[2:])
        out = np.empty((len(exposures), len(detectors), *(span.stop - span.start for span in inner)), dtype=np.int32)
        for i, exposure in enumerate(exposures):
            uri, slot = self.days[self.day_index[exposure]], int(self.slots[exposure])
            for j, detector in enumerate(detectors):
                read_raw(uri, slot, int(self.detectors[detector]), *inner, out=out[i, j])
        return cast(Int32Array, _pick(out, key, [None, None, *(local for _, local in spans[2:])]))


class ShardedArray(BackendArray):
    """One variable of a product cube (detector, ...), read when indexed; picklable."""

    def __init__(self, uri: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.uri, self.shape, self.dtype = uri, shape, dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Read; ``key`` is xarray's."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._select)

    def _select(self, key: Selection) -> npt.NDArray[Any]:
        spans = [_span(k, n) for k, n in zip(key, self.shape, strict=True)]
        detectors = np.arange(self.shape[0])[spans[0][0]][spans[0][1]]
        inner = tuple(span for span, _ in spans[1:])
        out = np.empty((len(detectors), *(span.stop - span.start for span in inner)), dtype=self.dtype)
        for i, detector in enumerate(detectors):
            _read(self.uri, (int(detector), *inner), out[i], f"detector index {detector}")
        return _pick(out, key, [None, *(local for _, local in spans[1:])])


def _span(key: Any, size: int) -> tuple[slice, Any]:
    """Split an indexer into the contiguous range to read and what to take of it afterwards."""
    if isinstance(key, slice):
        rows = range(*key.indices(size))
        if len(rows) == 0:
            return slice(0, 0), slice(None)
        low, high = min(rows[0], rows[-1]), max(rows[0], rows[-1])
        return slice(low, high + 1), slice(None) if rows.step == 1 else np.asarray(rows) - low
    index = np.atleast_1d(np.asarray(key, dtype=np.int64))
    index = np.where(index < 0, index + size, index)
    if index.size == 0:
        return slice(0, 0), slice(None)
    low = int(index.min())
    return slice(low, int(index.max()) + 1), index - low


def _pick(out: npt.NDArray[Any], key: Selection, local: Sequence[Any]) -> npt.NDArray[Any]:
    """Apply what `_span` left over, then drop the axes that were indexed by a number."""
    for axis, take in enumerate(local):
        if isinstance(take, np.ndarray):
            out = np.take(out, take, axis=axis)
    return out[tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)]


def lazy_variable(dims: Sequence[str], array: BackendArray, attrs: Mapping[str, Any] | None = None) -> xr.Variable:
    """Wrap a backend array so that xarray selects first and reads last."""
    return xr.Variable(tuple(dims), indexing.LazilyIndexedArray(array), dict(attrs or {}))


# ---------------------------------------------------------------------------- product cubes


def create_product(uri: str, template: xr.Dataset) -> None:
    """Lay out a product cube without data; idempotent for the same layout.

    Parameters
    ----------
    uri : str
        ``.../<dataset type>.zarr``.
    template : xr.Dataset
        Names, dims, dtypes, attributes and coordinates of the product (values of variables that
        have a ``detector`` dimension, which must come first, are not looked at: use
        ``np.broadcast_to(dtype.type(0), shape)``).  Needs a ``detector`` coordinate of ids.

    Raises
    ------
    RepoError
        If a product of another layout is in the way.
    """
    if "detector" not in template.coords:
        raise RepoError(f"{uri}: a product needs a 'detector' coordinate, got {list(template.coords)}")
    if not files.exists(uri):
        with files.staging(uri) as stage:
            _lay_out(stage / "cube", template)
            files.publish(stage / "cube", uri)
    _check_same(uri, template)


def _lay_out(path: Any, template: xr.Dataset) -> None:
    sharded = [name for name, v in template.data_vars.items() if "detector" in v.dims]
    small = template.drop_vars(sharded).assign_attrs(
        {"camcal_kind": "product", "camcal_format": FORMAT, "camcal_sharded": [str(n) for n in sharded]}
    )
    _to_zarr(small, path)
    group = zarr.open_group(LocalStore(path), mode="r+")
    for name in sharded:
        v = template[name]
        if v.dims[0] != "detector":
            raise RepoError(f"{path}: variable {name!r} has dims {v.dims}; 'detector' must come first")
        _create_array(group, str(name), [str(d) for d in v.dims], v.shape, v.dtype, v.attrs, leading=1)


def _create_array(
    group: zarr.Group,
    name: str,
    dims: Sequence[str],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    attrs: Mapping[str, Any],
    *,
    leading: int,
    compressor: BloscCodec | None = None,
) -> None:
    """Create an array of shards of one element along the ``leading`` axes and all along the others."""
    shard = (1,) * leading + tuple(shape[leading:])
    inner: tuple[int, ...] | None = None
    if np.prod(shard) * dtype.itemsize > _SMALL:
        rows = [_rows(n) if dim == "y" else n for dim, n in zip(dims, shape, strict=True)]
        inner = (1,) * (leading + 1) + tuple(rows[leading + 1 :])
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        shards=shard if inner else None,
        chunks=inner or shard,
        compressors=compressor or _lz4(dtype),
        fill_value=_fill(dtype),
        dimension_names=list(dims),
        attributes=_plain(attrs),
    )


def _lz4(dtype: np.dtype[Any]) -> BloscCodec:
    # Product pixels are noise in all their bytes (1.07x whatever one does): the fastest to read, 850 MB/s a core.
    return BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.shuffle, typesize=dtype.itemsize)


def _fill(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return np.nan
    if dtype.kind == "i":
        return np.iinfo(dtype).min
    return dtype.type(0)


def _check_same(uri: str, template: xr.Dataset) -> None:
    found = _product(uri)
    for name, v in template.variables.items():
        there = found.variables.get(name)
        if there is None or there.dims != v.dims or there.shape != v.shape:
            have = None if there is None else dict(zip(there.dims, there.shape, strict=True))
            want = dict(zip(v.dims, v.shape, strict=True))
            raise RepoError(
                f"{uri}: exists with another layout: {name!r} is {have}, this run makes {want}; "
                f"choose another output collection"
            )
    ids, wanted = found["detector"].values.tolist(), template["detector"].values.tolist()
    if ids != wanted:
        raise RepoError(f"{uri}: exists for detectors {ids}, this run makes {wanted}; choose another output collection")


def write_product(
    uri: str, detector_index: int, arrays: Mapping[str, npt.NDArray[Any]], record: Mapping[str, Any] | None = None
) -> None:
    """Write everything of one detector, then the marker that makes it visible.

    Exactly one task writes a detector; repeated (a retry, a resumed run), it replaces what is
    there shard by shard.

    Parameters
    ----------
    uri : str
        A cube laid out by `create_product`.
    detector_index : int
        Position along ``detector`` (not the id).
    arrays : dict of name -> array
        All sharded variables, without the detector axis.
    record : dict, optional
        Kept in the marker (inputs, times ...).

    Raises
    ------
    DataError
        If a variable is missing, unknown, or of the wrong shape or dtype.
    """
    sharded = _check_format(uri, "product")["camcal_sharded"]
    if set(arrays) != set(sharded):
        raise DataError(f"{uri}: detector index {detector_index} came with {sorted(arrays)}, needs {sorted(sharded)}")
    for name, values in arrays.items():
        array = _array(files.join(uri, name))
        if values.shape != array.shape[1:] or values.dtype != array.dtype:
            raise DataError(
                f"{uri}: {name!r} of detector index {detector_index} is {values.dtype} {values.shape}, "
                f"the product has {array.dtype} {array.shape[1:]}"
            )
    for name, values in arrays.items():
        _write_shard(files.join(uri, name), (detector_index, *(0 for _ in values.shape)), values[None])
    files.write_json(_marker(uri, detector_index), dict(record or {}))


def _marker(uri: str, detector_index: int) -> str:
    return files.join(uri.removesuffix(".zarr") + ".finished", f"{detector_index}.json")


def finished(uri: str) -> list[int]:
    """Indices along ``detector`` that are completely written, ascending."""
    markers = files.names(files.parent(_marker(uri, 0)))
    return sorted(int(name.removesuffix(".json")) for name in markers if name[0].isdigit())


def product_record(uri: str, detector_index: int) -> dict[str, Any] | None:
    """What `write_product` was given as ``record``; None if the detector is not finished."""
    return files.read_json(_marker(uri, detector_index))


def open_product(uri: str) -> xr.Dataset:
    """Open a product lazily (without dask); only detectors that are completely written are there.

    Returns
    -------
    xr.Dataset
        Variables (detector, amp, y, x) and others as laid out; ``attrs`` of the product.

    Raises
    ------
    RepoError
        If there is no product, or none of its detectors is finished.
    """
    product = _product(uri)
    done = finished(uri)
    if not done:
        raise RepoError(f"{uri}: no detector of this product is finished; run the pipeline again to resume it")
    return product if len(done) == product.sizes["detector"] else product.isel(detector=done)


def _product(uri: str) -> xr.Dataset:
    attributes = _check_format(uri, "product")
    sharded = list(attributes["camcal_sharded"])
    dataset = _from_zarr(uri, drop=sharded)
    variables = {}
    for name in sharded:
        array = _array(files.join(uri, name))
        dims = [str(d) for d in array.metadata.dimension_names]  # type: ignore[union-attr]
        lazy = ShardedArray(files.join(uri, name), array.shape, array.dtype)
        variables[name] = lazy_variable(dims, lazy, array.attrs.asdict())
    return dataset.assign(variables)


# ---------------------------------------------------------------------------- small cubes


def write_dataset(uri: str, dataset: xr.Dataset, *, overwrite: bool = False) -> None:
    """Write a small Dataset (statistics, tables) whole and atomically.

    Raises
    ------
    RepoError
        If something is there and ``overwrite`` is not set.
    """
    stamped = dataset.assign_attrs({"camcal_kind": "dataset", "camcal_format": FORMAT})
    with files.staging(uri) as stage:
        _to_zarr(stamped, stage / "cube")
        if not files.publish(stage / "cube", uri, overwrite=overwrite):
            raise RepoError(f"{uri}: exists already; choose another output collection")


def open_dataset(uri: str) -> xr.Dataset:
    """Read what `write_dataset` wrote, into memory."""
    _check_format(uri, "dataset")
    return _from_zarr(uri)


def _to_zarr(dataset: xr.Dataset, path: Any) -> None:
    """Write with xarray; text as variable-length strings, the only kind with a zarr v3 specification."""
    texts = {n: v.astype(np.dtypes.StringDType()) for n, v in dataset.variables.items() if v.dtype.kind in "OU"}
    plain = dataset.assign({n: v for n, v in texts.items() if n in dataset.data_vars})
    plain = plain.assign_coords({n: v for n, v in texts.items() if n in dataset.coords})
    plain.attrs = _plain(dataset.attrs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="zarr")
        plain.to_zarr(path, mode="w", zarr_format=3, consolidated=False)


def _from_zarr(uri: str, drop: Sequence[str] = ()) -> xr.Dataset:
    dataset = xr.open_zarr(
        files.local_path(uri), chunks=None, consolidated=False, zarr_format=3, drop_variables=list(drop)
    ).load()
    texts = {n: _fixed_text(v) for n, v in dataset.variables.items() if v.dtype.kind == "T"}
    dataset = dataset.assign({n: v for n, v in texts.items() if n in dataset.data_vars})
    dataset = dataset.assign_coords({n: v for n, v in texts.items() if n in dataset.coords})
    dataset.attrs = {k: v for k, v in dataset.attrs.items() if not k.startswith("camcal_")}
    return cast(xr.Dataset, dataset)


def _fixed_text(variable: xr.Variable) -> xr.Variable:
    values = np.array(variable.values.tolist(), dtype=str).reshape(variable.shape)
    return xr.Variable(variable.dims, values, variable.attrs)


def _plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as JSON values: numpy scalars and arrays become Python's."""
    return cast(dict[str, Any], json.loads(json.dumps({str(k): v for k, v in attrs.items()}, default=_json)))


def _json(value: Hashable) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)

"""Sharded zarr v3 arrays through ``zarrs``: opening, whole shards, contiguous reads, lazy variables.

This and `products` are the only modules that touch zarr.  One shard is one detector (of one
exposure); it is always written whole, by one task, into a private folder and then renamed: a
reader sees no shard, the old one, or the new one, and writers need no lock.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore

from camcal_dask.errors import DataError, RepoError
from camcal_dask.repo.storage import files, objects

Selection = tuple["int | slice | npt.NDArray[np.int64]", ...]

ROWS_MAX = 288
"""Most rows in one inner chunk: 2048 raw rows give 8 chunks of 256, 2002 product rows 7 of 286.
Measured on a full-size bias: 128 rows compress 1 % worse, whole amps make a slab read 6 times slower."""
FORMAT = 1
"""Version of the layout; raised when an old reader would misread it."""
_ARRAYS = "camcal_arrays"
"""Attribute of a cube: the names of its arrays."""
CHECKSUM = Crc32cCodec()
"""Last codec of every chunk.  zarrs verifies it when it decodes a chunk whole, and only then (`read_into`)."""
REMEDY = "camcal check REPO --repair clears it away, then repeat the run that made it"
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


def open_array(uri: str, mode: str = "r") -> zarr.Array:
    """Open an array so that one call uses one core: dask's threads are the parallelism."""
    with _opening:  # zarr's configuration is global
        _prime_threads(os.getpid())
        with zarr.config.set({"threading.max_workers": 1}):
            store = zarr_store(uri, read_only=mode == "r")
            return zarr.open_array(store, mode=cast(Any, mode))


@contextmanager
def every_chunk_written() -> Iterator[None]:
    """Arrays opened meanwhile store chunks of nothing but fill values too, so that a missing file is a lost one.

    zarrs never does, so it is zarr's own pipeline that writes them.
    """
    python = {"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline", "array.write_empty_chunks": True}
    with _opening, zarr.config.set(python):
        yield


def zarr_store(uri: str, *, read_only: bool) -> Store:
    """Store of a zarr group or array, wherever it lies."""
    if objects.is_object(uri):
        return objects.zarr_store(uri, read_only=read_only)
    return LocalStore(files.local_path(uri), read_only=read_only)


@functools.lru_cache(maxsize=256)
def opened(uri: str) -> zarr.Array:
    """Opened array, kept: opening costs 2 ms, reading a slab 10."""
    metadata_text(uri)  # verified
    try:
        return open_array(uri)
    except FileNotFoundError:
        raise RepoError(f"{uri}: no such cube; is the repository mounted on this host?") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RepoError(f"{uri}/zarr.json: damaged ({type(error).__name__}: {error})") from error


def cube_exists(uri: str) -> bool:
    """Whether a cube is visible; what lies there without its ``zarr.json``, which comes last, was interrupted."""
    return files.exists(files.join(uri, objects.LAST))


def check_format(uri: str, kind: str) -> dict[str, Any]:
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
            f"format {FORMAT}; use the version that wrote it, or make the cube again"
        )
    return attributes


def arrays_of(uri: str) -> list[str]:
    """Names of the arrays of a cube, as it was written, whose metadata is verified.

    Raises
    ------
    RepoError
        If there is no cube, or the metadata of one is damaged or gone.
    """
    document = files.read_json(files.join(uri, "zarr.json"))
    if document is None:
        raise RepoError(f"{uri}: no such cube")
    there = [name for name in files.names(uri) if files.exists(files.join(uri, name, "zarr.json"))]
    names = document.get("attributes", {}).get(_ARRAYS, there)
    for name in names:
        metadata_text(files.join(uri, name))
    return list(names)


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


def inner_rows(height: int) -> int:
    """Rows of an inner chunk: the largest divisor of ``height`` up to ROWS_MAX, or all if that is tiny."""
    divisor = max(n for n in range(1, min(height, ROWS_MAX) + 1) if height % n == 0)
    return divisor if divisor >= 64 else height


# ---------------------------------------------------------------------------- shards


def shard_path(array_uri: str, index: Sequence[int]) -> str:
    """File of a shard."""
    return files.join(array_uri, "c", *(str(i) for i in index))


def write_shard(array_uri: str, index: Sequence[int], block: npt.NDArray[Any]) -> None:
    """Write one whole shard atomically; ``index`` counts shards along each axis.

    The shard is encoded as the only one of an array of its size in a scratch folder beside the
    cube and renamed into place.  zarr itself writes in place: a second writer or a kill would
    leave half a shard.
    """
    meta = json.loads(metadata_text(array_uri))
    meta["shape"] = meta["chunk_grid"]["configuration"]["chunk_shape"]
    meta["chunk_key_encoding"] = {"name": "default", "configuration": {"separator": "."}}
    with files.staging(files.parent(array_uri)) as stage:
        (stage / "zarr.json").write_text(json.dumps(meta))
        open_array(str(stage), "r+")[...] = block
        written = stage / ".".join(["c", *("0" for _ in index)])
        if not written.exists():
            with every_chunk_written():
                zarr.open_array(LocalStore(stage), mode="r+")[...] = block
        files.move_in(written, shard_path(array_uri, index))


def publish(stage: Path, uri: str, *, overwrite: bool = False) -> bool:
    """Give a cube its name (`files.publish`), its metadata sealed, and forget what was open under it."""
    arrays = sorted(path.parent.name for path in stage.glob("*/zarr.json"))
    for path in stage.rglob("zarr.json"):
        document = json.loads(path.read_text())
        if path.parent == stage:
            document["attributes"] = {**document.get("attributes", {}), _ARRAYS: arrays}
        path.write_bytes(_sealed(document))
    done = files.publish(stage, uri, overwrite=overwrite)
    opened.cache_clear()
    metadata_text.cache_clear()
    return done


def write_metadata(uri: str, document: Mapping[str, Any]) -> None:
    """Replace the metadata of a group or array."""
    files.write_bytes(files.join(uri, "zarr.json"), _sealed(document))


def _sealed(document: Mapping[str, Any]) -> bytes:
    attributes = {**document.get("attributes", {}), files.SEAL: files.BLANK}
    return files.sealed({**document, "attributes": attributes})


@functools.lru_cache(maxsize=256)
def metadata_text(array_uri: str) -> str:
    """Text of an array's ``zarr.json``.

    Raises
    ------
    RepoError
        If there is none, or it is damaged.
    """
    document = files.read_json(files.join(array_uri, "zarr.json"))
    if document is None:
        raise RepoError(f"{array_uri}: no such cube; is the repository mounted on this host?")
    return json.dumps(document)


def has_checksums(array_uri: str) -> bool:
    """Whether the chunks of an array have checksums; those of older versions have none."""
    codecs = json.loads(metadata_text(array_uri))["codecs"]
    if codecs[0]["name"] == "sharding_indexed":
        codecs = codecs[0]["configuration"]["codecs"]
    return any(codec["name"] == CHECKSUM.to_dict()["name"] for codec in codecs)


def read_into(
    array_uri: str, selection: tuple[slice | int, ...], out: npt.NDArray[Any], what: str, remedy: str = REMEDY
) -> None:
    """Read a contiguous selection into ``out`` (C-contiguous, of the selection's shape), verified.

    Chunks are always decoded whole, even if the selection cuts them: zarrs takes a part out of a chunk
    without looking at its checksum.

    Parameters
    ----------
    array_uri : str
    selection : tuple of slice (steps of 1) or int
        Numbers only along axes with chunks of one.
    out : ndarray
    what, remedy : str
        What is read, and what to do if that is not possible, for the message.

    Raises
    ------
    DataError
        If a file is damaged or missing.
    """
    array = opened(array_uri)
    axes = list(zip(selection, array.shape, array.chunks, strict=True))
    wider = tuple(_widened(*axis) for axis in axes)
    cuts = [_cut(part, n, chunk) for part, n, chunk in axes if isinstance(part, slice)]
    whole = all(cut == slice(0, length) for cut, length in cuts)
    into = out if whole else np.empty([length for _, length in cuts], out.dtype)
    buffer = default_buffer_prototype().nd_buffer.from_numpy_array(into)
    try:
        array.get_basic_selection(wider, out=buffer)
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(f"{array_uri}: {what} cannot be read ({error}): the file is damaged; {remedy}") from error
    for lost in _lost(array_uri, wider, into):
        raise DataError(f"{lost}: {what} cannot be read: the file is lost; {remedy}")
    if not whole:
        out[...] = into[tuple(cut for cut, _ in cuts)]


def _widened(part: slice | int, n: int, chunk: int) -> slice | int:
    """Range of whole chunks around a part of an axis."""
    if not isinstance(part, slice):
        return part
    start, stop, _ = part.indices(n)
    return slice(start // chunk * chunk, min(-(-stop // chunk) * chunk, n)) if stop > start else slice(start, start)


def _cut(part: slice, n: int, chunk: int) -> tuple[slice, int]:
    """Where a part of an axis lies in the whole chunks around it, and how long these are."""
    wider = cast(slice, _widened(part, n, chunk))
    start, stop, _ = part.indices(n)
    return slice(start - wider.start, max(start, stop) - wider.start), wider.stop - wider.start


def read_whole(array_uri: str, what: str, remedy: str = REMEDY) -> npt.NDArray[Any]:
    """Read all of an array, verified; see `read_into`."""
    array = opened(array_uri)
    out = np.empty(array.shape, array.dtype)
    read_into(array_uri, tuple(slice(0, n) for n in array.shape), out, what, remedy)
    return out


def check_chunks(uri: str, names: Iterable[str]) -> None:
    """Refuse a group of arrays that somebody else reads, if metadata is damaged or a chunk is missing.

    Raises
    ------
    RepoError, DataError
        For the first one.
    """
    for name in names:
        array_uri = files.join(uri, name)
        array = opened(array_uri)
        if has_checksums(array_uri):
            ranges = [range(-(-n // chunk)) for n, chunk in zip(array.shape, array.chunks, strict=True)]
            for path in (shard_path(array_uri, index) for index in itertools.product(*ranges)):
                if not files.exists(path):
                    raise DataError(f"{path}: lost; {REMEDY}")


def _lost(array_uri: str, selection: tuple[slice | int, ...], values: npt.NDArray[Any]) -> Iterator[str]:
    """Files of a selection that are missing, which zarr reads as fill values.

    Only where the first value is the fill value need anybody look: a file that is there costs nothing.
    Arrays without checksums may lack files of nothing but fill values, unless they are of shards.
    """
    array = opened(array_uri)
    if array.shards is None and not has_checksums(array_uri):
        return
    spans = [slice(s, s + 1) if isinstance(s, int) else s for s in selection]
    values = values.reshape([s.stop - s.start for s in spans])
    ranges = [range(s.start // n, -(-s.stop // n)) for s, n in zip(spans, array.shards or array.chunks, strict=True)]
    for index in itertools.product(*ranges) if values.size else ():
        corner = tuple(
            max(i * n - s.start, 0) for i, n, s in zip(index, array.shards or array.chunks, spans, strict=True)
        )
        if _is_fill(values[corner], array.fill_value) and not files.exists(path := shard_path(array_uri, index)):
            yield path


def _is_fill(value: Any, fill_value: Any) -> bool:
    return bool(value == fill_value or (value != value and fill_value != fill_value))  # noqa: PLR0124 -- NaN


# ---------------------------------------------------------------------------- making arrays


def create_array(
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
        rows = [inner_rows(n) if dim == "y" else n for dim, n in zip(dims, shape, strict=True)]
        inner = (1,) * (leading + 1) + tuple(rows[leading + 1 :])
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        shards=shard if inner else None,
        chunks=inner or shard,
        compressors=[compressor or _lz4(dtype), CHECKSUM],
        fill_value=fill(dtype),
        dimension_names=list(dims),
        attributes=plain(attrs),
    )


def _lz4(dtype: np.dtype[Any]) -> BloscCodec:
    # Product pixels are noise in all their bytes (1.07x whatever one does), so the fastest to read: 850 MB/s per core.
    return BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.shuffle, typesize=dtype.itemsize)


def fill(dtype: np.dtype[Any]) -> Any:
    """Value of what was never written: NaN, the smallest signed integer, else zero."""
    if dtype.kind == "f":
        return np.nan
    if dtype.kind == "i":
        return np.iinfo(dtype).min
    return dtype.type(0)


def plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as JSON values: numpy scalars and arrays become Python's."""
    return cast(dict[str, Any], json.loads(json.dumps({str(k): v for k, v in attrs.items()}, default=_json)))


def _json(value: Hashable) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)


# ---------------------------------------------------------------------------- lazy indexing


def span(key: Any, size: int) -> tuple[slice, Any]:
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


def pick(out: npt.NDArray[Any], key: Selection, local: Sequence[Any]) -> npt.NDArray[Any]:
    """Apply what `_span` left over, then drop the axes that were indexed by a number."""
    for axis, take in enumerate(local):
        if isinstance(take, np.ndarray):
            out = np.take(out, take, axis=axis)
    return out[tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)]


def lazy_variable(dims: Sequence[str], array: BackendArray, attrs: Mapping[str, Any] | None = None) -> xr.Variable:
    """Wrap a backend array so that xarray selects first and reads last."""
    return xr.Variable(tuple(dims), indexing.LazilyIndexedArray(array), dict(attrs or {}))

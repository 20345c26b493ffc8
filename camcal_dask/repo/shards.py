"""Sharded zarr v3 arrays through ``zarrs``: opening, whole shards, contiguous reads, lazy variables.

This and `products` are the only modules that touch zarr.  One shard is one detector (of one
exposure); it is always written whole, by one task, into a private folder and then renamed: a
reader sees no shard, the old one, or the new one, and writers need no lock.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, BloscShuffle
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore

from camcal_dask.errors import DataError, RepoError
from camcal_dask.repo import files, objects

Selection = tuple["int | slice | npt.NDArray[np.int64]", ...]

ROWS_MAX = 288
"""Most rows in one inner chunk: 2048 raw rows give 8 chunks of 256, 2002 product rows 7 of 286.
Measured on a full-size bias: 128 rows compress 1 % worse, whole amps make a slab read 6 times slower."""
FORMAT = 1
"""Version of the layout; raised when an old reader would misread it."""
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
            return zarr.open_array(store, mode=cast(Any, mode), config={"write_empty_chunks": True})


def zarr_store(uri: str, *, read_only: bool) -> Store:
    """Store of a zarr group or array, wherever it lies."""
    if objects.is_object(uri):
        return objects.zarr_store(uri, read_only=read_only)
    return LocalStore(files.local_path(uri), read_only=read_only)


@functools.lru_cache(maxsize=256)
def opened(uri: str) -> zarr.Array:
    """Opened array, kept: opening costs 2 ms, reading a slab 10."""
    try:
        return open_array(uri)
    except FileNotFoundError:
        raise RepoError(f"{uri}: no such cube; is the repository mounted on this host?") from None


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
        if written.exists():
            files.move_in(written, shard_path(array_uri, index))
        else:  # nothing but fill values, which is what an absent shard reads as
            files.remove(shard_path(array_uri, index))


def publish(stage: Path, uri: str, *, overwrite: bool = False) -> bool:
    """Give a cube its name (`files.publish`), and forget what was open under it."""
    done = files.publish(stage, uri, overwrite=overwrite)
    opened.cache_clear()
    metadata_text.cache_clear()
    return done


@functools.lru_cache(maxsize=256)
def metadata_text(array_uri: str) -> str:
    """Text of an array's ``zarr.json``."""
    text = files.read_text(files.join(array_uri, "zarr.json"))
    if text is None:
        raise RepoError(f"{array_uri}: no such cube; create it before writing")
    return text


def read_into(array_uri: str, selection: tuple[slice | int, ...], out: npt.NDArray[Any], what: str) -> None:
    """Read a contiguous selection into ``out`` (C-contiguous, of the selection's shape)."""
    buffer = default_buffer_prototype().nd_buffer.from_numpy_array(out)
    try:
        opened(array_uri).get_basic_selection(selection, out=buffer)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{array_uri}: {what} cannot be read ({error}): the shard is damaged; write it again"
        ) from error


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
        compressors=compressor or _lz4(dtype),
        fill_value=fill(dtype),
        dimension_names=list(dims),
        attributes=plain(attrs),
    )


def _lz4(dtype: np.dtype[Any]) -> BloscCodec:
    # Product pixels are noise in all their bytes (1.07x whatever one does): the fastest to read, 850 MB/s a core.
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

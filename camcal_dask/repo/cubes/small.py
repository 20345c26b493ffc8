"""Small cubes (statistics, tables), which are written and read whole; the small variables of products too."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import xarray as xr
from zarr.codecs import ZstdCodec

from camcal_dask.errors import DataError, RepoError
from camcal_dask.repo.cubes import statistics
from camcal_dask.repo.storage import files
from camcal_dask.repo.storage.shards import (
    CHECKSUM,
    FORMAT,
    REMEDY,
    arrays_of,
    check_chunks,
    check_format,
    every_chunk_written,
    plain,
    publish,
    zarr_store,
)


def write_dataset(uri: str, dataset: xr.Dataset, *, overwrite: bool = False) -> None:
    """Write a small Dataset (statistics, tables) whole and atomically.

    Raises
    ------
    RepoError
        If something is there and ``overwrite`` is not set.
    """
    index = {statistics.INDEX: statistics.index_of(dataset)}
    stamped = dataset.assign_attrs({"camcal_kind": "dataset", "camcal_format": FORMAT, **index})
    with files.staging(uri) as stage:
        to_zarr(stamped, stage / "cube", chunked=True)
        if not publish(stage / "cube", uri, overwrite=overwrite):
            raise RepoError(f"{uri}: already exists; choose another output collection")


def open_dataset(uri: str) -> xr.Dataset:
    """Read what `write_dataset` wrote, into memory, verified."""
    check_format(uri, "dataset")
    return from_zarr(uri)


def to_zarr(dataset: xr.Dataset, path: Any, *, chunked: bool = False) -> None:
    """Write with xarray; text as variable-length strings, the only kind with a zarr v3 specification.

    ``chunked`` cuts the arrays as queries read them (`statistics.chunks_of`).
    """
    texts = {n: v.astype(np.dtypes.StringDType()) for n, v in dataset.variables.items() if v.dtype.kind in "OU"}
    ready = dataset.assign({n: v for n, v in texts.items() if n in dataset.data_vars})
    ready = ready.assign_coords({n: v for n, v in texts.items() if n in dataset.coords})
    ready.attrs = plain(dataset.attrs)
    chunks = {
        n: statistics.chunks_of(v.dims, v.shape, v.dtype.itemsize)
        for n, v in ready.data_vars.items()
        if chunked and v.ndim
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="zarr")
        encoding: dict[Hashable, dict[str, Any]] = {
            n: {"compressors": [ZstdCodec(), CHECKSUM]} for n in ready.variables
        }
        for name, shape in chunks.items():
            encoding[name]["chunks"] = shape
        with every_chunk_written():
            ready.to_zarr(path, mode="w", zarr_format=3, consolidated=False, encoding=encoding)


def from_zarr(uri: str, drop: Sequence[str] = ()) -> xr.Dataset:
    """Read all variables of a group, but some, into memory; xarray knows their encodings, and nothing of lost chunks.

    Raises
    ------
    DataError
        If one is damaged or lost.
    """
    names = [name for name in arrays_of(uri) if name not in drop]
    try:
        dataset = xr.open_zarr(
            zarr_store(uri, read_only=True), chunks=None, consolidated=False, zarr_format=3, drop_variables=list(drop)
        )
        dataset = dataset.load()
    except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
        raise DataError(f"{uri}: cannot be read ({error}): damaged; {REMEDY}") from error
    check_chunks(uri, names)
    texts = {n: _fixed_text(v) for n, v in dataset.variables.items() if v.dtype.kind == "T"}
    dataset = dataset.assign({n: v for n, v in texts.items() if n in dataset.data_vars})
    dataset = dataset.assign_coords({n: v for n, v in texts.items() if n in dataset.coords})
    for variable in (dataset, *dataset.variables.values()):
        variable.attrs = without_marks(variable.attrs)
    return cast(xr.Dataset, dataset)


def without_marks(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without those by which cubes know themselves."""
    return {k: v for k, v in attrs.items() if not str(k).startswith("camcal_")}


def _fixed_text(variable: xr.Variable) -> xr.Variable:
    values = np.array(variable.values.tolist(), dtype=str).reshape(variable.shape)
    return xr.Variable(variable.dims, values, variable.attrs)

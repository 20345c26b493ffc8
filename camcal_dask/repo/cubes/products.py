"""Product cubes: one shard a detector and variable.

A product is visible detector by detector: `write_product` writes the shards of one detector and
then its marker; `open_product` shows only detectors that have one, and the registry refuses
others.  So one bad detector costs nobody else, and a killed run is resumed by running it again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.storage import LocalStore

from camcal_dask.errors import DataError, RepoError
from camcal_dask.repo.cubes.sharded import ShardedArray
from camcal_dask.repo.cubes.small import from_zarr, to_zarr, without_marks
from camcal_dask.repo.storage import files, objects
from camcal_dask.repo.storage.kept import forget
from camcal_dask.repo.storage.shards import (
    FORMAT,
    REMEDY,
    check_format,
    create_array,
    cube_exists,
    cube_kind,
    lazy_variable,
    metadata_text,
    opened,
    plain,
    publish,
    read_into,
    shard_path,
    write_metadata,
    write_shard,
)

_SIZES = "camcal_bytes"
"""Key of a marker: bytes of every shard."""
_MARKER = re.compile(r"(0|[1-9][0-9]*)\.json", re.ASCII)


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
    files.sweep(uri)
    if not cube_exists(uri):
        with files.staging(uri) as stage:
            _lay_out(stage / "cube", template)
            publish(stage / "cube", uri)
    _check_same(uri, template)


def _lay_out(path: Any, template: xr.Dataset) -> None:
    sharded = [name for name, v in template.data_vars.items() if "detector" in v.dims]
    small = template.drop_vars(sharded).assign_attrs(
        {"camcal_kind": "product", "camcal_format": FORMAT, "camcal_sharded": [str(n) for n in sharded]}
    )
    to_zarr(small, path)
    group = zarr.open_group(LocalStore(path), mode="r+")
    for name in sharded:
        v = template[name]
        if v.dims[0] != "detector":
            raise RepoError(f"{path}: variable {name!r} has dims {v.dims}; 'detector' must come first")
        create_array(group, str(name), [str(d) for d in v.dims], v.shape, v.dtype, v.attrs, leading=1)


def _check_same(uri: str, template: xr.Dataset) -> None:
    found = _base(uri)
    found = found.assign(_lazy([(uri, index) for index in range(found.sizes["detector"])]))
    for name, v in template.variables.items():
        there = found.variables.get(name)
        if there is None or there.dims != v.dims or there.shape != v.shape:
            have = None if there is None else dict(zip(there.dims, there.shape, strict=True))
            want = dict(zip(v.dims, v.shape, strict=True))
            raise RepoError(
                f"{uri}: already exists with another layout: {name!r} is {have}, but this run makes {want}; "
                f"choose another output collection"
            )
    ids, wanted = found["detector"].values.tolist(), template["detector"].values.tolist()
    if ids != wanted:
        raise RepoError(
            f"{uri}: already exists for detectors {ids}, but this run makes {wanted}; choose another output collection"
        )


def write_product(
    uri: str, detector_index: int, arrays: Mapping[str, npt.NDArray[Any]], record: Mapping[str, Any] | None = None
) -> None:
    """Write everything of one detector, then the marker that makes it visible.

    Exactly one quantum writes a detector; repeated (a retry, a resumed run), it replaces what is
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
    sharded = check_format(uri, "product")["camcal_sharded"]
    if set(arrays) != set(sharded):
        raise DataError(f"{uri}: detector index {detector_index} came with {sorted(arrays)}, needs {sorted(sharded)}")
    write_variables(uri, detector_index, arrays)
    mark_finished(uri, detector_index, record)


def write_variables(uri: str, detector_index: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write some variables of one detector; nobody sees them before `mark_finished`.

    For a quantum that has several threads to write with; see `write_product`.
    """
    for name, values in arrays.items():
        array = opened(files.join(uri, name))
        if values.shape != array.shape[1:] or values.dtype != array.dtype:
            raise DataError(
                f"{uri}: {name!r} of detector index {detector_index} is {values.dtype} {values.shape}, "
                f"the product has {array.dtype} {array.shape[1:]}"
            )
    forget(uri)
    for name, values in arrays.items():
        write_shard(files.join(uri, name), (detector_index, *(0 for _ in values.shape)), values[None])


def mark_finished(uri: str, detector_index: int, record: Mapping[str, Any] | None = None) -> None:
    """Make one detector visible, all of whose variables are written; see `write_product`."""
    names = check_format(uri, "product")["camcal_sharded"]
    sizes = {name: files.size(_shard(uri, name, detector_index, opened(files.join(uri, name)).ndim)) for name in names}
    files.write_json(marker_uri(uri, detector_index), {**(record or {}), _SIZES: sizes})


def _shard(uri: str, name: str, detector_index: int, rank: int) -> str:
    """File of one detector of a variable with so many dimensions."""
    return shard_path(files.join(uri, name), (detector_index, *([0] * (rank - 1))))


def damaged(uri: str, indices: Iterable[int]) -> list[int]:
    """Those of some finished detectors (indices) whose files are gone or not as long as they were written."""
    return [index for index, reason in damage(uri, indices).items() if reason]


def damage(uri: str, indices: Iterable[int]) -> dict[int, str]:
    """Say of some finished detectors (indices) what is wrong with marker and lengths of files; empty if nothing is."""
    names = check_format(uri, "product")["camcal_sharded"]
    ranks = {name: opened(files.join(uri, name)).ndim for name in names}

    def look(index: int) -> str:
        try:
            marker = files.read_json(marker_uri(uri, index))
        except RepoError as error:
            return str(error)
        sizes = {} if marker is None else marker.get(_SIZES, {})
        for name, size in sizes.items():
            path = _shard(uri, name, index, ranks[name])
            if (found := files.size(path)) != size:
                return f"{path}: {'lost' if found < 0 else f'damaged ({found} of {size} bytes)'}; {REMEDY}"
        return ""

    chosen = list(indices)
    if not objects.is_object(uri):
        return {index: look(index) for index in chosen}
    with ThreadPoolExecutor(16) as pool:  # each look waits for the network
        return dict(zip(chosen, pool.map(look, chosen), strict=True))


def check_detectors(uri: str, indices: Iterable[int]) -> None:
    """Refuse finished detectors (indices) whose marker is damaged, or whose files are not as long as they were.

    Raises
    ------
    DataError
        For the first one.
    """
    for index, reason in damage(uri, indices).items():
        if reason:
            raise DataError(f"detector index {index}: {reason}")


def read_all(uri: str, index: int) -> Iterator[str]:
    """Read every pixel of a finished detector (index), and say of each variable that cannot be read why."""
    for name in check_format(uri, "product")["camcal_sharded"]:
        try:
            array = opened(files.join(uri, name))
            out = np.empty(array.shape[1:], array.dtype)
            read_into(files.join(uri, name), (index, *(slice(0, n) for n in out.shape)), out, f"detector index {index}")
        except (DataError, RepoError) as error:
            yield str(error)


def amend(uri: str, attributes: Mapping[str, Any]) -> None:
    """Replace some attributes of a cube."""
    target = files.join(uri, "zarr.json")
    document = files.read_json(target)
    if document is None:
        raise RepoError(f"{uri}: no such cube")
    document["attributes"] |= plain(attributes)
    write_metadata(uri, document)
    forget_opened(uri)


def discard(uri: str) -> None:
    """Remove a product or small cube with its markers; what refers to it must have been forgotten before."""
    files.remove_folder(files.parent(marker_uri(uri, 0)))
    files.remove_folder(uri)
    forget_opened(uri)


def marker_uri(uri: str, detector_index: int) -> str:
    """File that says that a detector is whole."""
    return files.join(uri.removesuffix(".zarr") + ".finished", f"{detector_index}.json")


def finished(uri: str) -> list[int]:
    """Indices along ``detector`` that are completely written, ascending."""
    found = map(_MARKER.fullmatch, files.names(files.parent(marker_uri(uri, 0))))
    return sorted(int(name[1]) for name in found if name)


def finished_detectors(uri: str) -> list[int]:
    """Ids of the detectors that are completely written."""
    ids = product_detectors(uri)
    return [ids[index] for index in finished(uri)]


def product_detectors(uri: str) -> list[int]:
    """Ids of all detectors of a product, finished or not."""
    return [int(d) for d in _base_once(uri)["detector"].values]


def variables(uri: str) -> list[str]:
    """Names of the variables of a product that are written detector by detector."""
    return [str(name) for name in check_format(uri, "product")["camcal_sharded"]]


def product_record(uri: str, detector_index: int) -> dict[str, Any] | None:
    """What `write_product` was given as ``record``; None if the detector is not finished."""
    record = files.read_json(marker_uri(uri, detector_index))
    return None if record is None else {k: v for k, v in record.items() if k != _SIZES}


def check_whole(uri: str, detectors: Sequence[int]) -> None:
    """Refuse to register what is not completely written.

    Raises
    ------
    RepoError
        If the file is missing or a detector (id) is not finished.
    """
    if uri.endswith(".json"):
        if not files.exists(uri):
            raise RepoError(f"{uri}: no such file; write it before registering it")
        return
    if cube_kind(uri) == "product":
        lacking = sorted(set(detectors) - set(finished_detectors(uri)))
        if lacking:
            raise RepoError(
                f"{uri}: detectors {lacking} are not completely written; only complete detectors can be registered"
            )


def open_product(uri: str, detectors: Sequence[int] | None = None) -> xr.Dataset:
    """Open a product lazily (without dask); only detectors that are completely written are there.

    Parameters
    ----------
    uri : str
    detectors : sequence of int, optional
        Ids of those wanted, as far as they are there; default all.

    Returns
    -------
    xr.Dataset
        Variables (detector, amp, y, x) and others as laid out; ``attrs`` of the product.

    Raises
    ------
    RepoError
        If there is no product, or none of its detectors is finished.
    DataError
        If one is damaged.
    """
    whole = _base(uri)
    done = finished(uri)
    if not done:
        raise RepoError(f"{uri}: no detector of this product is complete; run the pipeline again to continue it")
    if detectors is not None:
        ids = whole["detector"].values.tolist()
        done = [index for index in done if ids[index] in set(detectors)]
    check_detectors(uri, done)
    return whole.isel(detector=done).assign(_lazy([(uri, index) for index in done]))


def open_products(parts: Sequence[tuple[str, int]], *, keep: bool = False) -> xr.Dataset:
    """Open detectors of several products (calibrations of different runs) as one lazy Dataset.

    Parameters
    ----------
    parts : sequence of (uri, detector id)
        In the order wanted.
    keep : bool
        Detectors that are read whole stay in this process, read-only, for the next reader.

    Returns
    -------
    xr.Dataset
        As `open_product`; attributes and variables that the products do not share are left out.

    Raises
    ------
    RepoError
        If a detector is not finished in its product, or the layouts differ.
    DataError
        If one is damaged.
    """
    whole = {uri: _base_once(uri).copy() for uri in dict.fromkeys(uri for uri, _ in parts)}
    ids = {uri: base["detector"].values.tolist() for uri, base in whole.items()}
    done = {uri: {ids[uri][index] for index in finished(uri)} for uri in whole}
    for uri, detector in parts:
        if detector not in done[uri]:
            raise RepoError(f"{uri}: detector {detector} is not complete; run the pipeline again to continue it")
    places = [(uri, ids[uri].index(detector)) for uri, detector in parts]
    for uri in whole:
        check_detectors(uri, [index for one, index in places if one == uri])
    lazy = _lazy(places, keep=keep)
    if len(whole) == 1:
        return next(iter(whole.values())).isel(detector=[index for _, index in places]).assign(lazy)
    shared = {dim for v in lazy.values() for dim in v.dims}
    pieces = [whole[uri].isel(detector=[index]) for uri, index in places]
    pieces = [p.drop_vars([n for n, v in p.variables.items() if not shared.issuperset(v.dims)]) for p in pieces]
    joined = xr.concat(
        pieces,
        "detector",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="drop_conflicts",
    )
    return joined.assign(lazy)


def _base(uri: str) -> xr.Dataset:
    """Coordinates, small variables and attributes of a product, in memory."""
    return from_zarr(uri, drop=check_format(uri, "product")["camcal_sharded"])


@functools.lru_cache(maxsize=64)
def _base_once(uri: str) -> xr.Dataset:
    """The same, read once: it takes 50 ms, which every quantum would spend on each of its calibrations."""
    return _base(uri)


def forget_opened(uri: str = "") -> None:
    """Forget what this process opened, and what it read of a product or of all: somebody else may write from now on."""
    opened.cache_clear()
    metadata_text.cache_clear()
    _base_once.cache_clear()
    forget(uri)


def _lazy(parts: Sequence[tuple[str, int]], *, keep: bool = False) -> dict[str, xr.Variable]:
    """Lazy variables over parts of one or several products of the same layout."""
    first, *others = dict.fromkeys(uri for uri, _ in parts)
    layout = _layout(first)
    for uri in others:
        if (found := _layout(uri)) != layout:
            raise RepoError(f"{uri}: layout {found} differs from {layout} of {first}; select one of them")
    variables = {}
    for name, (dims, shape, dtype) in layout.items():
        lazy = ShardedArray(name, parts, shape[1:], np.dtype(dtype), keep=keep)
        attrs = without_marks(opened(files.join(first, name)).attrs.asdict())
        variables[name] = lazy_variable(dims, lazy, attrs)
    return variables


def _layout(uri: str) -> dict[str, tuple[tuple[str, ...], tuple[int, ...], str]]:
    """Dims, shape (first of which may differ: number of detectors) and dtype of the sharded variables."""
    layout = {}
    for name in check_format(uri, "product")["camcal_sharded"]:
        array = opened(files.join(uri, name))
        dims = tuple(str(d) for d in array.metadata.dimension_names)  # type: ignore[union-attr]
        layout[name] = (dims, (0, *array.shape[1:]), str(array.dtype))
    return layout

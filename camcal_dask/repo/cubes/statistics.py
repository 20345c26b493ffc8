"""Statistics cubes of many runs and nights as one lazy Dataset.

A cube is written whole (`small.write_dataset`) with an index among its attributes: names, shapes and the values of
all coordinates.  Opening reads one file a run; an array is opened when it is asked for, and a number of every amp of
1000 exposures of the LSST Camera is 24 MB in a dozen chunks, read in some hundredths of a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from camcal_dask.errors import RepoError, nearest
from camcal_dask.instruments import get_instrument
from camcal_dask.instruments.arguments import elements
from camcal_dask.repo.storage import files
from camcal_dask.repo.storage.shards import Selection, check_format, lazy_variable, pick, plain, read_into, span

INDEX = "camcal_index"
"""Attribute of a cube that holds its index."""
CHUNK_BYTES = 1 << 22
"""Most of a chunk: one number of every amp of LSSTCam for 173 exposures; all of a run of 20 in one read."""
DETECTOR_COORDS = ("detector_name", "raft", "slot", "vendor")


# ---------------------------------------------------------------------------- writing


def chunks_of(dims: Sequence[Any], shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Chunk of a statistic: one test, as many exposures as `CHUNK_BYTES` allow, all detectors and amps."""
    room = max(1, CHUNK_BYTES // itemsize)
    chunks = []
    for n in reversed(shape):
        chunks.append(max(1, min(n, room)))
        room = room // n if n and room >= n else 0
    before = dims.index("exposure") if "exposure" in dims else 0
    return (*(1,) * before, *chunks[::-1][before:])


def index_of(dataset: xr.Dataset) -> dict[str, Any]:
    """What opens a cube without touching its arrays: coordinates and text whole, of the others the layout."""
    whole = {n: v for n, v in dataset.variables.items() if n in dataset.coords or v.dtype.kind in "OUT"}
    return {
        "values": {str(n): _layout(v) | {"values": _listed(v.values)} for n, v in whole.items()},
        "arrays": {str(n): _layout(v) for n, v in dataset.variables.items() if n not in whole},
    }


def _layout(variable: xr.Variable) -> dict[str, Any]:
    text = variable.dtype.kind in "OUT"
    layout = {"dims": list(variable.dims), "shape": list(variable.shape), "dtype": "U" if text else str(variable.dtype)}
    return layout | {"attrs": plain(variable.attrs)}


def _listed(values: npt.NDArray[Any]) -> Any:
    """Values as JSON has them: null for NaN."""
    if values.dtype.kind != "f":
        return values.tolist()
    plain_values = values.astype(object)
    plain_values[~np.isfinite(values)] = None
    return plain_values.tolist()


# ---------------------------------------------------------------------------- opening


@dataclass(frozen=True)
class Cube:
    """One run's statistics: where, and what its index says."""

    uri: str
    run: str
    attrs: Mapping[str, Any]
    values: Mapping[str, xr.Variable]
    arrays: Mapping[str, Mapping[str, Any]]

    @property
    def n_exposure(self) -> int:
        """Length along ``exposure``."""
        return self.values["exposure"].size

    @property
    def begin(self) -> float:
        """MJD of the first exposure, its id where that is unknown."""
        for name in ("mjd", "exposure"):
            if name in self.values and np.isfinite(self.values[name].values.astype(float)).any():
                return float(np.nanmin(self.values[name].values))
        return 0.0


def open_cube(uri: str, run: str) -> Cube:
    """Read the index of a cube.

    Raises
    ------
    RepoError
        If the cube has none, or its statistics belong to no exposures.
    """
    attrs = check_format(uri, "dataset")
    index = attrs.get(INDEX)
    if index is None:
        raise RepoError(f"{uri}: written by a version without an index of statistics; run its pipeline again")
    values = {
        name: xr.Variable(v["dims"], np.array(v["values"], v["dtype"]).reshape(v["shape"]), v["attrs"])
        for name, v in index["values"].items()
    }
    if "exposure" not in values:
        raise RepoError(f"{uri}: holds no statistics of exposures; open it with Repo.open(..., run={run!r})")
    own = {name: value for name, value in attrs.items() if not name.startswith("camcal_")}
    return Cube(uri, run, own, values, index["arrays"])


def open_cubes(cubes: Sequence[Cube]) -> xr.Dataset:
    """Join cubes along ``exposure``, in order of time; nothing but the indices is read.

    Returns
    -------
    Dataset
        Every number of any cube, exposure first: what a run has once for all its exposures is the same in each.  A
        detector, test or number that a run lacks is NaN, -1 (status, counts) or False.  Coordinates as in the cubes,
        ``run`` (exposure), and ``detector_name``, ``raft``, ``slot``, ``vendor`` (detector).  Coordinates of tests
        and attributes that differ between runs are left out.

    Raises
    ------
    RepoError
        If the cubes are of several cameras.
    """
    ordered = sorted(cubes, key=lambda cube: (cube.begin, cube.run))
    cameras = sorted({str(cube.attrs.get("instrument", "")) for cube in ordered})
    if len(cameras) > 1:
        raise RepoError(f"statistics of {', '.join(cameras)}: say instrument='{cameras[0]}'")
    labels = _labels(ordered)
    coords = _coordinates(ordered, labels)
    if cameras[0]:
        coords |= _detector_coordinates(cameras[0], labels["detector"])
    names = dict.fromkeys(name for cube in ordered for name in cube.arrays)
    rows = [_rows(cube, labels) for cube in ordered]
    variables = {name: _joined(name, ordered, rows, labels) for name in names}
    attrs = {k: v for k, v in ordered[0].attrs.items() if all(c.attrs.get(k) == v for c in ordered)}
    return xr.Dataset(variables, coords, attrs)


def _labels(cubes: Sequence[Cube]) -> dict[str, npt.NDArray[Any]]:
    """Labels along every dimension but ``exposure``: the union, detectors in order of id."""
    found: dict[str, dict[Any, None]] = {}
    for cube in cubes:
        for name, values in cube.values.items():
            if values.dims == (name,) and name != "exposure":
                found.setdefault(name, {}).update(dict.fromkeys(values.values.tolist()))
    return {name: np.array(sorted(have) if name == "detector" else list(have)) for name, have in found.items()}


def _coordinates(cubes: Sequence[Cube], labels: Mapping[str, npt.NDArray[Any]]) -> dict[str, xr.Variable]:
    coords: dict[str, xr.Variable | None] = {name: xr.Variable(name, values) for name, values in labels.items()}
    coords["run"] = xr.Variable("exposure", np.repeat([c.run for c in cubes], [c.n_exposure for c in cubes]))
    for name in dict.fromkeys(name for cube in cubes for name in cube.values):
        dims = tuple(map(str, next(cube.values[name].dims for cube in cubes if name in cube.values)))
        if dims == ("exposure",):
            parts = [_or_absent(cube, name, cubes) for cube in cubes]
            coords[name] = xr.Variable(dims, np.concatenate(parts))
        elif len(dims) == 1 and name not in coords and dims[0] in labels:
            coords[name] = _agreed(name, dims[0], cubes, labels[dims[0]])
    return {name: values for name, values in coords.items() if values is not None}


def _or_absent(cube: Cube, name: str, cubes: Sequence[Cube]) -> npt.NDArray[Any]:
    if name in cube.values:
        return np.asarray(cube.values[name].values)
    dtype = next(c.values[name].dtype for c in cubes if name in c.values)
    return np.full(cube.n_exposure, absent(dtype), dtype)


def _agreed(name: str, dim: str, cubes: Sequence[Cube], labels: npt.NDArray[Any]) -> xr.Variable | None:
    """Coordinate along labels that every cube gives the same value, else None."""
    found: dict[Any, Any] = {}
    for cube in cubes:
        if name in cube.values:
            for label, value in zip(cube.values[dim].values.tolist(), cube.values[name].values.tolist(), strict=True):
                if found.setdefault(label, value) != value:
                    return None
    complete = len(found) == len(labels)
    return xr.Variable(dim, np.array([found[label] for label in labels.tolist()])) if complete else None


def _detector_coordinates(camera: str, detectors: npt.NDArray[Any]) -> dict[str, Any]:
    known = get_instrument(camera).detectors
    rows = [(d.full_name, d.raft, d.name_in_raft, d.vendor) for d in (known[int(i)] for i in detectors)]
    return {n: ("detector", np.array(c)) for n, c in zip(DETECTOR_COORDS, zip(*rows, strict=True), strict=True)}


def absent(dtype: np.dtype[Any]) -> Any:
    """Value of what a run does not have."""
    return {"f": np.nan, "i": -1, "u": 0, "b": False}.get(dtype.kind, "")


# ---------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Part:
    """A cube's array as a part of the joined one.

    ``axis`` is that of the exposures, None if the array has none; ``where`` says for each other axis which row of the
    array each row of the joined one is, -1 for none; None if they are the same.
    """

    n_exposure: int
    uri: str | None = None
    dtype: str = ""
    shape: tuple[int, ...] = ()
    axis: int | None = None
    where: tuple[npt.NDArray[np.int64] | None, ...] = ()

    def read(self, start: int, stop: int, inner: tuple[slice, ...], out: npt.NDArray[Any]) -> None:
        """Fill ``out`` (exposure, ...) with exposures ``start`` to ``stop``; what is absent stays."""
        if self.uri is None:
            return
        aligned = all(rows is None for rows in self.where)
        within = list(inner) if aligned else [slice(0, n) for n in self.shape]
        if self.axis is not None:
            within.insert(self.axis, slice(start, stop))
        block = np.empty([part.stop - part.start for part in within], self.dtype)
        read_into(self.uri, tuple(within), block, "statistics")
        block = block[None] if self.axis is None else np.moveaxis(block, self.axis, 0)
        if aligned:
            out[...] = block
            return
        rows = [np.arange(n) if w is None else w for n, w in zip(self.shape, self.where, strict=True)]
        rows = [r[part] for r, part in zip(rows, inner, strict=True)]
        every: Any = slice(None)
        there = np.ix_(*(np.flatnonzero(r >= 0) for r in rows))
        out[(every, *there)] = block[(every, *np.ix_(*(r[r >= 0] for r in rows)))]


class JoinedArray(BackendArray):
    """One number (exposure, ...) over the cubes of several runs, read when indexed; picklable.

    Parameters
    ----------
    parts : sequence of Part
        In the order of the exposures.
    inner : tuple of int
        Shape of one exposure.
    dtype : np.dtype
        Of the numbers.
    """

    def __init__(self, parts: Sequence[Part], inner: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.parts, self.dtype = tuple(parts), dtype
        self.ends = np.cumsum([part.n_exposure for part in parts])
        self.shape = (int(self.ends[-1]), *inner)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Read; ``key`` is xarray's."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._select)

    def _select(self, key: Selection) -> npt.NDArray[Any]:
        wanted = np.atleast_1d(np.arange(self.shape[0])[key[0]])
        spans = [span(k, n) for k, n in zip(key[1:], self.shape[1:], strict=True)]
        inner = tuple(part for part, _ in spans)
        shape = (len(wanted), *(part.stop - part.start for part in inner))
        out = np.full(shape, absent(self.dtype), self.dtype)
        part = np.searchsorted(self.ends, wanted, side="right")
        breaks = np.flatnonzero((np.diff(wanted) != 1) | (np.diff(part) != 0)) + 1
        for rows in np.split(np.arange(len(wanted)), breaks):
            if rows.size and out.size:
                chosen = self.parts[part[rows[0]]]
                start = int(wanted[rows[0]] - (self.ends[part[rows[0]]] - chosen.n_exposure))
                chosen.read(start, start + len(rows), inner, out[rows[0] : rows[-1] + 1])
        return pick(out, key, [None, *(local for _, local in spans)])


Rows = dict[str, "npt.NDArray[np.int64] | None"]
"""Of a cube: for each labelled dimension where each label of the joined one is, -1 absent; None if nothing moves."""


def _joined(name: str, cubes: Sequence[Cube], rows: Sequence[Rows], labels: Mapping[str, Any]) -> xr.Variable:
    layouts = [cube.arrays.get(name) for cube in cubes]
    first = next(layout for layout in layouts if layout is not None)
    dims = [dim for dim in first["dims"] if dim != "exposure"]
    sizes = {dim: len(labels[dim]) for dim in dims if dim in labels}
    for layout in filter(None, layouts):
        for dim, n in zip(layout["dims"], layout["shape"], strict=True):
            if dim not in labels:
                sizes[dim] = max(n, sizes.get(dim, 0))
    parts = [_part(cube, name, own, {dim: sizes[dim] for dim in dims}) for cube, own in zip(cubes, rows, strict=True)]
    array = JoinedArray(parts, tuple(sizes[dim] for dim in dims), np.dtype(first["dtype"]))
    return lazy_variable(["exposure", *dims], array, first["attrs"])


def _part(cube: Cube, name: str, rows: Rows, sizes: Mapping[str, int]) -> Part:
    layout = cube.arrays.get(name)
    if layout is None:
        return Part(cube.n_exposure)
    found = dict(zip(layout["dims"], layout["shape"], strict=True))
    axis = layout["dims"].index("exposure") if "exposure" in found else None
    if [dim for dim in found if dim != "exposure"] != list(sizes):
        raise RepoError(f"{cube.uri}: {name} has dims {layout['dims']}, other runs have {list(sizes)}; select one kind")
    where = [rows[dim] if dim in rows else _padded(found[dim], n) for dim, n in sizes.items()]
    shape = tuple(found[dim] for dim in sizes)
    return Part(cube.n_exposure, files.join(cube.uri, name), layout["dtype"], shape, axis, tuple(where))


def _rows(cube: Cube, labels: Mapping[str, npt.NDArray[Any]]) -> Rows:
    rows: Rows = {}
    for dim, every in labels.items():
        own = cube.values[dim].values if dim in cube.values else every[:0]
        same = np.array_equal(own, every)
        place = {} if same else {label: i for i, label in enumerate(own.tolist())}
        rows[dim] = None if same else np.array([place.get(label, -1) for label in every.tolist()], np.int64)
    return rows


def _padded(have: int, want: int) -> npt.NDArray[np.int64] | None:
    return None if have == want else np.where(np.arange(want) < have, np.arange(want), -1)


# ---------------------------------------------------------------------------- choosing


def choose(statistics: xr.Dataset, **labels: Any) -> xr.Dataset:
    """Keep what has certain values of coordinates; still lazy.

    Parameters
    ----------
    statistics : Dataset
        Of `open_cubes`.
    labels : value, sequence of values, or slice from a first to a last value (both included), by coordinate
        ``choose(stats, vendor="ITL", day_obs=slice(20260801, None), amp=["C10", "C11"])``

    Raises
    ------
    RepoError
        For an unknown coordinate, or a value that nothing has.
    """
    for name, wanted in labels.items():
        if name not in statistics.coords:
            raise RepoError(f"statistics have no coordinate {name!r}{nearest(name, map(str, statistics.coords))}")
        values = statistics[name]
        kept = np.zeros(values.shape, bool)
        for one in [wanted] if isinstance(wanted, slice) else elements(wanted, name):
            found = _matches(values.values, one)
            if not found.any():  # also of one among several: a list with a wrong name is not a shorter list
                known = np.unique(values.values)
                raise RepoError(f"no {name} is {one!r}; there are {', '.join(map(str, known[:10]))}"[:500])
            kept |= found
        statistics = statistics.isel({values.dims[0]: np.flatnonzero(kept)})
    return statistics


def _matches(values: npt.NDArray[Any], wanted: Any) -> npt.NDArray[np.bool_]:
    if isinstance(wanted, slice):
        kept = np.ones(values.shape, bool)
        kept &= True if wanted.start is None else values >= wanted.start
        kept &= True if wanted.stop is None else values <= wanted.stop
        return kept
    if isinstance(wanted, bool) != (values.dtype.kind == "b"):  # True is no detector 1
        return np.zeros(values.shape, bool)
    return np.isin(values, [wanted])

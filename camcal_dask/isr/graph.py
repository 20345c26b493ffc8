"""The dask wiring of corrected exposures; it holds no step.  Blocks are objects, named variables are cut out of them.

An object array stands at dimensions as any other, but each of its blocks is one Python object, whatever the size of the
block: a `Slab`, a `Corrected`, or what a consumer makes of it.  One task makes an object, another cuts a variable out
of it; dask fuses those whose result nobody else needs.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.layers import ArraySliceDep
from numpy.typing import NDArray

from camcal_dask.isr.blocks import Slab
from camcal_dask.isr.calibrations import Plane, Planes
from camcal_dask.isr.overscan import Overscan
from camcal_dask.isr.sequence import measure_overscan
from camcal_dask.isr.source import RawSource, plane_variables
from camcal_dask.schema import EXPOSURE_DIMS, Variables

PIXEL_INDEX = "edayx"
"""Letters of `EXPOSURE_DIMS` in the notation of ``dask.array.blockwise``."""


class Declared(NamedTuple):
    """What a variable is: dims, type and attributes."""

    dims: tuple[str, ...]
    dtype: Any
    attrs: Mapping[str, Any]


def declared(described: Variables, unit: str) -> dict[str, Declared]:
    """What variables are whose image is in ``unit``."""
    return {name: Declared(v.dims, v.dtype, v.attrs(unit)) for name, v in described.items()}


def objects(function: Callable[..., Any], index: str, *args: Any, name: str, **options: Any) -> da.Array:
    """Array whose blocks are Python objects: ``dask.array.blockwise`` of a function that returns one.

    An axis that the result has not got arrives as (nested) lists of blocks, see `unwrap`.
    """
    return da.blockwise(
        function, index, *args, name=name, align_arrays=False, dtype=object, meta=np.empty((0,) * len(index), object),
        **options,
    )  # fmt: skip


def regions(*chunks: tuple[int, ...]) -> ArraySliceDep:
    """Argument of `objects` that tells a block where it is: a tuple of slices."""
    return ArraySliceDep(chunks)


def named_variables(
    blocks: da.Array,
    at: Sequence[str],
    declared: Mapping[str, Declared],
    sizes: Mapping[str, int],
    take: Callable[[Any, str], NDArray[Any]],
    *,
    prefix: str,
) -> dict[str, xr.Variable]:
    """Cut named variables out of blocks that are objects, lazily: one task a block and variable.

    Parameters
    ----------
    blocks : dask array of objects
    at : dimensions at which the blocks stand
    declared : what the variables are; their dimensions are some of ``at`` and others of one block
    sizes : of the other dimensions
    take : ``take(block, name)`` returns the array of a block
    prefix : of the names of the layers
    """
    names = [*at, *dict.fromkeys(d for v in declared.values() for d in v.dims if d not in at)]
    letter = {dim: chr(ord("A") + i) for i, dim in enumerate(names)}
    stands = "".join(letter[dim] for dim in at)
    found = {}
    for name, (dims, dtype, attrs) in declared.items():
        field = da.blockwise(
            _take, "".join(letter[d] for d in dims), blocks, stands, name, None, take, None,
            new_axes={letter[d]: sizes[d] for d in dims if d not in at},
            name=f"{prefix}-{name}-{tokenize(blocks.name)}", align_arrays=False, dtype=np.dtype(dtype),
            meta=np.empty((0,) * len(dims), dtype),
        )  # fmt: skip
        found[name] = xr.Variable(dims, field, dict(attrs))
    return found


def _take(block: Any, name: str, take: Callable[[Any, str], NDArray[Any]]) -> NDArray[Any]:
    return np.asarray(take(unwrap(block), name))


def unwrap(block: Any) -> Any:
    """Take a block out of the (nested, one-element) lists in which dask passes axes that are reduced."""
    while isinstance(block, list):
        (block,) = block
    return block


def flatten(blocks: Any) -> list[Any]:
    """All blocks of such lists, in order."""
    return [b for block in blocks for b in flatten(block)] if isinstance(blocks, list) else [blocks]


@dataclass(frozen=True, eq=False)
class Correction:
    """How exposures are corrected: the raws with config and tables, and the calibrations that are images."""

    source: RawSource
    planes: Mapping[str, xr.Dataset]

    def select(self, exposures: Sequence[int], detectors: Sequence[int]) -> Correction:
        """Return some exposures and detectors, by position."""
        planes = {name: calib.isel(detector=list(detectors)) for name, calib in self.planes.items()}
        return Correction(self.source.select(exposures, detectors), planes)

    @cached_property
    def token(self) -> str:
        """What it is for dask."""
        source = self.source
        token: str = tokenize(
            _identity(source.pixels),
            source.exposures,
            source.detectors,
            source.config.model_dump_json(),
            [(table.values, table.units) for table in source.tables.values()],
            source.dark_scales,
        )
        return token

    @cached_property
    def held(self) -> Any:
        """The source as one task."""
        return dask.delayed(self.source, name=f"isr-source-{self.token}", traverse=False)

    def exposures(self) -> da.Array:
        """One `Corrected` an exposure and detector."""
        n_amp, height, width = self.source.trimmed
        slabs = self._slabs(((1,) * len(self.source.exposures), self._each_detector, (n_amp,), (height,), (width,)))
        return objects(Slab.corrected, PIXEL_INDEX, slabs, PIXEL_INDEX, name=f"isr-corrected-{tokenize(slabs.name)}")

    def slabs(self, rows: int) -> da.Array:
        """One `Slab` of all exposures a detector and ``rows`` rows; the overscan vectors are measured before."""
        n_amp, height, width = self.source.trimmed
        chunks = (len(self.source.exposures),), self._each_detector, (n_amp,), row_chunks(height, rows), (width,)
        return self._slabs(chunks, self.vectors())

    def pairs(self, positions: Sequence[tuple[int, int]]) -> da.Array:
        """One `Slab` of two exposures, of whole amps, a pair and detector."""
        n_amp, height, width = self.source.trimmed
        planes = self._plane_blocks((self._each_detector, (n_amp,), (height,), (width,)))
        where = regions((1,) * len(positions), self._each_detector)
        token = tokenize(self.token, positions, [p.name for p in planes])
        arrays = [part for plane in planes for part in (plane, "dayx")]
        return objects(
            _open_pair, "pd", self.held, None, where, "pd", *arrays, name=f"isr-pair-{token}",
            positions=tuple(positions),
        )  # fmt: skip

    @property
    def _each_detector(self) -> tuple[int, ...]:
        return (1,) * len(self.source.detectors)

    def _slabs(self, chunks: tuple[tuple[int, ...], ...], vectors: da.Array | None = None) -> da.Array:
        planes = self._plane_blocks(chunks[1:])
        token = tokenize(self.token, chunks, [plane.name for plane in planes])
        arrays = [part for plane in planes for part in (plane, "dayx")]
        return objects(
            _open_slab, PIXEL_INDEX, self.held, None, regions(*chunks), PIXEL_INDEX,
            vectors, None if vectors is None else "ed", *arrays, name=f"isr-slab-{token}",
        )  # fmt: skip

    def vectors(self) -> da.Array:
        """Overscan of all exposures of each detector: blocks `Overscan`, one a detector, standing at (e, d)."""
        n_exposure = len(self.source.exposures)
        where = regions((1,) * n_exposure, self._each_detector)
        one = objects(_measure, "ed", self.held, None, where, "ed", name=f"isr-overscan-{self.token}")
        return objects(_gather, "fd", one, "ed", new_axes={"f": n_exposure}, name=f"isr-vectors-{self.token}")

    def _plane_blocks(self, chunks: tuple[tuple[int, ...], ...]) -> list[da.Array]:
        """Variables of the image calibrations, in matching blocks (d, a, y, x)."""
        found = []
        for name, names in plane_variables(self.source.config).items():
            for variable in names:
                blocks = self.planes[name][variable].chunk(dict(zip(EXPOSURE_DIMS[1:], chunks, strict=True))).data
                dtype = np.int32 if variable == "mask" else np.float32
                found.append(blocks if blocks.dtype == dtype else blocks.astype(dtype))
        return found


def row_chunks(height: int, rows: int) -> tuple[int, ...]:
    """Heights of slabs of at most ``rows`` rows [pixel]."""
    full, rest = divmod(height, min(rows, height))
    return (min(rows, height),) * full + ((rest,) if rest else ())


def _identity(pixels: xr.Variable) -> Any:
    """What makes raw pixels the same for dask.  dask's own tokens of a lazy variable read all of it."""
    in_memory = isinstance(pixels._data, np.ndarray)  # noqa: SLF001
    return pixels.to_numpy() if in_memory else pickle.dumps(pixels)


def _measure(source: RawSource, region: tuple[slice, slice]) -> Overscan:
    raw = source.read_all(region[0].start, region[1].start)
    tables = source.prepared(region[1].start)
    overscan = measure_overscan(raw, source.config, tables, width=source.trimmed[2])
    return Overscan._make(values[None, None] for values in overscan)


def _gather(exposures: list[Overscan]) -> Overscan:
    return Overscan._make(np.concatenate(values) for values in zip(*exposures, strict=True))


def _open_slab(source: RawSource, region: tuple[slice, ...], vectors: Overscan | None, *arrays: Any) -> Slab:
    e, d, _, y, _ = region
    planes = _planes(source, arrays)
    return Slab(source, range(e.start, e.stop), d.start, range(y.start, y.stop), vectors, planes)


def _open_pair(
    source: RawSource, region: tuple[slice, slice], *arrays: Any, positions: tuple[tuple[int, int], ...]
) -> Slab:
    pair, detector = positions[region[0].start], region[1].start
    planes = _planes(source, [unwrap(block) for block in arrays])
    return Slab(source, pair, detector, range(source.trimmed[1]), None, planes)


def _planes(source: RawSource, arrays: Sequence[Any]) -> Planes:
    left, planes = list(arrays), dict[str, Any]()
    for name, names in plane_variables(source.config).items():
        taken, left = left[: len(names)], left[len(names) :]
        planes[name] = Plane(*taken) if len(taken) > 1 else taken[0]
    return Planes(**planes)


def corrected_parts(parts: da.Array) -> da.Array:
    """`Corrected` of all exposures of each part that is a `Slab`."""
    return objects(Slab.corrected, PIXEL_INDEX, parts, PIXEL_INDEX, name=f"isr-corrected-{tokenize(parts.name)}")

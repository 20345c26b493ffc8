"""The dask wiring of corrected pixels that are in memory, were persisted, or take the place of the ISR's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from camcal_dask.isr.blocks import Corrected, Given, Held, Part, Replaced, replaced
from camcal_dask.isr.graph import PIXEL_INDEX, flatten, objects, regions, row_chunks, unwrap
from camcal_dask.kernels.pixels.masks import NO_DATA

_FILL = {"image": np.nan, "variance": np.nan, "mask": NO_DATA}
_TYPE = {"image": np.float32, "variance": np.float32, "mask": np.int32}
Planes = Mapping[str, tuple[xr.Variable, tuple[int, ...] | None]]
"""Variables with the dims `EXPOSURE_DIMS` and the positions of their amps, None for all."""


def exposures(planes: Mapping[str, xr.Variable], amps: tuple[int, ...] | None, n_amp: int) -> da.Array:
    """One `Corrected` an exposure and detector, of planes of a Dataset; amps that they lack are NaN and NO_DATA."""
    n_exposure, n_detector, _, height, width = planes["image"].shape
    chunks = (1,) * n_exposure, (1,) * n_detector, (n_amp,), (height,), (width,)
    options: dict[str, Any] = {"names": tuple(planes), "amps": amps, "n_amp": n_amp}
    options["adjust_chunks"] = {"a": n_amp}
    if all(isinstance(plane._data, np.ndarray) for plane in planes.values()):  # noqa: SLF001
        # as one object: arrays of dask would hash them first
        pixels = dask.delayed(tuple(plane.to_numpy() for plane in planes.values()), traverse=False)
        where = regions(*chunks)
        return objects(_cut, PIXEL_INDEX, pixels, None, where, PIXEL_INDEX, name=f"held-{pixels.key}", **options)
    arrays = [_chunked(plane) for plane in planes.values()]
    pairs = [part for array in arrays for part in (array, PIXEL_INDEX)]
    return objects(_join, PIXEL_INDEX, *pairs, name=f"held-{tokenize([a.name for a in arrays], amps)}", **options)


def _chunked(variable: xr.Variable, **chunks: int) -> da.Array:
    """One exposure and detector a chunk, unless ``chunks`` say otherwise."""
    wanted = dict.fromkeys(variable.dims, -1) | {"exposure": 1, "detector": 1} | chunks
    return variable.chunk({dim: n for dim, n in wanted.items() if dim in variable.dims}).data  # type: ignore[no-any-return]


def _cut(pixels: Sequence[NDArray[Any]], region: tuple[slice, ...], **options: Any) -> Corrected:
    return _join(*(plane[region[:2]] for plane in pixels), **options)


def _join(*planes: NDArray[Any], names: Sequence[str], amps: tuple[int, ...] | None, n_amp: int) -> Corrected:
    found: dict[str, Any] = {}
    for name, plane in zip(names, planes, strict=True):
        given = np.asarray(plane, _TYPE[name])
        if amps is None:
            found[name] = given
        else:
            found[name] = np.full((*given.shape[:2], n_amp, *given.shape[3:]), _FILL[name], given.dtype)
            found[name][:, :, list(amps)] = given
    return Corrected(found["image"], found["mask"], given=found.get("variance"))


def slabs(blocks: da.Array, rows: int) -> da.Array:
    """One `Held` of all exposures a detector and ``rows`` rows, of blocks `Corrected` of single exposures."""
    n, each, (n_amp,), (height,), (width,) = blocks.chunks
    heights = row_chunks(height, rows)
    where = regions((len(n),), each, (n_amp,), heights, (width,))
    return objects(
        _hold, "fdbzw", blocks, PIXEL_INDEX, where, "fdbzw", name=f"held-slab-{tokenize(blocks.name, heights)}",
        new_axes={"f": len(n), "b": n_amp, "z": heights, "w": width},
    )  # fmt: skip


def _hold(blocks: Any, region: tuple[slice, ...]) -> Held:
    return Held(flatten(blocks), region[3])


def pairs(blocks: da.Array, positions: Sequence[tuple[int, int]]) -> da.Array:
    """One `Held` of two exposures a pair and detector, of blocks `Corrected` of single exposures."""
    sides = [blocks.blocks[[pair[side] for pair in positions]] for side in (0, 1)]
    name = f"held-pair-{tokenize(blocks.name, positions)}"
    return objects(_hold_pair, "pd", sides[0], "pdayx", sides[1], "pdayx", name=name)


def _hold_pair(first: Any, second: Any) -> Held:
    one: Corrected = unwrap(first)
    return Held([one, unwrap(second)], slice(0, one.image.shape[3]))


def replace_in_exposures(blocks: da.Array, planes: Planes, numbers: Mapping[str, xr.Variable]) -> da.Array:
    """Put planes and numbers in the place of those of blocks `Corrected` of single exposures."""
    if not planes and not numbers:
        return blocks
    arrays = {name: (_chunked(variable), PIXEL_INDEX) for name, (variable, _) in planes.items()}
    arrays |= {name: _number(variable, "e") for name, variable in numbers.items()}
    return _replace(_replace_block, blocks, PIXEL_INDEX, arrays, {name: amps for name, (_, amps) in planes.items()})


def replace_in_slabs(parts: da.Array, planes: Planes) -> da.Array:
    """Put planes in the place of those of parts of all exposures and some rows."""
    if not planes:
        return parts
    arrays = {}
    for name, (variable, _) in planes.items():
        rows = parts.chunks[3]
        array = _chunked(variable, exposure=-1)
        arrays[name] = (array.rechunk({3: rows}), PIXEL_INDEX)
    return _replace(_replace_part, parts, PIXEL_INDEX, arrays, {name: amps for name, (_, amps) in planes.items()})


def replace_in_pairs(
    parts: da.Array, planes: Planes, numbers: Mapping[str, xr.Variable], positions: Sequence[tuple[int, int]]
) -> da.Array:
    """Put planes and numbers in the place of those of parts of two exposures."""
    if not planes and not numbers:
        return parts
    order = [e for pair in positions for e in pair]
    arrays = {}
    for name, (variable, _) in planes.items():
        arrays[name] = (_chunked(variable.isel(exposure=order), exposure=2), "pdayx")
    for name, variable in numbers.items():
        arrays[name] = _number(variable.isel(exposure=order), "p", exposure=2)
    return _replace(_replace_part, parts, "pd", arrays, {name: amps for name, (_, amps) in planes.items()})


def _number(variable: xr.Variable, first: str, **chunks: int) -> tuple[da.Array, str]:
    """Array of a variable (exposure, detector, amp, ...) and its index."""
    return _chunked(variable, **chunks), f"{first}dA" + "".join(chr(ord("F") + i) for i in range(variable.ndim - 3))


def _replace(
    function: Any, blocks: da.Array, index: str, arrays: Mapping[str, tuple[da.Array, str]], amps: Mapping[str, Any]
) -> da.Array:
    args = [part for pair in arrays.values() for part in pair]
    token = tokenize(blocks.name, {name: array.name for name, (array, _) in arrays.items()}, amps)
    return objects(
        function, index, blocks, index, *args, name=f"replaced-{token}", names=tuple(arrays), amps=dict(amps)
    )


def _sorted(
    arrays: Sequence[Any], names: Sequence[str], amps: Mapping[str, tuple[int, ...] | None]
) -> tuple[dict[str, Given], dict[str, NDArray[Any]]]:
    """Planes and numbers by name."""
    found = {name: unwrap(array) for name, array in zip(names, arrays, strict=True)}
    planes = {name: Given(found[name], amps[name]) for name in names if name in amps}
    return planes, {name: np.asarray(found[name]) for name in names if name not in amps}


def _replace_block(block: Corrected, *arrays: Any, names: Sequence[str], amps: Mapping[str, Any]) -> Corrected:
    return replaced(block, *_sorted(arrays, names, amps))


def _replace_part(part: Part, *arrays: Any, names: Sequence[str], amps: Mapping[str, Any]) -> Replaced:
    return Replaced(part, *_sorted(arrays, names, amps))

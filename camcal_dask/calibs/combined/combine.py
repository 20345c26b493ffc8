"""The combine engine: exposures of one kind to one image per detector (reference/construction.md 0.2).

Per pixel: clipped mean over the accepted exposures, its variance, the OR of their masks.  Wired to
the recipes of `camcal_dask.isr.blocks`, a block of the stack is one task that reads, corrects and
combines, and holds a single float32 stack: ``peak_bytes`` counts it, ``slab_rows_for`` plans it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import dask.array as da
import numpy as np
import pydantic
import xarray as xr
from dask.base import tokenize
from dask.layers import ArraySliceDep
from numpy.typing import NDArray
from pydantic import Field

from camcal_dask.calibs.products import COMBINED, LEVELS, OF_HALVES, describe
from camcal_dask.config import Config
from camcal_dask.errors import DataError, PlanError, nearest
from camcal_dask.instruments.geometry import Detector, Instrument, get_instrument
from camcal_dask.isr.blocks import SLAB_ROWS, Slab, layer_of, slabs_of
from camcal_dask.isr.statistics import STATISTICS
from camcal_dask.kernels.pixels.masks import BAD, CR, MASK_PLANES, NO_DATA, bits
from camcal_dask.kernels.statistics.moments import (
    HALVES_EVERY,
    Halves,
    accept,
    clipped_mean_stack,
    compare_amp,
    compare_halves,
    median,
    percentiles,
)

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
_SMALLEST_SLAB = 8


class CombineConfig(Config):
    """How exposures are combined."""

    scale: Literal["unity", "exposure_time", "dark_time", "levels"] = "unity"
    """Every exposure is divided by this before it is compared with the others: a time [s], or its level."""
    sigma_clip: float = Field(3.0, gt=0)
    """Half-width of the clipping window in standard deviations."""
    iterations: int = Field(3, ge=1)
    """Number of selections of the clipped mean."""
    reject_mask: tuple[str, ...] = ("SAT", "DETECTED", "INTRP")
    """Pixels with one of these planes do not enter.  BAD ones do, and hand on their BAD."""
    clear_mask: tuple[str, ...] = ()
    """Planes that are cleared in the inputs first: the pixels enter and the product does not show them."""
    sample_variance_from: int = Field(5, ge=2)
    """With fewer exposures the variance follows from those of the inputs, otherwise from their scatter."""
    compare_halves: bool = False
    """Compare every other exposure with the rest: differ they must not by more than noise (DMTN-101 5.5-5.7)."""

    @pydantic.field_validator("reject_mask", "clear_mask")
    @classmethod
    def _known_planes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in MASK_PLANES:
                raise ValueError(f"unknown mask plane {name!r}{nearest(name, MASK_PLANES)}")
        return names


class Combined(NamedTuple):
    """Some rows of the product: float32, float32, int32 (amp, y, x); whether (exposure, amp) had a usable pixel.

    ``halves`` has arrays (amp, y, x) of every fourth row, None if not asked for.
    """

    image: FloatArray
    variance: FloatArray
    mask: IntArray
    used: NDArray[np.bool_]
    halves: Halves | None = None


class Finished(NamedTuple):
    """All arrays of one detector, named as the variables of the product, without the detector axis."""

    image: FloatArray
    variance: FloatArray
    mask: IntArray
    distribution: NDArray[np.float64]
    n_bad: IntArray
    halves: NDArray[np.float64]
    n_input: IntArray


class Inputs(Protocol):
    """Exposures of a block, one at a time; arrays (amp, y, x)."""

    n: int
    shape: tuple[int, int, int]

    def fetch(self, index: int, image: FloatArray, mask: IntArray) -> NDArray[np.bool_]:
        """Write image and mask of one exposure; say of which amps (amp,) all pixels are sure to be accepted."""

    def variance(self, index: int, image: FloatArray) -> FloatArray:
        """Variance of an exposure already fetched, given its image, without what all exposures share."""

    def add_shared_variance(self, variance: FloatArray, weights: Sequence[float]) -> None:
        """Add to the variance of a weighted sum of the exposures that of the calibrations subtracted from all."""


class SlabInputs:
    """Exposures that are read and corrected when asked for."""

    def __init__(self, slab: Slab, hits: Sequence[NDArray[np.int64]] | None = None) -> None:
        self.slab, self.n, self.shape = slab, len(slab.exposures), slab.shape
        self._hits = hits
        self._noise: dict[int, FloatArray] = {}

    def fetch(self, index: int, image: FloatArray, mask: IntArray) -> NDArray[np.bool_]:
        """Read and correct one exposure."""
        self._noise[index], _, clean = self.slab.correct(index, image, mask)
        if self._hits is None or self._hits[index].size == 0:
            return clean
        a, y, x = np.unravel_index(self._hits[index], self.slab.source.trimmed)
        y = y - self.slab.rows.start
        here = (y >= 0) & (y < len(self.slab.rows))
        mask[a[here], y[here], x[here]] |= CR
        clean[a[here]] = False
        return clean

    def variance(self, index: int, image: FloatArray) -> FloatArray:
        """Variance from the image and the noise found when it was fetched."""
        return self.slab.variance(index, image, self._noise[index], shared=False)

    def add_shared_variance(self, variance: FloatArray, weights: Sequence[float]) -> None:
        """Add that of the bias and dark."""
        self.slab.add_shared_variance(variance, weights)


class ArrayInputs:
    """Exposures already in memory: arrays (exposure, 1, amp, y, x)."""

    def __init__(self, image: FloatArray, variance: FloatArray, mask: IntArray) -> None:
        self._image, self._variance, self._mask = image, variance, mask
        self.n, self.shape = image.shape[0], image.shape[2:]

    def fetch(self, index: int, image: FloatArray, mask: IntArray) -> NDArray[np.bool_]:
        """Copy one exposure."""
        image[...], mask[...] = self._image[index, 0], self._mask[index, 0]
        return np.zeros(len(image), bool)

    def variance(self, index: int, image: FloatArray) -> FloatArray:
        """Its variance."""
        return np.asarray(self._variance[index, 0])

    def add_shared_variance(self, variance: FloatArray, weights: Sequence[float]) -> None:
        """Nothing: it is not known what was subtracted."""


def combine(
    corrected: xr.Dataset,
    config: CombineConfig | None = None,
    *,
    levels: Sequence[float] | None = None,
    hits: da.Array | None = None,
) -> xr.Dataset:
    """Combine the exposures of every detector, lazily.

    Parameters
    ----------
    corrected : Dataset
        From ``isr(..., block="slab")``: image, variance, mask (exposure, detector, amp, y, x), all
        exposures in one block.
    config : CombineConfig
        Defaults of the engine; the recipes say what each product wants.
    levels : sequence of float, optional
        Level of each exposure, with ``scale="levels"``.
    hits : dask array, optional
        From `camcal_dask.calibs.combined.cosmic_rays.find_hits`: these pixels get the plane CR.

    Returns
    -------
    Dataset
        The variables of `camcal_dask.calibs.products.COMBINED`, one block a detector, and
        ``attrs`` instrument, units, exposure_time_s and dark_time_s (0, or 1 after division by a time).

    Raises
    ------
    PlanError
        If the exposures of a pixel are not all in one block, or there are hits and the pixels of
        ``corrected`` were touched since the isr.
    DataError
        If an exposure has no time or level to be divided by.

    Notes
    -----
    Different from upstream on purpose:

    * A pixel with a single surviving input keeps its value, with that input's variance; upstream
      has no variance for it and therefore puts the detector's median in its place.
    * A non-finite pixel is not an accepted input: its mask planes are not handed on.
    * The product's exposure time is 0 for a bias of any name (upstream: 1 unless it is called "bias").
    * Padding (amps smaller than the cube) is NaN and NO_DATA; every other plane but BAD is cleared.
    * The variance has that of the bias and dark that were subtracted: their errors are the same in all exposures,
      so that neither the scatter of these shows them, nor does their number make them smaller.
    """
    config = config or CombineConfig()
    scale = _scales(corrected, config, levels)
    source = slabs_of(corrected)
    if hits is not None and source is None:
        raise PlanError("combine: hits need the blocks of isr(..., block='slab') as they are")
    arrays = [source] if source is not None else [corrected[name].data for name in ("image", "variance", "mask")]
    if not all(isinstance(a, da.Array) and a.numblocks[0] == 1 for a in arrays):
        raise PlanError("combine: all exposures of a pixel must be in one block; use isr(..., block='slab')")
    token = tokenize([a.name for a in arrays], config.model_dump_json(), scale, None if hits is None else hits.name)
    blocks = da.blockwise(
        _combine_slab if source is not None else _combine_arrays,
        "edayx",
        *(part for array in arrays for part in (array, "edayx")),
        *(() if source is None else (hits, None) if hits is None else (hits, "ed")),
        name=f"stack-{token}",
        adjust_chunks={"e": 1},
        align_arrays=False,
        dtype=object,
        meta=np.empty((0,) * 5, object),
        config=config,
        scale=scale,
    )
    return _dataset(corrected, _finish_blocks(corrected, blocks, token), config, token)


def finished_of(product: xr.Dataset) -> da.Array:
    """Blocks `Finished` behind a Dataset from `combine`, one a detector.

    A writer wired to them costs one task a detector, where the separate variables cost two each.
    """
    image = product["image"].data
    return layer_of(image, image.name.replace("combined-image", "finish"), (image.chunks[0],))


def combine_block(inputs: Inputs, config: CombineConfig, scale: tuple[float, ...]) -> Combined:
    """Combine the exposures of one block; the scale of each exposure divides it."""
    n_pixel = int(np.prod(inputs.shape))
    stack, planes = np.empty((inputs.n, n_pixel), np.float32), np.zeros(inputs.shape, np.int32)
    few = inputs.n < config.sample_variance_from
    given = np.empty((inputs.n, n_pixel), np.float32) if few else None
    weights = [1 / (inputs.n * one) for one in scale]
    divisor = 1.0
    if len(set(scale)) == 1 and not few:  # it divides the result, once
        divisor, scale = scale[0], (1.0,) * inputs.n
    used = _fill(stack, given, planes, inputs, config, scale)
    result = clipped_mean_stack(stack, given, sigma=config.sigma_clip, iterations=config.iterations)
    if not few:
        _single_survivors(inputs, stack, result.mean, result.variance, result.n, scale)
    planes &= BAD
    planes[result.n.reshape(inputs.shape) == 0] = BAD
    mean, variance = (_divided(plane.reshape(inputs.shape), divisor**k) for k, plane in enumerate(result[:2], 1))
    inputs.add_shared_variance(variance, weights)
    halves = None
    if config.compare_halves:
        n_amp, _, width = inputs.shape
        found = compare_halves(stack, inputs.shape[1:], HALVES_EVERY)
        halves = Halves._make(_divided(p.reshape(n_amp, -1, width), divisor**k) for k, p in enumerate(found, 1))
    return Combined(mean, variance, planes, used, halves)


def _fill(  # noqa: PLR0913
    stack: FloatArray,
    variances: FloatArray | None,
    planes: IntArray,
    inputs: Inputs,
    config: CombineConfig,
    scale: tuple[float, ...],
) -> NDArray[np.bool_]:
    """Fetch and scale all exposures, NaN where rejected; gather the masks of the rest.

    Returns
    -------
    Whether (exposure, amp) had a usable pixel.
    """
    used, mask = np.zeros((inputs.n, inputs.shape[0]), bool), np.empty(inputs.shape, np.int32)
    reject, keep = np.int32(bits(config.reject_mask)), np.int32(~bits(config.clear_mask))
    for e in range(inputs.n):
        image = stack[e].reshape(inputs.shape)
        clean = inputs.fetch(e, image, mask)
        if variances is not None:
            variances[e] = inputs.variance(e, image).ravel() / np.float32(scale[e] ** 2)
        _divided(image, scale[e])
        for a in range(inputs.shape[0]):
            if clean[a]:
                used[e, a] = np.isfinite(image[a, 0, 0])  # an amp that the detector lacks is NaN
                continue
            if config.clear_mask:
                mask[a] &= keep
            used[e, a] = accept(image[a].ravel(), mask[a].ravel(), reject, planes[a].ravel()) > 0
    return used


def _divided(values: FloatArray, divisor: float) -> FloatArray:
    """Divide in place."""
    if divisor != 1:
        values /= np.float32(divisor)
    return values


def finish_detector(slabs: list[Combined], detector: Detector) -> Finished:
    """Put the slabs of a detector together, fill what is missing, describe the amps.

    Pixels without value or variance get the median over the detector of each, and BAD.

    Raises
    ------
    DataError
        If not one pixel of the detector has a value.
    """
    image, variance, mask = (np.concatenate(planes, axis=1) for planes in list(zip(*slabs, strict=True))[:3])
    used = np.any([s.used for s in slabs], axis=0)
    n_amp = image.shape[0]
    inside = [np.s_[amp.index, : amp.data.height, : amp.data.width] for amp in detector.amps]
    _pad(image, variance, mask, detector)
    missing = [~(np.isfinite(image[box]) & np.isfinite(variance[box])) for box in inside]
    if any(m.any() for m in missing):
        fill = median(image), median(variance)
        if not np.all(np.isfinite(fill)):
            raise DataError(f"detector {detector.name}: no exposure has a usable pixel; leave the detector out (-d)")
        for box, m in zip(inside, missing, strict=True):
            image[box][m], variance[box][m] = fill
            mask[box][m] |= BAD
    distribution, n_bad = np.full((n_amp, len(LEVELS)), np.nan), np.zeros(n_amp, np.int32)
    for box in inside:
        distribution[box[0]] = percentiles(image[box], np.array(LEVELS) / 100)
        n_bad[box[0]] = np.count_nonzero(mask[box] & BAD)
    n_input = used.sum(axis=0, dtype=np.int32)
    return Finished(image, variance, mask, distribution, n_bad, _halves(slabs, detector, n_input), n_input)


def unusable_amps(product: Finished, detector: Detector, *, divides: bool) -> dict[str, str]:
    """Amps of a combined image that nothing can be corrected with, and why.

    Parameters
    ----------
    product : Finished
    detector : Detector
    divides : whether images will be divided by it: then its median must be positive
    """
    reasons = {}
    for amp in detector.amps:
        middle = float(product.distribution[amp.index, LEVELS.index(50)])
        if not product.n_input[amp.index]:
            reasons[amp.name] = "no exposure has a usable pixel in it"
        elif product.n_bad[amp.index] >= amp.data.height * amp.data.width:
            reasons[amp.name] = "all of its pixels are bad"
        elif divides and not middle > 0:
            reasons[amp.name] = f"its median response is {middle:.3g}"
    return reasons


def _halves(slabs: list[Combined], detector: Detector, n_input: IntArray) -> NDArray[np.float64]:
    """Numbers of `OF_HALVES` of every amp, NaN if the halves were not compared."""
    out = np.full((len(n_input), len(OF_HALVES)), np.nan)
    compared = [slab.halves for slab in slabs if slab.halves is not None]
    if compared:
        whole = Halves._make(np.concatenate(planes, axis=1) for planes in zip(*compared, strict=True))
        for amp in detector.amps:  # padding is NaN
            out[amp.index] = compare_amp(Halves._make(plane[amp.index] for plane in whole), float(n_input[amp.index]))
    return out


def peak_bytes(
    rows: int, n_exposures: int, instrument: Instrument, calib_planes: int = 0, *, halves: bool = False
) -> int:
    """Most memory that one task of a stack takes, on top of an idle worker [byte].

    Parameters
    ----------
    rows : slab height [pixel]
    n_exposures : exposures combined
    instrument : the camera
    calib_planes : pixel planes of the calibrations that the ISR applies, 3 each for bias, dark and flat, 1 for defects
    halves : whether the halves of the exposures are compared

    Notes
    -----
    The larger of: a slab (float32 stack, with few exposures their variances too, one raw exposure being
    decoded, calibrations, masks, result, the overscan vectors of all exposures, and the other slabs of the detector,
    done and waiting); the overscan pass (one raw detector); the finishing of a detector (its slabs and
    the arrays they are copied to).  Code that is loaded and compiled at first use takes another 100 MiB.
    """
    return sum(_largest(rows, n_exposures, instrument, calib_planes, halves).values())


def slab_rows_for(
    memory_bytes: int, n_exposures: int, instrument: Instrument, calib_planes: int = 0, *, halves: bool = False
) -> int:
    """Largest slab height whose tasks fit into ``memory_bytes`` on top of an idle worker [pixel].

    Heights are powers of two up to 256, the rows of a chunk of the raw cube: smaller slabs decode
    each chunk 256 / height times.

    Raises
    ------
    PlanError
        With the numbers, if even the lowest slab does not fit.
    """
    height = min(SLAB_ROWS, instrument.trimmed_shape[0])
    while (
        height > _SMALLEST_SLAB
        and peak_bytes(height, n_exposures, instrument, calib_planes, halves=halves) > memory_bytes
    ):
        height = max(_SMALLEST_SLAB, 1 << ((height - 1).bit_length() - 1))
    peak = peak_bytes(height, n_exposures, instrument, calib_planes, halves=halves)
    if peak > memory_bytes:
        largest = _largest(height, n_exposures, instrument, calib_planes, halves)
        parts = ", ".join(f"{k} {v / 2**20:.0f}" for k, v in largest.items())
        raise PlanError(
            f"combining {n_exposures} exposures of {instrument.name} takes {peak / 2**20:.0f} MiB a task even in slabs "
            f"of {height} rows ({parts}), but {memory_bytes / 2**20:.0f} MiB are allowed; "
            "give the workers more memory, start fewer of them (-j), or combine fewer exposures"
        )
    return height


def _largest(
    rows: int,
    n_exposures: int,
    instrument: Instrument,
    calib_planes: int,
    halves: bool,  # noqa: FBT001
) -> dict[str, int]:
    """Parts [byte] of the task that needs most."""
    _, n_amp, raw_height, raw_width = instrument.raw_shape
    height, width = instrument.trimmed_shape
    pixels, whole = n_amp * min(rows, height) * width, n_amp * height * width
    raw_detector = n_amp * raw_height * raw_width * 4
    overscan = n_exposures * n_amp * ((raw_height + width) * 4 + len(STATISTICS) * 8)
    chunk = min(SLAB_ROWS, raw_height) * raw_width * 4
    handed_on = 12 + (8 // HALVES_EVERY if halves else 0)
    tasks: list[dict[str, int]] = [
        {
            "stack": 4 * n_exposures * pixels * (2 if n_exposures < 5 else 1),
            "raw rows": 4 * pixels + 2 * chunk,
            "masks and result": (14 + handed_on) * pixels,
            "calibrations": 4 * (calib_planes + 1) * pixels if calib_planes else 0,
            "overscan vectors": 2 * overscan,
            "slabs done": handed_on * whole,
        },
        {"raw detector": raw_detector + 2 * chunk, "strips": raw_detector // 8},
        {"slabs": handed_on * whole, "arrays of a detector": 12 * whole, "distribution": whole},
    ]
    return max(tasks, key=lambda parts: sum(parts.values()))


def _scales(corrected: xr.Dataset, config: CombineConfig, levels: Sequence[float] | None) -> tuple[float, ...]:
    if (levels is not None) != (config.scale == "levels"):
        raise PlanError(f"combine: scale={config.scale} and levels {'not ' if levels is None else ''}given")
    if config.scale == "unity":
        return (1.0,) * corrected.sizes["exposure"]
    values = np.asarray(corrected[config.scale].values if levels is None else levels, np.float64)
    unit = " s" if levels is None else ""
    for exposure, value in zip(corrected["exposure"].values, values, strict=True):
        if not (np.isfinite(value) and value > 0):
            raise DataError(
                f"exposure {exposure}: {config.scale} is {value}{unit}, which cannot divide (combine.scale); "
                "leave the exposure out (-d)"
            )
    return tuple(values.tolist())


def scaled_units(units: str, scale: str) -> str:
    """Unit of the combination of images in ``units``."""
    return {"unity": units, "levels": "1"}.get(scale, f"{units}/s")


def _single_survivors(
    inputs: Inputs, stack: FloatArray, mean: FloatArray, variance: FloatArray, n: IntArray, scale: tuple[float, ...]
) -> None:
    """Give pixels with one surviving input that input's variance; a sample of one has none."""
    alone = np.flatnonzero(n == 1)
    if alone.size == 0:
        return
    distance = np.abs(stack[:, alone] - mean[alone])
    chosen = np.argmin(np.where(np.isfinite(distance), distance, np.inf), axis=0)
    for e in np.unique(chosen):
        image = stack[e].reshape(inputs.shape) * np.float32(scale[e])
        values = inputs.variance(int(e), image).ravel() / np.float32(scale[e] ** 2)
        variance[alone[chosen == e]] = values[alone[chosen == e]]


def _pad(image: FloatArray, variance: FloatArray, mask: IntArray, detector: Detector) -> None:
    """Mark what is beyond the pixels of each amp, and amps that the detector lacks."""
    sizes = {amp.index: (amp.data.height, amp.data.width) for amp in detector.amps}
    for a in range(image.shape[0]):
        height, width = sizes.get(a, (0, 0))
        for part in (np.s_[a, height:], np.s_[a, :height, width:]):
            image[part], variance[part], mask[part] = np.nan, np.nan, NO_DATA


def _combine_slab(
    slab: Slab, hits: Sequence[NDArray[np.int64]] | None, *, config: CombineConfig, scale: tuple[float, ...]
) -> Combined:
    return combine_block(SlabInputs(slab, hits), config, scale)


def _combine_arrays(
    image: FloatArray, variance: FloatArray, mask: IntArray, *, config: CombineConfig, scale: tuple[float, ...]
) -> Combined:
    return combine_block(ArrayInputs(image, variance, mask), config, scale)


def _finish_blocks(corrected: xr.Dataset, blocks: da.Array, token: str) -> da.Array:
    """One block `Finished` a detector."""
    detectors = tuple(corrected["detector"].values.tolist())
    return da.blockwise(
        _finish,
        "d",
        blocks,
        "edayx",
        ArraySliceDep(((1,) * len(detectors),)),
        "d",
        name=f"finish-{token}",
        align_arrays=False,
        dtype=object,
        meta=np.empty(0, object),
        detectors=detectors,
        instrument=corrected.attrs["instrument"],
    )


def _finish(blocks: Any, region: tuple[slice], *, detectors: tuple[int, ...], instrument: str) -> Finished:
    return finish_detector(list(_flatten(blocks)), get_instrument(instrument).detectors[detectors[region[0].start]])


def _flatten(blocks: Any) -> Iterator[Combined]:
    if isinstance(blocks, Combined):
        yield blocks
    else:
        for block in blocks:
            yield from _flatten(block)


def _dataset(corrected: xr.Dataset, finished: da.Array, config: CombineConfig, token: str) -> xr.Dataset:
    time_s = 1.0 if config.scale.endswith("_time") else 0.0
    sizes = {**corrected.sizes, "level": len(LEVELS), "of_halves": len(OF_HALVES)}
    units = scaled_units(corrected.attrs["units"], config.scale)
    variables = {}
    for name, variable in COMBINED.items():
        field = da.blockwise(
            _field,
            "d" + "".join(chr(ord("m") + i) for i in range(1, len(variable.dims))),
            finished,
            "d",
            name,
            None,
            name=f"combined-{name}-{token}",
            new_axes={chr(ord("m") + i): sizes[dim] for i, dim in enumerate(variable.dims) if i},
            align_arrays=False,
            dtype=np.dtype(variable.dtype),
            meta=np.empty((0,) * len(variable.dims), variable.dtype),
        )
        variables[name] = xr.Variable(variable.dims, field, describe(variable, units))
    coords = {k: c for k, c in corrected.coords.items() if set(c.dims) <= {"detector", "amp"}}
    times = {"exposure_time_s": time_s, "dark_time_s": time_s}
    attrs = {**corrected.attrs, "units": units, **times, "combine_config": config.model_dump_json()}
    return xr.Dataset(variables, {**coords, "level": list(LEVELS), "of_halves": list(OF_HALVES)}, attrs)


def _field(finished: Finished, name: str) -> NDArray[Any]:
    return np.asarray(getattr(finished, name)[None])

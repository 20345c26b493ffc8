"""The combine engine: exposures of one type become one image per detector (reference/construction.md 0.2).

Per pixel: clipped mean over the accepted exposures, its variance, the OR of their masks.  A block of the stack is one
task that reads, corrects and combines, and holds a single float32 stack: `camcal_dask.isr.cost` counts
and plans it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from pydantic import Field

from camcal_dask.calibs.combined.finish import Combined, Finished, finish_detector
from camcal_dask.calibs.combined.product import COMBINED, LEVELS, OF_HALVES
from camcal_dask.config import Config
from camcal_dask.errors import DataError, PlanError
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.isr.blocks import Part
from camcal_dask.isr.config import PlaneNames
from camcal_dask.isr.corrected import SLAB_ROWS, CorrectedExposures, as_corrected, on_all_amps
from camcal_dask.isr.graph import PIXEL_INDEX, declared, flatten, named_variables, objects, regions
from camcal_dask.kernels.arrays import BoolArray, Int32Array, IntArray, Pixels
from camcal_dask.kernels.pixels.masks import BAD, CR, bits
from camcal_dask.kernels.statistics.moments import (
    HALVES_EVERY,
    Halves,
    accept,
    clipped_mean_stack,
    compare_halves,
)


class CombineConfig(Config):
    """How exposures are combined."""

    scale: Literal["unity", "exposure_time", "dark_time", "levels"] = "unity"
    """Every exposure is divided by this before it is compared with the others: a time [s], or its level."""
    sigma_clip: float = Field(3.0, gt=0)
    """Half-width of the clipping window in standard deviations."""
    iterations: int = Field(3, ge=1)
    """Number of selections of the clipped mean."""
    reject_mask: PlaneNames = ("SAT", "DETECTED", "INTRP")
    """Pixels with one of these planes do not enter.  BAD ones do, and hand on their BAD."""
    clear_mask: PlaneNames = ()
    """Planes that are cleared in the inputs first: the pixels enter and the product does not show them."""
    sample_variance_from: int = Field(5, ge=2)
    """With fewer exposures the variance follows from those of the inputs, otherwise from their scatter."""
    compare_halves: bool = False
    """Compare every other exposure with the rest: differ they must not by more than noise (DMTN-101 5.5-5.7)."""


Hits = Sequence[NDArray[np.int64]]
"""Of each exposure, flat indices into (amp, y, x) of the trimmed detector."""


@on_all_amps
def combine(
    corrected: CorrectedExposures,
    config: CombineConfig | None = None,
    *,
    slab_rows: int = SLAB_ROWS,
    levels: Sequence[float] | None = None,
    hits: da.Array | None = None,
) -> xr.Dataset:
    """Combine the exposures of every detector, lazily.

    Parameters
    ----------
    corrected : CorrectedExposures
        From ``isr``, or a Dataset of them.
    config : CombineConfig
        Defaults of the engine; the recipes say what each product wants.
    slab_rows : int
        Rows of all exposures that are in memory at a time; `slab_rows_for` plans it.
    levels : sequence of float, optional
        Level of each exposure, with ``scale="levels"``.
    hits : dask array, optional
        From `camcal_dask.calibs.combined.cosmic_rays.find_hits`: these pixels get the plane CR.

    Returns
    -------
    Dataset
        The variables of `camcal_dask.calibs.combined.product.COMBINED`, one block per detector, and
        ``attrs`` instrument, units, exposure_time_s and dark_time_s (0, or 1 after division by a time).

    Raises
    ------
    ConfigError
        If a step needs whole CCDs, see `CorrectedExposures.by_slab`.
    DataError
        If an exposure has no time or level to be divided by.

    Notes
    -----
    Where it differs from upstream on purpose, `combine_block` says.
    """
    config = config or CombineConfig()
    blocks = combined_blocks(corrected, config, slab_rows=slab_rows, levels=levels, hits=hits)
    return _dataset(corrected, blocks, config)


def combined_blocks(
    exposures: CorrectedExposures | xr.Dataset,
    config: CombineConfig | None = None,
    *,
    slab_rows: int = SLAB_ROWS,
    levels: Sequence[float] | None = None,
    hits: da.Array | None = None,
) -> da.Array:
    """Combine as `combine` does, to one object `Finished` of all amps a detector; standing at (detector,).

    A writer that takes these costs one task per detector, where separate variables would cost two each.
    """
    corrected, config = as_corrected(exposures), config or CombineConfig()
    scale = _scales(corrected, config, levels)
    parts = corrected.by_slab(slab_rows)
    token = tokenize(parts.name, config.model_dump_json(), scale, None if hits is None else hits.name)
    blocks = objects(
        combine_block, PIXEL_INDEX, parts, PIXEL_INDEX, hits, None if hits is None else "ed", name=f"stack-{token}",
        adjust_chunks={"e": 1}, config=config, scale=scale, amp_rows=corrected.amp_shape[0],
    )  # fmt: skip
    detectors = tuple(corrected.labels["detector"].values.tolist())
    return objects(
        _finish, "d", blocks, PIXEL_INDEX, regions((1,) * len(detectors)), "d", name=f"finish-{token}",
        detectors=detectors, instrument=corrected.attrs["instrument"],
    )  # fmt: skip


def combine_block(
    inputs: Part, hits: Hits | None = None, *, config: CombineConfig, scale: tuple[float, ...], amp_rows: int = 0
) -> Combined:
    """Combine the exposures of one block; the scale of each exposure divides it.

    ``amp_rows``, the height of a whole trimmed amp [pixel], is needed with ``hits``.

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
    n_pixel = int(np.prod(inputs.shape))
    stack, planes = np.empty((inputs.n, n_pixel), np.float32), np.zeros(inputs.shape, np.int32)
    few = inputs.n < config.sample_variance_from
    given = np.empty((inputs.n, n_pixel), np.float32) if few else None
    weights = [1 / (inputs.n * one) for one in scale]
    divisor = 1.0
    if len(set(scale)) == 1 and not few:  # it divides the result, once
        divisor, scale = scale[0], (1.0,) * inputs.n
    used, noise = _fill(stack, given, planes, inputs, config, scale, hits, amp_rows)
    result = clipped_mean_stack(stack, given, sigma=config.sigma_clip, iterations=config.iterations)
    if not few:
        _single_survivors(inputs, stack, noise, result, scale)
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
    stack: Pixels,
    variances: Pixels | None,
    planes: Int32Array,
    inputs: Part,
    config: CombineConfig,
    scale: tuple[float, ...],
    hits: Hits | None,
    amp_rows: int,
) -> tuple[NDArray[np.bool_], list[Pixels | None]]:
    """Fetch and scale all exposures, NaN where rejected; gather the masks of the rest.

    Returns
    -------
    Whether (exposure, amp) had a usable pixel; of each exposure the read-noise term of its variance.
    """
    used, mask = np.zeros((inputs.n, inputs.shape[0]), bool), np.empty(inputs.shape, np.int32)
    reject, keep, noises = np.int32(bits(config.reject_mask)), np.int32(~bits(config.clear_mask)), []
    for e in range(inputs.n):
        image = stack[e].reshape(inputs.shape)
        noise, clean, _, _ = inputs.fetch(e, image, mask)
        noises.append(noise)
        if hits is not None:
            _flag_hits(mask, clean, hits[e], inputs.first_row, amp_rows)
        if variances is not None:
            variances[e] = inputs.variance(e, image, noise, shared=False).ravel() / np.float32(scale[e] ** 2)
        _divided(image, scale[e])
        for a in range(inputs.shape[0]):
            if clean[a]:
                used[e, a] = np.isfinite(image[a, 0, 0])  # an amp that the detector lacks is NaN
                continue
            if config.clear_mask:
                mask[a] &= keep
            used[e, a] = accept(image[a].ravel(), mask[a].ravel(), reject, planes[a].ravel()) > 0
    return used, noises


def _flag_hits(mask: Int32Array, clean: BoolArray, hits: IntArray, first_row: int, height: int) -> None:
    """Flag the hits (flat indices into whole amps of ``height`` rows) that lie in these rows as CR, in place."""
    n_amp, rows, width = mask.shape
    a, y, x = np.unravel_index(hits, (n_amp, height, width))
    y = y - first_row
    here = (y >= 0) & (y < rows)
    mask[a[here], y[here], x[here]] |= CR
    clean[a[here]] = False


def _divided(values: Pixels, divisor: float) -> Pixels:
    """Divide in place."""
    if divisor != 1:
        values /= np.float32(divisor)
    return values


def _scales(corrected: CorrectedExposures, config: CombineConfig, levels: Sequence[float] | None) -> tuple[float, ...]:
    if (levels is not None) != (config.scale == "levels"):
        raise PlanError(f"combine: scale={config.scale} and levels {'not ' if levels is None else ''}given")
    if config.scale == "unity":
        return (1.0,) * corrected.sizes["exposure"]
    given = np.asarray(corrected.labels[config.scale].values if levels is None else levels, np.float64)
    values = given if given.ndim else given[None]  # of a Dataset of a single exposure
    unit = " s" if levels is None else ""
    for exposure, value in zip(corrected.labels["exposure"].values, values, strict=True):
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
    inputs: Part, stack: Pixels, noise: Sequence[Pixels | None], result: Any, scale: tuple[float, ...]
) -> None:
    """Give pixels with one surviving input that input's variance; a sample of one has none."""
    alone = np.flatnonzero(result.n == 1)
    if alone.size == 0:
        return
    distance = np.abs(stack[:, alone] - result.mean[alone])
    chosen = np.argmin(np.where(np.isfinite(distance), distance, np.inf), axis=0)
    for e in np.unique(chosen).tolist():
        image = stack[e].reshape(inputs.shape) * np.float32(scale[e])
        values = inputs.variance(e, image, noise[e], shared=False).ravel() / np.float32(scale[e] ** 2)
        result.variance[alone[chosen == e]] = values[alone[chosen == e]]


def _finish(blocks: Any, region: tuple[slice], *, detectors: tuple[int, ...], instrument: str) -> Finished:
    return finish_detector(flatten(blocks), get_instrument(instrument).detectors[detectors[region[0].start]])


def _dataset(corrected: CorrectedExposures, finished: da.Array, config: CombineConfig) -> xr.Dataset:
    time_s = 1.0 if config.scale.endswith("_time") else 0.0
    sizes = {**corrected.sizes, "level": len(LEVELS), "of_halves": len(OF_HALVES)}
    units = scaled_units(corrected.attrs["units"], config.scale)
    found = named_variables(finished, ("detector",), declared(COMBINED, units), sizes, _field, prefix="combined")
    coords = {k: c for k, c in corrected.coords.items() if set(c.dims) <= {"detector", "amp"}}
    times = {"exposure_time_s": time_s, "dark_time_s": time_s}
    attrs = {**corrected.attrs, "units": units, **times, "combine_config": config.model_dump_json()}
    return xr.Dataset(found, {**coords, "level": list(LEVELS), "of_halves": list(OF_HALVES)}, attrs)


def _field(finished: Finished, name: str) -> NDArray[Any]:
    return np.asarray(getattr(finished, name)[None])

"""Statistics of corrected exposures, one dask task a (exposure, detector) block (reference/verification.md 6).

`camcal_dask.verify.measuring.block.measure_block` is the whole measurement on plain arrays; `measure` makes one task
a block of it, which returns one packed vector, and the named variables are cut from the gathered vectors, so
the graph has about one task a block whatever the number of statistics.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.errors import PlanError
from camcal_dask.instruments.geometry import Amp, get_instrument
from camcal_dask.kernels.pixels.masks import MASK_PLANES, bits
from camcal_dask.schema import EXPOSURE_DIMS, STATISTIC_DIMS
from camcal_dask.verify.measuring.block import (
    EXCEPTION,
    STATISTICS,
    Layout,
    MeasureConfig,
    amp_layout,
    measure_block,
    packed_layout,
)
from camcal_dask.verify.measuring.references import (
    FEW,
    MASTERS,
    expectations,
    expected_shot,
    inputs_of,
    masters,
    members,
    split_of,
)
from camcal_dask.verify.measuring.response import RESPONSE, measure_response

__all__ = ["BLOCK", "STATISTICS", "MeasureConfig", "expectations", "measure", "measure_block"]

FloatArray = npt.NDArray[np.float64]
_log = logging.getLogger(__name__)

BLOCK = STATISTIC_DIMS
_GATHER_BYTES = 128 * 2**20


def measure(
    corrected: xr.Dataset,
    *,
    config: MeasureConfig | None = None,
    calib: xr.Dataset | None = None,
    calibs: Mapping[str, xr.Dataset] | None = None,
) -> xr.Dataset:
    """Measure every (exposure, detector) of a lazy corrected Dataset; nothing is computed.

    Parameters
    ----------
    corrected : Dataset
        From `camcal_dask.isr`: image, variance, mask (exposure, detector, amp, y, x) with whole detectors in
        a block; other (exposure, detector, amp) variables are carried along; ``serial_overscan``
        (exposure, detector, amp, y_raw) [adu] if there, is searched for bias shifts.  Attributes ``units`` and
        ``instrument``.  Variables ``gain`` [electron/adu] and ``read_noise`` [electron] take the place of the
        nominal ones.
    config : MeasureConfig, optional
    calib : Dataset, optional
        The calibration under test; its ``distribution`` (detector, amp, level), the comparison of its halves and its
        identity are copied.
    calibs : mapping of name to Dataset, optional
        All calibrations that were applied; their noise enters what is expected, see `references.masters`.  The gains
        and the read noise of a ``ptc`` take the place of the nominal ones, whether it was applied or not.

    Returns
    -------
    Dataset of `STATISTICS` (exposure, detector, amp), of a flat also `camcal_dask.verify.measuring.response.RESPONSE`,
    ``n_masked_plane`` (.., plane), ``residual_binned``
    (.., y_bin, x_bin), ``amp_correlation`` (exposure, detector, kind, amp, amp_b), the variables carried along,
    the references of `expectations` and `masters` (detector, amp), and of a ``ptc`` those of `expected_shot`.
    """
    config = config or MeasureConfig()
    _check(corrected)
    carried = tuple(str(n) for n, v in corrected.data_vars.items() if v.dims == BLOCK and n not in STATISTICS)
    calibs = calibs or {}
    tested = calibs.get("flat")
    flat = tested if tested is not None and (calib is None or calib is tested) else None
    extra = carried if flat is None else (*carried, *RESPONSE)
    layout = packed_layout(tuple(corrected["image"].shape[2:]), config, extra)  # type: ignore[arg-type]
    packed = _packed(corrected, carried, layout, config, _marked(calibs, corrected), flat)
    result = _unpack(packed, layout, corrected, config)
    result = result.assign(expectations(corrected, config, calibs.get("ptc")))
    result = result.assign(expected_shot(result, calibs.get("ptc")))
    detectors = [int(d) for d in corrected["detector"].values]
    result = result.assign(masters(calibs, detectors) | members(calibs, corrected))
    if calib is not None and "distribution" in calib:
        chosen = calib["distribution"].reindex(detector=corrected["detector"].values)
        result["calib_distribution"] = chosen.drop_vars([c for c in chosen.coords if c not in chosen.dims])
    result = result.assign({} if calib is None else split_of(calib.sel(detector=detectors)))
    identity = {k: v for k, v in (calib.attrs if calib is not None else {}).items() if k in ("uuid", "run")}
    result.attrs = {
        "instrument": corrected.attrs["instrument"],
        "units": corrected.attrs["units"],
        "measure_config": config.model_dump_json(),
        **{f"calib_{k}": v for k, v in identity.items()},
    }
    return result


def _check(corrected: xr.Dataset) -> None:
    image = corrected["image"]
    wanted = EXPOSURE_DIMS
    if image.dims != wanted:
        raise PlanError(f"measure: image has dims {image.dims}, expected {wanted}")
    for dim in ("amp", "y", "x"):
        if image.chunks is not None and len(image.chunksizes[dim]) > 1:
            raise PlanError(
                f"measure: {dim} is cut into {len(image.chunksizes[dim])} chunks, but cosmic rays and correlations "
                "need whole detectors: call isr(..., block='exposure')"
            )
    for name in ("units", "instrument"):
        if name not in corrected.attrs:
            raise PlanError(f"measure: the corrected Dataset has no attribute {name!r}")


def _marked(calibs: Mapping[str, xr.Dataset], corrected: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Exposures (exposure,) that made a calibration with fewer than `FEW` inputs."""
    exposures = [int(e) for e in corrected["exposure"].values]
    marked = np.zeros(len(exposures), bool)
    for name in MASTERS:
        if name in calibs and len(calibs[name].attrs.get("exposures", ())) < FEW:
            marked |= inputs_of(calibs, exposures, name)
    return marked


def _packed(
    corrected: xr.Dataset,
    carried: tuple[str, ...],
    layout: Layout,
    config: MeasureConfig,
    marked: npt.NDArray[np.bool_],
    flat: xr.Dataset | None,
) -> da.Array:
    """(exposure, detector, 1, .., 1, number) float64, one task a block.

    The axes of length 1 stand for the pixels: a layer that drops no axis fuses with those of the isr before it.
    """
    has_rows = "serial_overscan" in corrected
    chunks = {"exposure": 1, "detector": 1}
    pixels = [corrected[name] for name in ("image", "variance", "mask")]
    if pixels[0].chunks is None:
        corrected = corrected.chunk(chunks)
        pixels = [corrected[name] for name in ("image", "variance", "mask")]
    chunks = {dim: pixels[0].chunksizes[dim] for dim in ("exposure", "detector")}  # type: ignore[misc]
    args: list[Any] = []
    for array in pixels:
        args += [array.data, "edayx"]
    args += [da.from_array(corrected["detector"].values, chunks=(chunks["detector"],)), "d"]
    args += [da.from_array(marked, chunks=(chunks["exposure"],)), "e"]
    if has_rows:
        args += [_aligned(corrected["serial_overscan"], chunks), "edar"]
    for name in carried:
        args += [_aligned(corrected[name], chunks), "eda"]
    for name in ("image", "variance") if flat is not None else ():
        plane = flat[name].sel(detector=corrected["detector"].values)  # type: ignore[index]
        args += [_aligned(plane, {"detector": chunks["detector"]}), "dayx"]
    return da.blockwise(
        _measure_chunk,
        "edayxrk" if has_rows else "edayxk",
        *args,
        new_axes={"k": layout.size},
        adjust_chunks=dict.fromkeys("ayxr", 1),
        align_arrays=False,
        dtype=np.float64,
        meta=np.empty((0,) * (7 if has_rows else 6)),
        name=None,
        token="measure",  # noqa: S106 (a layer name)
        layout=layout,
        carried=carried,
        has_rows=has_rows,
        config=config,
        instrument=corrected.attrs["instrument"],
    )


def _aligned(array: xr.DataArray, chunks: Mapping[str, Any]) -> da.Array:
    rest = {dim: -1 for dim in array.dims if dim not in chunks}
    return array.chunk({**chunks, **rest}).data  # type: ignore[no-any-return]


def _measure_chunk(
    *blocks: Any,
    layout: Layout,
    carried: tuple[str, ...],
    has_rows: bool,
    config: MeasureConfig,
    instrument: str,
) -> FloatArray:
    """Block function: all (exposure, detector) of a chunk; a failure becomes a flagged record."""
    image, variance, mask, detectors, marked, *others = blocks
    out = np.empty((*image.shape[:2], layout.size))
    rows, extra = (others[0], others[1:]) if has_rows else (None, others)
    extra, flat = extra[: len(carried)], extra[len(carried) :]
    bad_bits = bits(config.bad_planes)
    for e, d in np.ndindex(*image.shape[:2]):
        amps = get_instrument(instrument).detectors[int(detectors[d])].amps
        try:
            values = measure_block(
                np.ascontiguousarray(image[e, d]),
                np.ascontiguousarray(variance[e, d]),
                np.ascontiguousarray(mask[e, d]),
                amps,
                config,
                None if rows is None else rows[e, d],
                marked=bool(marked[e]),
            )
            if flat:
                values |= measure_response(image[e, d], mask[e, d], flat[0][d], flat[1][d], bad_bits)
        except Exception:  # noqa: BLE001 (one bad exposure must not end the other 3779: verification.md 6, rule 7)
            _log.exception("measure: %s, detector %d: no statistics", instrument, int(detectors[d]))
            values = _failed(image.shape[2], amps)
        values.update({name: array[e, d] for name, array in zip(carried, extra, strict=True)})
        out[e, d] = layout.pack(values)
    return out.reshape((*image.shape[:2], *(1,) * (4 if has_rows else 3), layout.size))


def _failed(n_amp: int, amps: tuple[Amp, ...]) -> dict[str, FloatArray]:
    layout = amp_layout(amps, n_amp)
    return {
        "n_pixel": (layout[:, 0] * layout[:, 1]).astype(np.float64),
        "flags": np.full(n_amp, float(EXCEPTION)),
        "force_failure": np.ones(n_amp),
    }


def _unpack(packed: da.Array, layout: Layout, corrected: xr.Dataset, config: MeasureConfig) -> xr.Dataset:
    """Cut named variables from the vectors, gathered first so that each cut is a few tasks."""
    n_exposure, n_detector = packed.shape[:2]
    flat = (slice(None), slice(None), *(0,) * (packed.ndim - 3))
    step = max(1, _GATHER_BYTES // (8 * n_detector * layout.size))
    gathered = packed.rechunk({0: min(step, n_exposure), 1: -1})
    variables = {}
    start = 0
    for name, dims, shape in layout.fields:
        stop = start + math.prod(shape)
        part = gathered[(*flat, slice(start, stop))]
        part = part if len(shape) == 1 else part.reshape((n_exposure, n_detector, *shape))
        variables[name] = xr.Variable(("exposure", "detector", *dims), part, _attributes(name, corrected))
        start = stop
    kept = {k: c for k, c in corrected.coords.items() if set(c.dims) <= set(BLOCK)}
    result = xr.Dataset(variables, kept)
    result = result.assign_coords(plane=list(MASK_PLANES), amp_b=("amp_b", _amp_names(corrected)))
    result = result.assign_coords(amp=("amp", _amp_names(corrected)))
    return result.assign_coords(kind=["image", "overscan"]) if config.correlations else result


def _amp_names(corrected: xr.Dataset) -> list[str]:
    return list(get_instrument(corrected.attrs["instrument"]).amp_names)[: corrected.sizes["amp"]]


def _attributes(name: str, corrected: xr.Dataset) -> dict[str, str]:
    units = corrected.attrs["units"]
    if found := STATISTICS.get(name) or RESPONSE.get(name):
        return found.attrs(units)
    if name in corrected:
        return dict(corrected[name].attrs)
    return {"units": {"n_masked_plane": "pixel", "amp_correlation": "1"}.get(name, units)}

"""Statistics of corrected exposures, one dask task a (exposure, detector) block (reference/verification.md 6).

`camcal_dask.verify.measuring.block.measure_block` is the whole measurement on plain arrays; `measure` makes one task
a block of it, which returns one packed vector, and the named variables are cut from the gathered vectors, so
the graph has about one task per block, whatever the number of statistics.
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
from dask.base import tokenize

from camcal_dask.instruments.focal_plane import amp_layout
from camcal_dask.instruments.geometry import Amp, get_instrument
from camcal_dask.isr.blocks import Corrected
from camcal_dask.isr.corrected import CorrectedExposures, on_all_amps
from camcal_dask.isr.graph import PIXEL_INDEX
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.pixels.masks import MASK_PLANES, bits
from camcal_dask.schema import STATISTIC_DIMS
from camcal_dask.verify.measuring.block import (
    EXCEPTION,
    MAPS,
    STATISTICS,
    Layout,
    MeasureConfig,
    measure_block,
    packed_layout,
)
from camcal_dask.verify.measuring.derived import expected_shot
from camcal_dask.verify.measuring.masters import MASTERS, inputs_of, masters, members
from camcal_dask.verify.measuring.references import FEW, expectations, split_of
from camcal_dask.verify.measuring.response import RESPONSE, measure_response

__all__ = ["STATISTICS", "MeasureConfig", "expectations", "measure", "measure_block"]

_log = logging.getLogger(__name__)

_GATHER_BYTES = 128 * 2**20


@on_all_amps
def measure(
    corrected: CorrectedExposures,
    *,
    config: MeasureConfig | None = None,
    calib: xr.Dataset | None = None,
    calibs: Mapping[str, xr.Dataset] | None = None,
) -> xr.Dataset:
    """Measure every (exposure, detector) of corrected exposures, lazily; nothing is computed.

    Parameters
    ----------
    corrected : CorrectedExposures
        From ``isr``, or a Dataset of them.  Their (exposure, detector, amp) variables are carried along;
        ``serial_overscan`` (exposure, detector, amp, y_raw) [adu] if there, is searched for bias shifts.  Variables
        ``gain`` [electron/adu] and ``read_noise`` [electron] that were assigned take the place of the nominal ones.
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
    of `MAPS`, the variables carried along, the references of `expectations` and `masters` (detector, amp), and of a
    ``ptc`` those of `expected_shot`.
    """
    config, calibs = config or MeasureConfig(), calibs or {}
    carried = tuple(name for name in corrected.numbers if name not in STATISTICS)
    tested = calibs.get("flat")
    flat = tested if tested is not None and (calib is None or calib is tested) else None
    extra = carried if flat is None else (*carried, *RESPONSE)
    frame = _frame(corrected)
    layout = packed_layout((corrected.sizes["amp"], *corrected.amp_shape), config, extra)
    packed = _packed(corrected, carried, layout, config, _marked(calibs, frame), flat)
    result = _unpack(packed, layout, corrected, config)
    result = result.assign(expectations(frame, config, calibs.get("ptc")))
    result = result.assign(expected_shot(result, calibs.get("ptc")))
    detectors = frame["detector"].values.tolist()
    result = result.assign(masters(calibs, detectors, corrected.attrs["units"]) | members(calibs, frame))
    if calib is not None and "distribution" in calib:
        chosen = calib["distribution"].reindex(detector=detectors)
        result["calib_distribution"] = chosen.drop_vars([c for c in chosen.coords if c not in chosen.dims])
    result = result.assign({} if calib is None else split_of(calib.sel(detector=detectors)))
    result.attrs = _described(corrected, config, calib)
    return result


def _described(corrected: CorrectedExposures, config: MeasureConfig, calib: xr.Dataset | None) -> dict[str, Any]:
    """Attributes of the statistics."""
    identity = {k: v for k, v in (calib.attrs if calib is not None else {}).items() if k in ("uuid", "run")}
    return {
        "instrument": corrected.attrs["instrument"],
        "units": corrected.attrs["units"],
        "measure_config": config.model_dump_json(),
        **{f"calib_{k}": v for k, v in identity.items()},
    }


def _frame(corrected: CorrectedExposures) -> xr.Dataset:
    """Labels, shape of the image and the gains and read noise that were assigned, without any pixel."""
    shape = tuple(corrected.sizes.values())
    image = xr.Variable(tuple(corrected.sizes), np.broadcast_to(np.float32(0), shape))
    names = [name for name in ("gain", "read_noise") if name in corrected.assigned]
    given = {name: corrected.assigned[name].of_all(corrected.sizes["amp"]) for name in names}
    return corrected.labels.assign({"image": image, **given})


def _marked(calibs: Mapping[str, xr.Dataset], corrected: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Exposures (exposure,) that made a calibration with fewer than `FEW` inputs."""
    exposures = [int(e) for e in corrected["exposure"].values]
    marked = np.zeros(len(exposures), bool)
    for name in MASTERS:
        if name in calibs and len(calibs[name].attrs.get("exposures", ())) < FEW:
            marked |= inputs_of(calibs, exposures, name)
    return marked


def _packed(
    corrected: CorrectedExposures,
    carried: tuple[str, ...],
    layout: Layout,
    config: MeasureConfig,
    marked: npt.NDArray[np.bool_],
    flat: xr.Dataset | None,
) -> da.Array:
    """(exposure, detector, 1, 1, 1, number) float64, one task per block.

    The axes of length 1 stand for the pixels: a layer that drops no axis fuses with those of the isr before it.
    """
    blocks, ids = corrected.by_exposure(), corrected.labels["detector"].values
    args: list[Any] = [blocks, PIXEL_INDEX, da.from_array(ids, chunks=1), "d", da.from_array(marked, chunks=1), "e"]
    for name in ("image", "variance") if flat is not None else ():
        plane = flat[name].sel(detector=ids)  # type: ignore[index]
        args += [plane.chunk({"detector": 1, "amp": -1, "y": -1, "x": -1}).data, "dayx"]
    return da.blockwise(
        _measure_chunk,
        f"{PIXEL_INDEX}k",
        *args,
        new_axes={"k": layout.size},
        adjust_chunks=dict.fromkeys("ayx", 1),
        align_arrays=False,
        dtype=np.float64,
        meta=np.empty((0,) * 6),
        name=f"measure-{tokenize(blocks.name, layout, config.model_dump_json(), marked, [a.name for a in args[6::2]])}",
        layout=layout,
        carried=carried,
        has_rows="serial_overscan" in corrected,
        config=config,
        instrument=corrected.attrs["instrument"],
    )


def _measure_chunk(
    block: Corrected,
    detectors: npt.NDArray[np.int64],
    marked: npt.NDArray[np.bool_],
    *flat: npt.NDArray[np.float32],
    layout: Layout,
    carried: tuple[str, ...],
    has_rows: bool,
    config: MeasureConfig,
    instrument: str,
) -> FloatArray:
    """Block function: one exposure of one detector; a failure becomes a flagged record."""
    image, mask, detector = block.image[0, 0], block.mask[0, 0], int(detectors[0])
    amps = get_instrument(instrument).detectors[detector].amps
    try:
        rows = block.number("serial_overscan")[0, 0] if has_rows else None
        values = measure_block(
            np.ascontiguousarray(image),
            np.ascontiguousarray(block.variance[0, 0]),
            np.ascontiguousarray(mask),
            amps,
            config,
            rows,
            marked=bool(marked[0]),
        )
        if flat:
            values |= measure_response(image, mask, flat[0][0], flat[1][0], bits(config.bad_planes))
    except Exception:  # noqa: BLE001 (one bad exposure must not end the other 3779: reference/verification.md 6.7)
        _log.exception("measure: %s, detector %d: no statistics", instrument, detector)
        values = _failed(len(image), amps)
    values.update({name: block.number(name)[0, 0] for name in carried})
    return layout.pack(values).reshape(1, 1, 1, 1, 1, layout.size)


def _failed(n_amp: int, amps: tuple[Amp, ...]) -> dict[str, FloatArray]:
    layout = amp_layout(amps, n_amp)
    return {
        "n_pixel": (layout[:, 0] * layout[:, 1]).astype(np.float64),
        "flags": np.full(n_amp, float(EXCEPTION)),
        "force_failure": np.ones(n_amp),
    }


def _unpack(packed: da.Array, layout: Layout, corrected: CorrectedExposures, config: MeasureConfig) -> xr.Dataset:
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
    kept = {k: c for k, c in corrected.coords.items() if set(c.dims) <= set(STATISTIC_DIMS)}
    result = xr.Dataset(variables, kept)
    result = result.assign_coords(plane=list(MASK_PLANES), amp_b=("amp_b", _amp_names(corrected)))
    result = result.assign_coords(amp=("amp", _amp_names(corrected)))
    return result.assign_coords(kind=["image", "overscan"]) if config.correlations else result


def _amp_names(corrected: CorrectedExposures) -> list[str]:
    return list(get_instrument(corrected.attrs["instrument"]).amp_names)[: corrected.sizes["amp"]]


def _attributes(name: str, corrected: CorrectedExposures) -> dict[str, str]:
    units = corrected.attrs["units"]
    if found := STATISTICS.get(name) or MAPS.get(name) or RESPONSE.get(name):
        return found.attrs(units)
    if name in corrected:
        return corrected.described(name)
    return {"units": units}

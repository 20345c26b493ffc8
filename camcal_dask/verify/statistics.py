"""All statistics of corrected exposures, one task a (exposure, detector) block (reference/verification.md 0, 1.3, 6).

`measure_block` is the whole measurement on plain arrays; `measure` wires it into dask: one task
a block returns one packed vector, and the named variables are cut from the gathered vectors, so
the graph has about one task a block whatever the number of statistics.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.config import Config
from camcal_dask.errors import PlanError
from camcal_dask.instruments.geometry import Amp, get_instrument
from camcal_dask.kernels import cosmic_rays, moments, statistics
from camcal_dask.kernels.masks import MASK_PLANES, bits

FloatArray = npt.NDArray[np.float64]
_log = logging.getLogger(__name__)

BLOCK = ("exposure", "detector", "amp")
TOO_MANY_COSMIC_RAYS, EXCEPTION, LOW_N = 1, 2, 4
FORCE_FAILURE = TOO_MANY_COSMIC_RAYS | EXCEPTION
_GATHER_BYTES = 128 * 2**20
_FRACTIONS = np.array([0.05, 0.16, 0.5, 0.84, 0.95])


@dataclass(frozen=True)
class Statistic:
    """Declaration of one per-amp number: its unit (``image`` = that of the pixels) and meaning; NaN = unknown."""

    unit: str
    doc: str


STATISTICS: Mapping[str, Statistic] = {
    "mean": Statistic("image", "mean of the good pixels, unclipped"),
    "median": Statistic("image", "median of the good pixels"),
    "noise": Statistic("image", "STDEVCLIP: standard deviation after clipping (5 sigma, 3 iterations)"),
    "stdev": Statistic("image", "standard deviation, unclipped"),
    "cr_noise": Statistic("image", "standard deviation, unclipped, after repair of cosmic rays"),
    "amp_corner": Statistic("image", "mean of the box at the readout corner"),
    "min": Statistic("image", "smallest good pixel"),
    "max": Statistic("image", "largest good pixel"),
    "q05": Statistic("image", "5th percentile"),
    "q16": Statistic("image", "16th percentile"),
    "q84": Statistic("image", "84th percentile"),
    "q95": Statistic("image", "95th percentile"),
    "structure": Statistic("image", "peak to peak of the binned clipped image"),
    "row_scatter": Statistic("image", "standard deviation of the clipped row means"),
    "column_scatter": Statistic("image", "standard deviation of the clipped column means"),
    "n_pixel": Statistic("pixel", "pixels of the amp; 0 = the detector has no such amp"),
    "n_good": Statistic("pixel", "finite pixels without a selected mask bit"),
    "n_clipped": Statistic("pixel", "good pixels outside the last clipping window"),
    "n_masked": Statistic("pixel", "pixels with a selected mask bit"),
    "n_cosmic_ray": Statistic("pixel", "pixels hit by cosmic rays"),
    "bias_shift_count": Statistic("1", "sudden steps of the serial overscan level"),
    "bias_shift_noise": Statistic("adu", "row-to-row noise of the serial overscan level"),
    "bias_shift_size": Statistic("adu", "largest step by absolute value, signed; 0 without steps"),
    "bias_shift_row": Statistic("pixel", "row of the largest step; -1 without steps"),
    "flags": Statistic("1", "OR of 1 too many cosmic rays, 2 exception, 4 more than 30 % masked"),
    "force_failure": Statistic("1", "1 where the amp could not be processed"),
}


class CosmicRayConfig(Config):
    """Search for cosmic rays; see `camcal_dask.kernels.cosmic_rays`."""

    min_sigma: float = 6.0
    min_sum: float = 150.0
    cond3_factor: float = 2.0
    cond3_factor2: float = 0.35
    growth_passes: int = 6
    max_fraction: float = 0.0625


class MeasureConfig(Config):
    """What is measured in every (exposure, detector) block."""

    bad_planes: tuple[str, ...] = ("DETECTED", "BAD", "NO_DATA")
    clip_sigma: float = 5.0
    clip_iterations: int = 3
    corner_pixel: int = 200
    """Side of the box at the readout corner; at most half the amp."""
    bin_pixel: int = 64
    """Bin side of the residual map; at most a quarter of the amp's shorter side."""
    low_n_fraction: float = 0.3
    cosmic_rays: CosmicRayConfig = CosmicRayConfig()
    correlations: bool = True
    projections: bool = False
    """Keep the mean of every row and column of every amp (10 kB an amp)."""
    overscan_skip_pixel: int = 6
    """Overscan rows and columns that the correction leaves out, for the expected noise; -1 = no overscan noise."""


@dataclass(frozen=True)
class Layout:
    """Shape of the packed result: name -> dims after (exposure, detector) and their sizes, in packing order."""

    fields: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...]

    @property
    def size(self) -> int:
        """Numbers in one packed vector."""
        return sum(math.prod(shape) for _, _, shape in self.fields)

    def pack(self, values: Mapping[str, FloatArray]) -> FloatArray:
        """Put one block's values in a row, NaN where absent."""
        parts = [np.asarray(values.get(n, np.full(shape, np.nan)), np.float64).ravel() for n, _, shape in self.fields]
        return np.concatenate(parts)


def packed_layout(shape: tuple[int, int, int], config: MeasureConfig, extra: tuple[str, ...] = ()) -> Layout:
    """Fields of the result for amps of ``shape`` = (amp, y, x); ``extra`` are variables carried along."""
    n_amp, height, width = shape
    side = bin_side(height, width, config)
    fields: list[tuple[str, tuple[str, ...], tuple[int, ...]]] = [
        (name, ("amp",), (n_amp,)) for name in (*STATISTICS, *extra)
    ]
    fields.append(("n_masked_plane", ("amp", "plane"), (n_amp, len(MASK_PLANES))))
    fields.append(("residual_binned", ("amp", "y_bin", "x_bin"), (n_amp, height // side, width // side)))
    if config.correlations:
        fields.append(("amp_correlation", ("kind", "amp", "amp_b"), (2, n_amp, n_amp)))
    if config.projections:
        fields.append(("row_mean", ("amp", "y"), (n_amp, height)))
        fields.append(("column_mean", ("amp", "x"), (n_amp, width)))
    return Layout(tuple(fields))


def bin_side(height: int, width: int, config: MeasureConfig) -> int:
    """Bin side of the residual map [pixel]."""
    return max(1, min(config.bin_pixel, height // 4, width // 4))


def corner_box(height: int, width: int, config: MeasureConfig) -> tuple[int, int]:
    """(height, width) of the box at the readout corner [pixel]."""
    return min(config.corner_pixel, height // 2), min(config.corner_pixel, width // 2)


def measure_block(
    image: npt.NDArray[np.float32],
    variance: npt.NDArray[np.float32],
    mask: npt.NDArray[np.int32],
    amps: tuple[Amp, ...],
    config: MeasureConfig,
    overscan_rows: npt.NDArray[Any] | None = None,
) -> dict[str, FloatArray]:
    """Measure one exposure of one detector.

    Parameters
    ----------
    image, variance, mask : (amp, y, x) float32 [u], float32 [u^2], int32
        Corrected amps in readout coordinates, padded where an amp is smaller.
    amps : tuple of Amp
        The detector's amps, in the order of the first axis.
    config : MeasureConfig
    overscan_rows : (amp, y_raw) float, optional
        Serial overscan level of each row [adu].

    Returns
    -------
    dict of float64 arrays: (amp,) for each of `STATISTICS`, and the vectors of `packed_layout`.
    """
    n_amp = image.shape[0]
    bad_bits = bits(config.bad_planes)
    layout = _amp_layout(amps, n_amp)
    result: dict[str, FloatArray] = {name: np.full(n_amp, np.nan) for name in STATISTICS}
    result["n_masked_plane"] = np.zeros((n_amp, len(MASK_PLANES)))
    for name, _, shape in packed_layout(image.shape, config).fields[len(STATISTICS) + 1 :]:
        result[name] = np.full(shape, np.nan)
    sums = np.full((n_amp, 3), np.nan)
    for a in range(n_amp):
        result["n_pixel"][a] = layout[a, 0] * layout[a, 1]
        if layout[a, 0] > 0:
            sums[a] = _measure_amp(image[a], mask[a], bad_bits, layout[a], config, result, a)
    flags = np.where(result["n_masked"] > config.low_n_fraction * result["n_pixel"], LOW_N, 0)
    flags |= _repair(image, variance, mask, bad_bits, layout, config, sums, result)
    if config.correlations:
        result["amp_correlation"][0] = _image_correlation(image, mask, bad_bits, layout, config, result)
    if overscan_rows is not None:
        _measure_overscan(np.asarray(overscan_rows, np.float64), layout, config, result)
    result["flags"] = flags.astype(np.float64)
    result["force_failure"] = ((flags & FORCE_FAILURE) != 0).astype(np.float64)
    return result


def _amp_layout(amps: tuple[Amp, ...], n_amp: int) -> npt.NDArray[np.int64]:
    rows = [[a.data.height, a.data.width, a.ix, a.iy, a.flip_x, a.flip_y] for a in amps]
    return np.array(rows + [[0] * 6] * (n_amp - len(rows)), np.int64)


def _measure_amp(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[np.int32],
    bad_bits: int,
    layout: npt.NDArray[np.int64],
    config: MeasureConfig,
    result: dict[str, FloatArray],
    a: int,
) -> tuple[float, float, float]:
    """Fill in amp ``a``; return the number of good pixels and the sums of deviation from the median and its square."""
    height, width = int(layout[0]), int(layout[1])
    values, n_masked, planes = statistics.select_good(image, mask, bad_bits, height, width)
    n = values.size
    result["n_masked_plane"][a], result["n_masked"][a], result["n_good"][a] = planes, n_masked, n
    if n == 0:
        return 0.0, 0.0, 0.0
    q05, q16, median, q84, q95 = moments.percentiles(values, _FRACTIONS)
    clipped = moments.clip_statistics(values, sigma=config.clip_sigma, iterations=config.clip_iterations)
    total, square, low, high = statistics.moment_sums(values, median)
    numbers = {
        "mean": median + total / n,
        "median": median,
        "noise": clipped.stdev,
        "stdev": _stdev(n, total, square),
        "min": low,
        "max": high,
        "n_clipped": clipped.n_clipped,
        "amp_corner": statistics.box_mean(image, mask, bad_bits, *corner_box(height, width, config)),
    }
    numbers |= {"q05": q05, "q16": q16, "q84": q84, "q95": q95}
    side = bin_side(image.shape[0], image.shape[1], config)
    reach = config.clip_sigma * clipped.stdev if np.isfinite(clipped.stdev) else 0.0
    rows, columns, bins = statistics.project(
        image, mask, bad_bits, height, width, clipped.mean - reach, clipped.mean + reach, side
    )
    numbers |= {"row_scatter": _scatter(rows), "column_scatter": _scatter(columns), "structure": _peak_to_peak(bins)}
    result["residual_binned"][a, : bins.shape[0], : bins.shape[1]] = bins
    if config.projections:
        result["row_mean"][a, :height], result["column_mean"][a, :width] = rows, columns
    for name, number in numbers.items():
        result[name][a] = number
    return n, total, square


def _stdev(n: Any, total: Any, square: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 1, np.sqrt(np.maximum(square - total * total / n, 0.0) / (n - 1)), np.nan)


def _scatter(values: FloatArray) -> float:
    good = values[np.isfinite(values)]
    return float(good.std(ddof=1)) if good.size > 1 else math.nan


def _peak_to_peak(values: FloatArray) -> float:
    good = values[np.isfinite(values)]
    return float(np.ptp(good)) if good.size else math.nan


def _repair(
    image: npt.NDArray[np.float32],
    variance: npt.NDArray[np.float32],
    mask: npt.NDArray[np.int32],
    bad_bits: int,
    layout: npt.NDArray[np.int64],
    config: MeasureConfig,
    sums: FloatArray,
    result: dict[str, FloatArray],
) -> npt.NDArray[np.int64]:
    """Fill in ``cr_noise`` and ``n_cosmic_ray``: only the hit pixels change the sums.  Returns flags (amp,)."""
    median = result["median"]
    found = cosmic_rays.find_cosmic_rays(image, variance, mask, median, layout, **config.cosmic_rays.model_dump())
    amp = found.pixel // (image.shape[1] * image.shape[2])
    old = image.reshape(-1)[found.pixel] - median[amp]
    new = found.repaired.astype(np.float64) - median[amp]
    counted = ((mask.reshape(-1)[found.pixel] & bad_bits) == 0) & np.isfinite(old)
    lost = counted & ~np.isfinite(new)
    new = np.where(np.isfinite(new), new, 0.0)

    def change(per_pixel: FloatArray) -> FloatArray:
        return np.bincount(amp[counted], per_pixel[counted], minlength=len(median)).astype(np.float64)

    n = sums[:, 0] - change(lost.astype(np.float64))
    cr_noise = _stdev(n, sums[:, 1] + change(new - old), sums[:, 2] + change(new * new - old * old))
    result["cr_noise"] = np.where(found.overflow, np.nan, cr_noise)
    result["n_cosmic_ray"] = np.where(layout[:, 0] > 0, found.n_hit, np.nan).astype(np.float64)
    return np.where(found.overflow, TOO_MANY_COSMIC_RAYS, 0)


def _image_correlation(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[np.int32],
    bad_bits: int,
    layout: npt.NDArray[np.int64],
    config: MeasureConfig,
    result: dict[str, FloatArray],
) -> FloatArray:
    live = (result["n_good"] > 0.5 * result["n_pixel"]) & (result["noise"] > 0)
    height, width = layout[:, 0].max(), layout[:, 1].max()
    center, reach = np.nan_to_num(result["median"]), config.clip_sigma * np.nan_to_num(result["noise"])
    matrix: FloatArray = statistics.amp_correlation(
        image[:, :height, :width], mask[:, :height, :width], bad_bits, center, reach, live
    )
    return matrix


def _measure_overscan(
    rows: FloatArray, layout: npt.NDArray[np.int64], config: MeasureConfig, result: dict[str, FloatArray]
) -> None:
    """Fill in the bias shifts and the correlation of the high-passed row levels."""
    smooth = np.full(rows.shape, np.nan)
    sections = statistics.highpass_sections(statistics.SHIFT_CUTOFF)
    for a in np.flatnonzero(layout[:, 0] > 0):
        row, size, noise = statistics.bias_shifts(rows[a])
        if not np.isfinite(noise):
            continue
        largest = int(np.argmax(np.abs(size))) if size.size else -1
        result["bias_shift_count"][a], result["bias_shift_noise"][a] = size.size, noise
        result["bias_shift_size"][a] = size[largest] if size.size else 0.0
        result["bias_shift_row"][a] = row[largest] if size.size else -1.0
        if np.isfinite(rows[a]).all():
            smooth[a] = statistics.zero_phase(rows[a], sections, 3 * statistics.SHIFT_HALF_WIDTH)
    if config.correlations:
        deviation = smooth - smooth.mean(axis=1, keepdims=True)
        products = deviation @ deviation.T
        scale = np.sqrt(np.diag(products))
        with np.errstate(invalid="ignore", divide="ignore"):
            matrix = products / np.outer(scale, scale)
        result["amp_correlation"][1] = np.where(np.isfinite(matrix), matrix, np.nan)


def measure(
    corrected: xr.Dataset, *, config: MeasureConfig | None = None, calib: xr.Dataset | None = None
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
        The calibration under test; its ``distribution`` (detector, amp, level) and identity are copied.

    Returns
    -------
    Dataset of `STATISTICS` (exposure, detector, amp), ``n_masked_plane`` (.., plane), ``residual_binned``
    (.., y_bin, x_bin), ``amp_correlation`` (exposure, detector, kind, amp, amp_b), the variables carried along,
    and the references of `expectations` (detector, amp).
    """
    config = config or MeasureConfig()
    _check(corrected)
    carried = tuple(str(n) for n, v in corrected.data_vars.items() if v.dims == BLOCK and n not in STATISTICS)
    layout = packed_layout(tuple(corrected["image"].shape[2:]), config, carried)  # type: ignore[arg-type]
    packed = _packed(corrected, carried, layout, config)
    result = _unpack(packed, layout, corrected, config)
    result = result.assign(expectations(corrected, config))
    if calib is not None and "distribution" in calib:
        chosen = calib["distribution"].reindex(detector=corrected["detector"].values)
        result["calib_distribution"] = chosen.drop_vars([c for c in chosen.coords if c not in chosen.dims])
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
    wanted = (*BLOCK, "y", "x")
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


def _packed(corrected: xr.Dataset, carried: tuple[str, ...], layout: Layout, config: MeasureConfig) -> da.Array:
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
    if has_rows:
        args += [_aligned(corrected["serial_overscan"], chunks), "edar"]
    for name in carried:
        args += [_aligned(corrected[name], chunks), "eda"]
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
    *blocks: Any, layout: Layout, carried: tuple[str, ...], has_rows: bool, config: MeasureConfig, instrument: str
) -> FloatArray:
    """Block function: all (exposure, detector) of a chunk; a failure becomes a flagged record."""
    image, variance, mask, detectors, *others = blocks
    out = np.empty((*image.shape[:2], layout.size))
    rows, extra = (others[0], others[1:]) if has_rows else (None, others)
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
            )
        except Exception:  # noqa: BLE001 (one bad exposure must not end the other 3779: verification.md 6, rule 7)
            _log.exception("measure: %s, detector %d: no statistics", instrument, int(detectors[d]))
            values = _failed(image.shape[2], amps)
        values.update({name: array[e, d] for name, array in zip(carried, extra, strict=True)})
        out[e, d] = layout.pack(values)
    return out.reshape((*image.shape[:2], *(1,) * (4 if has_rows else 3), layout.size))


def _failed(n_amp: int, amps: tuple[Amp, ...]) -> dict[str, FloatArray]:
    layout = _amp_layout(amps, n_amp)
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
    if name in STATISTICS:
        unit = STATISTICS[name].unit
        return {"units": units if unit == "image" else unit, "long_name": STATISTICS[name].doc}
    if name in corrected:
        return dict(corrected[name].attrs)
    return {"units": {"n_masked_plane": "pixel", "amp_correlation": "1"}.get(name, units)}


def expectations(corrected: xr.Dataset, config: MeasureConfig) -> dict[str, xr.DataArray]:
    """References that tests compare with, from the camera's tables; no pixels are needed.

    Returns
    -------
    dict of (detector, amp) float64
        ``gain`` [electron/adu]; ``read_noise`` [electron]; ``to_electron``, electrons in a unit of the image;
        ``noise_expected`` [image unit], read noise of a corrected pixel: the read noise and that of the medians
        subtracted, RN sqrt(1 + pi/(2 n_serial) + pi/(2 n_parallel)), which is what a photon transfer curve
        measures too (+3.5 % for LSSTCam; reference 1.7 has +4.6 %); ``mean_error``, ``corner_error``,
        ``bin_error`` [image unit], standard errors of the mean of the amp, the corner box and a bin;
        ``overscan_error``, relative standard error of the noise of the serial overscan.
    """
    instrument = get_instrument(corrected.attrs["instrument"])
    detectors = [instrument.detectors[int(d)] for d in corrected["detector"].values]
    n_amp = corrected.sizes["amp"]
    table = np.full((7, len(detectors), n_amp), np.nan)
    for d, detector in enumerate(detectors):
        for a, amp in enumerate(detector.amps[:n_amp]):
            table[:, d, a] = (amp.gain, amp.read_noise, *_noise_factors(amp, corrected["image"].shape[-2:], config))
    dims = {"detector": corrected["detector"].values, "amp": _amp_names(corrected)}
    gain, read_noise, pixel, mean, corner, cell, strip = (xr.DataArray(row, dims, ("detector", "amp")) for row in table)
    gain, read_noise = (_supplied(corrected, n, v) for n, v in (("gain", gain), ("read_noise", read_noise)))
    to_electron = gain if corrected.attrs["units"] == "adu" else xr.ones_like(gain)
    noise = read_noise / to_electron
    found = {"gain": gain, "read_noise": read_noise, "to_electron": to_electron, "overscan_error": strip}
    factors = {"noise_expected": pixel, "mean_error": mean, "corner_error": corner, "bin_error": cell}
    return found | {name: noise * factor for name, factor in factors.items()}


def _supplied(corrected: xr.Dataset, name: str, nominal: xr.DataArray) -> xr.DataArray:
    """Take the variable of the Dataset if it is there and in memory, else the nominal values."""
    if name not in corrected or set(corrected[name].dims) != {"detector", "amp"}:
        return nominal
    return xr.DataArray(np.asarray(corrected[name].transpose("detector", "amp")), nominal.coords)


def _noise_factors(amp: Amp, shape: Sequence[int], config: MeasureConfig) -> tuple[float, ...]:
    """Noise of a pixel, standard errors of three means and of the overscan noise, in units of the read noise."""
    height, width = amp.data.height, amp.data.width
    serial = parallel = 0.0
    if config.overscan_skip_pixel >= 0:  # variance of the median of n Gaussian values: pi / (2 n)
        serial = 0.5 * math.pi / max(amp.serial_overscan.width - config.overscan_skip_pixel, 1)
        parallel = 0.5 * math.pi / max(amp.parallel_overscan.height - config.overscan_skip_pixel, 1)

    def error(ny: int, nx: int) -> float:
        return math.sqrt(1 / (ny * nx) + serial / ny + parallel / nx)

    side = bin_side(shape[0], shape[1], config)
    means = error(height, width), error(*corner_box(height, width, config)), error(side, side)
    strip = 1 / math.sqrt(2 * amp.serial_overscan.width * amp.raw_height)
    return math.sqrt(1 + serial + parallel), *means, strip

"""The measurement of one (exposure, detector) block on plain arrays (reference/verification.md 0, 1.3-1.6, 6).

Every amp is sorted once; that sort serves the percentiles, the clipped and the unclipped moments of its good
pixels and, with the masked pixels merged in, those of the unmasked family.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camcal_dask.config import Config
from camcal_dask.instruments.focal_plane import amp_layout
from camcal_dask.instruments.geometry import Amp
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.pixels import cosmic_rays
from camcal_dask.kernels.pixels.masks import MASK_PLANES, bits
from camcal_dask.kernels.statistics import one_pass as statistics
from camcal_dask.kernels.statistics import order_statistics
from camcal_dask.schema import STATISTIC_DIMS, Variable, number_variables, variables

TOO_MANY_COSMIC_RAYS, EXCEPTION, LOW_N = 1, 2, 4
FORCE_FAILURE = TOO_MANY_COSMIC_RAYS | EXCEPTION
_FILLED = 0.5
"""Part of a bin that must be good for its mean to be compared: beside a masked frame, bins of a single pixel remain."""
_FRACTIONS = np.array([0.05, 0.16, 0.84, 0.95])


STATISTICS = number_variables(
    STATISTIC_DIMS,
    {
        "mean": ("image", "mean of the good pixels, unclipped"),
        "median": ("image", "median of the good pixels"),
        "noise": ("image", "STDEVCLIP: standard deviation after clipping (5 sigma, 3 iterations)"),
        "stdev": ("image", "standard deviation, unclipped"),
        "cr_noise": ("image", "standard deviation, unclipped, after repair of cosmic rays"),
        "amp_corner": ("image", "mean of the box at the readout corner"),
        "min": ("image", "smallest good pixel"),
        "max": ("image", "largest good pixel"),
        "q05": ("image", "5th percentile"),
        "q16": ("image", "16th percentile"),
        "q84": ("image", "84th percentile"),
        "q95": ("image", "95th percentile"),
        "structure": ("image", "peak to peak of the binned clipped image, of bins half full"),
        "row_scatter": ("image", "standard deviation of the clipped row means"),
        "column_scatter": ("image", "standard deviation of the clipped column means"),
        "n_pixel": ("pixel", "pixels of the amp; 0 = the detector has no such amp"),
        "n_good": ("pixel", "finite pixels without a selected mask bit"),
        "n_clipped": ("pixel", "good pixels outside the last clipping window"),
        "n_masked": ("pixel", "pixels with a selected mask bit"),
        "n_defect": ("pixel", "pixels masked BAD"),
        "n_defect_frame": ("pixel", "those of them in the outermost frame of the CCD, masked as a whole"),
        "n_saturated": ("pixel", "pixels masked SAT"),
        "n_outlier": ("pixel", "of all pixels, those improbable for a Gaussian: density < 1 / n"),
        "n_masked_outlier": ("pixel", "masked pixels outside the last clipping window of the good ones"),
        "unmasked_mean": ("image", "mean of all finite pixels, masked or not"),
        "unmasked_median": ("image", "median of all finite pixels"),
        "unmasked_noise": ("image", "STDEVCLIP of all finite pixels"),
        "unmasked_stdev": ("image", "standard deviation of all finite pixels, unclipped"),
        "unmasked_min": ("image", "smallest finite pixel"),
        "unmasked_max": ("image", "largest finite pixel"),
        "unmasked_n_clipped": ("pixel", "finite pixels outside the last clipping window of all of them"),
        "n_cosmic_ray": ("pixel", "pixels hit by cosmic rays"),
        "bias_shift_count": ("1", "sudden steps of the serial overscan level"),
        "bias_shift_noise": ("adu", "row-to-row noise of the serial overscan level"),
        "bias_shift_size": ("adu", "largest step by absolute value, signed; 0 without steps"),
        "bias_shift_row": ("pixel", "row of the largest step; -1 without steps"),
        "flags": ("1", "OR of 1 too many cosmic rays, 2 exception, 4 more than 30 % masked"),
        "force_failure": ("1", "1 where the amp could not be processed"),
    },
)


MAPS = variables(
    Variable("n_masked_plane", (*STATISTIC_DIMS, "plane"), "f8", "pixel", "pixels with each mask plane"),
    Variable("residual_binned", (*STATISTIC_DIMS, "y_bin", "x_bin"), "f8", "image", "means of bins", "no good pixel"),
    Variable(
        "amp_correlation",
        ("exposure", "detector", "kind", "amp", "amp_b"),
        "f8",
        "1",
        "correlation of the pixels of two amps, in the image and in the overscan",
        "no common good pixels",
    ),
    Variable("row_mean", (*STATISTIC_DIMS, "y"), "f8", "image", "mean of each row, if asked for", "no good pixel"),
    Variable(
        "column_mean", (*STATISTIC_DIMS, "x"), "f8", "image", "mean of each column, if asked for", "no good pixel"
    ),
)
"""Arrays of every amp."""


class CosmicRayConfig(Config):
    """Search for cosmic rays; see `camcal_dask.kernels.pixels.cosmic_rays`."""

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
    frame_pixel: tuple[int, int] = (7, 8)
    """Rows and columns at the edges of a CCD that are masked as a whole (reference/construction.md 5)."""
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
    *,
    marked: bool = False,
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
    marked : bool
        The exposure made a calibration with so few others that the tracks of cosmic rays in these are still in it:
        they are holes now, which say nothing of the amp, and are repaired as tracks.

    Returns
    -------
    dict of float64 arrays: (amp,) for each of `STATISTICS`, and the vectors of `packed_layout`.
    """
    n_amp = image.shape[0]
    bad_bits = bits(config.bad_planes)
    layout = amp_layout(amps, n_amp)
    result: dict[str, FloatArray] = {name: np.full(n_amp, np.nan) for name in STATISTICS}
    result["n_masked_plane"] = np.zeros((n_amp, len(MASK_PLANES)))
    for name, _, shape in packed_layout(image.shape, config).fields[len(STATISTICS) + 1 :]:
        result[name] = np.full(shape, np.nan)
    sums = np.full((n_amp, 3), np.nan)
    for a in range(n_amp):
        result["n_pixel"][a] = layout[a, 0] * layout[a, 1]
        if layout[a, 0] > 0:
            sums[a] = _measure_amp(image[a], mask[a], bad_bits, layout[a], config, result, a)
            result["n_defect_frame"][a] = _in_frame(mask[a], layout[a], int(layout[:, 2].max()), config)
    flags = np.where(result["n_masked"] > config.low_n_fraction * result["n_pixel"], LOW_N, 0)
    flags |= _repair(image, variance, mask, bad_bits, layout, config, sums, result, marked)
    if config.correlations:
        result["amp_correlation"][0] = _image_correlation(image, mask, bad_bits, layout, config, result)
    if overscan_rows is not None:
        _measure_overscan(np.asarray(overscan_rows, np.float64), layout, config, result)
    result["flags"] = flags.astype(np.float64)
    result["force_failure"] = ((flags & FORCE_FAILURE) != 0).astype(np.float64)
    return result


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
    values, excluded, n_masked, planes = statistics.select_good(image, mask, bad_bits, height, width)
    values.sort()
    good = order_statistics.sorted_moments(
        values, _FRACTIONS, sigma=config.clip_sigma, iterations=config.clip_iterations
    )
    n = values.size
    numbers = _moments(good, n)
    numbers |= dict(zip(("q05", "q16", "q84", "q95"), good.q, strict=True))
    numbers |= {"n_good": n, "n_masked": n_masked, "n_saturated": planes[MASK_PLANES["SAT"]]}
    numbers |= {"n_defect": planes[MASK_PLANES["BAD"]]}
    numbers |= _unmasked(values, excluded, good, config)
    result["n_masked_plane"][a] = planes
    if n > 0:
        numbers |= _maps(image, mask, bad_bits, layout, good, config, result, a)
    for name, number in numbers.items():
        result[name][a] = number
    return (n, good.total, good.square) if n else (0.0, 0.0, 0.0)


def _moments(found: order_statistics.SortedMoments, n: int) -> dict[str, Any]:
    numbers = {
        "mean": found.median + found.total / max(n, 1),
        "median": found.median,
        "noise": found.clip_stdev,
        "stdev": _stdev(n, found.total, found.square),
        "min": found.low,
        "max": found.high,
    }
    return numbers | {"n_clipped": found.n_clipped if n else math.nan}


def _unmasked(
    values: npt.NDArray[np.float32],
    excluded: npt.NDArray[np.float32],
    good: order_statistics.SortedMoments,
    config: MeasureConfig,
) -> dict[str, Any]:
    """Statistics of all finite pixels, and how many of them deviate by the measure of the good ones.

    phi(z) < 1/n is |z| > sqrt(2 ln(n / sqrt(2 pi))), 5.08 for one million pixels (reference 1.6).
    """
    every, found, n_masked_outlier = values, good, 0
    if excluded.size:
        excluded.sort()
        every = order_statistics.merge_sorted(values, excluded)
        found = order_statistics.sorted_moments(
            every, _FRACTIONS, sigma=config.clip_sigma, iterations=config.clip_iterations
        )
        reach = config.clip_sigma * good.clip_stdev
        n_masked_outlier = order_statistics.count_beyond(excluded, good.clip_mean, reach) if reach >= 0 else 0
    limit = math.sqrt(2 * math.log(max(every.size / math.sqrt(2 * math.pi), 1.0))) * good.clip_stdev
    known = every.size > 0 and limit >= 0
    return {
        "n_masked_outlier": n_masked_outlier,
        "n_outlier": order_statistics.count_beyond(every, good.median, limit) if known else math.nan,
        **{f"unmasked_{name}": number for name, number in _moments(found, every.size).items()},
    }


def _in_frame(mask: npt.NDArray[np.int32], layout: npt.NDArray[np.int64], last_ix: int, config: MeasureConfig) -> int:
    """Pixels of an amp that are BAD and lie in the outermost frame of the CCD.

    The serial register is at the edge: readout row 0 is always an outer row of the CCD, and the first or last
    columns are outer ones for the amps at the ends of a row, whose last has the index ``last_ix``.
    """
    height, width, ix, _, flip_x, _ = (int(v) for v in layout)
    rows, columns = config.frame_pixel
    bad = bits(["BAD"])
    n = np.count_nonzero(mask[: min(rows, height), :width] & bad)
    if ix in (0, last_ix):
        start = 0 if (ix == 0) != bool(flip_x) else max(width - columns, 0)
        n += np.count_nonzero(mask[rows:height, start : min(start + columns, width)] & bad)
    return int(n)


def _maps(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[np.int32],
    bad_bits: int,
    layout: npt.NDArray[np.int64],
    good: order_statistics.SortedMoments,
    config: MeasureConfig,
    result: dict[str, FloatArray],
    a: int,
) -> dict[str, float]:
    """Binned image, projections and corner of one amp."""
    height, width = int(layout[0]), int(layout[1])
    side = bin_side(image.shape[0], image.shape[1], config)
    reach = config.clip_sigma * good.clip_stdev if np.isfinite(good.clip_stdev) else 0.0
    rows, columns, bins, count = statistics.project(
        image, mask, bad_bits, height, width, good.clip_mean - reach, good.clip_mean + reach, side
    )
    result["residual_binned"][a, : bins.shape[0], : bins.shape[1]] = bins
    if config.projections:
        result["row_mean"][a, :height], result["column_mean"][a, :width] = rows, columns
    return {
        "row_scatter": _scatter(rows),
        "column_scatter": _scatter(columns),
        "structure": _peak_to_peak(bins[count >= _FILLED * side * side]),
        "amp_corner": statistics.box_mean(image, mask, bad_bits, *corner_box(height, width, config)),
    }


def _stdev(n: Any, total: Any, square: Any) -> Any:
    n = np.asarray(n, np.float64)
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
    marked: bool,  # noqa: FBT001
) -> npt.NDArray[np.int64]:
    """Fill in ``cr_noise`` and ``n_cosmic_ray``: only the hit pixels change the sums.  Returns flags (amp,)."""
    median = result["median"]
    found = cosmic_rays.find_cosmic_rays(image, variance, mask, median, layout, **config.cosmic_rays.model_dump())
    if marked:
        turned = (2 * median[:, None, None]).astype(np.float32) - image
        scatter = np.maximum(variance, variance + (turned - image))  # the signal in it is turned, too
        holes = cosmic_rays.find_cosmic_rays(turned, scatter, mask, median, layout, **config.cosmic_rays.model_dump())
        found = _with_holes(found, holes, median, image[0].size)
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


def _with_holes(
    tracks: cosmic_rays.CosmicRays, holes: cosmic_rays.CosmicRays, median: FloatArray, n_pixel: int
) -> cosmic_rays.CosmicRays:
    """Tracks, and those of the image turned about its medians; only the former are counted."""
    new = ~np.isin(holes.pixel, tracks.pixel)
    pixel = holes.pixel[new]
    repaired = (2 * median[pixel // n_pixel] - holes.repaired[new]).astype(np.float32)
    return tracks._replace(
        pixel=np.concatenate([tracks.pixel, pixel]),
        repaired=np.concatenate([tracks.repaired, repaired]),
        overflow=tracks.overflow | holes.overflow,
    )


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

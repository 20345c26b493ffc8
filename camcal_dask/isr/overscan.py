"""Dither and overscans (steps 5, 6 and 12; reference/isr.md 2.1, 2.2): measured in the strips, taken off the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camcal_dask.instruments.geometry import Amp, Box
from camcal_dask.isr.config import IsrConfig, OverscanConfig
from camcal_dask.isr.raw import RawRows, Region, Stripe
from camcal_dask.isr.statistics import N_PARALLEL, N_SERIAL
from camcal_dask.isr.tables import Prepared
from camcal_dask.kernels.arrays import Pixels
from camcal_dask.kernels.readout import overscan
from camcal_dask.kernels.simulator.random import split64
from camcal_dask.kernels.statistics.moments import median

_DITHER_LOW = {"symmetric": -0.5, "positive": 0.0, "negative": -1.0}


class Overscan(NamedTuple):
    """Overscan of one exposure of one detector.

    ``serial`` float32 (amp, y_raw) [adu], ``parallel`` float32 (amp, x) [unit of the image, trimmed
    columns], ``statistics`` float64 (amp, len(STATISTICS)).  NaN for amps without pixels.
    """

    serial: Pixels
    parallel: Pixels
    statistics: NDArray[np.float64]


class AmpLevels(NamedTuple):
    """What is subtracted from an amp: serial level per row [adu], then times gain, then parallel level per column."""

    serial: Pixels
    gain: float = 1.0
    parallel: Pixels | None = None


def subtract(raw: RawRows, index: int, region: Region, levels: AmpLevels, config: IsrConfig, out: Pixels) -> int:
    """Dither, subtract the serial level, multiply by the gain, subtract the parallel level, in one pass.

    Parameters
    ----------
    raw : RawRows
    index : of the amp
    region : rows and columns of the amp that are wanted
    levels : AmpLevels
    config : IsrConfig
    out : float32, written in its corner

    Returns
    -------
    Number of pixels that are not finite, such as those that were never written.
    """
    parallel = np.zeros(region[3] - region[2], np.float32) if levels.parallel is None else levels.parallel
    return overscan.correct_pixels(  # type: ignore[no-any-return]
        raw.pixels[index],
        (raw.y0, raw.x0),
        region,
        levels.serial,
        np.float32(levels.gain),
        parallel,
        (config.dither != "none", _DITHER_LOW.get(config.dither, 0.0)),
        np.array([0, index, raw.detector.id], np.uint64),
        np.array(split64(raw.exposure), np.uint64),
        out,
    )


def subtract_both(
    raw: RawRows, regions: dict[int, Region], levels: Overscan, config: IsrConfig, tables: Prepared, image: Pixels
) -> int:
    """Steps 5, 6, 9, 12 and 15 in one pass over the pixels, for when nothing else acts on them.

    Returns
    -------
    Number of pixels that are not finite.
    """
    n_missing = 0
    for a, region in regions.items():
        values = AmpLevels(levels.serial[a], float(tables.gain[a]), levels.parallel[a, : region[3] - region[2]])
        n_missing += subtract(raw, a, region, values, config, image[a])
    return n_missing


def subtract_parallel(stripe: Stripe, parallel: Pixels) -> None:
    """Subtract the parallel level (amp, x) of every column of the data, in place."""
    columns = stripe.data[1]
    stripe.pixels[:, :, columns] -= parallel[: len(stripe.pixels), None, : columns.stop - columns.start]


def strip(raw: RawRows, index: int, box: Box, levels: AmpLevels, config: IsrConfig) -> Pixels:
    """Corrected pixels of a box of one amp, float32 (height, width)."""
    out = np.empty((box.height, box.width), np.float32)
    subtract(raw, index, (box.y0, box.y0 + box.height, box.x0, box.x0 + box.width), levels, config, out)
    return out


def measure_serial(raw: RawRows, amp: Amp, config: IsrConfig) -> tuple[Pixels, list[float]]:
    """Serial overscan of one amp: level of every raw row [adu] and its statistics."""
    zeros = np.zeros(raw.pixels.shape[1], np.float32)
    if not config.serial_overscan.enabled:
        return zeros, [np.nan] * N_SERIAL
    box = Box(amp.serial_overscan.x0, 0, amp.serial_overscan.width, zeros.size)
    pixels = strip(raw, amp.index, box, AmpLevels(zeros), config)
    return _fit(np.ascontiguousarray(pixels.T), config.serial_overscan, 1.0, None)


def measure_parallel(
    raw: RawRows, amp: Amp, serial: Pixels, pixels: Pixels, config: IsrConfig, tables: Prepared
) -> tuple[Pixels, list[float]]:
    """Parallel overscan of one amp: level of every data column [unit of the image] and its statistics.

    Parameters
    ----------
    raw : RawRows
    amp : Amp
    serial : (y_raw,) serial level of the amp [adu]
    pixels : (height, width) the strip after steps 5 to 10 [unit of the image]
    config : IsrConfig
    tables : Prepared
    """
    settings, gain = config.parallel_overscan, float(tables.gain[amp.index])
    if not settings.enabled:
        return np.zeros(amp.data.width, np.float32), [np.nan] * N_PARALLEL

    def data_median() -> float:
        return median(strip(raw, amp.index, amp.data, AmpLevels(serial, gain), config))

    if config.saturation.masks_saturated:  # by the amp's own level [adu]
        level = settings.saturation_factor * tables.saturated[amp.index]
        settings = settings.model_copy(update={"saturation_adu": level})
    return _fit(pixels, settings, gain, data_median)


def parallel_boxes(raw: RawRows) -> dict[int, Box]:
    """Parallel overscan of every amp, as wide as its data."""
    return {
        amp.index: Box(amp.data.x0, amp.parallel_overscan.y0, amp.data.width, amp.parallel_overscan.height)
        for amp in raw.detector.amps
    }


def _fit(
    strip: Pixels, settings: OverscanConfig, gain: float, data_median: Callable[[], float] | None
) -> tuple[Pixels, list[float]]:
    """Level of every line of a strip (K, N) and the numbers of `STATISTICS`; thresholds in adu are times ``gain``."""
    mask = np.zeros(strip.shape, np.int32)
    if np.isfinite(settings.saturation_adu):
        overscan.mask_saturated(strip, mask, settings.saturation_adu * gain, settings.saturation_grow)
    fit = None
    if data_median is None or not _too_bright(strip, settings, data_median):
        fit = overscan.fit_lines(
            strip,
            mask,
            skip_leading=settings.skip_leading,
            skip_trailing=settings.skip_trailing,
            max_deviation=settings.max_deviation_adu * gain,
            two_sided=settings.two_sided,
            sigma=settings.sigma_clip,
            grow=settings.grow,
            smoothing=settings.smoothing,
            smoothing_threshold=settings.smoothing_threshold_adu * gain,
            use_mean=settings.fit_type == "MEAN_PER_ROW",
            curve=None if settings.fit_type.endswith("_PER_ROW") else (settings.fit_type, settings.order),
        )
    if fit is None:  # reported as zeros, as upstream, unless there is not a single pixel
        return np.zeros(strip.shape[1], np.float32), [0.0 if np.isfinite(strip).any() else np.nan] * N_SERIAL
    residual = strip - fit.vector
    statistics = [*overscan.describe(fit.vector), *overscan.describe(residual, mask), float(fit.bad.sum())]
    return fit.vector, statistics


def _too_bright(strip: Pixels, settings: OverscanConfig, data_median: Callable[[], float]) -> bool:
    """Whether the strip holds light (reference/isr.md 2.2 step 1.

    The median of the data is a whole amp's work and matters only if the strip is bright itself.
    """
    fraction, threshold = settings.max_fraction, settings.image_threshold
    level = median(strip[settings.skip_leading : strip.shape[0] - settings.skip_trailing])
    if not level > fraction * threshold:
        return False
    data = data_median()
    return data > threshold and level / data > fraction

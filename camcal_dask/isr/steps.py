"""The steps of the instrument signature removal, each one function on arrays of one exposure of one detector.

Order (reference/isr.md section 1): dither, serial overscan, gain, parallel overscan, trim, bias,
NaN mask, variance.  All is local to a slab of rows once the two overscan vectors are known:
`measure_overscan` makes them from a whole detector, `correct_rows` applies them to any rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camcal_dask.instruments.geometry import Amp, Box, Detector
from camcal_dask.isr.config import IsrConfig, OverscanConfig
from camcal_dask.kernels import overscan
from camcal_dask.kernels.masks import BAD, NO_DATA, UNMASKEDNAN
from camcal_dask.kernels.moments import median
from camcal_dask.kernels.random import split64

FloatArray = NDArray[np.float32]
_DITHER_LOW = {"symmetric": -0.5, "positive": 0.0, "negative": -1.0}

STATISTICS: dict[str, tuple[str, str]] = {
    "serial_overscan_mean": ("adu", "mean of the serial overscan level over rows"),
    "serial_overscan_median": ("adu", "median of the serial overscan level over rows"),
    "serial_overscan_stdev": ("adu", "clipped standard deviation of the serial overscan level over rows"),
    "serial_residual_mean": ("adu", "mean of the corrected serial overscan strip"),
    "serial_residual_median": ("adu", "median of the corrected serial overscan strip"),
    "read_noise_adu": ("adu", "empirical read noise: clipped standard deviation of the corrected serial strip"),
    "serial_bad_rows": ("pixel", "rows whose serial overscan is unusable"),
    "parallel_overscan_mean": ("image", "mean of the parallel overscan level over columns"),
    "parallel_overscan_median": ("image", "median of the parallel overscan level over columns"),
    "parallel_overscan_stdev": ("image", "clipped standard deviation of the parallel overscan level over columns"),
    "parallel_residual_mean": ("image", "mean of the corrected parallel overscan strip"),
    "parallel_residual_median": ("image", "median of the corrected parallel overscan strip"),
    "parallel_residual_stdev": ("image", "clipped standard deviation of the corrected parallel strip"),
    "parallel_bad_columns": ("pixel", "columns whose parallel overscan is unusable, neighbours included"),
}
"""Numbers measured per (exposure, detector, amp): unit ("image": that of the corrected image) and meaning.

NaN where nothing could be measured; zeros where a correction was skipped because the strip is bright."""

_N_SERIAL = 7  # the first of STATISTICS belong to the serial overscan
_READ_NOISE = list(STATISTICS).index("read_noise_adu")


class Overscan(NamedTuple):
    """Overscan of one exposure of one detector.

    ``serial`` float32 (amp, y_raw) [adu], ``parallel`` float32 (amp, x) [unit of the image, trimmed
    columns], ``statistics`` float64 (amp, len(STATISTICS)).  NaN for amps without pixels.
    """

    serial: FloatArray
    parallel: FloatArray
    statistics: NDArray[np.float64]


@dataclass(frozen=True)
class RawRows:
    """Raw pixels of one exposure of one detector: int32 (amp, h, w) [adu] whose corner stands at row y0, column x0."""

    pixels: NDArray[np.int32]
    y0: int
    x0: int
    exposure: int
    detector: Detector

    def correct_amp(
        self, index: int, region: tuple[int, int, int, int], levels: AmpLevels, config: IsrConfig, out: FloatArray
    ) -> int:
        """Write the corrected pixels of rows y0..y1, columns x0..x1 = ``region`` of one amp to the corner of ``out``.

        Returns
        -------
        Number of pixels that are not finite, such as those that were never written.
        """
        parallel = np.zeros(region[3] - region[2], np.float32) if levels.parallel is None else levels.parallel
        return overscan.correct_pixels(  # type: ignore[no-any-return]
            self.pixels[index],
            (self.y0, self.x0),
            region,
            levels.serial,
            np.float32(levels.gain),
            parallel,
            (config.dither != "none", _DITHER_LOW.get(config.dither, 0.0)),
            np.array([0, index, self.detector.id], np.uint64),
            np.array(split64(self.exposure), np.uint64),
            out,
        )

    def strip(self, index: int, box: Box, levels: AmpLevels, config: IsrConfig) -> FloatArray:
        """Corrected pixels of a box of one amp, float32 (height, width)."""
        out = np.empty((box.height, box.width), np.float32)
        self.correct_amp(index, (box.y0, box.y0 + box.height, box.x0, box.x0 + box.width), levels, config, out)
        return out


class AmpLevels(NamedTuple):
    """What is taken off an amp: serial level per row [adu], then times gain, then parallel level per column."""

    serial: FloatArray
    gain: float
    parallel: FloatArray | None


def gain_of(amp: Amp, config: IsrConfig) -> float:
    """Return the gain applied to an amp [unit of the image / adu]."""
    return 1.0 if config.gains == "none" else amp.gain


def measure_overscan(raw: RawRows, config: IsrConfig, *, width: int) -> Overscan:
    """Measure the overscan vectors of a whole detector (pass P0 of isr.md section 5).

    Parameters
    ----------
    raw : RawRows
        All rows and columns.
    config : IsrConfig
    width : columns of the (padded) trimmed amp [pixel]
    """
    n_amp, n_row, _ = raw.pixels.shape
    result = Overscan(
        np.full((n_amp, n_row), np.nan, np.float32),
        np.full((n_amp, width), np.nan, np.float32),
        np.full((n_amp, len(STATISTICS)), np.nan),
    )
    for amp in raw.detector.amps:
        serial, result.statistics[amp.index, :_N_SERIAL] = _serial(raw, amp, config)
        levels = AmpLevels(serial, gain_of(amp, config), None)
        parallel, result.statistics[amp.index, _N_SERIAL:] = _parallel(raw, amp, levels, config)
        result.serial[amp.index] = serial
        result.parallel[amp.index, : amp.data.width] = parallel
    return result


def correct_rows(
    raw: RawRows, y0: int, y1: int, levels: Overscan, config: IsrConfig, image: FloatArray, mask: NDArray[np.int32]
) -> int:
    """Correct rows y0..y1 of the trimmed amps (data rows start at raw row 0), into ``image`` and ``mask``.

    Parameters
    ----------
    raw : RawRows
        Holding at least those rows and all data columns.
    levels : Overscan
        From `measure_overscan` of the same exposure.
    image : (amp, y1 - y0, width) float32, written: NaN where there is no pixel.
    mask : (amp, y1 - y0, width) int32, written: NO_DATA where the detector has no pixel; NO_DATA | BAD
        where the pixel was never written.

    Returns
    -------
    Number of pixels of the detector without a finite value.
    """
    mask[...] = 0
    n_missing = 0
    for a in range(image.shape[0]):
        amp = raw.detector.amps[a] if a < len(raw.detector.amps) else None
        box = Box(0, 0, 0, 0) if amp is None else amp.data
        top = max(min(y1, box.height), y0)
        for padding in (np.s_[a, top - y0 :], np.s_[a, : top - y0, box.width :]):
            image[padding], mask[padding] = np.nan, NO_DATA
        if amp is None or top == y0:
            continue
        values = AmpLevels(levels.serial[a], gain_of(amp, config), levels.parallel[a, : box.width])
        region = (y0 + box.y0, top + box.y0, box.x0, box.x0 + box.width)
        missing = raw.correct_amp(a, region, values, config, image[a])
        n_missing += missing
        if missing:
            rows = raw.pixels[a, region[0] - raw.y0 : region[1] - raw.y0, region[2] - raw.x0 : region[3] - raw.x0]
            mask[a, : top - y0, : box.width][rows == overscan.FILL] = NO_DATA | BAD
    return n_missing


class Bias(NamedTuple):
    """Combined bias of the same rows: image float32 [u], variance float32 [u^2], mask int32; (amp, y, x)."""

    image: FloatArray
    variance: FloatArray
    mask: NDArray[np.int32]


def subtract_bias(image: FloatArray, mask: NDArray[np.int32], bias: Bias) -> None:
    """Subtract the combined bias in place and add its mask planes (isr.md 2.10).

    Its variance enters through `variance_plane`.
    """
    image -= bias.image
    mask |= bias.mask


def mask_nan(image: FloatArray, mask: NDArray[np.int32], bias: Bias | None, detector: Detector, y0: int) -> None:
    """Flag pixels whose image or variance so far is not finite as UNMASKEDNAN (step 22), in place.

    Only pixels that the detector has: the padding of smaller amps stays NO_DATA alone.  The arrays
    start at row ``y0`` of the trimmed amps.
    """
    for amp in detector.amps:
        pixels = np.s_[amp.index, : max(amp.data.height - y0, 0), : amp.data.width]
        good = np.isfinite(image[pixels])
        if bias is not None:
            good &= np.isfinite(bias.variance[pixels])
        if not good.all():
            mask[pixels][~good] |= UNMASKEDNAN


def noise_variance(detector: Detector, statistics: NDArray[np.float64], config: IsrConfig) -> FloatArray:
    """Return the read-noise term of the variance of every amp (isr.md 2.12).

    In bootstrap (adu) the gain is taken as 1 and the noise is the scatter of the corrected serial
    overscan [adu].  In electron it is that scatter times the gain: the noise of this exposure as
    measured, where upstream would take the photon transfer curve's, which does not exist yet; or,
    with ``read_noise: nominal``, the camera model's.

    Parameters
    ----------
    statistics : (..., amp, len(STATISTICS)) float64

    Returns
    -------
    float32 (..., amp) [unit of the image squared]; NaN for amps that the detector does not have.
    """
    noise = np.full(statistics.shape[:-1], np.nan)
    for amp in detector.amps:
        if config.read_noise == "nominal":
            noise[..., amp.index] = amp.read_noise if config.gains == "nominal" else amp.read_noise / amp.gain
        else:
            noise[..., amp.index] = statistics[..., amp.index, _READ_NOISE] * gain_of(amp, config)
    return np.asarray(np.square(noise), np.float32)


def variance_plane(image: FloatArray, noise: FloatArray, bias: Bias | None) -> FloatArray:
    """Return ``V = I + V_bias + RN^2`` (isr.md 2.12 with G = 1, as in electron and in bootstrap).

    Parameters
    ----------
    image : (..., amp, y, x) float32, signed
    noise : (..., amp) float32, from `noise_variance`
    bias : the bias subtracted, if any
    """
    variance: FloatArray = image + noise[..., None, None]
    if bias is not None:
        variance += bias.variance
    return variance


def _serial(raw: RawRows, amp: Amp, config: IsrConfig) -> tuple[FloatArray, list[float]]:
    """Serial overscan of one amp: level of every raw row [adu] and its statistics."""
    zeros = np.zeros(raw.pixels.shape[1], np.float32)
    if not config.serial_overscan.enabled:
        return zeros, [np.nan] * _N_SERIAL
    box = Box(amp.serial_overscan.x0, 0, amp.serial_overscan.width, zeros.size)
    strip = raw.strip(amp.index, box, AmpLevels(zeros, 1.0, None), config)
    return _fit(np.ascontiguousarray(strip.T), config.serial_overscan, 1.0, None)


def _parallel(raw: RawRows, amp: Amp, levels: AmpLevels, config: IsrConfig) -> tuple[FloatArray, list[float]]:
    """Parallel overscan of one amp: level of every data column [unit of the image] and its statistics."""
    if not config.parallel_overscan.enabled:
        return np.zeros(amp.data.width, np.float32), [np.nan] * _N_SERIAL
    box = Box(amp.data.x0, amp.parallel_overscan.y0, amp.data.width, amp.parallel_overscan.height)
    strip = raw.strip(amp.index, box, levels, config)

    def data_median() -> float:
        return median(raw.strip(amp.index, amp.data, levels, config))

    return _fit(strip, config.parallel_overscan, levels.gain, data_median)


def _fit(
    strip: FloatArray, settings: OverscanConfig, gain: float, data_median: Callable[[], float] | None
) -> tuple[FloatArray, list[float]]:
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
        )
    if fit is None:  # reported as zeros, as upstream, unless there is not a single pixel
        return np.zeros(strip.shape[1], np.float32), [0.0 if np.isfinite(strip).any() else np.nan] * _N_SERIAL
    residual = strip - fit.vector
    statistics = [*overscan.describe(fit.vector), *overscan.describe(residual, mask), float(fit.bad.sum())]
    return fit.vector, statistics


def _too_bright(strip: FloatArray, settings: OverscanConfig, data_median: Callable[[], float]) -> bool:
    """Whether the strip holds light (isr.md 2.2 step 1).

    The median of the data is a whole amp's work and matters only if the strip is bright itself.
    """
    fraction, threshold = settings.max_fraction, settings.image_threshold
    level = median(strip[settings.skip_leading : strip.shape[0] - settings.skip_trailing])
    if not level > fraction * threshold:
        return False
    data = data_median()
    return data > threshold and level / data > fraction

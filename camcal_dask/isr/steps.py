"""The steps of the instrument signature removal, each one function on arrays of one exposure of one detector.

Order (reference/isr.md section 1): dither, serial overscan, saturation, gain, crosstalk, checks of the amps,
parallel overscan, linearity, deferred charge, trim (`correct_rows`); bias, dark, defects, NaN mask, variance, flat
(a function each).  All is local to a slab of rows once the two overscan vectors are known:
`measure_overscan` makes them from a whole detector, `correct_rows` applies them to any rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camcal_dask.errors import DataError
from camcal_dask.instruments.geometry import Amp, Box, Detector
from camcal_dask.isr.config import IsrConfig, OverscanConfig
from camcal_dask.isr.tables import NO_TABLES, Prepared, prepare
from camcal_dask.kernels.charge import cti
from camcal_dask.kernels.linearity import correct as linearity
from camcal_dask.kernels.pixels.masks import BAD, NO_DATA
from camcal_dask.kernels.readout import calibrate, crosstalk, overscan
from camcal_dask.kernels.simulator.random import split64
from camcal_dask.kernels.statistics.moments import median

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
    "crosstalk_pedestal": ("image", "median of the crosstalk that the amp receives; 0 if it is not corrected"),
    "amp_offset": ("image", "pedestal of the amp from the steps at its edges; 0 if it was not measured"),
    "amp_status": ("1", "why the whole amp is BAD, bits of steps.AmpStatus; 0 for a good one"),
}
"""Numbers measured per (exposure, detector, amp): unit ("image": that of the corrected image) and meaning.

NaN where nothing could be measured; zeros where a correction was skipped because the strip is bright."""


class AmpStatus(IntFlag):
    """Why an amp is BAD as a whole."""

    LISTED = 1
    """Its gain is not usable, or ``IsrConfig.bad_amps`` names it."""
    NOISY = 2
    OVERSCAN_LEVEL = 4
    SATURATED = 8
    """Every pixel reaches the level of SAT or SUSPECT."""
    LINEARITY = 16
    """The linearizer has no usable values for it."""
    DEFERRED_CHARGE = 32
    """The cti calibration has no usable values for it."""


_N_SERIAL, _N_PARALLEL = 7, 7  # STATISTICS starts with those of the serial, then of the parallel overscan
_READ_NOISE, _SERIAL_MEDIAN, _PEDESTAL, AMP_OFFSET, STATUS = (
    list(STATISTICS).index(name)
    for name in ("read_noise_adu", "serial_overscan_median", "crosstalk_pedestal", "amp_offset", "amp_status")
)
_STRIPE = 64  # rows corrected at a time: 16 amps of them stay in the second-level cache
_SAMPLE_ROWS, _SAMPLE_EVERY = 8, 128  # rows that the pedestal of the crosstalk is measured from


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


def measure_overscan(raw: RawRows, config: IsrConfig, *, width: int, tables: Prepared | None = None) -> Overscan:
    """Measure the overscan vectors of a whole detector (pass P0 of isr.md section 5).

    Parameters
    ----------
    raw : RawRows
        All rows and columns.
    config : IsrConfig
    width : columns of the (padded) trimmed amp [pixel]
    tables : Prepared, optional
        From `tables.prepare`; needed if the configuration asks for calibrations.
    """
    n_amp, n_row, _ = raw.pixels.shape
    tables = tables or prepare(raw.detector, NO_TABLES, config)
    result = Overscan(
        np.full((n_amp, n_row), np.nan, np.float32),
        np.full((n_amp, width), np.nan, np.float32),
        np.full((n_amp, len(STATISTICS)), np.nan),
    )
    for amp in raw.detector.amps:
        result.serial[amp.index], result.statistics[amp.index, :_N_SERIAL] = _serial(raw, amp, config)
    strips = _parallel_strips(raw, result.serial, tables, config)
    for amp in raw.detector.amps:
        levels = AmpLevels(result.serial[amp.index], float(tables.gain[amp.index]), None)
        saturation = tables.saturated[amp.index] if config.saturation.masks_saturated else None
        parallel, numbers = _parallel(raw, amp, levels, config, strips[amp.index], saturation)
        result.parallel[amp.index, : amp.data.width] = parallel
        result.statistics[amp.index, _N_SERIAL : _N_SERIAL + _N_PARALLEL] = numbers
    measured = [amp.index for amp in raw.detector.amps if _has_pixels(raw, amp)]
    pedestal, status = _pedestals(raw, result.serial, tables, config), _status(raw, result, tables, config)
    result.statistics[measured, _PEDESTAL] = pedestal[measured]
    result.statistics[measured, STATUS] = status[measured]
    result.statistics[measured, AMP_OFFSET] = 0.0
    return result


def correct_rows(  # noqa: PLR0913
    raw: RawRows,
    y0: int,
    y1: int,
    levels: Overscan,
    config: IsrConfig,
    image: FloatArray,
    mask: NDArray[np.int32],
    tables: Prepared | None = None,
) -> int:
    """Correct rows y0..y1 of the trimmed amps (data rows start at raw row 0), into ``image`` and ``mask``.

    Parameters
    ----------
    raw : RawRows
        Holding at least those rows and all data columns; for deferred charge the prescan too.
    levels : Overscan
        From `measure_overscan` of the same exposure.
    image : (amp, y1 - y0, width) float32, written: NaN where there is no pixel.
    mask : (amp, y1 - y0, width) int32, written: NO_DATA where the detector has no pixel; NO_DATA | BAD
        where the pixel was never written; BAD on amps whose status is not 0; SAT, SUSPECT, CROSSTALK.
    tables : Prepared, optional
        From `tables.prepare`; needed if the configuration asks for calibrations.

    Returns
    -------
    Number of pixels of the detector without a finite value after the overscans.
    """
    mask[...] = 0
    tables = tables or prepare(raw.detector, NO_TABLES, config)
    regions = {}
    for a in range(image.shape[0]):
        amp = raw.detector.amps[a] if a < len(raw.detector.amps) else None
        box = Box(0, 0, 0, 0) if amp is None else amp.data
        top = max(min(y1, box.height), y0)
        for padding in (np.s_[a, top - y0 :], np.s_[a, : top - y0, box.width :]):
            image[padding], mask[padding] = np.nan, NO_DATA
        if amp is not None and top > y0:
            regions[a] = (y0 + box.y0, top + box.y0, box.x0, box.x0 + box.width)
    if not regions:
        return 0
    correct = _correct_each if tables.plain else _correct_together
    n_missing = correct(raw, regions, levels, config, tables, image, mask)
    for a, (top, bottom, left, right) in regions.items() if n_missing else ():
        rows = raw.pixels[a, top - raw.y0 : bottom - raw.y0, left - raw.x0 : right - raw.x0]
        mask[a, : bottom - top, : right - left][rows == overscan.FILL] = NO_DATA | BAD
    status = levels.statistics[:, STATUS]
    for a in regions:
        if np.isfinite(status[a]) and status[a] != 0:
            mask[a, : regions[a][1] - regions[a][0], : regions[a][3] - regions[a][2]] |= BAD
    return n_missing


Regions = dict[int, tuple[int, int, int, int]]
"""Rows y0..y1 and columns x0..x1 of the raw amp to correct, by index of the amp."""


def _correct_each(  # noqa: PLR0913
    raw: RawRows,
    regions: Regions,
    levels: Overscan,
    config: IsrConfig,
    tables: Prepared,
    image: FloatArray,
    mask: NDArray[np.int32],  # noqa: ARG001 - as `_correct_together`
) -> int:
    """Overscans and gain, amp by amp, in one pass over the pixels."""
    n_missing = 0
    for a, region in regions.items():
        values = AmpLevels(levels.serial[a], float(tables.gain[a]), levels.parallel[a, : region[3] - region[2]])
        n_missing += raw.correct_amp(a, region, values, config, image[a])
    return n_missing


def _correct_together(  # noqa: PLR0913
    raw: RawRows,
    regions: Regions,
    levels: Overscan,
    config: IsrConfig,
    tables: Prepared,
    image: FloatArray,
    mask: NDArray[np.int32],
) -> int:
    """All steps up to the trim, on stripes of rows of all amps."""
    y0, y1, x0, x1 = common_region(regions, raw.detector)
    first = 0 if tables.deferred_charge is not None else x0  # the trap starts in the prescan
    data = slice(x0 - first, x1 - first)
    n_missing = 0
    for top in range(y0, y1, _STRIPE):
        bottom = min(top + _STRIPE, y1)
        pixels, flags, missing = _scaled(raw, (top, bottom, first, x1), levels.serial, config, tables)
        n_missing += missing
        rows = slice(0, bottom - top)
        if tables.couplings is not None:
            _subtract_crosstalk(pixels, flags, (rows, data), levels.statistics[:, _PEDESTAL], config, tables)
        pixels[:, :, data] -= levels.parallel[: len(pixels), None, : x1 - x0]
        if tables.linearity is not None:
            linearity.linearize(pixels, tables.linearity, out=pixels)
        if tables.deferred_charge is not None:
            cti.correct(pixels, tables.deferred_charge, (rows, data), out=pixels)
        out = np.s_[: len(pixels), top - y0 : bottom - y0, : x1 - x0]
        image[out] = pixels[:, :, data]
        mask[out] = flags[:, :, data]
    return n_missing


def _scaled(
    raw: RawRows, region: tuple[int, int, int, int], serial: FloatArray, config: IsrConfig, tables: Prepared
) -> tuple[FloatArray, NDArray[np.int32], int]:
    """All amps after serial overscan, saturation and gain: pixels (amp, y, x), their mask, number of missing ones."""
    y0, y1, x0, x1 = region
    shape = len(raw.detector.amps), y1 - y0, x1 - x0
    pixels, flags, missing = np.empty(shape, np.float32), np.zeros(shape, np.int32), 0
    for a in range(shape[0]):
        missing += raw.correct_amp(a, region, AmpLevels(serial[a], 1.0, None), config, pixels[a])
        limits = (np.float32(v[a]) for v in (tables.saturated, tables.suspect, tables.gain))
        calibrate.flag_and_scale(pixels[a], flags[a], *limits)
    return pixels, flags, missing


def _subtract_crosstalk(  # noqa: PLR0913
    pixels: FloatArray,
    flags: NDArray[np.int32] | None,
    data: tuple[slice, slice],
    pedestal: NDArray[np.float64],
    config: IsrConfig,
    tables: Prepared,
) -> None:
    """Subtract crosstalk in place and, with ``flags``, set CROSSTALK."""
    assert tables.couplings is not None
    flag = None
    if flags is not None and config.crosstalk.mask:
        minimum = config.crosstalk.mask_above_e / tables.to_electron
        flag = crosstalk.CrosstalkFlag(flags, pedestal[: len(pixels)], minimum, data)
    crosstalk.subtract(pixels, tables.couplings, iterations=config.crosstalk.iterations, out=pixels, flag=flag)


def common_region(regions: Regions, detector: Detector) -> tuple[int, int, int, int]:
    """Return the region that all amps of a detector share.

    Raises
    ------
    DataError
        If they differ: steps that couple amps need equal ones.
    """
    found = set(regions.values())
    if len(found) != 1 or len(regions) != len(detector.amps):
        raise DataError(
            f"detector {detector.name}: amps with different data boxes {sorted(found)}; crosstalk, saturation, "
            "linearity and deferred charge need equal ones: switch them off for this detector"
        )
    return found.pop()


def _status(raw: RawRows, levels: Overscan, tables: Prepared, config: IsrConfig) -> NDArray[np.float64]:
    """Bits of `AmpStatus` of every amp, (n_amp,) float64."""
    n = len(raw.detector.amps)
    status = np.where(tables.bad, int(AmpStatus.LISTED), 0)
    noise = levels.statistics[:n, _READ_NOISE] * tables.gain * tables.to_electron
    with np.errstate(invalid="ignore"):
        noisy = (noise > config.amp_noise_threshold_e) | (tables.read_noise > config.amp_noise_threshold_e)
        pull = (levels.statistics[:n, _SERIAL_MEDIAN] - tables.overscan_level) / tables.overscan_sigma
        far = np.abs(pull) > config.overscan_level_threshold
    status |= np.where(noisy, int(AmpStatus.NOISY), 0) | np.where(far, int(AmpStatus.OVERSCAN_LEVEL), 0)
    for problem, step in (
        (AmpStatus.LINEARITY, tables.linearity),
        (AmpStatus.DEFERRED_CHARGE, tables.deferred_charge),
    ):
        if step is not None:
            status[list(step.problems)] |= int(problem)
    for amp in raw.detector.amps:
        if _all_saturated(raw, amp, levels.serial[amp.index], tables):
            status[amp.index] |= int(AmpStatus.SATURATED)
    return status.astype(np.float64)


def _all_saturated(raw: RawRows, amp: Amp, serial: FloatArray, tables: Prepared) -> bool:
    """Whether no data pixel lies below the level of SAT or SUSPECT; as a rule the first row tells."""
    level = min(tables.saturated[amp.index], tables.suspect[amp.index])
    if not np.isfinite(level):
        return False
    rows = (amp.data.y0 + 1, amp.data.y0 + amp.data.height)
    for low, high in ((amp.data.y0, amp.data.y0 + 1), rows):
        pixels = raw.pixels[amp.index, low:high, amp.data.x]
        if not (pixels - serial[low:high, None] >= level).all():
            return False
    return True


def _has_pixels(raw: RawRows, amp: Amp) -> bool:
    pixels = raw.pixels[amp.index]
    return bool((pixels[0] != overscan.FILL).any() or (pixels != overscan.FILL).any())


def _pedestals(raw: RawRows, serial: FloatArray, tables: Prepared, config: IsrConfig) -> NDArray[np.float64]:
    """Median of the crosstalk each amp receives in its data region, from 8 of every 128 rows [image unit]."""
    n = len(raw.detector.amps)
    if tables.couplings is None or not config.crosstalk.mask:
        return np.zeros(n)
    box = raw.detector.amps[0].data
    parts = []
    for y in range(box.y0, box.y0 + box.height, _SAMPLE_EVERY):
        region = (y, min(y + _SAMPLE_ROWS, box.y0 + box.height), box.x0, box.x0 + box.width)
        parts.append(_scaled(raw, region, serial, config, tables)[0])
    whole = np.concatenate(parts, axis=1)
    return crosstalk.pedestal(whole, tables.couplings, (slice(None), slice(None)))


def _parallel_strips(raw: RawRows, serial: FloatArray, tables: Prepared, config: IsrConfig) -> dict[int, FloatArray]:
    """Parallel overscan (height, width) of every amp after serial overscan, gain and crosstalk [image unit]."""
    if not config.parallel_overscan.enabled:
        return {amp.index: np.zeros((0, amp.data.width), np.float32) for amp in raw.detector.amps}
    boxes = {
        amp.index: Box(amp.data.x0, amp.parallel_overscan.y0, amp.data.width, amp.parallel_overscan.height)
        for amp in raw.detector.amps
    }
    if tables.couplings is None:
        levels = {a: AmpLevels(serial[a], float(tables.gain[a]), None) for a in boxes}
        return {a: raw.strip(a, box, levels[a], config) for a, box in boxes.items()}
    region = common_region({a: (b.y0, b.y0 + b.height, b.x0, b.x0 + b.width) for a, b in boxes.items()}, raw.detector)
    pixels, _, _ = _scaled(raw, region, serial, config, tables)
    _subtract_crosstalk(pixels, None, (slice(0, 0), slice(0, 0)), np.zeros(0), config, tables)
    return dict(enumerate(pixels))


class Plane(NamedTuple):
    """A combined calibration, same rows as the image: image [u], variance [u^2] float32, mask int32; (amp, y, x)."""

    image: FloatArray
    variance: FloatArray
    mask: NDArray[np.int32]


Bias = Plane


class Planes(NamedTuple):
    """The calibrations that are images; None for those not applied.  ``defects`` int32 (amp, y, x): 0 is good."""

    bias: Plane | None = None
    dark: Plane | None = None
    flat: Plane | None = None
    defects: NDArray[np.int32] | None = None

    def of_detector(self, index: int = 0) -> Planes:
        """Arrays (amp, y, x) of one detector out of arrays (detector, amp, y, x)."""
        bias, dark, flat = (p if p is None else Plane._make(v[index] for v in p) for p in self[:3])
        return Planes(bias, dark, flat, None if self.defects is None else self.defects[index])


def subtract(image: FloatArray, plane: Plane, scale: float = 1.0) -> None:
    """Subtract the combined bias, or ``scale`` times the dark, in place (isr.md 2.10).

    Its mask planes enter through `add_flags`, its variance through `variance_plane`.
    """
    for a in range(image.shape[0]):
        calibrate.subtract_plane(image[a], plane.image[a], np.float32(scale))


def add_flags(mask: NDArray[np.int32], planes: Planes, detector: Detector, y0: int, config: IsrConfig) -> None:
    """Mask planes of bias and dark, BAD where a defect is (step 21), UNMASKEDNAN where a variance is not finite (22).

    In place; arrays (amp, y, x) that start at row ``y0`` of the trimmed amps.  The padding of smaller amps
    stays NO_DATA alone.
    """
    subtracted = [plane for plane in (planes.bias, planes.dark) if plane is not None]
    for plane in subtracted:
        mask |= plane.mask
    for a, height, width in _areas(mask, detector, y0):
        if planes.defects is not None:
            calibrate.flag_defects(mask[a], planes.defects[a], height, width)
        for plane in subtracted if config.nan_mask else ():
            calibrate.flag_not_finite(plane.variance[a], mask[a], height, width)


def quiet_amps(flags: NDArray[np.int32], planes: Planes, detector: Detector, y0: int) -> NDArray[np.bool_]:
    """Amps (amp,) that the calibrations flag nothing of, and whose bias and dark are finite."""
    images = [plane.image for plane in (planes.bias, planes.dark) if plane is not None]
    quiet = np.zeros(len(flags), bool)
    for a, height, width in _areas(flags, detector, y0):
        box = np.s_[a, :height, :width]
        quiet[a] = not flags[box].any() and all(np.isfinite(image[box]).all() for image in images)
    return quiet


def mask_nan(
    image: FloatArray, mask: NDArray[np.int32], detector: Detector, y0: int, skip: NDArray[np.bool_] | None = None
) -> None:
    """Flag pixels that are not finite as UNMASKEDNAN (step 22), in place.

    Only pixels that the detector has: the padding of smaller amps stays NO_DATA alone.  The arrays
    start at row ``y0`` of the trimmed amps; amps of ``skip`` are known to be finite.
    """
    for a, height, width in _areas(mask, detector, y0):
        if skip is None or not skip[a]:
            calibrate.flag_not_finite(image[a], mask[a], height, width)


def mask_negative_variance(variance: FloatArray, mask: NDArray[np.int32], detector: Detector, y0: int) -> None:
    """Flag pixels with variance <= 0 as BAD (step 25), in place."""
    for a, height, width in _areas(mask, detector, y0):
        mask[a, :height, :width][variance[a, :height, :width] <= 0] |= BAD


def divide_flat(
    image: FloatArray, mask: NDArray[np.int32], flat: Plane, scale: float, detector: Detector, y0: int
) -> None:
    """Divide by ``scale`` times the flat in place and add its mask planes; 0 where it says NO_DATA (isr.md 2.13).

    Where the flat is not positive without NO_DATA, the pixel becomes NaN, BAD and UNMASKEDNAN.
    """
    for a, height, width in _areas(mask, detector, y0):
        calibrate.divide_flat(image[a], mask[a], flat.image[a], flat.mask[a], np.float32(scale), height, width)


def _areas(mask: NDArray[np.int32], detector: Detector, y0: int) -> list[tuple[int, int, int]]:
    """Index, rows and columns of the pixels of each amp in arrays that start at row ``y0``."""
    rows = mask.shape[1]
    return [(amp.index, min(max(amp.data.height - y0, 0), rows), amp.data.width) for amp in detector.amps]


def noise_variance(
    detector: Detector, statistics: NDArray[np.float64], config: IsrConfig, tables: Prepared | None = None
) -> FloatArray:
    """Return the read-noise term of the variance of every amp (isr.md 2.12).

    In bootstrap (adu) the gain is taken as 1 and the noise is the scatter of the corrected serial
    overscan [adu].  In electron it is that scatter times the gain: the noise of this exposure as
    measured, where upstream would take the photon transfer curve's, which does not exist yet; or,
    with ``read_noise: nominal``, the camera model's; with ``ptc``, that of the table.

    Parameters
    ----------
    statistics : (..., amp, len(STATISTICS)) float64

    Returns
    -------
    float32 (..., amp) [unit of the image squared]; NaN for amps that the detector does not have.
    """
    noise = np.full(statistics.shape[:-1], np.nan)
    tables = tables or prepare(detector, NO_TABLES, config)
    for amp in detector.amps:
        if config.read_noise == "empirical":
            noise[..., amp.index] = statistics[..., amp.index, _READ_NOISE] * tables.gain[amp.index]
        else:
            electrons = amp.read_noise if config.read_noise == "nominal" else tables.read_noise[amp.index]
            noise[..., amp.index] = electrons / tables.to_electron[amp.index]
    return np.asarray(np.square(noise), np.float32)


def variance_plane(
    image: FloatArray,
    noise: FloatArray,
    bias: Plane | None,
    dark: tuple[Plane, float] | None = None,
    flat: tuple[Plane, float] | None = None,
) -> FloatArray:
    """Return ``V = I + V_bias + s^2 V_dark + RN^2`` (isr.md 2.12 with G = 1, as in electron and in bootstrap).

    I is the image before the flat; with one, V' = (I'^2 V_F + V / c^2) / F^2 for I' = I / cF (0.3), and
    1e10 where it says NO_DATA.  All of it follows from the final image, so it need not be kept with it.

    Parameters
    ----------
    image : (..., amp, y, x) float32, signed, final
    noise : (..., amp) float32, from `noise_variance`
    bias : the bias subtracted, if any; arrays (amp, y, x), as those of dark and flat
    dark : the dark and its factor s, if any
    flat : the flat and its scale c, if any
    """
    if dark is None and flat is None:
        simple: FloatArray = image + noise[..., None, None]
        if bias is not None:
            simple += bias.variance
        return simple
    out = np.empty_like(image)
    none, no_flags = np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int32)
    for index in np.ndindex(image.shape[:-2]):
        a = index[-1]
        calibrate.variance(
            image[index],
            float(noise[index]),
            none if bias is None else bias.variance[a],
            none if dark is None else dark[0].variance[a],
            0.0 if dark is None else dark[1],
            none if flat is None else flat[0].image[a],
            none if flat is None else flat[0].variance[a],
            no_flags if flat is None else flat[0].mask[a],
            1.0 if flat is None else flat[1],
            out[index],
        )
    return out


def _serial(raw: RawRows, amp: Amp, config: IsrConfig) -> tuple[FloatArray, list[float]]:
    """Serial overscan of one amp: level of every raw row [adu] and its statistics."""
    zeros = np.zeros(raw.pixels.shape[1], np.float32)
    if not config.serial_overscan.enabled:
        return zeros, [np.nan] * _N_SERIAL
    box = Box(amp.serial_overscan.x0, 0, amp.serial_overscan.width, zeros.size)
    strip = raw.strip(amp.index, box, AmpLevels(zeros, 1.0, None), config)
    return _fit(np.ascontiguousarray(strip.T), config.serial_overscan, 1.0, None)


def _parallel(  # noqa: PLR0913
    raw: RawRows,
    amp: Amp,
    levels: AmpLevels,
    config: IsrConfig,
    strip: FloatArray,
    saturation: float | None,
) -> tuple[FloatArray, list[float]]:
    """Parallel overscan of one amp: level of every data column [unit of the image] and its statistics.

    ``saturation`` [adu] is the amp's own level, None if saturation is not masked.
    """
    if not config.parallel_overscan.enabled:
        return np.zeros(amp.data.width, np.float32), [np.nan] * _N_PARALLEL

    def data_median() -> float:
        return median(raw.strip(amp.index, amp.data, levels, config))

    settings = config.parallel_overscan
    if saturation is not None:
        settings = settings.model_copy(update={"saturation_adu": settings.saturation_factor * saturation})
    return _fit(strip, settings, levels.gain, data_median)


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
            curve=None if settings.fit_type.endswith("_PER_ROW") else (settings.fit_type, settings.order),
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

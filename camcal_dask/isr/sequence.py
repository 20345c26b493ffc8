"""The order of the instrument signature removal: this page (reference/isr.md 1; the numbers are its steps).

`measure_overscan` takes what is needed first from a whole detector, a few numbers a row and column; `correct` then
makes any rows of it, or all.  Until the trim the rows are taken in stripes that stay in the cache.  The steps marked
"whole CCD" do nothing unless the configuration asks for them, and then need all rows at once (`IsrConfig.whole_ccd`).
A step that is switched off, or has no calibration, does nothing; what it does stands in the module of its name.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camcal_dask.isr import (
    amp_offsets,
    amps,
    brighter_fatter,
    calibrations,
    crosstalk,
    deferred_charge,
    flat,
    interpolation,
    linearity,
    masks,
    morphology,
    overscan,
    saturation,
)
from camcal_dask.isr.calibrations import Flags, Planes
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.overscan import AmpLevels, Overscan
from camcal_dask.isr.raw import RawRows, Stripe, common_region, flag_missing, make_stripe, place_amps, stripes
from camcal_dask.isr.statistics import AMP_OFFSET, N_PARALLEL, N_SERIAL, PEDESTAL, STATISTICS, STATUS
from camcal_dask.isr.tables import Prepared
from camcal_dask.isr.variance import noise_variance, variance_plane
from camcal_dask.kernels.arrays import Int32Array, Pixels


class Exposure(NamedTuple):
    """One exposure of one detector, or some rows of it, and what it is corrected with.

    ``raw`` holds the rows and all data columns, for deferred charge the prescan too; ``rows`` are those of the trimmed
    amps (data rows start at raw row 0); ``levels`` is from `measure_overscan` of the same exposure; ``planes`` has
    arrays (amp, y, x) of the same rows; ``flags`` may be given if several exposures share them.
    """

    raw: RawRows
    rows: range
    levels: Overscan
    planes: Planes
    dark_scale: float
    config: IsrConfig
    tables: Prepared
    flags: Flags | None = None

    def variance(self, image: Pixels, noise: Pixels, *, flat: bool = True) -> Pixels:
        """Variance (amp, y, x) that belongs to an image, after the flat or before it."""
        bias, dark, response, _ = self.planes
        scaled = None if dark is None else (dark, self.dark_scale)
        divided = None if response is None or not flat else (response, self.config.flat_scale)
        return variance_plane(image, noise, bias, scaled, divided)


def correct(
    exposure: Exposure, image: Pixels, mask: Int32Array, variance: Pixels | None = None
) -> tuple[Pixels, NDArray[np.bool_]]:
    """Correct an exposure into ``image``, ``mask`` and, if given, ``variance``, (amp, len(rows), width) each.

    The pedestals of step 30 are written into the statistics of ``exposure.levels``.

    Returns
    -------
    noise (amp,) float32, the read-noise term of the variance; and (amp,) bool, whether all pixels that the detector
    has there are sure to be finite and without mask planes.
    """
    raw, rows, levels, planes, dark_scale, config, tables, flags = exposure
    detector, y0, status, missing = raw.detector, rows.start, levels.statistics[:, STATUS], 0
    noise = noise_variance(detector, levels.statistics, config, tables)
    regions = place_amps(detector, rows, image, mask)
    if tables.plain:  # nothing but overscans and gains: 5, 6, 9, 12 and 15 in one pass
        missing = overscan.subtract_both(raw, regions, levels, config, tables, image)
    for stripe in () if tables.plain else stripes(raw, regions, prescan=config.deferred_charge):
        missing += _to_image_unit(raw, stripe, levels.serial, config, tables)  # 5 - 9
        crosstalk.subtract(stripe, levels.statistics[:, PEDESTAL], config, tables)  # 10
        overscan.subtract_parallel(stripe, levels.parallel)  # 12
        linearity.linearize(stripe.pixels, tables)  # 13
        deferred_charge.correct(stripe, tables)  # 14
        stripe.trim(image, mask)  # 15
    flag_missing(raw, regions if missing else {}, mask)
    amps.flag_bad_amps(mask, status, regions)  # 3, 7, 11
    morphology.mask_shapes(image, mask, detector, config, tables)  # 16 - 18, whole CCD
    calibrations.subtract_bias(image, planes.bias)  # 19
    calibrations.subtract_dark(image, planes.dark, dark_scale)  # 20
    quiet = calibrations.add_flags(mask, planes, detector, y0, config, flags)  # 19 - 21
    if config.nan_mask:
        masks.mask_not_finite(image, mask, detector, y0, quiet if tables.plain and not missing else None)  # 22
    morphology.widen_trails(mask, detector, config)  # 23, whole CCD
    brighter_fatter.correct(image, mask, detector, config, tables)  # 24, whole CCD
    if config.mask_negative_variance:
        masks.mask_negative_variance(exposure.variance(image, noise, flat=False), mask, detector, y0)  # 25
    flat.divide(image, mask, planes.flat, config.flat_scale, detector, y0)  # 26
    if variance is not None:
        variance[...] = exposure.variance(image, noise)
    interpolation.fill_bad_regions(image, mask, detector, config)  # 28, whole CCD
    interpolation.interpolate(image, variance, mask, detector, config)  # 29, whole CCD
    offsets = amp_offsets.correct(image, mask, detector, config)  # 30, whole CCD
    if config.whole_ccd:
        levels.statistics[: len(offsets), AMP_OFFSET] = offsets
    plain = tables.plain and missing == 0 and not config.whole_ccd and planes.flat is None
    return noise, quiet & (np.nan_to_num(status) == 0) & plain


def measure_overscan(raw: RawRows, config: IsrConfig, tables: Prepared, *, width: int) -> Overscan:
    """Measure the overscan vectors of a whole detector (pass P0 of reference/isr.md 5).

    Parameters
    ----------
    raw : RawRows
        All rows and columns.
    config : IsrConfig
    tables : Prepared
        From `tables.prepare`.
    width : columns of the (padded) trimmed amp [pixel]
    """
    detector, (n_amp, n_row, _) = raw.detector, raw.pixels.shape
    numbers = np.full((n_amp, len(STATISTICS)), np.nan)
    found = Overscan(np.full((n_amp, n_row), np.nan, np.float32), np.full((n_amp, width), np.nan, np.float32), numbers)
    for amp in detector.amps:
        found.serial[amp.index], numbers[amp.index, :N_SERIAL] = overscan.measure_serial(raw, amp, config)  # 6
    strips = _parallel_strips(raw, found.serial, config, tables)  # 5 - 10 of these rows
    for amp in detector.amps:
        a = amp.index
        parallel, described = overscan.measure_parallel(raw, amp, found.serial[a], strips[a], config, tables)  # 12
        found.parallel[a, : amp.data.width] = parallel
        numbers[a, N_SERIAL : N_SERIAL + N_PARALLEL] = described
    measured = [amp.index for amp in detector.amps if raw.has_pixels(amp.index)]
    numbers[measured, PEDESTAL] = _pedestals(raw, found.serial, config, tables)[measured]
    numbers[measured, STATUS] = amps.find_bad_amps(raw, found, tables, config)[measured]  # 3, 7, 11
    numbers[measured, AMP_OFFSET] = 0.0
    return found


def _to_image_unit(raw: RawRows, stripe: Stripe, serial: Pixels, config: IsrConfig, tables: Prepared) -> int:
    """Fill a stripe: dither, serial overscan, saturation, gain; number of pixels that are not finite."""
    missing = 0
    for a in range(len(stripe.pixels)):
        missing += overscan.subtract(raw, a, stripe.region, AmpLevels(serial[a]), config, stripe.pixels[a])  # 5, 6
        saturation.flag_and_scale(stripe.pixels[a], stripe.flags[a], a, tables)  # 7 - 9
    return missing


def _parallel_strips(raw: RawRows, serial: Pixels, config: IsrConfig, tables: Prepared) -> dict[int, Pixels] | Pixels:
    """Parallel overscan (height, width) of every amp after steps 5 to 10 [image unit]."""
    boxes = overscan.parallel_boxes(raw)
    if not config.parallel_overscan.enabled:
        return {a: np.zeros((0, box.width), np.float32) for a, box in boxes.items()}
    if tables.couplings is None:
        levels = {a: AmpLevels(serial[a], float(tables.gain[a])) for a in boxes}
        return {a: overscan.strip(raw, a, box, levels[a], config) for a, box in boxes.items()}
    regions = {a: (b.y0, b.y0 + b.height, b.x0, b.x0 + b.width) for a, b in boxes.items()}
    stripe = make_stripe(raw, common_region(regions, raw.detector))
    _to_image_unit(raw, stripe, serial, config, tables)  # 5 - 9
    crosstalk.subtract(stripe, None, config, tables)  # 10
    return stripe.pixels


def _pedestals(raw: RawRows, serial: Pixels, config: IsrConfig, tables: Prepared) -> NDArray[np.float64]:
    """Median of the crosstalk that each amp receives in its data region (n_amp,) [image unit]."""
    if not crosstalk.has_pedestal(config, tables):
        return np.zeros(len(raw.detector.amps))
    sample = [make_stripe(raw, region) for region in crosstalk.sample_regions(raw)]
    for stripe in sample:
        _to_image_unit(raw, stripe, serial, config, tables)  # 5 - 9
    return crosstalk.measure_pedestal([stripe.pixels for stripe in sample], tables)

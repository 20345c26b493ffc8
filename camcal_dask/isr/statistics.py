"""What corrected exposures are: their pixels, and the numbers that the ISR measures of every amp."""

from __future__ import annotations

from camcal_dask.kernels.pixels.masks import MASK_PLANES
from camcal_dask.schema import EXPOSURE_DIMS, STATISTIC_DIMS, Variable, number_variables, variables

STATISTICS = number_variables(
    STATISTIC_DIMS,
    {
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
        "amp_status": ("1", "why the whole amp is BAD, bits of AmpStatus; 0 for a good one"),
    },
)
"""Numbers of every amp; NaN where nothing could be measured, zeros where a correction was skipped because the strip is
bright."""
_PADDING = "padding of small amps, no data"
CORRECTED = variables(
    Variable("image", EXPOSURE_DIMS, "f4", "image", "corrected image", _PADDING),
    Variable("variance", EXPOSURE_DIMS, "f4", "image^2", "variance of the image", _PADDING),
    Variable("mask", EXPOSURE_DIMS, "i4", "", "mask planes", flags=MASK_PLANES),
    Variable("serial_overscan", (*STATISTIC_DIMS, "y_raw"), "f4", "adu", "serial overscan", "the amp has no such row"),
    *STATISTICS.values(),
)
"""Variables of corrected exposures."""

N_SERIAL, N_PARALLEL = 7, 7  # STATISTICS starts with those of the serial, then of the parallel overscan
READ_NOISE, SERIAL_MEDIAN, PEDESTAL, AMP_OFFSET, STATUS = (
    list(STATISTICS).index(name)
    for name in ("read_noise_adu", "serial_overscan_median", "crosstalk_pedestal", "amp_offset", "amp_status")
)

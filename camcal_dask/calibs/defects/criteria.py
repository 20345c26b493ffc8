"""The tests of defects: masking takes outliers away, and is complete (reference/verification.md 1.6)."""

from __future__ import annotations

from camcal_dask.verify.judging.common import common
from camcal_dask.verify.judging.criterion import Criterion

DEFECTS = (
    Criterion(
        id="defects.outliers",
        name="OUTLIERS",
        value="n_clipped - unmasked_n_clipped",
        threshold=0.0,
        required=True,
        source="cp_verify",
        doc="masking adds no outliers; three pixels and a shift of the clipping window are allowed",
        error="0.5 + n_clipped * abs(unmasked_noise / noise - 1)",
    ),
    Criterion(
        id="defects.stdev",
        name="STDEV",
        value="(noise - unmasked_noise) / noise",
        threshold=0.0,
        required=True,
        source="cp_verify",
        doc="masking adds no scatter, beyond the chance of having masked ordinary pixels",
        error="sqrt(0.5 * (n_masked + 1)) / n_good",
    ),
    Criterion("defects.min", "MIN", "unmasked_min - min", 0.0, True, "cp_verify", "masking does not lower the minimum"),
    Criterion("defects.max", "MAX", "max - unmasked_max", 0.0, True, "cp_verify", "masking does not raise the maximum"),
    Criterion(
        id="defects.fraction",
        name="FRAC",
        value="sum_over_amps(n_defect - n_defect_frame) / sum_over_amps(n_pixel)",
        threshold=0.005,
        required=True,
        source="ours",
        doc="defects of a CCD (CCD-012), not counting the frame, which alone is 0.7 %",
        op="<",
        level="detector",
    ),
    Criterion(
        id="defects.residual",
        name="RESIDUAL",
        value="min_over_exposures(n_clipped / n_good)",
        threshold=5e-4,
        required=True,
        source="ours",
        doc="outliers left in the cleanest exposure, cosmic rays included: the mask is missing or incomplete",
        error="3 / n_good",
    ),
    Criterion(
        id="defects.dead",
        name="UNUSABLE",
        value="(n_defect - n_defect_frame) / n_pixel",
        threshold=0.3,
        required=False,
        source="ours",
        doc="most of the amp is masked, not counting the frame of the CCD",
    ),
    Criterion(
        id="defects.completeness",
        name="COMPLETENESS",
        value="min_over_exposures(n_clipped) / (n_masked_outlier + min_over_exposures(n_clipped))",
        threshold=0.5,
        required=False,
        source="ours",
        doc="fraction of the outliers that the mask lacks, in the exposure that has fewest: cosmic rays are no defects "
        "(DMTN-101 3.4); 50 of a million pixels are the tail of noise, which the flat's own inputs make longer",
        error="(0.5 + 5e-5 * n_good) / (n_masked_outlier + min_over_exposures(n_clipped))",
    ),
    Criterion(
        id="defects.prob",
        name="PROB",
        value="(n_outlier - n_masked_outlier) / n_pixel",
        threshold=0.005,
        required=False,
        source="ours",
        doc="improbable pixels that are not masked; upstream wants as many as masked ones, frames and columns included",
        error="1 / n_pixel",
    ),
    *common("defects"),
)
"""Tests of defects, one row per amp of an exposure, except for those that all types have."""

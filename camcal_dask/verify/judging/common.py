"""Tests that several kinds of exposures share (reference/verification.md 1.3, 1.16)."""

from __future__ import annotations

from camcal_dask.verify.judging.criterion import Criterion

NOISE_ERROR = "1 / sqrt(2 * n_good)"
"""Relative standard error of the standard deviation of n Gaussian values."""
REFERENCE_ERROR = "noise_error + reference_error"
"""That of corrected pixels, and of the noise that they are compared with."""


def common(calibration: str) -> tuple[Criterion, ...]:
    """Rows that are the same for every type of exposure."""
    return (
        Criterion(
            f"{calibration}.processing",
            "PROCESSING",
            "force_failure",
            0.0,
            True,
            "cp_verify",
            "the amp was processed",
            op="==",
        ),
        Criterion(
            f"{calibration}.masked",
            "MASKED",
            "(n_masked - n_defect_frame) / n_pixel",
            0.3,
            False,
            "ours",
            "too few unmasked pixels to judge by, not counting the frame around the CCD",
        ),
    )


def overscan(calibration: str) -> tuple[Criterion, ...]:
    """Rows on the overscan of dark frames."""
    return (
        Criterion(
            id=f"{calibration}.rn_consistent",
            name="READ_NOISE_CONSISTENT",
            value="(gain * read_noise_adu - read_noise) / read_noise",
            threshold=0.05,
            required=False,
            source="cp_verify",
            doc="noise of the serial overscan against the read noise of the curve, or of the camera "
            "model where there is no curve",
            error="overscan_error + reference_error",
        ),
        Criterion(
            f"{calibration}.shifts",
            "BIAS_SHIFT",
            "bias_shift_count",
            0.0,
            False,
            "ours",
            "steps of the bias level",
            op="==",
        ),
    )

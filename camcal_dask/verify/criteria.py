"""The tests of every calibration type (reference/verification.md 1.3-1.6, 1.14, 1.16): a new test is a row.

Upstream's tests keep their numbers; where physics or statistics make one of them fail clean data it is advice here
and a row of ``ours`` is required in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from camcal_dask.verify import defect_criteria, eo_criteria
from camcal_dask.verify.judging.criterion import Criterion
from camcal_dask.verify.linearity import LINEARIZER
from camcal_dask.verify.ptc_criteria import GAIN, PTC

_NOISE_ERROR = "1 / sqrt(2 * n_good)"
"""Relative standard error of the standard deviation of n Gaussian values."""
_REFERENCE_ERROR = "noise_error + reference_error"
"""That of corrected pixels, and of the noise that they are compared with."""


def _common(calibration: str) -> tuple[Criterion, ...]:
    """Rows that are the same for every type of exposure."""
    return (
        Criterion(
            f"{calibration}.processing",
            "PROCESSING",
            "force_failure",
            0.0,
            True,
            "cp_verify",
            "amp was processed",
            op="==",
        ),
        Criterion(
            f"{calibration}.masked",
            "MASKED",
            "(n_masked - n_defect_frame) / n_pixel",
            0.3,
            False,
            "ours",
            "too few pixels to judge by, without the frame of the CCD that is masked as a whole",
        ),
    )


def _overscan(calibration: str) -> tuple[Criterion, ...]:
    """Rows on the overscan of dark frames."""
    return (
        Criterion(
            id=f"{calibration}.rn_consistent",
            name="READ_NOISE_CONSISTENT",
            value="(gain * read_noise_adu - read_noise) / read_noise",
            threshold=0.05,
            required=False,
            source="cp_verify",
            doc="noise of the serial overscan against the read noise of the curve, of the camera model without one",
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


BIAS = (
    Criterion("bias.mean", "MEAN", "abs(mean)", 1.0, True, "cp_verify", "residual level", "4.2", "<", scale="noise"),
    Criterion(
        id="bias.noise",
        name="NOISE",
        value="(noise - bias_sigma) / bias_sigma",
        threshold=0.05,
        required=True,
        source="cp_verify",
        doc="excess over the read noise as a residual of the bias has it; one-sided as upstream",
        dmtn="4.3",
        error=_REFERENCE_ERROR,
    ),
    Criterion(
        id="bias.cr",
        name="CR_NOISE",
        value="abs(noise - cr_noise) / cr_noise",
        threshold=0.05,
        required=True,
        source="cp_verify",
        doc="outliers that are no cosmic rays: unmasked hot pixels, bad columns",
        dmtn="4.4",
        error=_NOISE_ERROR,
    ),
    Criterion(
        id="bias.noise_low",
        name="NOISE_LOW",
        value="(bias_sigma - noise) / bias_sigma",
        threshold=0.2,
        required=True,
        source="ours",
        doc="less noise than an amplifier can have: it is dead (passes 4.3, which is one-sided)",
        error=_REFERENCE_ERROR,
    ),
    Criterion(
        id="bias.structure",
        name="STRUCTURE",
        value="structure / bias_sigma",
        threshold=1.0,
        required=True,
        source="ours",
        doc="peak to peak of the binned residual: charge not flushed, stripes, glow, corner",
        error="2 * bin_error / noise_expected",
    ),
    Criterion(
        id="bias.flatness",
        name="FLATNESS",
        value="structure / bias_sigma",
        threshold=0.5,
        required=False,
        source="ours",
        doc="as STRUCTURE, the finer limit of the reference",
        error="2 * bin_error / noise_expected",
    ),
    Criterion(
        id="bias.level",
        name="LEVEL",
        value="abs(mean) / bias_sigma",
        threshold=0.1,
        required=False,
        source="ours",
        doc="residual level in units of the read noise",
        op="<",
        error="mean_error / noise_expected",
    ),
    Criterion(
        id="bias.corner",
        name="AMP_CORNER",
        value="abs(amp_corner - mean) * to_electron",
        threshold=1.0,
        required=False,
        source="ours",
        doc="glow at the readout corner [electron] (yellow corner)",
        op="<",
        error="corner_error * to_electron * bias_sigma / noise_expected",
    ),
    Criterion(
        "bias.dead",
        "DEAD",
        "noise * to_electron * noise_expected / bias_sigma",
        4.0,
        False,
        "ours",
        "operational limit of a dead amp [electron], of a single exposure",
        op=">",
    ),
    *_overscan("bias"),
    *_common("bias"),
    *eo_criteria.BIAS,
)

DARK = (
    Criterion("dark.mean", "MEAN", "abs(mean)", 1.0, True, "cp_verify", "residual level", "5.2", "<", scale="noise"),
    Criterion(
        id="dark.noise",
        name="NOISE",
        value="(noise - noise_expected) / noise_expected",
        threshold=0.05,
        required=False,
        source="cp_verify",
        doc="excess over the read noise alone: advice, where 5 % over what dark signal and inputs explain, too",
        dmtn="5.3",
        required_upstream=True,
        error=f"(dark_sigma / noise_expected - 0.95) / 6 + {_REFERENCE_ERROR}",
    ),
    Criterion(
        id="dark.sigma",
        name="SIGMA",
        value="(noise - dark_sigma) / dark_sigma",
        threshold=0.05,
        required=True,
        source="ours",
        doc="excess over read noise, shot noise of the dark signal and noise of the calibrations (5.3 in full)",
        error=_REFERENCE_ERROR,
    ),
    Criterion(
        id="dark.cr",
        name="CR_NOISE",
        value="abs(noise - cr_noise) / cr_noise",
        threshold=0.05,
        required=True,
        source="cp_verify",
        doc="outliers that are no cosmic rays: unmasked hot pixels, bad columns",
        dmtn="5.4",
        error=_NOISE_ERROR,
    ),
    Criterion(
        id="dark.noise_low",
        name="NOISE_LOW",
        value="(dark_sigma - noise) / dark_sigma",
        threshold=0.2,
        required=True,
        source="ours",
        doc="less noise than an amplifier can have: it is dead",
        error=_REFERENCE_ERROR,
    ),
    Criterion(
        id="dark.leak",
        name="LEAK",
        value="abs(median) * to_electron",
        threshold=0.04,
        required=True,
        source="ours",
        doc="median residual [electron] above 0.04 electron/s, the light leak seen (reference 7.11), and 0.18 sigma",
        scale="dark_seconds",
        error="(1.25 * mean_error + 0.03 * dark_sigma) * to_electron",
    ),
    Criterion(
        id="dark.structure",
        name="STRUCTURE",
        value="structure / dark_sigma",
        threshold=1.0,
        required=True,
        source="ours",
        doc="peak to peak of the binned residual: glow, light leak, charge not flushed",
        error="2 * bin_error / noise_expected",
    ),
    Criterion(
        id="dark.flatness",
        name="FLATNESS",
        value="structure / dark_sigma",
        threshold=0.5,
        required=False,
        source="ours",
        doc="as STRUCTURE, the finer limit of the reference",
        error="2 * bin_error / noise_expected",
    ),
    Criterion(
        id="dark.split_mean",
        name="SPLIT_MEAN",
        value="abs(split_mean) / split_expected",
        threshold=0.05,
        required=False,
        source="ours",
        doc="dark of the even minus that of the odd inputs has zero mean",
        dmtn="5.6",
        error="split_error / noise_expected",
    ),
    Criterion(
        id="dark.split_noise",
        name="SPLIT_NOISE",
        value="abs(split_noise / split_expected - 1)",
        threshold=0.05,
        required=False,
        source="ours",
        doc="and the scatter its variance says",
        dmtn="5.7",
        error="1 / sqrt(2 * split_n)",
    ),
    *_overscan("dark"),
    *_common("dark"),
    *eo_criteria.DARK,
)

_FLAT_ERROR = "sqrt(2 / n_good) + 0.15 * flat_spread"
"""Relative standard error of a variance, and what vignetting within the amp leaves unknown of the expected one."""
_SUM = "sum_over_detectors(sum_over_amps({}))"
_LEVEL = "median_over_amps(mean)"
"""Of a detector, whatever one dead amp has for a level after division by a flat of nothing."""
_RATE = "median_over_detectors(median_over_amps(mean_per_s))"

FLAT = (
    Criterion(
        id="flat.noise",
        name="NOISE",
        value="noise * to_electron",
        threshold=1.0,
        required=False,
        source="cp_verify",
        doc="at most the noise of a Poisson signal, a coin toss: advice, where 5 % over what is expected, too",
        dmtn="10.X",
        required_upstream=True,
        scale="sqrt(abs(mean) * to_electron)",
        error="(1.05 / 6 + 1 / sqrt(2 * n_good)) * sqrt(abs(flat_variance_expected)) * to_electron",
    ),
    Criterion(
        id="flat.noise_excess",
        name="NOISE_EXCESS",
        value="(noise ** 2 - flat_variance_expected) / (shot_variance + noise_expected ** 2)",
        threshold=0.10,
        required=True,
        source="ours",
        doc="10.X': variance above shot noise, read noise and that of the calibrations",
        error=_FLAT_ERROR,
    ),
    Criterion(
        id="flat.noise_deficit",
        name="NOISE_DEFICIT",
        value="(flat_variance_expected - noise ** 2) / (shot_variance + noise_expected ** 2) - bf_allowance",
        threshold=0.10,
        required=True,
        source="ours",
        doc="10.X': variance below it, by more than the brighter-fatter effect may take away",
        error=_FLAT_ERROR,
    ),
    Criterion(
        id="flat.response",
        name="RESPONSE",
        value="abs(mean / median_over_amps(mean) - 1)",
        threshold=0.10,
        required=True,
        source="ours",
        doc="level of an amp against the others of its detector: dead or drifting amp, wrong gain, wrong flat",
        error="noise / sqrt(n_good) / abs(mean)",
    ),
    Criterion(
        id="flat.pixel_response",
        name="PIXEL_RESPONSE",
        value="abs(response_excess / response_power)",
        threshold=0.05,
        required=True,
        source="ours",
        doc="contrast of the pixel response in the flat, relative to that of the exposures: saturated or bent inputs; "
        "not evaluated where a flat without any contrast would be within the noise",
        error="response_error / abs(response_power)",
        if_measured=True,
        cannot_tell="response_blind",
    ),
    Criterion(
        id="flat.exposure_response",
        name="EXPOSURE_RESPONSE",
        value=f"abs({_SUM.format('response_excess')} / {_SUM.format('response_power')})",
        threshold=0.05,
        required=True,
        source="ours",
        doc="the same of all amps together, for what is too faint in one",
        error=f"sqrt({_SUM.format('response_error ** 2')}) / abs({_SUM.format('response_power')})",
        level="exposure",
        if_measured=True,
    ),
    Criterion(
        id="flat.structure",
        name="STRUCTURE",
        value="structure / abs(mean)",
        threshold=0.05,
        required=True,
        source="ours",
        doc="peak to peak of the binned quotient: flat of another filter, vignetting, moved dust",
        error="2 * bin_error / noise_expected * noise / abs(mean)",
    ),
    Criterion(
        id="flat.flatness",
        name="FLATNESS",
        value="structure / abs(mean)",
        threshold=0.02,
        required=False,
        source="ours",
        doc="as STRUCTURE, a finer limit",
        error="2 * bin_error / noise_expected * noise / abs(mean)",
    ),
    Criterion(
        id="flat.saturated",
        name="SATURATED",
        value="n_saturated / n_pixel",
        threshold=1e-4,
        required=True,
        source="ours",
        doc="a flat near saturation verifies nothing (reference 7.5)",
        error="1 / n_pixel",
    ),
    Criterion(
        id="flat.level",
        name="SIGNAL",
        value="mean * to_electron",
        threshold=72_000.0,
        required=False,
        source="ours",
        doc="0.8 of the least turnoff of the photon transfer curve, 90 000 electron",
    ),
    Criterion(
        id="flat.det_scatter",
        name="DETECTOR_SCATTER",
        value="std_over_amps(mean) / mean_over_amps(mean)",
        threshold=0.05,
        required=True,
        source="cp_verify",
        doc="scatter of the amps of a detector",
        dmtn="10.Y",
        level="detector",
    ),
    Criterion(
        id="flat.exp_scatter",
        name="EXPOSURE_SCATTER",
        value=f"std_over_detectors({_LEVEL}) / median_over_detectors({_LEVEL})",
        threshold=0.05,
        required=True,
        source="ours",
        doc="10.Z': scatter of the detectors of an exposure, relative (upstream's is absolute)",
        dmtn="10.Z",
        level="exposure",
    ),
    Criterion(
        id="flat.rate",
        name="RATE",
        value=f"abs({_RATE} / median_over_exposures({_RATE}) - 1)",
        threshold=0.25,
        required=False,
        source="ours",
        doc="signal a second against the median of the set (one filter): a dark or another filter among the flats",
        level="exposure",
    ),
    *_common("flat"),
    *eo_criteria.FLAT,
)

DEFECTS = (*defect_criteria.DEFECTS, *_common("defects"))

CRITERIA: Mapping[str, tuple[Criterion, ...]] = MappingProxyType(
    {
        "bias": BIAS,
        "dark": DARK,
        "flat": FLAT,
        "defects": DEFECTS,
        "ptc": (*PTC, *eo_criteria.PTC),
        "gain": GAIN,
        "linearizer": LINEARIZER,
        "persistence": (*eo_criteria.PERSISTENCE, *_common("persistence")),
    }
)
"""Tests of each calibration type."""

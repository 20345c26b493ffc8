"""The tests of flats (reference/verification.md 1.5, 1.14, 1.16): a new test is a row.

Upstream's tests keep their numbers; where physics or statistics make one of them fail clean data it is advisory here
and a row of ``ours`` is required in its place.
"""

from __future__ import annotations

from camcal_dask.calibs.flat import eo_criteria
from camcal_dask.verify.judging.common import common
from camcal_dask.verify.judging.criterion import Criterion

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
        doc="at most the noise of a Poisson signal; advisory; fails only if it is also 5 % over what is expected",
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
        doc="10.X': variance below that, by more than the brighter-fatter effect can take away",
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
        doc="the same for all amps together, for what is too faint to see in one",
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
        doc="as STRUCTURE, with a tighter limit",
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
        doc="level [electron] against 0.8 of 90 000 electron, the lowest turnoff of a photon transfer curve",
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
        doc="signal per second against the median of the set (one filter): finds a dark or another "
        "filter among the flats",
        level="exposure",
    ),
    *common("flat"),
    *eo_criteria.FLAT,
)

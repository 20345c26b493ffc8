"""Tests of electro-optical statistics (reference/verification.md 3.28, 3.29): all advice, each a row of `criteria`.

Limits are the specifications of the camera (CCD-...) where there is one, else what SITCOMTN-148 or the reference uses.
A row whose statistic was not measured (no photodiode, no overscan, no product) is not evaluated.
"""

from __future__ import annotations

from camcal_dask.verify.judging.criterion import Criterion

_TO_ADU = "to_electron / gain"

BIAS = (
    Criterion(
        id="bias.stability",
        name="STABILITY",
        value=f"level_range * {_TO_ADU}",
        threshold=0.3,
        required=False,
        source="ours",
        doc="95th minus 5th percentile of the level over the exposures [adu] (SITCOMTN-148)",
        error=f"0.7 * mean_error * {_TO_ADU}",
        level="run",
    ),
    Criterion(
        id="bias.spec_noise",
        name="SPEC_NOISE",
        value="median_over_exposures(gain * read_noise_adu)",
        threshold=9.0,
        required=False,
        source="ours",
        doc="read noise of the overscan [electron] at the level of the camera (CCD-007)",
        op="<",
        level="run",
    ),
)

DARK = (
    Criterion(
        id="dark.spec_current",
        name="DARK_CURRENT",
        value="dark_current_tail",
        threshold=0.2,
        required=False,
        source="ours",
        doc="95th percentile of the combined dark without its read noise [electron/s] (CCD-014)",
        op="<",
        error="1.3 * dark_current_noise / max_over_exposures(n_good) ** 0.25",
        level="run",
    ),
    Criterion(
        id="dark.bright_columns",
        name="BRIGHT_COLUMNS",
        value="sum_over_amps(bright_columns)",
        threshold=5.0,
        required=False,
        source="ours",
        doc="bright columns of a CCD (grade SCIENCE)",
        op="<",
        level="detector",
    ),
)

FLAT = (
    Criterion(
        id="flat.scti",
        name="SCTI",
        value="mean_over_exposures(scti)",
        threshold=5e-6,
        required=False,
        source="ours",
        doc="serial charge-transfer inefficiency, EPER (CCD-010)",
        op="<",
        error="mean_over_exposures(scti_error)",
        level="run",
    ),
    Criterion(
        id="flat.pcti",
        name="PCTI",
        value="mean_over_exposures(pcti)",
        threshold=3e-6,
        required=False,
        source="ours",
        doc="parallel charge-transfer inefficiency, EPER (CCD-011)",
        op="<",
        error="mean_over_exposures(pcti_error)",
        level="run",
    ),
    Criterion(
        id="flat.divisadero",
        name="DIVISADERO",
        value="divisadero",
        threshold=0.05,
        required=False,
        source="ours",
        doc="ripple of the combined flat at the boundaries of the amp (20 times the median of Run 7)",
        level="run",
    ),
    Criterion(
        id="flat.gain_stability",
        name="GAIN_STABILITY",
        value="gain_drift",
        threshold=0.002,
        required=False,
        source="ours",
        doc="largest change of signal over photodiode charge against the focal plane",
        error="0.7 * max_over_exposures(noise / sqrt(n_good) / abs(mean))",
        level="run",
    ),
)

PERSISTENCE = (
    Criterion(
        id="persistence.level",
        name="PERSISTENCE",
        value=f"persistence * {_TO_ADU}",
        threshold=4.0,
        required=False,
        source="ours",
        doc="first dark after light minus the last ones [adu], ten times the median of Run 7 (SITCOMTN-148)",
        error=f"1.2 * mean_error * {_TO_ADU}",
        level="run",
    ),
)

PTC = (
    Criterion(
        id="ptc.linearity",
        name="LINEARITY",
        value="linearity_worst + linear_only",
        threshold=0.02,
        required=False,
        source="ours",
        doc="departure from proportionality to light between 1e3 and 9e4 electron (CCD-009)",
        op="<",
    ),
)

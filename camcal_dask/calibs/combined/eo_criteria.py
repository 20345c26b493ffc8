"""Electro-optical tests of biases and darks (reference/verification.md 3.28, 3.29): all advisory.

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
        doc="read noise of the overscan [electron] against the requirement on the camera (CCD-007)",
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

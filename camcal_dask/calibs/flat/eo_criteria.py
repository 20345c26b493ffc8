"""Electro-optical tests of flats (reference/verification.md 3.28, 3.29): all advisory.

Limits are the specifications of the camera (CCD-...) where there is one, else what SITCOMTN-148 or the reference uses.
A row whose statistic was not measured (no photodiode, no overscan, no product) is not evaluated.
"""

from __future__ import annotations

from camcal_dask.verify.judging.criterion import Criterion

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

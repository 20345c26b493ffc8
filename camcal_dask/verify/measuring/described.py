"""What a verification keeps: what the rooms declare of their statistics."""

from __future__ import annotations

from camcal_dask.isr.statistics import CORRECTED
from camcal_dask.schema import AMP_DIMS, STATISTIC_DIMS, Variable, Variables, union, variables
from camcal_dask.verify.judging.levels import VERDICT
from camcal_dask.verify.measuring.block import MAPS, STATISTICS
from camcal_dask.verify.measuring.derived import DERIVED, SHOT
from camcal_dask.verify.measuring.masters import INPUTS, MASTERS, MEMBERS
from camcal_dask.verify.measuring.readout import READOUT
from camcal_dask.verify.measuring.references import REFERENCES, SPLIT
from camcal_dask.verify.measuring.response import RESPONSE
from camcal_dask.verify.measuring.series import SERIES

_CARRIED = variables(*(v for v in CORRECTED.values() if v.dims == STATISTIC_DIMS))
_OF_CANDIDATE = variables(
    Variable(
        "calib_distribution",
        (*AMP_DIMS, "level"),
        "f8",
        "image",
        "percentiles of the image of the calibration",
        "no good pixel",
    )
)


def statistics_of_exposures(*more: Variables, divided: bool = False) -> Variables:
    """Variables of the statistics of exposures and of the verdict on them; ``more`` of the candidate itself.

    ``divided``: of exposures that are divided by the candidate, with the contrast of its response.
    """
    measured = (STATISTICS, MAPS, RESPONSE if divided else {}, _CARRIED, READOUT)
    compared = (REFERENCES, SPLIT, *MASTERS.values(), INPUTS, MEMBERS, SHOT, DERIVED, SERIES)
    return union(*measured, *compared, _OF_CANDIDATE, *more, VERDICT)


def statistics_of_table(numbers: Variables) -> Variables:
    """Variables of the statistics of a table, ``numbers``, and of the verdict on them.

    A table without exposures stands for one, see `camcal_dask.verify.judging.tables.judge_table`.
    """
    if not any("exposure" in v.dims for v in numbers.values()):
        numbers = variables(*(v.with_dims(("exposure", *v.dims)) for v in numbers.values()))
    pixels = variables(numbers["n_pixel"].with_dims(STATISTIC_DIMS), STATISTICS["n_good"])
    return union(numbers, pixels, VERDICT)

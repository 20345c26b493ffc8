"""Numbers that a verification keeps of every amp: what the rooms declare of their statistics."""

from __future__ import annotations

from camcal_dask.schema import Variable, Variables, variables
from camcal_dask.verify.measuring.block import STATISTICS
from camcal_dask.verify.measuring.derived import DERIVED
from camcal_dask.verify.measuring.readout import READOUT
from camcal_dask.verify.measuring.response import RESPONSE
from camcal_dask.verify.measuring.series import SERIES


def statistics_of_exposures(*more: Variables, divided: bool = False) -> Variables:
    """Variables of the statistics of exposures; ``more`` of the candidate itself.

    ``divided``: of exposures that are divided by the candidate, with the contrast of its response.
    """
    tables = (STATISTICS, RESPONSE if divided else {}, DERIVED, READOUT, SERIES, *more)
    found: dict[str, Variable] = {}
    for table in tables:
        found |= table
    return variables(*found.values())

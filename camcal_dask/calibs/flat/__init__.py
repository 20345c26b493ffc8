"""Flats: exposures of one illumination and filter, each divided by its level, combined."""

from camcal_dask.calibs.combined.product import combined_product
from camcal_dask.calibs.flat.choose import choose_flats
from camcal_dask.calibs.flat.criteria import FLAT as TESTS
from camcal_dask.calibs.flat.numbers import FLAT_NUMBERS, measure_flat
from camcal_dask.calibs.flat.task import FLAT
from camcal_dask.rooms import CalibrationType
from camcal_dask.schema import OF_FILTER, statistics_product
from camcal_dask.verify.measuring.described import statistics_of_exposures
from camcal_dask.verify.verdict import Verdict

CALIBRATION = CalibrationType(
    "flat",
    products=(
        combined_product("flatBootstrap", "1", "combined flat in adu, mean of the focal plane 1", dimensions=OF_FILTER),
        combined_product("flat", "1", "combined flat, mean of the focal plane 1", dimensions=OF_FILTER),
        statistics_product(
            "verifyFlat",
            "statistics and verdicts of flat exposures of a filter",
            statistics_of_exposures(FLAT_NUMBERS, divided=True),
        ),
    ),
    tasks=(FLAT,),
    verdicts=(Verdict("flat", TESTS, numbers=measure_flat, photodiode=True),),
    chain=("flatBootstrap", "flat"),
    choosers={"flat": choose_flats},
)

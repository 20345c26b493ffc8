"""Linearizers: made from photon transfer curves."""

from camcal_dask.calibs.linearizer.charts import FIGURES
from camcal_dask.calibs.linearizer.fits import write_linearizer
from camcal_dask.calibs.linearizer.product import LINEARIZER, OF_FLATS
from camcal_dask.calibs.linearizer.table import LINEARIZER as TESTS
from camcal_dask.calibs.linearizer.table import LINEARIZER_NUMBERS, linearizer_table
from camcal_dask.calibs.linearizer.task import LINEARITY_TASK
from camcal_dask.rooms import CalibrationType, FitsLayout
from camcal_dask.schema import Product, statistics_product
from camcal_dask.verify.measuring.described import statistics_of_table
from camcal_dask.verify.verdict import Verdict

CALIBRATION = CalibrationType(
    "linearizer",
    products=(
        Product("linearizer", "adu", "linearity of the amps", LINEARIZER, shared=OF_FLATS),
        statistics_product(
            "verifyLinearizer", "numbers and verdicts of linearizers", statistics_of_table(LINEARIZER_NUMBERS)
        ),
    ),
    tasks=(LINEARITY_TASK,),
    verdicts=(Verdict("linearizer", TESTS, table=linearizer_table),),
    layouts={"linearizer": FitsLayout(write_linearizer)},
    figures={"linearizer": FIGURES},
    chain=("linearizer",),
)

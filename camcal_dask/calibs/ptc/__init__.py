"""Photon transfer curves: pairs of flats measured and fitted."""

from camcal_dask.calibs.ptc.charts import FIGURES
from camcal_dask.calibs.ptc.criteria import GAIN
from camcal_dask.calibs.ptc.criteria import PTC as TESTS
from camcal_dask.calibs.ptc.extract import OF_PAIRS
from camcal_dask.calibs.ptc.fits import write_ptc
from camcal_dask.calibs.ptc.product import PTC
from camcal_dask.calibs.ptc.table import GAIN_NUMBERS, PTC_NUMBERS, gain_table, ptc_table
from camcal_dask.calibs.ptc.task import PTC_TASK
from camcal_dask.rooms import CalibrationType, FitsLayout
from camcal_dask.schema import Product, statistics_product
from camcal_dask.verify.measuring.described import statistics_of_table
from camcal_dask.verify.verdict import Verdict

CALIBRATION = CalibrationType(
    "ptc",
    products=(
        Product("linearizerPtc", "adu", "photon transfer curves before linearity", PTC, shared=OF_PAIRS),
        Product("ptc", "adu", "photon transfer curves: gains, read noise, area coefficients", PTC, shared=OF_PAIRS),
        statistics_product(
            "verifyPtc", "numbers and verdicts of photon transfer curves", statistics_of_table(PTC_NUMBERS)
        ),
        statistics_product(
            "verifyGain", "numbers and verdicts of gains of single pairs", statistics_of_table(GAIN_NUMBERS)
        ),
    ),
    tasks=(PTC_TASK,),
    verdicts=(Verdict("ptc", TESTS, table=ptc_table), Verdict("gain", GAIN, table=gain_table)),
    layouts={"ptc": FitsLayout(write_ptc), "linearizerPtc": FitsLayout(write_ptc)},
    figures={"ptc": FIGURES, "linearizerPtc": FIGURES},
    chain=("linearizerPtc", "ptc"),
)

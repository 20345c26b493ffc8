"""Defects: bad pixels found in combined images."""

from camcal_dask.calibs.defects.criteria import DEFECTS
from camcal_dask.calibs.defects.product import PRODUCT
from camcal_dask.calibs.defects.task import DEFECTS_TASK
from camcal_dask.rooms import CalibrationType
from camcal_dask.schema import statistics_product
from camcal_dask.verify.measuring.described import statistics_of_exposures
from camcal_dask.verify.verdict import Verdict

CALIBRATION = CalibrationType(
    "defects",
    products=(
        PRODUCT,
        statistics_product(
            "verifyDefects",
            "statistics and verdicts of exposures with the defects masked",
            statistics_of_exposures(),
        ),
    ),
    tasks=(DEFECTS_TASK,),
    verdicts=(Verdict("defects", DEFECTS),),
    chain=("defects", "defectsAfterFlats"),
)

"""Bias and dark: exposures combined into one image per detector."""

from camcal_dask.calibs.combined.criteria import BIAS, DARK, PERSISTENCE
from camcal_dask.calibs.combined.numbers import DARK_NUMBERS, measure_dark, with_hot_pixels
from camcal_dask.calibs.combined.product import combined_product
from camcal_dask.calibs.combined.task import STACK
from camcal_dask.rooms import CalibrationType
from camcal_dask.schema import statistics_product
from camcal_dask.verify.measuring.described import statistics_of_exposures
from camcal_dask.verify.verdict import Verdict

_SECOND = {"exposure_time_s": 1.0, "dark_time_s": 1.0}
CALIBRATION = CalibrationType(
    "combined",
    products=(
        combined_product("biasBootstrap", "adu", "combined bias before any other calibration"),
        combined_product("bias", "electron", "combined bias"),
        combined_product(
            "darkBootstrap", "adu/s", "combined dark before any other calibration but the bias", **_SECOND
        ),
        combined_product("dark", "electron/s", "combined dark", **_SECOND),
        statistics_product("verifyBias", "statistics and verdicts of bias exposures", statistics_of_exposures()),
        statistics_product(
            "verifyDark", "statistics and verdicts of dark exposures", statistics_of_exposures(DARK_NUMBERS)
        ),
    ),
    tasks=(STACK,),
    verdicts=(
        Verdict("bias", BIAS),
        Verdict("dark", DARK, numbers=measure_dark, before=with_hot_pixels),
        Verdict("persistence", PERSISTENCE),
    ),
    chain=("biasBootstrap", "darkBootstrap", "bias", "dark"),
)

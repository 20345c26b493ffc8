"""Two calibration types of a camera team: an image that is a median of exposures, and its levels as a table."""

from pathlib import Path

from camcal_dask.rooms import CalibrationType, FitsLayout
from camcal_dask.schema import AMP_DIMS, DETECTOR_DIMS, Product, Variable, statistics_product, variables
from camcal_dask.verify.judging.criterion import Criterion
from camcal_dask.verify.verdict import Verdict
from toy_sky import fits, levels, sky

SKY = variables(
    Variable("sky", DETECTOR_DIMS, "f4", "image", "median of the exposures", nan="the amp has no such pixel"),
    Variable("n_input", AMP_DIMS, "i4", "exposure", "exposures combined"),
)
LEVELS = variables(
    Variable("level", AMP_DIMS, "f8", "image", "median of the sky"),
    Variable("scatter", AMP_DIMS, "f8", "image", "standard deviation of the sky"),
    Variable("n_pixel", AMP_DIMS, "i8", "pixel", "pixels used"),
    Variable("percentile", (*AMP_DIMS, "percent"), "f8", "image", "percentiles of the sky"),
)
SKY_TESTS = (
    Criterion("toy_sky.mean", "MEAN", "abs(mean)", 6.0, True, "ours", "what is left of the sky"),
    Criterion("toy_sky.noise", "NOISE", "noise / read_noise", 1.3, True, "ours", "noise against the read noise"),
)
LEVEL_TESTS = (Criterion("toy_levels.level", "LEVEL", "abs(level)", 10.0, True, "ours", "the sky is dark"),)

CALIBRATION = CalibrationType(
    "toy_sky",
    products=(
        Product("toySky", "electron", "median of exposures", SKY, pixels="sky"),
        Product("toyLevels", "electron", "levels of the sky", LEVELS, labels={"percent": levels.PERCENT}),
        statistics_product("verifyToySky", "statistics and verdicts of exposures without the sky"),
        statistics_product("verifyToyLevels", "verdicts of levels"),
    ),
    tasks=(sky.TASK, levels.TASK),
    verdicts=(
        Verdict("toy_sky", SKY_TESTS, before=sky.subtracted),
        Verdict("toy_levels", LEVEL_TESTS, table=levels.table),
    ),
    layouts={"toyLevels": FitsLayout(fits.write, "TOY_LEVELS", fits.read)},
    figures={"toyLevels": levels.FIGURES},
    pipelines=str(Path(__file__).parent / "pipelines"),
)

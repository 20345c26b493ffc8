"""What a repository holds: the dataset types, the collections and the variables of a raw selection."""

from __future__ import annotations

from dataclasses import dataclass

STORAGE_CLASS = "XarrayDataset"
"""Butler storage class of every cube; its Python type is ``xarray.Dataset``."""
RECORD_CLASS = "StructuredDataDict"
"""Butler storage class of provenance records (JSON)."""
DETECTOR_DIMS = ("instrument", "detector")
FILTER_DIMS = ("instrument", "detector", "physical_filter")


@dataclass(frozen=True)
class DatasetTypeSpec:
    """One row of the table of Butler dataset types."""

    name: str
    dimensions: tuple[str, ...]
    doc: str
    is_calibration: bool = False
    storage_class: str = STORAGE_CLASS


DATASET_TYPES = (
    DatasetTypeSpec("raw", ("instrument", "exposure", "detector"), "pixels as read out, int32 [adu]"),
    DatasetTypeSpec("bias", DETECTOR_DIMS, "combined bias of verified exposures", is_calibration=True),
    DatasetTypeSpec(
        "biasBootstrap", DETECTOR_DIMS, "combined bias made without other calibrations", is_calibration=True
    ),
    DatasetTypeSpec(
        "darkBootstrap", DETECTOR_DIMS, "combined dark made without other calibrations", is_calibration=True
    ),
    DatasetTypeSpec("dark", DETECTOR_DIMS, "combined dark", is_calibration=True),
    DatasetTypeSpec("flatBootstrap", FILTER_DIMS, "combined flat made without other calibrations", is_calibration=True),
    DatasetTypeSpec("flat", FILTER_DIMS, "combined flat of a filter", is_calibration=True),
    DatasetTypeSpec("defects", DETECTOR_DIMS, "bad pixels, with the reasons", is_calibration=True),
    DatasetTypeSpec("linearizerPtc", DETECTOR_DIMS, "photon transfer curves before linearity", is_calibration=True),
    DatasetTypeSpec("linearizer", DETECTOR_DIMS, "linearity of the amps", is_calibration=True),
    DatasetTypeSpec("verifyLinearizer", ("instrument",), "numbers and verdicts of linearizers"),
    DatasetTypeSpec("ptc", DETECTOR_DIMS, "photon transfer curves", is_calibration=True),
    DatasetTypeSpec("crosstalk", DETECTOR_DIMS, "crosstalk between the amps", is_calibration=True),
    DatasetTypeSpec("cti", DETECTOR_DIMS, "serial deferred charge", is_calibration=True),
    DatasetTypeSpec("bfk", DETECTOR_DIMS, "brighter-fatter kernels", is_calibration=True),
    DatasetTypeSpec(
        "electroBfDistortionMatrix", DETECTOR_DIMS, "shifts of pixel boundaries by charge", is_calibration=True
    ),
    DatasetTypeSpec("gain_correction", DETECTOR_DIMS, "adjustments of the gains", is_calibration=True),
    DatasetTypeSpec(
        "photodiode", ("instrument", "exposure"), "samples of a photodiode reading", storage_class=RECORD_CLASS
    ),
    DatasetTypeSpec("verifyBias", ("instrument",), "statistics and verdicts of bias exposures"),
    DatasetTypeSpec("verifyDark", ("instrument",), "statistics and verdicts of dark exposures"),
    DatasetTypeSpec("verifyFlat", ("instrument",), "statistics and verdicts of flat exposures of a filter"),
    DatasetTypeSpec("verifyDefects", ("instrument",), "statistics and verdicts of exposures with the defects masked"),
    DatasetTypeSpec("verifyPtc", ("instrument",), "numbers and verdicts of photon transfer curves"),
    DatasetTypeSpec("verifyGain", ("instrument",), "numbers and verdicts of gains of single pairs"),
    DatasetTypeSpec("runRecord", ("instrument",), "provenance of a run", storage_class=RECORD_CLASS),
)
"""Dataset types that every repository has from the start."""


@dataclass(frozen=True)
class Variable:
    """One variable: name, dims, dtype, unit and meaning."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    unit: str
    doc: str


RAW = Variable(
    "raw", ("exposure", "detector", "amp", "y", "x"), "i4", "adu", "pixels as read out; FILL = never written"
)
RAW_COORDS = (
    Variable("exposure", ("exposure",), "i8", "", "Butler exposure id"),
    Variable("day_obs", ("exposure",), "i8", "", "observing day YYYYMMDD"),
    Variable("seq_num", ("exposure",), "i8", "", "sequence number in the day"),
    Variable("seq_start", ("exposure",), "i8", "", "sequence number of the first exposure of its set"),
    Variable("exposure_time", ("exposure",), "f8", "s", "requested; NaN unknown"),
    Variable("dark_time", ("exposure",), "f8", "s", "from clear to readout; NaN unknown"),
    Variable("physical_filter", ("exposure",), "U", "", "filter in the beam"),
    Variable("observation_type", ("exposure",), "U", "", "bias, dark, flat, science ..."),
    Variable("observation_reason", ("exposure",), "U", "", "why it was taken"),
    Variable("mjd", ("exposure",), "f8", "d", "TAI MJD of the begin; NaN unknown"),
    Variable("detector", ("detector",), "i8", "", "Butler detector id"),
    Variable("detector_name", ("detector",), "U", "", "raft_slot"),
    Variable("raft", ("detector",), "U", "", "raft"),
    Variable("slot", ("detector",), "U", "", "place in the raft"),
    Variable("vendor", ("detector",), "U", "", "E2V or ITL"),
    Variable("amp", ("amp",), "U", "", "amplifier, HDU order"),
)
"""Coordinates of ``Repo.raws``."""


def raw_run(instrument: str) -> str:
    """RUN collection of an instrument's raws."""
    return f"{instrument}/raw/all"


def photodiode_run(instrument: str) -> str:
    """RUN collection of an instrument's photodiode readings."""
    return f"{instrument}/calib/photodiode"

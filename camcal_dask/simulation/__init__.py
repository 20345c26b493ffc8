"""Physically faithful raw FITS files of the cameras, with the truth beside them.

>>> from camcal_dask.simulation import SimulationConfig, bias_set, load_truth, simulate
>>> simulate("out", "LSSTCam", bias_set(21, 20260812, contaminated_first=True), [94])  # doctest: +SKIP
"""

from camcal_dask.simulation.config import SimulationConfig
from camcal_dask.simulation.exposures import ExposureSpec, bias_set, dark_set, flat_set, ptc_set, schedule
from camcal_dask.simulation.readout import simulate_exposure
from camcal_dask.simulation.run import SimulationSummary, Written, simulate
from camcal_dask.simulation.truth import DetectorTruth, Truth, load_truth
from camcal_dask.simulation.write import write_raw_fits

__all__ = [
    "DetectorTruth",
    "ExposureSpec",
    "SimulationConfig",
    "SimulationSummary",
    "Truth",
    "Written",
    "bias_set",
    "dark_set",
    "flat_set",
    "load_truth",
    "ptc_set",
    "schedule",
    "simulate",
    "simulate_exposure",
    "write_raw_fits",
]

"""Verification of calibrations of every type: how is said by their rooms (`camcal_dask.verify.verdict`)."""

from camcal_dask.campaign.verification.exposures import VERIFY
from camcal_dask.campaign.verification.table import VERIFY_TABLE
from camcal_dask.rooms import CalibrationType

CALIBRATION = CalibrationType("verification", tasks=(VERIFY, VERIFY_TABLE))

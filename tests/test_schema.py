"""Datasets are checked against what is declared, with all faults in one message."""

import numpy as np
import pytest
import xarray as xr

from camcal_dask.errors import DataError
from camcal_dask.isr.statistics import CORRECTED
from camcal_dask.schema import AMP_DIMS, Variable, check, number_variables

GAIN = Variable("gain", AMP_DIMS, "f8", "electron/adu", "gain")
GOOD = Variable("good", AMP_DIMS, "?", "", "whether it is")


def test_all_faults_are_told_with_both_values():
    dataset = xr.Dataset({"gain": (("detector", "pair"), np.ones((1, 2))), "good": (AMP_DIMS, np.ones((1, 2)))})
    with pytest.raises(DataError) as told:
        check(dataset, [GAIN, GOOD, *CORRECTED.values()], "here")
    text = str(told.value)
    assert text.startswith(
        "here: gain has dims (detector, pair), expected (detector, amp); good is float64, expected ?"
    )
    assert "image is missing, expected (exposure, detector, amp, y, x) f4; there is gain, good" in text


def test_what_is_declared_passes_in_any_order_of_dims():
    check(xr.Dataset({"gain": (AMP_DIMS[::-1], np.ones((1, 2), int))}), [GAIN], "here")


def test_numbers_stand_for_their_unit():
    mean = number_variables(AMP_DIMS, {"mean": ("image", "mean")})["mean"]
    assert mean.attrs("adu") == {"units": "adu", "long_name": "mean"}

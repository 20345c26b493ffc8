"""Rows of the dimension tables."""

import pytest

from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler import records
from tests.repo.conftest import CAMERA


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("g_6", "g"),
        ("none", "white"),
        ("g_6~ND_OD0.5", "g~nd"),
        ("g_6~blue", "g"),
        ("x_1", "unknown"),
        ("x~ND_OD1", "unknown"),
    ],
)
def test_band_of_a_filter(name, band):
    assert records.band(name, get_instrument(CAMERA)) == band

"""Tables of several detectors become one, whatever rows each has."""

import numpy as np
import xarray as xr

from camcal_dask.campaign.verification.table import _join


def gains(detector, exposures):
    shape = (len(exposures), 1, 2)
    names = {"detector": [detector], "amp": ["C10", "C11"], "exposure": exposures}
    per_row = {"day_obs": [e // 100_000 for e in exposures], "mjd": [float(e % 100_000) for e in exposures]}
    return xr.Dataset(
        {
            "pair_gain": (("exposure", "detector", "amp"), np.full(shape, 1.5)),
            "n_pixel": (("detector", "amp"), np.array([[100, 0]])),
        },
        names | {name: ("exposure", values) for name, values in per_row.items()},
    )


def test_rows_that_a_detector_lacks_are_no_failures():
    days = 20260812 * 100_000, 20260813 * 100_000
    joined = _join([gains(0, [days[0] + 1, days[0] + 3]), gains(5, [days[0] + 3, days[1] + 1])])
    assert joined["exposure"].values.tolist() == [days[0] + 1, days[0] + 3, days[1] + 1]
    assert joined["day_obs"].values.tolist() == [20260812, 20260812, 20260813]
    assert joined["mjd"].values.tolist() == [1.0, 3.0, 1.0]
    pixels = joined["n_pixel"].transpose("exposure", "detector", "amp").values
    np.testing.assert_array_equal(pixels[..., 0], [[100, 0], [100, 100], [0, 100]])
    assert not pixels[..., 1].any()


def test_tables_without_exposures_stay_as_they_are():
    tables = [gains(d, [1]).isel(exposure=0, drop=True) for d in (2, 7)]
    joined = _join(tables)
    assert joined["detector"].values.tolist() == [2, 7]
    assert joined["n_pixel"].values.tolist() == [[100, 0], [100, 0]]

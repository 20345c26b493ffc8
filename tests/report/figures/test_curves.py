import re

import numpy as np
import xarray as xr

from camcal_dask.calibs.linearizer.charts import residual_curve
from camcal_dask.calibs.ptc.charts import transfer_curve
from camcal_dask.instruments import get_instrument
from camcal_dask.report.figures.curves import chart, charts, load

CAMERA = get_instrument("TinyCam")
AMPS = list(CAMERA.amp_names)


def ptc(n=6):
    """Curves with variance = mean / gain, gain 2; the last pair was not used; one amp has no points."""
    mean = np.broadcast_to(np.linspace(60_000.0, 1000.0, n), (1, 16, n)).copy()
    mean[0, 3] = np.nan
    dims = ("detector", "amp", "pair")
    used = np.ones(mean.shape, bool)
    used[..., 0] = False
    variables = {"raw_mean": mean, "raw_var": mean / 2, "final_model_var": mean / 2, "used": used}
    return xr.Dataset(
        {k: (dims, v) for k, v in variables.items()}, {"detector": [1], "amp": AMPS}, {"dataset_type": "ptc"}
    )


def test_transfer_curve_is_variance_over_mean_in_order():
    curve = transfer_curve(ptc().isel(detector=0, amp=0))
    assert (np.diff(curve.x) > 0).all()
    np.testing.assert_allclose(curve.y, 0.5)
    np.testing.assert_allclose(curve.line, 0.5)
    assert curve.used.tolist() == [True] * 5 + [False]


def test_residual_curve_is_in_percent():
    values = {"ordinate": [10.0, 20.0, np.nan], "residual_unmasked": [0.1, -0.2, 0.0], "model": [10.0, 20.0, 1.0]}
    amp = xr.Dataset({k: ("flat", v) for k, v in values.items()}).assign(used=("flat", [True, False, True]))
    curve = residual_curve(amp)
    np.testing.assert_allclose(curve.y, [1.0, -1.0])
    assert curve.used.tolist() == [True, False]


def test_charts_of_a_detector():
    loaded = load(ptc())
    (found,) = charts(loaded, CAMERA.detectors[1])
    assert found.count("<svg") == 15  # all amps but the one without points
    assert charts(loaded, CAMERA.detectors[0]) == []
    assert load(xr.Dataset({"image": ("x", [1.0])})) is None
    assert charts(None, CAMERA.detectors[0]) == []


def test_points_are_drawn_where_they_are():
    curve = transfer_curve(ptc().isel(detector=0, amp=0))
    text = chart(curve, "<C10>")
    assert "&lt;C10&gt;" in text
    x = [float(v) for v in re.findall(r'<circle cx="([0-9.]+)"', text)]
    np.testing.assert_allclose(np.diff(x) / (x[-1] - x[0]), np.diff(curve.x) / np.ptp(curve.x), atol=0.002)
    assert text.count('fill="none" stroke="var(--accent)"') == 1

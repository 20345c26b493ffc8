import numpy as np
import pytest

from camcal_dask.instruments import get_instrument
from camcal_dask.report.content.layout import make_layout


def test_lsstcam_is_where_it_is():
    camera = get_instrument("LSSTCam")
    detectors = [camera.detectors[d] for d in camera.science_detectors]
    layout = make_layout(detectors)
    assert layout.amps.shape == (3024, 4)
    centre = layout.detectors[94]
    np.testing.assert_allclose(centre, [-20.48, -20.02, 40.96, 40.04], atol=0.02)  # reference/verification.md 5.1
    assert layout.detectors[:, 0].min() == pytest.approx(-2.5 * 127, abs=1.5)
    assert (layout.detectors[:, 2:] > 39.99).all()
    amp = layout.amps[94 * 16]  # C10: first of the upper row
    np.testing.assert_allclose(amp, [-20.48, 0.0, 5.12, 20.02], atol=0.02)


def test_amps_tile_their_detector():
    camera = get_instrument("LSSTCam")
    layout = make_layout([camera.detectors[d] for d in (0, 94, 189)])
    for i, box in enumerate(layout.detectors):
        amps = layout.amps[layout.owner == i]
        assert (amps[:, 2] * amps[:, 3]).sum() == pytest.approx(box[2] * box[3])
        np.testing.assert_allclose(amps[:, :2].min(axis=0), box[:2], atol=1e-9)


def test_tiny_detectors_are_magnified_and_do_not_overlap():
    camera = get_instrument("TinyCam")
    boxes = make_layout(list(camera.detectors.values())).detectors
    assert boxes[:, 2].max() > 30
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert (a[:2] + a[2:] <= b[:2]).any() or (b[:2] + b[2:] <= a[:2]).any()

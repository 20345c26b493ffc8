"""The ISR settings of LATISS on pixels whose answer is known (reference/isr.md 2.21)."""

import numpy as np

from camcal_dask.campaign.planning.recipe import load_recipe
from camcal_dask.instruments import get_instrument
from camcal_dask.isr.config import CrosstalkConfig
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.pixels.masks import SAT
from tests.isr.frames import raw_array

ALONE = {"bias": False, "dark": False, "dither": "none", "crosstalk": CrosstalkConfig()}
LATISS = load_recipe("LATISS/flatBootstrap.yaml").isr.model_copy(update=ALONE)
LSSTCAM = load_recipe("LSSTCam/flatBootstrap.yaml").isr.model_copy(update=ALONE)
BIAS = 20_000


def frame(data=10_000, **strip):
    """One exposure of detector 0; values of ``strip`` (column of the data box to adu above the bias) in the
    parallel overscan of every amp."""
    camera = get_instrument("TinyCam")
    pixels = np.full((1, 1, *camera.raw_shape[1:]), BIAS, np.int32)
    for amp in camera.detectors[0].amps:
        pixels[0, 0, amp.index, amp.data.y, amp.data.x] += data
        for column, value in strip.get("strip", {}).items():
            pixels[0, 0, amp.index, amp.parallel_overscan.y, amp.parallel_overscan.x.start + column] = BIAS + value
    return pixels


def test_pixels_saturate_at_120000_adu_above_the_overscan():
    pixels = frame()
    box = get_instrument("TinyCam").detectors[0].amps[0].data
    pixels[0, 0, :, box.y0 + 3, box.x0 + 4] = BIAS + 119_999
    pixels[0, 0, :, box.y0 + 5, box.x0 + 6] = BIAS + 120_000
    raw = raw_array(pixels, detectors=(0,))
    mask = isr(raw, {}, LATISS).dataset().compute(scheduler="sync").mask.values[0, 0]
    saturated = mask & SAT != 0
    assert saturated[:, 5, 6].all()
    assert saturated.sum() == len(saturated)
    assert not (isr(raw, {}, LSSTCAM).dataset().compute(scheduler="sync").mask.values & SAT).any()


def corrected(pixels, config):
    """Row of one amp after the correction, minus what was put in."""
    found = isr(raw_array(pixels, detectors=(0,)), {}, config).dataset().compute(scheduler="sync")
    return found.image.values[0, 0, 0, 10] - 10_000


def test_a_low_column_of_the_parallel_overscan_is_an_outlier():
    """150 adu below the strip: believed if only the high side is cut."""
    pixels = frame(strip={7: -150})
    np.testing.assert_allclose(corrected(pixels, LATISS), 0, atol=1e-3)
    assert corrected(pixels, LSSTCAM)[7] == 150


def test_a_column_a_little_above_its_neighbours_is_believed():
    """60 adu, below the cut: subtracted; the smoothing of the other cameras leaves it out (reference/isr.md 7.2)."""
    pixels = frame(strip={7: 60})
    assert corrected(pixels, LATISS)[7] == -60
    np.testing.assert_allclose(corrected(pixels, LSSTCAM), 0, atol=1e-3)

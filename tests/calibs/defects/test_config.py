"""The defaults of the defects are LSSTCam's (reference/construction.md Appendix A), and reach the kernel."""

from __future__ import annotations

import numpy as np
import pytest

from camcal_dask.calibs.defects.config import DefectConfig
from camcal_dask.config import load_config
from camcal_dask.errors import ConfigError
from camcal_dask.instruments import get_instrument
from camcal_dask.instruments.focal_plane import amp_boxes, assemble, ccd_to_focal_plane, split
from camcal_dask.kernels.pixels.defects import DARK, EDGE, FLAT, edge_frame, measure_defects, merge_defects
from camcal_dask.kernels.pixels.regions import boxes_to_mask, mask_to_boxes


def test_defaults():
    config = DefectConfig()
    assert config.bias.search("bias") == ("bias", "VALUE", 1000.0, 4.8, -5.0, 0, 0)
    assert config.dark.search("dark") == ("dark", "VALUE", 3.0, 4.8, -5.0, 0, 0)
    assert config.flat.search("flat") == ("flat", "VALUE", 0.9, 4.8, -5.0, 0, 0)
    assert config.bias.columns.rules() == config.dark.columns.rules() == (50, 30, 1000, 2, 20)
    assert config.flat.columns.rules() == (50, 30, 1000, 0, -1)
    assert (config.edges, config.edge_rows, config.edge_columns, config.manual) == (True, 7, 8, True)


def test_flat_settings():
    flat = DefectConfig().flat
    assert flat.gradient(np.eye(2, 3))[1:] == (8, 20, 4)
    assert flat.flatness("E2V").midline_rows == 1
    assert flat.flatness("ITL").midline_rows == 0
    assert flat.flatness("E2V").vampire_threshold == np.inf
    assert flat.model_copy(update={"vampires": True}).flatness("E2V").vampire_threshold == 1.9
    assert flat.model_copy(update={"remove_gradient": False}).gradient(np.eye(2, 3)) is None


def test_a_partial_override_keeps_the_rest():
    config = load_config(DefectConfig, {"bias": {"threshold": 500.0}, "flat": {"threshold": 0.8}}, "test")
    assert config.bias.threshold == 500.0
    assert config.flat.dead_amp_fraction == 0.1
    with pytest.raises(ConfigError, match="did you mean 'threshold'"):
        load_config(DefectConfig, {"flat": {"treshold": 0.8}}, "test")
    with pytest.raises(ConfigError, match=r"flat\.threshold"):
        load_config(DefectConfig, {"flat": {"threshold": 1.2}}, "test")


@pytest.mark.parametrize("number", [1, 2])
def test_tinycam_from_cube_to_boxes_and_back(number):
    """The settings on amps as a product cube holds them: assemble, search, merge, list, cut into amps again."""
    camera = get_instrument("TinyCam")
    detector = camera.detector(number)
    rng = np.random.default_rng(number)
    known = np.zeros((16, *camera.trimmed_shape), bool)
    height, width = detector.amps[0].data.height, detector.amps[0].data.width
    known[rng.integers(0, 16, 30), rng.integers(8, height - 8, 30), rng.integers(8, width - 8, 30)] = True
    dark = np.where(known, 20.0, rng.normal(0.1, 0.02, known.shape)).astype(np.float32)
    flat = np.where(known, 0.5, rng.normal(1.0, 0.002, known.shape)).astype(np.float32)
    config, boxes, affine = DefectConfig(), amp_boxes(detector), ccd_to_focal_plane(detector)
    gains = np.array([amp.gain for amp in detector.amps])
    found = {
        "dark": measure_defects(
            assemble(dark, detector), boxes, config.dark.search("dark"), config.dark.columns.rules(), gains=gains
        ).bits,
        "flat": measure_defects(
            assemble(flat, detector),
            boxes,
            config.flat.search("flat"),
            config.flat.columns.rules(),
            gradient=config.flat.gradient(affine),
            flatness=config.flat.flatness(detector.physical_type),
        ).bits,
    }
    frame = edge_frame((detector.height_pix, detector.width_pix), config.edge_rows, config.edge_columns)
    bits = merge_defects(found, edges=frame).bits
    mask = boxes_to_mask(mask_to_boxes(bits > 0), bits.shape)
    cut = split(np.where(mask, bits, 0).astype(np.uint8), detector, (16, *camera.trimmed_shape))
    np.testing.assert_array_equal(cut & (DARK | FLAT), known * np.uint8(DARK | FLAT))
    assert np.count_nonzero(cut & EDGE) == frame.sum()

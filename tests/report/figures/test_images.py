import numpy as np
import pytest
import xarray as xr

from camcal_dask.instruments import get_instrument
from camcal_dask.instruments.focal_plane import split
from camcal_dask.kernels.pixels.masks import BAD
from camcal_dask.report.content.layout import make_layout
from camcal_dask.report.figures.images import cells, mosaic, product_images

CAMERA = get_instrument("LSSTCam")
TINY = get_instrument("TinyCam")


@pytest.mark.parametrize("detector", [0, 2])
def test_product_images_are_in_ccd_orientation(detector):
    one = TINY.detectors[detector]
    ccd = np.arange(one.height_pix * one.width_pix, dtype="f4").reshape(one.height_pix, one.width_pix)
    mask = np.zeros(ccd.shape, np.int32)
    mask[5, 7] = BAD
    shape = (16, *TINY.trimmed_shape)
    dims = ("detector", "amp", "y", "x")
    product = xr.Dataset(
        {"image": (dims, split(ccd, one, shape)[None]), "mask": (dims, split(mask, one, shape)[None])},
        {"detector": [detector]},
    )
    found = product_images(product, TINY)[detector]
    assert np.isnan(found[5, 7])
    ccd[5, 7] = np.nan
    np.testing.assert_array_equal(found, ccd)
    assert product_images(product.drop_vars("image"), TINY) == {}


def test_cells_put_readout_corners_where_they_are():
    detector = CAMERA.detectors[94]  # E2V: the upper amps are read out at the upper right, the lower ones lower left
    binned = np.zeros((16, 3, 2))
    binned[:, 0, 0] = 1 + np.arange(16)
    image = cells(binned, detector)
    assert image.shape == (6, 16)
    np.testing.assert_array_equal(image[5, 1::2], 1 + np.arange(8))  # C10 .. C17
    np.testing.assert_array_equal(image[0, ::2], 16 - np.arange(8))  # C00 .. C07
    assert np.count_nonzero(image) == 16


def test_mosaic_places_detectors():
    detectors = [CAMERA.detectors[d] for d in (90, 94, 98)]  # R22: S00, S11, S22 on the diagonal
    images = {d.id: np.full((20, 20), float(d.id), np.float32) for d in detectors}
    found = mosaic(images, detectors, make_layout(detectors))
    n = found.shape[0]
    assert found[n // 6, n // 6] == 90
    assert found[n // 2, n // 2] == 94
    assert found[-n // 6, -n // 6] == 98
    assert np.isnan(found[n // 6, -n // 6])

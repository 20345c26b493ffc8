"""Encoder against astropy's decoder, through a FITS file."""

import io

import numpy as np
import pytest
from astropy.io import fits

from camcal_dask.kernels.compression.rice_encode import encode_image, max_encoded_bytes
from camcal_dask.simulation.write import compressed_hdu

RNG = np.random.default_rng(2)
IMAGES = {
    "bias": RNG.normal(24000, 5, (40, 576)),
    "flat": RNG.normal(120000, 300, (40, 576)),
    "constant": np.full((5, 64), 18000),
    "zeros": np.zeros((3, 31)),
    "one column": RNG.integers(0, 2**18, (9, 1)),
    "odd width": RNG.normal(24000, 50, (7, 45)),
    "full range": RNG.integers(0, 2**18, (30, 100)),
    "spikes": np.where(RNG.random((50, 128)) < 0.02, 2**18 - 1, 20000),
    "large": RNG.integers(-(2**29), 2**29, (10, 70)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_astropy_decodes_what_we_encode(name):
    image = IMAGES[name].astype(np.int32)
    primary = fits.PrimaryHDU().header.tostring().encode()
    content = primary + compressed_hdu(image, [("EXTNAME", "Segment10", "")])
    with fits.open(io.BytesIO(content), checksum=True) as hdus:
        assert hdus["Segment10"].data.dtype == np.int32
        np.testing.assert_array_equal(hdus["Segment10"].data, image)
        hdus[1].verify("exception")


@pytest.mark.parametrize("name", IMAGES)
def test_size_is_below_its_limit_and_equals_that_of_astropy(name):
    image = IMAGES[name].astype(np.int32)
    heap, lengths = encode_image(image)
    assert len(heap) == lengths.sum() <= max_encoded_bytes(*image.shape)
    ours = fits.CompImageHDU(image, compression_type="RICE_1", tile_shape=(1, image.shape[1]))
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), ours]).writeto(buffer)
    with fits.open(io.BytesIO(buffer.getvalue()), disable_image_compression=True) as hdus:
        assert hdus[1].header["PCOUNT"] == len(heap)

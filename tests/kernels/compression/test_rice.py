"""RICE_1 decoding against astropy's encoder (cfitsio's code) and against bits written by hand."""

import io

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from camcal_dask.kernels.compression.rice import SLACK, decode_rows

INT32 = np.iinfo(np.int32)


def coded(image):
    """(heap with slack, offsets, sizes) of an image that astropy compressed row by row."""
    file = io.BytesIO()
    fits.CompImageHDU(image, compression_type="RICE_1", tile_shape=(1, image.shape[1])).writeto(file)
    with fits.open(io.BytesIO(file.getvalue()), disable_image_compression=True) as hdus:
        pointers = np.asarray(hdus[1].data.view(np.ndarray)["COMPRESSED_DATA"]).astype(np.int64)
        start = hdus[1].fileinfo()["datLoc"] + image.shape[0] * 8
        size = hdus[1].header["PCOUNT"]
    heap = np.frombuffer(file.getvalue()[start : start + size] + bytes(SLACK), np.uint8)
    return heap, np.ascontiguousarray(pointers[:, 1]), np.ascontiguousarray(pointers[:, 0])


def decoded(image):
    out = np.full(image.shape, -1, np.int32)
    assert decode_rows(*coded(image), out) == -1
    return out


@pytest.mark.parametrize("width", [1, 31, 32, 33, 56, 576])
@pytest.mark.parametrize("sigma", [0.0, 0.4, 6.0, 300.0, 2e4, 5e8])
def test_noise_of_any_width_comes_back(width, sigma):
    noise = np.random.default_rng(3).normal(20_000, sigma, (8, width))
    image = noise.clip(INT32.min, INT32.max).round().astype(np.int32)
    np.testing.assert_array_equal(decoded(image), image)


@pytest.mark.parametrize("height", [10**3, 10**5, 2 * 10**9])
def test_lone_spikes_need_long_runs_of_zeros(height):
    # One large difference in a quiet block: k stays small and the quotient takes hundreds of bits.
    image = np.zeros((64, 96), np.int32)
    image[np.arange(64), np.arange(64)] = height
    np.testing.assert_array_equal(decoded(image), image)


@given(
    st.lists(
        st.one_of(st.integers(-3, 3), st.integers(-(2**17), 2**17), st.integers(INT32.min, INT32.max)),
        min_size=1,
        max_size=100,
    )
)
def test_any_row_comes_back(values):
    image = np.array([values], np.int32)
    np.testing.assert_array_equal(decoded(image), image)


def test_bits_by_hand():
    # first pixel 5; k + 1 = 1 (k = 0); differences 0, +1, -1, +2 fold to 0, 2, 1, 4: 1 001 01 00001
    bits = f"{5:032b}" + "00001" + "1" + "001" + "01" + "00001"
    row = int(bits.ljust(48, "0"), 2).to_bytes(6, "big")
    out = np.empty((1, 4), np.int32)
    heap = np.frombuffer(row + bytes(SLACK), np.uint8)
    assert decode_rows(heap, np.zeros(1, np.int64), np.full(1, 6), out) == -1
    assert out.tolist() == [[5, 6, 5, 7]]


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_short_row_is_reported(cut):
    image = np.random.default_rng(3).normal(20_000, 300, (5, 96)).astype(np.int32)
    heap, offsets, sizes = coded(image)
    sizes[2] -= cut
    assert decode_rows(heap, offsets, sizes, np.empty_like(image)) == 2


def test_random_bytes_stay_inside_the_slack():
    rng = np.random.default_rng(7)
    for fill in (0, 255, None):
        heap = np.full(40 + SLACK, fill, np.uint8) if fill is not None else rng.integers(0, 256, 40 + SLACK, np.uint8)
        heap.flags.writeable = False
        decode_rows(heap, np.zeros(1, np.int64), np.full(1, 40), np.empty((1, 576), np.int32))

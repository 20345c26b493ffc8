import struct
import zlib

import numpy as np
import pytest

from camcal_dask.report.figures.png import NO_VALUE, grey, write_png, zscale


def test_png_holds_the_pixels(tmp_path):
    matplotlib = pytest.importorskip("matplotlib.image")
    levels = np.arange(1, 13, dtype=np.uint8).reshape(3, 4)
    levels[0, 0] = NO_VALUE
    write_png(tmp_path / "a.png", levels)
    read = matplotlib.imread(tmp_path / "a.png")  # y down
    np.testing.assert_array_equal(np.rint(read[::-1] * 255), levels)
    assert b"tRNS\x00\x00" in (tmp_path / "a.png").read_bytes()


def test_png_checksums(tmp_path):
    write_png(tmp_path / "c.png", np.zeros((2, 2, 3), np.uint8))
    data, at = (tmp_path / "c.png").read_bytes(), 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        assert zlib.crc32(data[at + 4 : at + 8 + size]) == struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0]
        at += 12 + size


def test_grey_spans_the_limits():
    image = np.array([[-5.0, 0.0], [1.0, np.nan]])
    np.testing.assert_array_equal(grey(image, (0.0, 1.0)), [[1, 1], [255, NO_VALUE]])


def test_zscale_spans_the_pixels_without_outliers():
    image = np.random.default_rng(0).normal(100, 5, (100, 100))
    image[:3] = 5000
    image[50:60] = np.nan
    low, high = zscale(image)
    assert 75 < low < 90
    assert 110 < high < 140
    assert zscale(image, contrast=0.5)[1] < high


@pytest.mark.parametrize("image", [np.full((3, 3), np.nan), np.full((3, 3), 2.0), np.zeros((1, 1))])
def test_zscale_always_has_a_width(image):
    low, high = zscale(image)
    assert low < high

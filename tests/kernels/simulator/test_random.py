"""Philox against Random123's known answers and numpy's Philox-independent statistics."""

import numpy as np
import pytest

from camcal_dask.kernels.simulator.random import _philox, split64, uniform_row

# counter, key, output: kat_vectors of the Random123 distribution, "philox4x32 10"
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return np.array([int(w, 16) for w in text.split()], np.uint64)


def philox_words(counter, key):
    """The four words of one counter under one key."""
    return np.array(_philox(*counter, *key), np.uint64)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    np.testing.assert_array_equal(philox_words(words(counter), words(key)), words(expected))


@pytest.mark.parametrize("low", [-1.0, -0.5, 0.0])
def test_uniform_row_is_the_words_of_its_columns(low):
    address, key = words("7 3 5e"), words("1234 567")
    out = np.empty(21, np.float32)
    uniform_row(out, 10, address, key, low)
    for i, value in enumerate(out):
        x = 10 + i
        word = philox_words(np.array([x // 4, *address], np.uint64), key)[x % 4]
        assert float(value) == (int(word) >> 8) * 2.0**-24 + low


def test_a_slice_of_a_row_is_the_row_sliced():
    address, key = words("7 3 5e"), words("1234 567")
    row = np.empty(576, np.float32)
    uniform_row(row, 0, address, key, -0.5)
    for x0, n in [(0, 1), (3, 509), (10, 512), (522, 54)]:
        part = np.empty(n, np.float32)
        uniform_row(part, x0, address, key, -0.5)
        np.testing.assert_array_equal(part, row[x0 : x0 + n])


def test_distribution():
    rows = np.empty((500, 576), np.float32)
    for y in range(500):
        uniform_row(rows[y], 0, np.array([y, 0, 0], np.uint64), np.array([1, 2], np.uint64), -0.5)
    assert rows.min() >= -0.5
    assert rows.max() < 0.5
    error = 1 / np.sqrt(12 * rows.size)
    assert abs(rows.mean(dtype="f8")) < 4 * error
    assert rows.var(dtype="f8") == pytest.approx(1 / 12, rel=0.01)
    assert abs(np.corrcoef(rows[:-1].ravel(), rows[1:].ravel())[0, 1]) < 4 / np.sqrt(rows.size)


def test_split64():
    assert split64(0x1234567890ABCDEF) == (0x90ABCDEF, 0x12345678)

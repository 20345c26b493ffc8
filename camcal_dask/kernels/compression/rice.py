"""RICE_1 decoding of whole images, one call per image.

The code is public (FITS Standard 4.0 section 10.4.1; Rice, Yeh and Miller 1993): a row starts with its first
pixel as 32 bits; then every 32 pixels a 5-bit number ``k + 1`` and the differences to the preceding pixel, folded
to non-negative integers (0, -1, 1, -2 ... -> 0, 1, 2, 3 ...): quotient by 2**k in unary (zeros closed by a one),
remainder in k bits.  ``k = -1`` says "all differences are zero", ``k = 25`` "differences as plain 32 bits".

Why our own: the libraries decode one row (2.3 kB) a call and lose their time around it.  Measured numbers are in
:mod:`camcal_dask.raw_fits.decode`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from camcal_dask.kernels.arrays import ByteArray, Int32Array, IntArray
from camcal_dask.kernels.compiled import compiled

BLOCK = 32
"""Pixels that share one k (BLOCKSIZE)."""

SLACK = 1024
"""Bytes that must follow the last row in ``heap``: a corrupt row is noticed only after its block of 32 pixels."""

_PLAIN_K = 25
_ONE = np.uint64(1)


@intrinsic
def _leading_zeros(typing_context: Any, word: Any) -> Any:
    """Zeros before the highest one of a uint64 (64 if there is none); numba has no name for the instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], context.get_constant(types.boolean, False))

    return types.int64(types.uint64), generate


@numba.njit(nogil=True, error_model="numpy")
def _load(heap: ByteArray, position: int) -> np.uint64:
    """Eight bytes, most significant first; written so that LLVM makes one load and byte swap of it."""
    at = np.uint64(position)
    return (
        (np.uint64(heap[at]) << np.uint64(56))
        | (np.uint64(heap[at + np.uint64(1)]) << np.uint64(48))
        | (np.uint64(heap[at + np.uint64(2)]) << np.uint64(40))
        | (np.uint64(heap[at + np.uint64(3)]) << np.uint64(32))
        | (np.uint64(heap[at + np.uint64(4)]) << np.uint64(24))
        | (np.uint64(heap[at + np.uint64(5)]) << np.uint64(16))
        | (np.uint64(heap[at + np.uint64(6)]) << np.uint64(8))
        | np.uint64(heap[at + np.uint64(7)])
    )


@numba.njit(nogil=True, error_model="numpy")
def _refill(heap: ByteArray, word: np.uint64, have: int, position: int) -> tuple[np.uint64, int, int]:
    """Top up the bit buffer: at least 56 of its leading bits are valid afterwards.

    Bits below the ``have`` valid ones may already hold the next bits of the stream; or-ing them again is harmless.
    """
    word |= _load(heap, position) >> np.uint64(have)
    return word, have | 56, position + ((63 - have) >> 3)


@numba.njit(nogil=True, error_model="numpy")
def _long_quotient(
    heap: ByteArray, word: np.uint64, have: int, position: int, stop: int
) -> tuple[int, np.uint64, int, int]:
    """Unary quotient that the bits at hand may not hold; returns it with the buffer topped up behind its zeros."""
    word, have, position = _refill(heap, word, have, position)
    quotient = 0
    zeros = _leading_zeros(word)
    while zeros >= have and position <= stop:
        quotient += have
        word, have, position = _refill(heap, np.uint64(0), 0, position)
        zeros = _leading_zeros(word)
    if zeros >= have:  # the code ran out: leave a position that the caller refuses
        return quotient, word, have, stop + SLACK // 2
    word, have, position = _refill(heap, word << np.uint64(zeros), have - zeros, position)
    return quotient + zeros, word, have, position


@numba.njit(nogil=True, error_model="numpy")
def _fill(row: Int32Array, start: int, end: int, value: np.int64) -> None:
    """A block without differences."""
    for x in range(start, end):
        row[x] = value


@numba.njit(nogil=True, error_model="numpy")
def _plain(
    heap: ByteArray, row: Int32Array, start: int, end: int, value: np.int64, word: np.uint64, have: int, position: int
) -> tuple[np.int64, np.uint64, int, int]:
    """A block of 32-bit differences; returns the last value and the buffer."""
    for x in range(start, end):
        word, have, position = _refill(heap, word, have, position)
        code = np.int64(word >> np.uint64(32))
        word <<= np.uint64(32)
        have -= 32
        value += (code >> 1) ^ -(code & 1)
        row[x] = value
    return value, word, have, position


@numba.njit(nogil=True, error_model="numpy")
def _coded(
    heap: ByteArray,
    row: Int32Array,
    start: int,
    end: int,
    k: int,
    value: np.int64,
    word: np.uint64,
    have: int,
    position: int,
    stop: int,
) -> tuple[np.int64, np.uint64, int, int]:
    """A block of quotients and remainders; returns the last value and the buffer."""
    shift, drop = np.uint64(k), np.uint64(63 - k)
    for x in range(start, end):
        # A top-up every fourth pixel: the chain load -> count -> shift is what the loop waits for.
        if (x & 3) == 0:
            word, have, position = _refill(heap, word, have, position)
        quotient = zeros = _leading_zeros(word)
        if zeros + k + 1 > have:
            quotient, word, have, position = _long_quotient(heap, word, have, position, stop)
            zeros = 0
        word = (word << np.uint64(zeros)) << _ONE
        have -= zeros + k + 1
        code = (quotient << k) | np.int64((word >> _ONE) >> drop)
        word <<= shift
        value += (code >> 1) ^ -(code & 1)
        row[x] = value
    return value, word, have, position


@compiled(error_model="numpy")
def decode_rows(heap: ByteArray, offsets: IntArray, sizes: IntArray, out: Int32Array) -> int:
    """Decode the RICE_1 rows of one image (BYTEPIX 4, BLOCKSIZE 32).

    Parameters
    ----------
    heap : (n_bytes,) uint8
        Holds the coded rows, followed by at least `SLACK` bytes of anything.
    offsets, sizes : (y,) int64 [byte]
        Where each row starts in ``heap`` and how long it is; the caller has checked that they lie inside.
    out : (y, x) int32 [adu]
        Filled.

    Returns
    -------
    int
        -1, or the first row whose code is not valid (then ``out`` is not complete).
    """
    n_rows, width = out.shape
    for r in range(n_rows):
        row = out[r]
        stop = offsets[r] + sizes[r]
        value = np.int64(_load(heap, offsets[r]) >> np.uint64(32))
        word, have, position = _refill(heap, np.uint64(0), 0, offsets[r] + 4)
        for start in range(0, width, BLOCK):
            end = min(start + BLOCK, width)
            word, have, position = _refill(heap, word, have, position)
            k = np.int64(word >> np.uint64(59)) - 1
            word <<= np.uint64(5)
            have -= 5
            if k > _PLAIN_K or position - (have >> 3) > stop:
                return r
            if k < 0:
                _fill(row, start, end, value)
            elif k == _PLAIN_K:
                value, word, have, position = _plain(heap, row, start, end, value, word, have, position)
            else:
                value, word, have, position = _coded(heap, row, start, end, k, value, word, have, position, stop)
        if position - (have >> 3) > stop:
            return r
    return -1

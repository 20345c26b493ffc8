"""Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11).

Word ``w`` of a pixel row depends on its key and address only, never on what was drawn
before: any slab, chunk or number of workers gives the same pixels the same numbers.
"""

from __future__ import annotations

import numpy as np

from camcal_dask.kernels.arrays import Pixels, WordArray
from camcal_dask.kernels.compiled import compiled

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@compiled(inline="always")
def _philox(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """One Philox 4x32-10 block; all words are 32-bit values held in uint64."""
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@compiled
def uniform_row(out: Pixels, x0: int, address: WordArray, key: WordArray, low: float) -> None:
    """Fill ``out`` with uniform numbers in [low, low + 1) for the columns ``x0 .. x0 + out.size - 1``.

    Column x is word ``x % 4`` of the block whose counter is ``(x // 4, *address)``.  Its upper
    24 bits times 2**-24 is exact in float32, and stays exact for low = -1, -0.5 and 0.

    Parameters
    ----------
    out : (n,) float32
    x0 : first column [pixel]
    address : (3,) uint64, 32-bit words (for the dither: y, amp, detector)
    key : (2,) uint64, 32-bit words
    low : lower end, inclusive
    """
    first = x0 // 4
    n_blocks = (x0 + out.size - 1) // 4 - first + 1
    words = np.empty((4, n_blocks), np.float32)
    scale, shift = np.float32(2.0**-24), np.float32(low)
    a1, a2, a3, k0, k1 = address[0], address[1], address[2], key[0], key[1]
    for block in range(n_blocks):  # planes of words, so that this loop vectorises
        w0, w1, w2, w3 = _philox(np.uint64(first + block), a1, a2, a3, k0, k1)
        words[0, block] = np.float32(np.int32(w0 >> np.uint64(8))) * scale + shift
        words[1, block] = np.float32(np.int32(w1 >> np.uint64(8))) * scale + shift
        words[2, block] = np.float32(np.int32(w2 >> np.uint64(8))) * scale + shift
        words[3, block] = np.float32(np.int32(w3 >> np.uint64(8))) * scale + shift
    for i in range(out.size):
        x = x0 + i
        out[i] = words[x & 3, (x >> 2) - first]


def split64(value: int) -> tuple[int, int]:
    """Return (low, high) 32-bit words of a 64-bit integer."""
    return value & 0xFFFFFFFF, (value >> 32) & 0xFFFFFFFF

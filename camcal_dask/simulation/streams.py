"""Random numbers by address: a stream is named, not consumed in turn."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, name: str, *key: int | str) -> np.random.Generator:
    """Counter-based generator of one purpose.

    The 128-bit Philox key is a hash of all arguments, so a stream depends on nothing but its address
    (seed, purpose, exposure, detector, amp): any subset, in any order, on any worker draws the same numbers.

    Parameters
    ----------
    seed : int
        Seed of the simulation.
    name : str
        What is drawn, for example ``"read_noise"``.
    *key : int or str
        Address: exposure key, detector id, amp index, filter.
    """
    text = "/".join(str(part) for part in (seed, name, *key))
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))

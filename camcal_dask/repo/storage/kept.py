"""Detectors of calibrations that this process read before, for the next exposures of the same detector.

Every exposure needs the same planes of its detector (600 MB for bias, dark, flat and defects, more than a second of
decoding), and quanta of a detector follow each other on a worker.  One detector's planes are kept, which is what a
task holds anyway.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy.typing as npt

KEPT_BYTES = 640 * 2**20
"""Most that is kept: all planes of one full-size detector."""
_kept: OrderedDict[tuple[str, int], npt.NDArray[Any]] = OrderedDict()
_lock = threading.Lock()


def kept(array_uri: str, index: int, read: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return one detector of an array, read-only: as it was read last, or from ``read``.

    Parameters
    ----------
    array_uri : str
        Variable of a product.
    index : int
        Position along ``detector``.
    read : callable
        Reads it, if it must be.
    """
    key = array_uri, index
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    values = read()
    values.flags.writeable = False
    with _lock:
        _kept[key] = values
        while sum(v.nbytes for v in _kept.values()) > KEPT_BYTES:
            _kept.popitem(last=False)
    return values


def forget(uri: str = "") -> None:
    """Forget what was read of a product, or everything: a run begins and ends with it, so nothing outlives its file."""
    with _lock:
        for key in [key for key in _kept if key[0].startswith(uri)]:
            del _kept[key]

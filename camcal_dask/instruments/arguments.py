"""Numbers and names as people pass them: one or several values from Python, numpy, xarray or pandas."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from camcal_dask.errors import ConfigError

Integers = Any
"""One integer or several: int, numpy scalar, array, DataArray, or any iterable of them."""
Detectors = Any
"""One detector or several, ids or names: int, str, numpy scalar, array, DataArray, or any iterable of them."""

_BYTES = (bytes, bytearray, memoryview)
"""One value of a kind that nothing here is; Python would take each of its bytes for a number."""
_SMALLEST, _LARGEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def elements(values: Any, what: str) -> list[Any]:
    """List what was passed: one value, or several, as Python's own.

    Parameters
    ----------
    values : Any
        A scalar, an array of at most one dimension, or an iterable of scalars.
    what : str
        Of what, for messages.

    Raises
    ------
    ConfigError
        If there is none, or they are not in a row.
    """
    if isinstance(values, str):
        return [str(values)]
    if isinstance(values, _BYTES) or not (hasattr(values, "__array__") or isinstance(values, Iterable)):
        return [values]
    if hasattr(values, "__array__"):
        if np.ma.is_masked(values):  # the numbers below a mask are nobody's
            raise ConfigError(f"{what}: some values are masked; pass .compressed(), which drops them")
        array = np.asarray(values)
        if array.ndim > 1:
            raise ConfigError(f"{what}: expected a one-dimensional sequence, got an array of shape {array.shape}")
        found = array.reshape(-1).tolist()
    else:
        found = [e.item() if hasattr(e, "__array__") and np.ndim(e) == 0 else e for e in values]
        if any(isinstance(e, Iterable) and not isinstance(e, str | bytes) for e in found):
            raise ConfigError(f"{what}: expected a one-dimensional sequence, got nested lists")
    if not found:
        raise ConfigError(f"{what}: none is given; leave it out for all, or name some")
    return found


def integers(values: Integers, what: str) -> list[int]:
    """List integers, in their order.

    Raises
    ------
    ConfigError
        If one of them does not fit into a 64-bit integer (``94.0`` and ``True`` are none), or there is none.
    """
    return [_integer(value, what) for value in elements(values, what)]


def integer(value: Any, what: str) -> int:
    """Return the one integer that was passed.

    Raises
    ------
    ConfigError
        If it is none, or there are several.
    """
    found = integers(value, what)
    if len(found) > 1:
        raise ConfigError(f"{what}: expected one, got {len(found)}: {found[:5]}")
    return found[0]


def _integer(value: Any, what: str) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        found = operator.index(value)
    except TypeError:
        raise ConfigError(f"{what}: {value!r} is not an integer") from None
    if not _SMALLEST <= found <= _LARGEST:
        raise ConfigError(f"{what}: {found} does not fit into a 64-bit integer")
    return found

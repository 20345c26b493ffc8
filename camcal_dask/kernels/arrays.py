"""Types of the arrays that kernels take and return; shapes and units stand in their docstrings."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
"""Sums, levels, parameters of fits."""
Pixels: TypeAlias = NDArray[np.float32]
"""Values of pixels, of any shape."""
Mask: TypeAlias = NDArray[np.int32]
"""Planes of :mod:`camcal_dask.kernels.pixels.masks`."""
Int32Array: TypeAlias = NDArray[np.int32]
"""Raw pixels, counts of exposures, boxes."""
IntArray: TypeAlias = NDArray[np.int64]
"""Positions and counts of pixels."""
IndexArray: TypeAlias = NDArray[np.intp]
"""Where numpy found something."""
ByteArray: TypeAlias = NDArray[np.uint8]
WordArray: TypeAlias = NDArray[np.uint64]
"""32-bit words of counters and keys, held in 64 bits."""
BoolArray: TypeAlias = NDArray[np.bool_]
Integer: TypeAlias = int | np.integer[Any]
Number: TypeAlias = float | np.floating[Any]
"""Numbers inside compiled code, where the width of an intermediate result is the compiler's."""
AnyArray: TypeAlias = NDArray[Any]
"""Numbers of any kind: a kernel is compiled for those that it gets."""

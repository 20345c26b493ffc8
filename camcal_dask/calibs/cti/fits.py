"""Serial deferred charge in the layout of the LSST stack (reference/cti_details.md 3 and 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camcal_dask.errors import DataError, nearest
from camcal_dask.exchange.tables import Arrays, Rows, by_amp
from camcal_dask.kernels.charge.cti import TRAP_KINDS


def read(tables: Sequence[Rows], cards: Mapping[str, Any], amps: Sequence[str]) -> tuple[str, Arrays]:
    """Read offsets, traps and gains of a detector (`FitsLayout.read`)."""
    if float(cards["CTI_VERSION"]) < 1.1:
        raise DataError(f"CTI_VERSION {cards['CTI_VERSION']} is too old; at least 1.1 is needed")
    if len(tables) < 2:
        raise DataError("it has no table of traps")
    one, traps = tables[:2]
    names = one["AMPLIFIER"]
    columns = {"drift_scale": "DRIFT_SCALE", "decay_time": "DECAY_TIME", "global_cti": "GLOBAL_CTI"}
    arrays = {name: np.asarray(by_amp(one, names, c, amps), np.float64) for name, c in columns.items()}
    arrays["input_gain"] = by_amp(one, names, "INPUT_GAIN", amps) if "INPUT_GAIN" in one else np.full(len(amps), np.nan)
    rows = {str(name): i for i, name in enumerate(traps["AMPLIFIER"])}  # of two traps of an amp the second
    found = [_trap(traps, rows.get(amp)) for amp in amps]
    longest = max(len(coefficients) for *_, coefficients in found)
    padded = [np.pad(c, (0, longest - len(c)), constant_values=np.nan) for *_, c in found]
    return "electron", arrays | {
        "trap_kind": np.array([TRAP_KINDS.index(kind) for kind, *_ in found], np.int8),
        "trap_size": np.array([size for _, size, *_ in found]),
        "trap_emission_time": np.array([time for _, _, time, _ in found]),
        "trap_coefficients": np.array(padded).reshape(len(amps), longest),
    }


def _trap(traps: Rows, row: int | None) -> tuple[str, float, float, NDArray[np.float64]]:
    """Kind, size [electron], emission time [pixel] and coefficients of an amp's trap; ``none`` without one."""
    if row is None:
        return "none", 0.0, 1.0, np.zeros(1)
    kind = str(traps["TYPE"][row])
    if kind not in TRAP_KINDS:
        raise DataError(f"unknown kind of trap {kind!r}{nearest(kind, TRAP_KINDS)}")
    values = np.ravel(np.asarray(traps["COEFFS"][row], np.float64))
    finite = np.flatnonzero(np.isfinite(values))
    values = values[: finite[-1] + 1] if finite.size else values[:0]
    if kind == "spline":
        values = sorted_knots(values)
    least = {"none": 0, "linear": 1, "logistic": 2, "spline": 2}[kind]
    if values.size < least:
        raise DataError(f"a {kind} trap of amp {traps['AMPLIFIER'][row]} with {values.size} coefficients")
    return kind, float(traps["SIZE"][row]), float(traps["EMISSION_TIME"][row]), values


def sorted_knots(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring the table of a trap (all x, then all y) into rising order, with the constants of the file outside.

    The stack orders knots by the mean of the image, so that x need not rise; beyond its range it takes the values
    of the first and the last knot *of the file* (reference/cti_details.md 3).

    Raises
    ------
    DataError
        For an odd number of coefficients, or no finite knot.
    """
    if values.size % 2 or not values.size:
        raise DataError(f"the table of a spline trap has {values.size} coefficients, an even number is needed")
    x, y = np.split(values, 2)
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        raise DataError("the table of a spline trap has no finite knot")
    x, y = x[good], y[good]
    first, last, order = y[0], y[-1], np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    if y[0] != first:
        x, y = np.append(x[0] - _STEP, x), np.append(first, y)
    if y[-1] != last:
        x, y = np.append(x, x[-1] + _STEP), np.append(y, last)
    return np.concatenate([x, y])


_STEP = 1e-3
"""Width [electron] of the step to a constant that differs from the table's end."""

"""What blocks of corrected exposures cost: the memory of a task, and the height of a slab that fits into it."""

from __future__ import annotations

from camcal_dask.errors import PlanError
from camcal_dask.instruments.geometry import Instrument
from camcal_dask.isr.corrected import SLAB_ROWS
from camcal_dask.isr.statistics import STATISTICS
from camcal_dask.kernels.statistics.moments import HALVES_EVERY

_SMALLEST_SLAB = 8


def exposure_bytes(rows: int, instrument: Instrument) -> int:
    """Most memory that a task takes which corrects one exposure of one detector with ``rows`` raw rows [byte]."""
    return peak_bytes(rows, 1, instrument)


def peak_bytes(
    rows: int, n_exposures: int, instrument: Instrument, calib_planes: int = 0, *, halves: bool = False
) -> int:
    """Peak memory of one task of a stack, beyond that of an idle worker [byte].

    Parameters
    ----------
    rows : slab height [pixel]
    n_exposures : exposures combined
    instrument : the camera
    calib_planes : pixel planes of the calibrations that the ISR applies, 3 each for bias, dark and flat, 1 for defects
    halves : whether the halves of the exposures are compared

    Notes
    -----
    The larger of: a slab (float32 stack, with few exposures their variances too, one raw exposure being
    decoded, calibrations, masks, result, the overscan vectors of all exposures, and the other slabs of the detector,
    done and waiting); the overscan pass (one raw detector); the finishing of a detector (its slabs and
    the arrays they are copied to).  Code that is loaded and compiled at first use takes another 100 MiB.
    """
    return sum(_largest(rows, n_exposures, instrument, calib_planes, halves).values())


def slab_rows_for(
    memory_bytes: int, n_exposures: int, instrument: Instrument, calib_planes: int = 0, *, halves: bool = False
) -> int:
    """Largest slab height whose tasks fit into ``memory_bytes`` beyond an idle worker [pixel].

    Heights are powers of two up to 256, the rows of a chunk of the raw cube: smaller slabs decode
    each chunk 256 / height times.

    Raises
    ------
    PlanError
        With the numbers, if even the lowest slab does not fit.
    """
    height = min(SLAB_ROWS, instrument.trimmed_shape[0])
    while (
        height > _SMALLEST_SLAB
        and peak_bytes(height, n_exposures, instrument, calib_planes, halves=halves) > memory_bytes
    ):
        height = max(_SMALLEST_SLAB, 1 << ((height - 1).bit_length() - 1))
    peak = peak_bytes(height, n_exposures, instrument, calib_planes, halves=halves)
    if peak > memory_bytes:
        largest = _largest(height, n_exposures, instrument, calib_planes, halves)
        parts = ", ".join(f"{k} {v / 2**20:.0f}" for k, v in largest.items())
        raise PlanError(
            f"combining {n_exposures} exposures of {instrument.name} takes {peak / 2**20:.0f} MiB per task even in "
            f"slabs "
            f"of {height} rows ({parts}), but {memory_bytes / 2**20:.0f} MiB are allowed; "
            "give the workers more memory, start fewer of them (-j), or combine fewer exposures"
        )
    return height


def _largest(
    rows: int,
    n_exposures: int,
    instrument: Instrument,
    calib_planes: int,
    halves: bool,  # noqa: FBT001
) -> dict[str, int]:
    """Parts [byte] of the task that needs most."""
    _, n_amp, raw_height, raw_width = instrument.raw_shape
    height, width = instrument.trimmed_shape
    pixels, whole = n_amp * min(rows, height) * width, n_amp * height * width
    raw_detector = n_amp * raw_height * raw_width * 4
    overscan = n_exposures * n_amp * ((raw_height + width) * 4 + len(STATISTICS) * 8)
    chunk = min(SLAB_ROWS, raw_height) * raw_width * 4
    handed_on = 12 + (8 // HALVES_EVERY if halves else 0)
    tasks: list[dict[str, int]] = [
        {
            "stack": 4 * n_exposures * pixels * (2 if n_exposures < 5 else 1),
            "raw rows": 4 * pixels + 2 * chunk,
            "masks and result": (14 + handed_on) * pixels,
            "calibrations": 4 * (calib_planes + 1) * pixels if calib_planes else 0,
            "overscan vectors": 2 * overscan,
            "slabs done": handed_on * whole,
        },
        {"raw detector": raw_detector + 2 * chunk, "strips": raw_detector // 8},
        {"slabs": handed_on * whole, "arrays of a detector": 12 * whole, "distribution": whole},
    ]
    return max(tasks, key=lambda parts: sum(parts.values()))

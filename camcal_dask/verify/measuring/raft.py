"""Correlations of every amp with all amps of its raft (reference/verification.md 3.4, 3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.instruments.geometry import Amp, get_instrument
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.pixels.masks import FILL
from camcal_dask.kernels.statistics.correlation import correlate, deviations, flat_difference

Kind = Literal["overscan", "image"]
BUFFER = 10
"""Outermost columns and rows of the overscan that are left out, fewer if it is narrow [pixel]."""


def raft_correlations(raw: xr.DataArray, detectors: Sequence[int], kind: Kind) -> xr.DataArray:
    """Correlate the amps of some detectors with those of their raft, pixel by pixel in readout order; lazy.

    Parameters
    ----------
    raw : DataArray
        ``Repo.raws``: (exposure, detector, amp, y, x) int32 [adu] of all detectors of the rafts.
    detectors : sequence of int
        Detectors whose amps are correlated with all of their raft.
    kind : str
        ``overscan``: serial overscan of the last exposure, a bias.  ``image``: difference, weighted to equal levels,
        of the first two exposures, flats of one level.

    Returns
    -------
    DataArray
        (detector, amp, raft_amp) float64, ``raft_amp`` = ``S00_C10`` ...; NaN for amps that are not there or do not
        vary.  The correlation of an amp with itself is 1.
    """
    camera = get_instrument(raw.attrs["instrument"])
    chosen = raw.isel(exposure=[-1] if kind == "overscan" else [0, 1])
    chunked = chosen.chunk({"exposure": -1, "detector": 1, "amp": -1, "y": -1, "x": -1})
    held = [int(d) for d in raw["detector"].values]
    slots = sorted({camera.detectors[d].name_in_raft for d in camera.science_detectors})
    labels = [f"{slot}_{amp}" for slot in slots for amp in camera.amp_names]
    sample = dask.delayed(_samples)
    sampled = {d: sample(chunked.sel(detector=[d]).data, camera.name, d, kind) for d in held}
    rows = []
    for detector in detectors:
        raft = {camera.detectors[d].name_in_raft: sampled[d] for d in held if _same_raft(camera, d, detector)}
        parts = [raft.get(slot) for slot in slots]
        row = dask.delayed(_correlate)(sampled[detector], parts, len(camera.amp_names))
        rows.append(da.from_delayed(row, (1, len(camera.amp_names), len(labels)), np.float64))
    return xr.DataArray(
        da.concatenate(rows),
        {"detector": list(detectors), "amp": list(camera.amp_names), "raft_amp": labels},
        ("detector", "amp", "raft_amp"),
        "raft_correlation",
        {"units": "1", "long_name": f"correlation with the amps of the raft, {kind}"},
    )


def _same_raft(camera: Any, first: int, second: int) -> bool:
    return bool(camera.detectors[first].raft == camera.detectors[second].raft)


def _samples(raw: npt.NDArray[np.int32], instrument: str, detector: int, kind: Kind) -> list[Any]:
    """Standardised pixels of every amp of a detector, in readout order; None where there is no amp."""
    camera = get_instrument(instrument)
    found: list[Any] = [None] * len(camera.amp_names)
    for amp in camera.detectors[detector].amps:
        pixels = raw[:, 0, amp.index]
        if (pixels[:, : amp.raw_height, : amp.raw_width] != FILL).all():
            found[amp.index] = _overscan(pixels[0], amp) if kind == "overscan" else _image(pixels, amp)
    return found


def _overscan(pixels: npt.NDArray[np.int32], amp: Amp) -> npt.NDArray[np.float32]:
    box = amp.serial_overscan
    y, x = (min(BUFFER, n // 4) for n in (box.height, box.width))
    return deviations(pixels[box.y0 + y : box.y0 + box.height - y, box.x0 + x : box.x0 + box.width - x])


def _image(pixels: npt.NDArray[np.int32], amp: Amp) -> npt.NDArray[np.float32]:
    level = np.median(pixels[:, amp.serial_overscan.y, amp.serial_overscan.x], axis=(1, 2))
    first, second = (pixels[i, amp.data.y, amp.data.x] - level[i] for i in range(2))
    return deviations(flat_difference(first, second))


def _correlate(own: list[Any], raft: list[list[Any] | None], n_amp: int) -> FloatArray:
    out = np.full((1, n_amp, len(raft) * n_amp), np.nan)
    for place, part in enumerate(raft):
        for b, other in enumerate(part or ()):
            for a, mine in enumerate(own):
                if mine is not None and other is not None and mine.size == other.size:
                    out[0, a, place * n_amp + b] = correlate(mine[None], other[None])[0, 0]
    return out

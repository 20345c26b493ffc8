"""Statistics of raw exposures, which a corrected one has no more: overscans and what trails into them.

As `camcal_dask.verify.measuring.statistics`, one task a (exposure, detector) block; a verification merges both
(reference/verification.md 3.1, 3.10).
"""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from camcal_dask.config import Config
from camcal_dask.instruments.geometry import Amp, get_instrument
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.pixels.masks import FILL
from camcal_dask.kernels.readout import eper
from camcal_dask.schema import STATISTIC_DIMS, number_variables

READOUT = number_variables(
    STATISTIC_DIMS,
    {
        "overscan_level": ("adu", "median of the serial overscan"),
        "read_noise_boxes": ("adu", "median scatter of random boxes of the serial overscan"),
        "scti": ("1", "serial charge-transfer inefficiency (EPER); NaN in dark exposures"),
        "scti_error": ("1", "standard error of the serial inefficiency"),
        "pcti": ("1", "parallel charge-transfer inefficiency (EPER); NaN in dark exposures"),
        "pcti_error": ("1", "standard error of the parallel inefficiency"),
        "eper_signal": ("adu", "signal of the last column, at which the inefficiencies hold"),
    },
)
"""Numbers of every amp of a raw exposure."""


class ReadoutConfig(Config):
    """What is measured of raw exposures."""

    enabled: bool = False
    n_trail: int = 2
    """Overscan columns and rows whose charge counts as trailed."""
    min_signal_adu: float = 500.0
    """Signal that an inefficiency needs."""
    edge_pixel: int = 2
    """Outermost columns and rows of the overscan that the read noise leaves out."""


def measure_readout(raw: xr.DataArray, config: ReadoutConfig | None = None) -> xr.Dataset:
    """Measure raw exposures; nothing is computed.

    Parameters
    ----------
    raw : DataArray
        ``Repo.raws``: (exposure, detector, amp, y, x) int32 [adu].
    config : ReadoutConfig, optional

    Returns
    -------
    Dataset of `READOUT`, (exposure, detector, amp) float64, lazy.
    """
    config = config or ReadoutConfig()
    chunked = raw.chunk({"exposure": 1, "detector": 1, "amp": -1, "y": -1, "x": -1})
    detectors = da.from_array(raw["detector"].values, chunks=1)
    packed = da.blockwise(
        _block,
        "edak",
        chunked.data,
        "edayx",
        detectors,
        "d",
        new_axes={"k": len(READOUT)},
        concatenate=True,
        dtype=np.float64,
        meta=np.empty((0,) * 4),
        config=config,
        instrument=raw.attrs["instrument"],
    )
    dims = STATISTIC_DIMS
    coords = {name: c for name, c in raw.coords.items() if set(c.dims) <= set(dims)}
    variables = {name: (dims, packed[..., i], s.attrs("adu")) for i, (name, s) in enumerate(READOUT.items())}
    return xr.Dataset(variables, coords)


def _block(raw: npt.NDArray[np.int32], detectors: npt.NDArray[np.int64], config: Any, instrument: str) -> FloatArray:
    out = np.full((*raw.shape[:3], len(READOUT)), np.nan)
    for e, d in np.ndindex(*raw.shape[:2]):
        for amp in get_instrument(instrument).detectors[int(detectors[d])].amps:
            numbers = measure_amp(raw[e, d, amp.index], amp, config)
            out[e, d, amp.index] = [numbers.get(name, np.nan) for name in READOUT]
    return out


def measure_amp(raw: npt.NDArray[np.int32], amp: Amp, config: ReadoutConfig) -> dict[str, float]:
    """Numbers of `READOUT` of one amp (y, x) [adu]; empty if the pixels were never written."""
    raw = raw[: amp.raw_height, : amp.raw_width]
    if (raw == FILL).any():
        return {}
    edge = config.edge_pixel
    overscan = raw[amp.serial_overscan.y, amp.serial_overscan.x]
    inner = overscan[edge:-edge, edge:-edge] if edge and min(overscan.shape) > 2 * edge + 1 else overscan
    numbers = {"overscan_level": float(np.median(overscan)), "read_noise_boxes": eper.read_noise(inner)}
    data = amp.data
    columns, rows = (data.x0, data.x0 + data.width), (data.y0, data.y0 + data.height)
    trailed = {"scti": eper.serial(raw, columns, rows, config.n_trail)}
    trailed["pcti"] = eper.parallel(raw, columns, rows, config.n_trail)
    numbers["eper_signal"] = trailed["scti"].signal
    for name, found in trailed.items():
        if found.signal > config.min_signal_adu:
            numbers |= {name: found.cti, f"{name}_error": found.cti_error}
    return numbers

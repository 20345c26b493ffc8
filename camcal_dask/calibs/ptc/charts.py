"""Charts of photon transfer curves on the pages of a report, and the way to the figures for papers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from camcal_dask.rooms import Curve, Figures


def transfer_curve(amp: xr.Dataset) -> Curve | None:
    """Variance over mean against mean of one amp's pairs; None without points."""
    if "raw_mean" not in amp or "raw_var" not in amp:
        return None
    mean, variance = (amp[name].values.astype(float) for name in ("raw_mean", "raw_var"))
    used = amp["used"].values.astype(bool) if "used" in amp else np.ones(mean.shape, bool)
    model = amp["final_model_var"].values.astype(float) if "final_model_var" in amp else None
    known = np.isfinite(mean) & np.isfinite(variance) & (mean > 0)
    if not known.any():
        return None
    order = np.flatnonzero(known)[np.argsort(mean[known])]
    line = None if model is None else (model / np.where(mean > 0, mean, np.nan))[order]
    return Curve(mean[order], (variance / np.where(mean > 0, mean, np.nan))[order], used[order], line)


def write(ptc: xr.Dataset, detector: int, folder: Path) -> list[Path]:
    """Write the figures of one detector; only this needs matplotlib."""
    from camcal_dask.calibs.ptc.figures import write_figures

    return write_figures(ptc, detector, folder)


FIGURES = Figures(
    needs=("raw_mean", "raw_var", "final_model_var", "used"),
    chart=transfer_curve,
    words="Variance over mean [adu] against mean [adu]: open circles were left out of the fit, the line is the model.",
    title="Photon transfer curve",
    axes=("mean [adu]", "variance / mean [adu]"),
    write=write,
)
"""Of ``linearizerPtc`` and ``ptc``."""

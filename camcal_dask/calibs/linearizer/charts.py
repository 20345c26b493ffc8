"""Charts of linearizers on the pages of a report, and the way to the figures for papers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from camcal_dask.rooms import Curve, Figures


def residual_curve(amp: xr.Dataset) -> Curve | None:
    """Residual of the linearizer in percent against signal, of one amp; None without points."""
    signal = amp["ordinate"].values.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        percent = 100 * amp["residual_unmasked"].values.astype(float) / amp["model"].values.astype(float)
    known = np.isfinite(signal) & np.isfinite(percent)
    if not known.any():
        return None
    return Curve(signal[known], percent[known], amp["used"].values.astype(bool)[known])


def write(linearizer: xr.Dataset, detector: int, folder: Path) -> list[Path]:
    """Write the figures of one detector; only this needs matplotlib."""
    from camcal_dask.calibs.linearizer.figures import save_linearity

    return save_linearity(linearizer, detector, folder)


FIGURES = Figures(
    needs=("ordinate", "residual_unmasked", "model", "used"),
    chart=residual_curve,
    words="Residual [% of the signal] against signal [adu]: open circles were left out of the fit.",
    title="Residual of the linearizer",
    axes=("signal [adu]", "residual [% of the signal]"),
    write=write,
)
"""Of ``linearizer``."""

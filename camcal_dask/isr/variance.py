"""Variance (step 25; reference/isr.md 2.12, 0.3): it follows from the final image, so that it need not be kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from camcal_dask.instruments.geometry import Detector
from camcal_dask.isr.calibrations import Plane, Planes
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.statistics import READ_NOISE
from camcal_dask.isr.tables import NO_TABLES, Prepared, prepare
from camcal_dask.kernels.arrays import Pixels
from camcal_dask.kernels.readout import calibrate


def noise_variance(
    detector: Detector, statistics: NDArray[np.float64], config: IsrConfig, tables: Prepared | None = None
) -> Pixels:
    """Return the read-noise term of the variance of every amp (reference/isr.md 2.12).

    In bootstrap (adu) the gain is taken as 1 and the noise is the scatter of the corrected serial
    overscan [adu].  In electron it is that scatter times the gain: the noise of this exposure as
    measured, where upstream would take the photon transfer curve's, which does not exist yet; or,
    with ``read_noise: nominal``, the camera model's; with ``ptc``, that of the table.

    Parameters
    ----------
    statistics : (..., amp, len(STATISTICS)) float64

    Returns
    -------
    float32 (..., amp) [unit of the image squared]; NaN for amps that the detector does not have.
    """
    noise = np.full(statistics.shape[:-1], np.nan)
    tables = tables or prepare(detector, NO_TABLES, config)
    for amp in detector.amps:
        if config.read_noise == "empirical":
            noise[..., amp.index] = statistics[..., amp.index, READ_NOISE] * tables.gain[amp.index]
        else:
            electrons = amp.read_noise if config.read_noise == "nominal" else tables.read_noise[amp.index]
            noise[..., amp.index] = electrons / tables.to_electron[amp.index]
    return np.asarray(np.square(noise), np.float32)


def variance_plane(
    image: Pixels,
    noise: Pixels,
    bias: Plane | None,
    dark: tuple[Plane, float] | None = None,
    flat: tuple[Plane, float] | None = None,
) -> Pixels:
    """Return ``V = I + V_bias + s^2 V_dark + RN^2`` (reference/isr.md 2.12; G = 1, as in electron and in bootstrap).

    I is the image before the flat; with one, V' = (I'^2 V_F + V / c^2) / F^2 for I' = I / cF (0.3), and
    1e10 where it says NO_DATA.  All of it follows from the final image.

    Parameters
    ----------
    image : (..., amp, y, x) float32, signed, final
    noise : (..., amp) float32, from `noise_variance`
    bias : the bias subtracted, if any; arrays (amp, y, x), as those of dark and flat
    dark : the dark and its factor s, if any
    flat : the flat and its scale c, if any
    """
    if dark is None and flat is None:
        simple: Pixels = image + noise[..., None, None]
        if bias is not None:
            simple += bias.variance
        return simple
    out = np.empty_like(image)
    none, no_flags = np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int32)
    for index in np.ndindex(image.shape[:-2]):
        a = index[-1]
        calibrate.variance(
            image[index],
            float(noise[index]),
            none if bias is None else bias.variance[a],
            none if dark is None else dark[0].variance[a],
            0.0 if dark is None else dark[1],
            none if flat is None else flat[0].image[a],
            none if flat is None else flat[0].variance[a],
            no_flags if flat is None else flat[0].mask[a],
            1.0 if flat is None else flat[1],
            out[index],
        )
    return out


def add_shared_variance(
    variance: Pixels, planes: Planes, weights: Sequence[float], dark_scales: Sequence[float], flat_scale: float
) -> None:
    """Add to that of a weighted sum of exposures what they share, in place: the variance of bias and dark.

    Parameters
    ----------
    variance : (amp, y, x) float32 [unit of the image times a weight, squared]
    planes : arrays (amp, y, x)
    weights : of each exposure; with s its factor of the dark, (sum w)^2 V_bias + (sum w s)^2 V_dark.
    dark_scales : s of each exposure
    flat_scale : what the flat is multiplied by
    """
    of_dark = sum(w * s for w, s in zip(weights, dark_scales, strict=True)) if planes.dark is not None else 0.0
    for plane, factor in ((planes.bias, sum(weights)), (planes.dark, of_dark)):
        if plane is None:
            continue
        for a in range(len(variance)):
            added = plane.variance[a] * np.float32(factor**2)
            if planes.flat is not None:
                added /= np.square(planes.flat.image[a] * np.float32(flat_scale))
            variance[a] += added

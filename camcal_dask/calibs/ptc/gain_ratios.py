"""Adjustment of the gains of a detector's amps to each other by flats (reference/ptc_linearity.md 8).

Gains of photon transfer curves scatter by 0.1 to 0.5 % from amp to amp, steps in a flat show a tenth of that.  The
ratios come from the flats, the median gain from the curves: either from binned images (`adjust_gain_ratios`), or
from the steps at the edges of the amps that the pairs already carry (`adjust_by_amp_offsets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from camcal_dask.config import Config
from camcal_dask.errors import DataError
from camcal_dask.instruments.focal_plane import ccd_to_focal_plane, readout_to_ccd, transform
from camcal_dask.instruments.geometry import Detector
from camcal_dask.isr.corrected import CorrectedExposures, as_dataset
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.light.gain_ratio import (
    chebyshev_basis,
    fit_gain_ratios,
    radial_basis,
    ratios_from_offsets,
    reference_amp,
)
from camcal_dask.kernels.pixels.masks import bits
from camcal_dask.kernels.statistics.binning import bin_amps, bin_centres
from camcal_dask.schema import AMP_DIMS

_SEED = 12345
"""Upstream's, so that the same flats are drawn."""


class GainRatioConfig(Config):
    """Which flats take part, and the shape of their illumination; the defaults are those of LSSTCam."""

    min_adu: float = 1000.0
    max_adu: float = 20000.0
    """Mean of the good amps between which a flat takes part [adu]."""
    max_flats: int = Field(50, ge=1)
    """From more, so many are drawn."""
    bin_size: int = Field(8, ge=1)
    """Side of a bin [pixel]."""
    border: int = Field(20, ge=0)
    """Pixels at the sides of each amp that are left out."""
    bad_planes: tuple[str, ...] = ("SUSPECT", "BAD", "NO_DATA", "SAT")
    """Planes whose pixels do not count."""
    max_noise: float = 12.0
    """Largest read noise of the reference amp [electron]."""
    min_pairs: int = Field(3, ge=1)
    """Amp offsets: fewer pairs leave a gain as it is."""
    radial_nodes: int = Field(20, ge=0)
    """Nodes of the spline about the optical axis; 0: none (LATISS)."""
    chebyshev_order: int = Field(1, ge=0)
    """Order of the field over the CCD (LATISS: 2)."""
    n_sigma: float = Field(5.0, gt=0)
    """Bins that deviate further from the model do not count."""


class GainRatios(NamedTuple):
    """Adjusted curves, and what the adjustment comes from.

    ``summary``: ``gain_ratio`` (exposure, detector, amp), apparent gain in the flat relative to the reference amp's,
    ``mean_adu`` (exposure, detector), ``correction`` (detector, amp), ``reference_amp`` (detector), empty if none.
    """

    ptc: xr.Dataset
    summary: xr.Dataset


def flats_for_gain_ratios(ptc: xr.Dataset, config: GainRatioConfig | None = None) -> dict[int, list[int]]:
    """Return the exposures to bin, by detector: first ones of pairs whose level fits, at most ``max_flats``, sorted."""
    config = config or GainRatioConfig()
    level = ptc["final_mean"].where(~ptc["bad"]).mean("amp").transpose("detector", "pair").values
    chosen = {}
    for detector, levels in zip(ptc["detector"].values.tolist(), level, strict=True):
        candidates = ptc["exposure_1"].values[(levels > config.min_adu) & (levels < config.max_adu)]
        if len(candidates) > config.max_flats:
            random = np.random.RandomState(_SEED)  # noqa: NPY002 -- upstream's draw
            candidates = random.choice(candidates, config.max_flats, replace=False)
        chosen[detector] = sorted(candidates.tolist())
    return chosen


def bin_flats(exposures: CorrectedExposures | xr.Dataset, config: GainRatioConfig | None = None) -> xr.DataArray:
    """Bin corrected flats, lazily if they are lazy.

    Parameters
    ----------
    exposures : CorrectedExposures or Dataset
        From ``isr``, or ``image`` and ``mask`` (exposure, detector, amp, y, x), in adu.
    config : GainRatioConfig, optional

    Returns
    -------
    DataArray
        (exposure, detector, amp, bin_y, bin_x) float64 [adu], as `adjust_gain_ratios` wants it.
    """
    config, corrected = config or GainRatioConfig(), as_dataset(exposures)
    sizes, whole = {"size": config.bin_size, "border": config.border}, ["amp", "y", "x"]
    y, x = bin_centres(corrected.sizes["y"], corrected.sizes["x"], **sizes)
    binned: xr.DataArray = xr.apply_ufunc(
        bin_amps,
        corrected["image"],
        corrected["mask"],
        kwargs={"reject": bits(config.bad_planes), **sizes},
        input_core_dims=[whole, whole],
        output_core_dims=[["amp", "bin_y", "bin_x"]],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"bin_y": len(y), "bin_x": len(x)}},
    )
    return binned.assign_coords(bin_y=y, bin_x=x).assign_attrs(units="adu")


def adjust_gain_ratios(
    ptc: xr.Dataset,
    binned: xr.DataArray,
    detectors: Mapping[int, Detector],
    config: GainRatioConfig | None = None,
) -> GainRatios:
    """Adjust the gains so that flats have no steps between amps; ``gain_unadjusted`` keeps what was fitted.

    Parameters
    ----------
    ptc : Dataset
        Solved curves.
    binned : (exposure, detector, amp, bin_y, bin_x) [adu]
        Flats reduced as for the curves and binned, see `bin_flats`; the coordinates ``bin_y`` and ``bin_x`` are the
        centres of the bins in readout pixels of the trimmed amp.  Exposures that
        `flats_for_gain_ratios` does not choose take no part.
    detectors : Detector by id
    config : GainRatioConfig, optional

    Returns
    -------
    GainRatios
        A detector without two usable amps, or without a flat, keeps its gains.

    Raises
    ------
    DataError
        If ``binned`` lacks a detector.
    """
    config = config or GainRatioConfig()
    missing = sorted(set(ptc["detector"].values.tolist()) - set(binned["detector"].values.tolist()))
    if missing:
        raise DataError(
            f"no binned flats of detectors {missing}: bin them, or select the others with ptc.sel(detector=...)"
        )
    chosen = flats_for_gain_ratios(ptc, config)
    summaries = [
        _of_detector(ptc.sel(detector=d), binned.sel(detector=d), detectors[d], chosen[d], config) for d in chosen
    ]
    summary = xr.concat(summaries, "detector", join="outer", combine_attrs="override")
    correction = summary["correction"]
    gain = (ptc["gain_unadjusted"] / correction.fillna(1.0)).assign_attrs(ptc["gain"].attrs)
    return GainRatios(ptc.assign(gain=gain.transpose(*ptc["gain"].dims)), summary)


def adjust_by_amp_offsets(ptc: xr.Dataset, config: GainRatioConfig | None = None) -> xr.Dataset:
    """Adjust the gains by the amp offsets of the pairs; ``gain_unadjusted`` keeps what was fitted.

    Parameters
    ----------
    ptc : Dataset
        Solved curves with ``amp_offset`` (pair, detector, amp) [adu], measured by an isr with ``amp_offsets: measure``.
    config : GainRatioConfig, optional
        Its levels, reference amp and ``min_pairs`` count.

    Returns
    -------
    Dataset
        As ``ptc``.  A detector without two usable amps keeps its gains, so does an amp without enough pairs.

    Raises
    ------
    DataError
        If there is no variable ``amp_offset``.
    """
    config = config or GainRatioConfig()
    if "amp_offset" not in ptc:
        raise DataError("the curves have no amp_offset: measure them with isr.amp_offsets=measure")
    gain = ptc["gain_unadjusted"].transpose(*AMP_DIMS).values.copy()
    for k, detector in enumerate(ptc["detector"].values.tolist()):
        gain[k] = _by_offsets(ptc.sel(detector=detector), gain[k], config)
    return ptc.assign(gain=(AMP_DIMS, gain, ptc["gain"].attrs))


def _by_offsets(ptc: xr.Dataset, gain: FloatArray, config: GainRatioConfig) -> FloatArray:
    reference = reference_amp(gain, ptc["noise"].values, ptc["turnoff"].values, max_noise=config.max_noise)
    if reference is None:
        return gain
    offset, used, mean = (ptc[v].transpose("amp", "pair").values for v in ("amp_offset", "used", "raw_mean"))
    level = mean[reference]
    fits = used[reference] & (level > config.min_adu) & (level < config.max_adu)
    offset = np.where(used, offset, np.nan)[:, fits]
    ratio = ratios_from_offsets(offset, level[fits], reference, config.min_pairs)
    correction = ratio / (gain / gain[reference])
    if not np.isfinite(correction).any():
        return gain
    return np.where(np.isfinite(correction), gain * correction / np.nanmedian(correction), gain)


def _of_detector(
    ptc: xr.Dataset, binned: xr.DataArray, detector: Detector, chosen: list[int], config: GainRatioConfig
) -> xr.Dataset:
    names = [amp.name for amp in detector.amps]
    here = ptc.sel(amp=names)
    gain, noise, turnoff = (here[v].values.astype(np.float64) for v in ("gain_unadjusted", "noise", "turnoff"))
    reference = reference_amp(gain, noise, turnoff, max_noise=config.max_noise)
    exposures = [e for e in chosen if e in set(binned["exposure"].values.tolist())] if reference is not None else []
    ratio, level = np.full((len(exposures), len(names)), np.nan), np.full(len(exposures), np.nan)
    flats = binned.sel(amp=names).transpose("exposure", "amp", "bin_y", "bin_x")
    if exposures:
        amp, radial, field = _basis(flats, detector, config)
    for k, exposure in enumerate(exposures):
        values = flats.sel(exposure=exposure).values.astype(np.float64)
        level[k] = np.nanmean(values)
        electrons = (values * gain[:, None, None]).ravel()
        fitted = fit_gain_ratios(electrons, amp, len(names), radial, field, n_sigma=config.n_sigma)
        ratio[k] = fitted / fitted[reference]
    ratios = xr.DataArray(
        ratio, dims=("exposure", "amp"), attrs={"long_name": "apparent gain over the reference amp's"}
    )
    median = ratios.median("exposure")
    return xr.Dataset(
        {
            "gain_ratio": ratios,
            "mean_adu": ("exposure", level, {"units": "adu"}),
            "correction": (median / median.median()).assign_attrs(long_name="gain_unadjusted / gain"),
            "reference_amp": ((), "" if reference is None else names[reference]),
        },
        {"exposure": np.array(exposures, np.int64), "amp": names, "detector": detector.id},
    )


def _basis(
    flats: xr.DataArray, detector: Detector, config: GainRatioConfig
) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
    """Amp, radial and Chebyshev functions of every bin, ravelled over (amp, bin_y, bin_x)."""
    bin_x, bin_y = np.meshgrid(flats["bin_x"].values, flats["bin_y"].values)
    positions = [transform(readout_to_ccd(amp), bin_x.ravel(), bin_y.ravel()) for amp in detector.amps]
    x, y = (np.concatenate(part) for part in zip(*positions, strict=True))
    radius = np.hypot(*transform(ccd_to_focal_plane(detector), x, y))
    field = chebyshev_basis(x, y, detector.width_pix, detector.height_pix, config.chebyshev_order)
    amp = np.repeat(np.arange(len(detector.amps)), bin_x.size)
    return amp, radial_basis(radius, config.radial_nodes), field

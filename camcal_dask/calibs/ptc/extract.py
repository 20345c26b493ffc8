"""Statistics of pairs of flats, the points of photon transfer curves (reference/ptc_linearity.md 1-5).

All is lazy, one task a pair and detector, which reads the two raw exposures, corrects them and measures them; a few
numbers leave it.  Pixels that are in memory already are measured as they are.
"""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from pydantic import Field

from camcal_dask.config import Config
from camcal_dask.errors import PlanError
from camcal_dask.instruments.focal_plane import readout_to_focal_plane, transform
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.isr.blocks import Part
from camcal_dask.isr.config import PlaneNames
from camcal_dask.isr.corrected import CorrectedExposures, on_all_amps
from camcal_dask.isr.graph import declared, named_variables, objects, regions
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.pixels.masks import bits
from camcal_dask.kernels.ptc.flat_pair import GainCorrection, PairRules, bad_pixels, measure_pair, unvignetted
from camcal_dask.schema import Variable, Variables, variables

_log = logging.getLogger(__name__)

_AMP = ("pair", "detector", "amp")
_LAG = (*_AMP, "lag_i", "lag_j")
OF_PAIRS: Variables = variables(
    Variable("exposure_1", ("pair",), "i8", "", "first exposure of the pair"),
    Variable("exposure_2", ("pair",), "i8", "", "second exposure"),
    Variable("exposure_time", ("pair",), "f8", "s", "requested exposure time", "unknown"),
    Variable("mjd", ("pair",), "f8", "d", "TAI MJD of the begin of the earlier exposure", "unknown"),
    Variable("photo_charge", ("pair",), "f8", "C", "photodiode charge, mean of the two", "unknown"),
    Variable("photo_charge_delta", ("pair",), "f8", "C", "photodiode charge, second minus first", "unknown"),
)
"""Numbers of the pairs as such; with them header values that the settings name, as ``aux_<name>``."""
EXTRACTED: Variables = variables(
    Variable("raw_mean", _AMP, "f8", "adu", "mean signal of the pair, clipped"),
    Variable("raw_delta", _AMP, "f8", "adu", "mean of the second exposure minus that of the first"),
    Variable("pixel_stdev", _AMP, "f8", "adu", "scatter of the pixels of one exposure: light and response"),
    Variable("raw_var", _AMP, "f8", "adu^2", "clipped variance of half the weighted difference"),
    Variable("row_mean_variance", _AMP, "f8", "adu^2", "clipped variance of the row means of the difference"),
    Variable("pair_gain", _AMP, "f8", "electron/adu", "gain from this pair alone"),
    Variable("noise_adu", _AMP, "f8", "adu", "read noise in the serial overscan, mean of the two exposures"),
    Variable("overscan_median", _AMP, "f8", "adu", "median serial overscan, mean of the two exposures"),
    Variable("amp_offset", _AMP, "f8", "adu", "pedestal from the steps at the amp's edges, mean of the two"),
    Variable("hist_var", _AMP, "f8", "adu^2", "variance of the Gaussian fitted to the plain difference"),
    Variable("hist_chi2_dof", _AMP, "f8", "1", "its reduced chi2"),
    Variable("ks_pvalue", _AMP, "f8", "1", "p-value of the difference against that Gaussian; 1 if not tested"),
    Variable("n_pixel", _AMP, "i8", "pixel", "good pixels before clipping"),
    Variable("valid", _AMP, "?", "1", "mean, variance and all covariances are known"),
    Variable("covariance", _LAG, "f8", "adu^2", "covariances of one image, clipping bias corrected"),
    Variable("covariance_sqrt_weight", _LAG, "f8", "1/adu^2", "inverse statistical errors of the covariances"),
    Variable("n_lag", _LAG, "i8", "pixel", "pixel pairs at this lag, of both signs where both enter"),
)
"""Variables of every pair, besides those of the exposures."""

_CARRIED = {"noise_adu": "read_noise_adu", "overscan_median": "serial_overscan_median", "amp_offset": "amp_offset"}
"""Variables of the isr whose mean over the two exposures is kept."""


class PtcExtractConfig(Config):
    """How pairs of flats are measured (reference/ptc_linearity.md 3-5)."""

    lags: int = Field(10, ge=1)
    """Side of the covariance matrix; the largest lag is one less."""
    edge_pixel: int = Field(20, ge=0)
    """Frame of every amp that is left out [pixel]; at most a tenth of its shorter side."""
    bad_planes: PlaneNames = ("SUSPECT", "BAD", "NO_DATA", "SAT")
    """Planes that exclude a pixel, in either exposure."""
    sigma_clip: float = Field(5.5, gt=0)
    """Half-width of all clipping windows in standard deviations."""
    iterations: int = Field(3, ge=1)
    min_pixels: int = Field(10_000, ge=2)
    """With fewer good pixels an amp has neither variance nor covariances."""
    gain_correction: GainCorrection = "FULL"
    """Correction of the pair gain for read noise and Poisson statistics; see `kernels.flat_pair.pair_gain`."""
    gaussianity: bool = False
    """Test every difference for a Gaussian distribution; much slower."""
    vignetting: tuple[float, ...] = ()
    """Coefficients (highest power first) of the relative illumination against the radius on the focal plane [m]."""
    vignetting_percent: float = Field(2.0, gt=0)
    """Pixels are left out whose illumination is this much below the largest in the amp [%]; raised in steps of 1 %
    until ``vignetting_min_pixels`` remain."""
    vignetting_min_pixels: int = Field(250_000, ge=1)
    float32_difference: bool = True
    """As in the LSST stack, the difference is formed in float32 with a rounded reciprocal; else in float64."""
    absolute_bound: bool = True
    """As there, outliers are clipped by abs(D) <= mean + 5.5 sigma; else by abs(D - mean) <= 5.5 sigma."""
    sample_variance: bool = True
    """As there, ``raw_var`` is divided by N - 1, the covariances by N; else both by N."""

    def edge_of(self, height: int, width: int) -> int:
        """Frame [pixel] that an amp of this size loses: of a tiny amp something must remain."""
        return min(self.edge_pixel, min(height, width) // 10)

    @property
    def rules(self) -> PairRules:
        """What the kernel needs of it."""
        return PairRules(
            self.lags,
            self.sigma_clip,
            self.iterations,
            self.min_pixels,
            self.gain_correction,
            self.gaussianity,
            self.float32_difference,
            self.absolute_bound,
            self.sample_variance,
        )


class Exposed(NamedTuple):
    """One corrected exposure of one detector: image float32 [adu], mask int32 (amp, y, x); `_CARRIED` (amp,) each."""

    image: NDArray[np.float32]
    mask: NDArray[np.int32]
    carried: Mapping[str, FloatArray]


@on_all_amps
def extract(
    corrected: CorrectedExposures,
    pairs: Sequence[tuple[int, int]],
    config: PtcExtractConfig | None = None,
    *,
    photo_charge: xr.DataArray | None = None,
    aux: Mapping[str, xr.DataArray] | None = None,
) -> xr.Dataset:
    """Measure pairs of flats in every detector, lazily.

    Parameters
    ----------
    corrected : CorrectedExposures
        From ``isr`` in adu, or a Dataset of them.
    pairs : sequence of (first, second) exposure ids
    config : PtcExtractConfig, optional
    photo_charge : DataArray (exposure), optional
        Photodiode charge [C], NaN where there is none.
    aux : mapping of name to DataArray (exposure), optional
        Header values; those of the first exposure are kept as ``aux_<name>``.

    Returns
    -------
    Dataset
        `EXTRACTED`, and of each pair ``photo_charge`` (mean of those there are) and ``photo_charge_delta`` [C];
        coordinates ``exposure_1``, ``exposure_2``, ``exposure_time`` [s] of the first, ``mjd`` of the earlier.  A pair
        that cannot be measured is NaN, not ``valid``, and named in the log.

    Raises
    ------
    PlanError
        If the exposures are not in adu or one is missing, or there is no pair.
    """
    config = config or PtcExtractConfig()
    _check(corrected, pairs)
    detectors = tuple(corrected.labels["detector"].values.tolist())
    parts = corrected.by_pair(pairs)
    common = {"config": config, "detectors": detectors, "instrument": corrected.attrs["instrument"]}
    common |= {"pairs": tuple(pairs), "carried": tuple(n for n in _CARRIED.values() if _known(corrected, n))}
    where = regions((1,) * len(pairs), (1,) * len(detectors))
    name = f"pairs-{tokenize(parts.name, common)}"
    blocks = objects(_measure_pair, "pd", parts, "pd", where, "pd", name=name, **common)
    found = _dataset(corrected, blocks, pairs, config).assign(_of_exposures(corrected, pairs, photo_charge, aux or {}))
    return found.set_coords(["exposure_1", "exposure_2", "exposure_time", "mjd"])


def measure_detector(
    first: Exposed, second: Exposed, config: PtcExtractConfig, detector: int, instrument: str
) -> dict[str, NDArray[Any]]:
    """Measure all amps of one detector in a pair.

    Returns
    -------
    Arrays (amp, ...) of the variables `EXTRACTED`; NaN for amps that the detector does not have.
    """
    n_amp = len(first.image)
    result = _empty((n_amp,), config)
    for name in _CARRIED:
        values = [e.carried[name][:n_amp] for e in (first, second)]
        known = np.isfinite(values).sum(axis=0)
        result[name] = np.where(known > 0, np.nansum(values, axis=0) / np.maximum(known, 1), np.nan)
    kept = _unvignetted(instrument, detector, config)
    reject = np.int32(bits(config.bad_planes))
    for amp in get_instrument(instrument).detectors[detector].amps:
        a, edge = amp.index, config.edge_of(amp.data.height, amp.data.width)
        box = np.s_[edge : amp.data.height - edge, edge : amp.data.width - edge]
        bad = bad_pixels(first.mask[a][box], second.mask[a][box], reject)
        if kept is not None:
            bad |= ~kept[a][box]
        noise = float(result["noise_adu"][a])
        found = measure_pair(first.image[a][box], second.image[a][box], bad, noise, config.rules)
        for name, value in found._asdict().items():
            result[name][a] = value
    return result


def _empty(shape: tuple[int, ...], config: PtcExtractConfig) -> dict[str, NDArray[Any]]:
    """Values of what was not measured, ``shape`` before the lags."""
    lags = (config.lags, config.lags)
    fill = {"f8": np.nan, "i8": 0, "?": False}
    return {
        name: np.full(shape + (lags if v.dims == _LAG else ()), fill[v.dtype], v.dtype) for name, v in EXTRACTED.items()
    }


@functools.lru_cache(maxsize=4)
def _unvignetted(instrument: str, detector: int, config: PtcExtractConfig) -> list[NDArray[np.bool_]] | None:
    """Pixels of each amp that are bright enough, (y, x) bool; None if all are."""
    if not config.vignetting:
        return None
    kept = []
    sensor = get_instrument(instrument).detectors[detector]
    for amp in sensor.amps:
        x, y = np.arange(amp.data.width), np.arange(amp.data.height)[:, None]
        radius = np.hypot(*transform(readout_to_focal_plane(sensor, amp), x, y)) * 1e-3
        kept.append(
            unvignetted(radius, config.vignetting, config.vignetting_percent, config.vignetting_min_pixels),
        )
    return kept


def _check(corrected: CorrectedExposures, pairs: Sequence[tuple[int, int]]) -> None:
    if corrected.attrs["units"] != "adu":
        units = corrected.attrs["units"]
        raise PlanError(f"extract: the exposures are in {units}, pairs are measured in adu: use isr.gains=none")
    if not pairs:
        raise PlanError("extract: no pairs were given; see camcal_dask.calibs.ptc.pairs.pair_exposures")
    missing = sorted({e for pair in pairs for e in pair} - set(corrected.labels["exposure"].values.tolist()))
    if missing:
        raise PlanError(f"extract: exposures {missing} of the pairs are not among those corrected")


def _known(corrected: CorrectedExposures, source: str) -> bool:
    """Whether the isr measured a variable; amp offsets are zeros if it did not."""
    measured = json.loads(corrected.attrs.get("isr_config", "{}")).get("amp_offsets") != "none"
    return source in corrected and (source != "amp_offset" or measured)


def _measure_pair(
    part: Part,
    region: tuple[slice, slice],
    *,
    pairs: tuple[tuple[int, int], ...],
    carried: tuple[str, ...],
    config: PtcExtractConfig,
    detectors: tuple[int, ...],
    instrument: str,
) -> dict[str, NDArray[Any]]:
    p, d = region[0].start, region[1].start
    try:
        first, second = (_exposed(part, side, carried) for side in (0, 1))
        return measure_detector(first, second, config, detectors[d], instrument)
    except Exception:  # noqa: BLE001 (one pair must not end a run)
        _log.exception("extract: exposures %s, %s, detector %d: not measured", *pairs[p], detectors[d])
        return _empty((len(get_instrument(instrument).amp_names),), config)


def _exposed(part: Part, index: int, known: tuple[str, ...]) -> Exposed:
    """Read and correct one exposure of a pair."""
    image, mask, fetched = part.read(index)
    nothing = np.full(part.shape[0], np.nan)
    carried = {
        name: np.asarray(fetched.number(source), np.float64) if source in known else nothing
        for name, source in _CARRIED.items()
    }
    return Exposed(image, mask, carried)


def _dataset(
    corrected: CorrectedExposures, blocks: da.Array, pairs: Sequence[tuple[int, int]], config: PtcExtractConfig
) -> xr.Dataset:
    """Gather the pairs of each detector, one task, and cut the variables out of that, a task each."""
    gathered = objects(_gather, "d", blocks, "pd", name=f"curve-{blocks.name.removeprefix('pairs-')}")
    sizes = {"pair": len(pairs), "amp": corrected.sizes["amp"], "lag_i": config.lags, "lag_j": config.lags}
    found = named_variables(gathered, ("detector",), declared(EXTRACTED, "adu"), sizes, _field, prefix="extracted")
    coords = {k: c for k, c in corrected.coords.items() if set(c.dims) <= {"detector", "amp"}}
    lags = np.arange(config.lags)
    attrs = {"instrument": corrected.attrs["instrument"], "units": "adu", "extract_config": config.model_dump_json()}
    attrs |= {k: v for k, v in corrected.attrs.items() if k == "isr_config"}
    return xr.Dataset(found, {**coords, "pair": np.arange(len(pairs)), "lag_i": lags, "lag_j": lags}, attrs)


def _gather(pairs: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays (pair, amp, ...) of one detector."""
    return {name: np.stack([pair[name] for pair in pairs]) for name in EXTRACTED}


def _field(gathered: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    return gathered[name][:, None]


def _of_exposures(
    corrected: CorrectedExposures,
    pairs: Sequence[tuple[int, int]],
    photo_charge: xr.DataArray | None,
    aux: Mapping[str, xr.DataArray],
) -> dict[str, Any]:
    """Coordinates and variables of the pairs as such."""
    first, second = (np.array(side, np.int64) for side in zip(*pairs, strict=True))

    def values(name: str, ids: NDArray[np.int64]) -> FloatArray:
        if name not in corrected.coords:
            return np.full(len(ids), math.nan)
        return np.asarray(corrected.labels[name].sel(exposure=ids).values, np.float64)

    charges = [
        np.full(len(pairs), np.nan)
        if photo_charge is None
        else photo_charge.sel(exposure=ids).values.astype(np.float64)
        for ids in (first, second)
    ]
    known = np.isfinite(charges).sum(axis=0)
    mean = np.where(known > 0, np.nansum(charges, axis=0) / np.maximum(known, 1), np.nan)
    of_pairs = {
        "exposure_1": first,
        "exposure_2": second,
        "exposure_time": values("exposure_time", first),
        "mjd": np.fmin(values("mjd", first), values("mjd", second)),
        "photo_charge": mean,
        "photo_charge_delta": charges[1] - charges[0],
    }
    found: dict[str, Any] = {name: ("pair", array, OF_PAIRS[name].attrs("")) for name, array in of_pairs.items()}
    return found | {f"aux_{k}": ("pair", v.sel(exposure=first).values, dict(v.attrs)) for k, v in aux.items()}

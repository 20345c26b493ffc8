"""From raw pixels to calibrations and verdicts, one lazy step after the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from camcal_dask import rooms
from camcal_dask.calibs.combined.combine import CombineConfig
from camcal_dask.calibs.combined.combine import combine as combine_exposures
from camcal_dask.calibs.linearizer.config import LinearityConfig
from camcal_dask.calibs.linearizer.fit import fit
from camcal_dask.calibs.ptc.extract import EXTRACTED, PtcExtractConfig
from camcal_dask.calibs.ptc.extract import extract as extract_pairs
from camcal_dask.calibs.ptc.pairs import Pairs
from camcal_dask.calibs.ptc.product import PTC
from camcal_dask.calibs.ptc.solve import PtcSolveConfig, solve
from camcal_dask.config import Settings, settled
from camcal_dask.errors import ConfigError
from camcal_dask.isr.blocks import PIXELS
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.corrected import CorrectedExposures, isr
from camcal_dask.isr.statistics import CORRECTED
from camcal_dask.schema import check
from camcal_dask.verify.judging.criterion import Criterion
from camcal_dask.verify.judging.judge import judge as judge_statistics
from camcal_dask.verify.measuring.block import STATISTICS, MeasureConfig
from camcal_dask.verify.measuring.statistics import measure as measure_exposures

Calibs = Mapping[str, xr.Dataset]


def correct(
    raw: xr.DataArray,
    calibs: Calibs | None = None,
    config: Settings[IsrConfig] = None,
    **settings: Any,
) -> CorrectedExposures:
    """Remove the signature of the instrument from raw exposures, lazily.

    Parameters
    ----------
    raw : DataArray
        From ``repo.raws(...)``: (exposure, detector, amp, y, x) [adu].
    calibs : mapping of name to Dataset, optional
        Calibrations to apply, such as ``{"bias": repo.open("bias", run="u/me/bias")}``.
    config, **settings
        A ready `IsrConfig`, or its settings as keywords (``bias=True``, ``gains="ptc"``).

    Returns
    -------
    CorrectedExposures
        What `combine`, `extract` and `measure` take.  ``sel``, ``isel``, ``assign`` and ``persist`` are as those of a
        Dataset; ``dataset()`` is one: ``image``, ``variance``, ``mask`` (exposure, detector, amp, y, x) and the
        numbers of the overscans.

    Examples
    --------
    >>> raw = repo.raws("exposure.observation_type = 'bias' AND detector = 0")
    >>> corrected = cd.correct(raw, parallel_overscan={"enabled": False})
    >>> corrected.sel(amp=["C10"]).dataset().image.sizes["amp"]
    1
    >>> cd.correct(raw, biass=True)
    Traceback (most recent call last):
    camcal_dask.errors.ConfigError: correct: unknown key 'biass'; did you mean 'bias'?
    """
    return isr(raw, calibs, settled(IsrConfig, config, settings, "correct"))


def combine(
    corrected: CorrectedExposures | xr.Dataset,
    config: Settings[CombineConfig] = None,
    *,
    levels: Sequence[float] | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Combine corrected exposures into one image a detector, lazily.

    Parameters
    ----------
    corrected : CorrectedExposures
        From `correct`.
    config, **settings
        A ready `CombineConfig`, or its settings as keywords (``scale="dark_time"``).
    levels : sequence of float, optional
        Level of each exposure, with ``scale="levels"``.

    Returns
    -------
    Dataset
        ``image``, ``variance``, ``mask`` (detector, amp, y, x) and what describes the inputs.

    Examples
    --------
    >>> raw = repo.raws("exposure.observation_type = 'bias' AND detector = 0")
    >>> bias = cd.combine(cd.correct(raw), sigma_clip=4)
    >>> bias.image.attrs["units"]
    'adu'
    """
    chosen = settled(CombineConfig, config, settings, "combine")
    if isinstance(corrected, xr.Dataset):
        check(corrected, [CORRECTED[name] for name in PIXELS], "combine")
    return combine_exposures(corrected, chosen, levels=levels)


def extract(
    corrected: CorrectedExposures | xr.Dataset,
    pairs: Pairs | Sequence[tuple[int, int]],
    config: Settings[PtcExtractConfig] = None,
    *,
    photo_charge: xr.DataArray | None = None,
    aux: Mapping[str, xr.DataArray] | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Measure means, variances and covariances of pairs of flats, lazily.

    Parameters
    ----------
    corrected : CorrectedExposures
        From `correct`, in adu.
    pairs : Pairs or sequence of (int, int)
        From `pair_exposures`, or ids of exposures two by two.
    config, **settings
        A ready `PtcExtractConfig`, or its settings as keywords (``lags=2``).
    photo_charge : DataArray, optional
        (exposure,) charge of the photodiode [C], from ``repo.photodiode``.
    aux : mapping of name to DataArray, optional
        (exposure,) values that are carried along, as ``aux_<name>``.

    Examples
    --------
    >>> raw = repo.raws("exposure.observation_type = 'flat' AND detector = 0")
    >>> pairs = cd.pair_exposures(raw.exposure.values, exposure_time=raw.exposure_time.values)
    >>> partial = cd.extract(cd.correct(raw), pairs, lags=1, edge_pixel=2, min_pixels=500)
    >>> partial.raw_var.dims
    ('pair', 'detector', 'amp')
    """
    both = pairs.pairs if isinstance(pairs, Pairs) else pairs
    chosen = settled(PtcExtractConfig, config, settings, "extract")
    return extract_pairs(corrected, both, chosen, photo_charge=photo_charge, aux=aux)


def solve_ptc(pairs: xr.Dataset, config: Settings[PtcSolveConfig] = None, **settings: Any) -> xr.Dataset:
    """Fit photon transfer curves: gain, read noise, turnoff and brighter-fatter coefficients of every amp.

    Parameters
    ----------
    pairs : Dataset
        From `extract`; computed here if it is lazy.
    config, **settings
        A ready `PtcSolveConfig`, or its settings as keywords.

    Returns
    -------
    Dataset
        The input and what was fitted, in memory; ``gain`` [electron/adu], ``noise`` [electron] (detector, amp).

    Examples
    --------
    >>> raw = repo.raws("exposure.observation_type = 'flat' AND detector = 0")
    >>> pairs = cd.pair_exposures(raw.exposure.values, exposure_time=raw.exposure_time.values)
    >>> partial = cd.extract(cd.correct(raw), pairs, lags=1, edge_pixel=2, min_pixels=500)
    >>> ptc = cd.solve_ptc(partial, fit_type="EXPAPPROXIMATION", n_sigma=60)
    >>> 1.0 < float(ptc.gain.median()) < 2.2
    True
    """
    chosen = settled(PtcSolveConfig, config, settings, "solve_ptc")
    check(pairs, [EXTRACTED[name] for name in ("raw_mean", "raw_var")], "solve_ptc")
    return solve(pairs, chosen)


def fit_linearizer(
    ptc: xr.Dataset,
    config: Settings[LinearityConfig] = None,
    *,
    normalization: xr.DataArray | None = None,
    ratios: xr.Dataset | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Fit the linearizers of all amps of a photon transfer curve.

    Parameters
    ----------
    ptc : Dataset
        From `solve_ptc`, of images that were not linearised [adu].
    config, **settings
        A ready `LinearityConfig`, or its settings as keywords (``type="Spline"``).
    normalization : DataArray, optional
        (exposure,) factors on the abscissa.
    ratios : Dataset, optional
        Ratios of the amps in a ramp, which a ``DoubleSpline`` needs.

    Returns
    -------
    Dataset
        What the correction reads and the residuals behind it; an amp that failed has type None, and
        ``attrs["problems"]`` says why.

    Examples
    --------
    >>> ptc = repo.open("ptc", run="u/ptc", detector=0).load()
    >>> linearizer = cd.fit_linearizer(ptc, type="Polynomial", abscissa="exposure_time", grouping="none")
    >>> linearizer.attrs["units"]
    'adu'
    """
    chosen = settled(LinearityConfig, config, settings, "fit_linearizer")
    check(ptc, [PTC[name] for name in ("raw_mean", "gain", "turnoff", "used")], "fit_linearizer")
    return fit(ptc, chosen, normalization=normalization, ratios=ratios)


def measure(
    corrected: CorrectedExposures | xr.Dataset,
    config: Settings[MeasureConfig] = None,
    *,
    calib: xr.Dataset | None = None,
    calibs: Calibs | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Measure what is left in corrected exposures, lazily: the numbers that `judge` tests.

    Parameters
    ----------
    corrected : CorrectedExposures
        From `correct`.
    config, **settings
        A ready `MeasureConfig`, or its settings as keywords.
    calib : Dataset, optional
        The calibration under test.
    calibs : mapping of name to Dataset, optional
        All calibrations that were applied.

    Returns
    -------
    Dataset
        Numbers (exposure, detector, amp).

    Examples
    --------
    >>> bias = repo.open("bias", run="u/bias", detector=0)
    >>> raw = repo.raws("exposure.observation_type = 'bias' AND detector = 0")
    >>> corrected = cd.correct(raw, {"bias": bias}, bias=True, gains="nominal")
    >>> left = cd.measure(corrected, calib=bias, calibs={"bias": bias})
    >>> bool((left.noise.median("exposure") > 0).all())
    True
    """
    chosen = settled(MeasureConfig, config, settings, "measure")
    return measure_exposures(corrected, config=chosen, calib=calib, calibs=calibs)


def judge(
    statistics: xr.Dataset,
    tests: str | tuple[Criterion, ...] = "bias",
    *,
    thresholds: Mapping[str, float] | None = None,
    known_bad: Collection[tuple[str, str]] | None = None,
) -> xr.Dataset:
    """Judge the numbers of `measure`.

    Parameters
    ----------
    statistics : Dataset
        From `measure`, or from a verification (``repo.open("verifyBias", ...)``).
    tests : str or tuple of Criterion
        Kind of the calibration, such as ``"bias"``.
    thresholds : mapping, optional
        Test id to threshold: ``{"bias.noise": 0.08}``.
    known_bad : collection of (detector name, amp name), optional
        Amps that are shown but do not count; default: the camera's table.

    Returns
    -------
    Dataset
        ``status`` (test, exposure, detector, amp): 1 pass, 0 fail, -1 not evaluated; ``run_success`` and its parts.

    Examples
    --------
    >>> raw = repo.raws("exposure.observation_type = 'bias' AND detector = 0")
    >>> verdict = cd.judge(cd.measure(cd.correct(raw)), "bias", thresholds={"bias.noise": 0.5})
    >>> float(verdict.test_threshold.sel(test="bias.noise"))
    0.5
    """
    check(statistics, [STATISTICS["n_good"]], "judge")
    return judge_statistics(statistics, tests, thresholds=thresholds, known_bad=known_bad)


def describe(dataset_type: str) -> pd.DataFrame:
    """Describe the variables of a product: dims, type, unit and meaning.

    Examples
    --------
    >>> cd.describe("bias").loc["variance", "unit"]
    'electron^2'
    """
    product = rooms.product(dataset_type)
    rows = [
        (v.name, ", ".join(v.dims), v.dtype, v.attrs(product.unit).get("units", ""), v.doc, v.nan)
        for v in (*product.shared.values(), *product.variables.values())
    ]
    return pd.DataFrame(rows, columns=["name", "dims", "dtype", "unit", "meaning", "NaN"]).set_index("name")


def save_figures(dataset_type: str, product: xr.Dataset, detector: int, folder: str | PathLike[str]) -> list[Path]:
    """Write the figures of one detector, at the size of a publication (needs matplotlib).

    Parameters
    ----------
    dataset_type : str
        What the product is, such as ``"ptc"`` or ``"linearizer"``.
    product : Dataset
        With the detector.
    detector : int
        Its id.
    folder : path
        Where the files go.

    Examples
    --------
    >>> ptc = repo.open("ptc", run="u/ptc", detector=0).load()
    >>> files = cd.save_figures("ptc", ptc, 0, "figures")  # doctest: +SKIP
    """
    figures = rooms.figures(rooms.product(dataset_type).name)
    if figures is None or figures.write is None:
        raise ConfigError(f"there are no figures of {dataset_type}")
    return figures.write(product, detector, Path(folder))

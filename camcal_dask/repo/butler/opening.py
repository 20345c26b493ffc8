"""Opening of products, statistics and photodiode readings as labelled lazy data."""

from __future__ import annotations

from typing import Any

import xarray as xr

from camcal_dask.errors import RepoError
from camcal_dask.instruments.arguments import Detectors, Integers, integer, integers
from camcal_dask.kernels.light.photodiode import Method
from camcal_dask.repo import schema
from camcal_dask.repo.butler import arranging, calibs, finding, opened
from camcal_dask.repo.butler import exposures as exposing
from camcal_dask.repo.butler.arranging import Names
from camcal_dask.repo.butler.lookup import CalibRef
from camcal_dask.repo.butler.opened import Opened
from camcal_dask.repo.cubes import photodiode as readings
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.cubes import statistics


def open_dataset(
    repo: Opened,
    dataset_type: str,
    *,
    run: str | None = None,
    collections: Names | None = None,
    exposure: Integers | None = None,
    detector: Detectors | None = None,
    instrument: str | None = None,
) -> xr.Dataset:
    """Open a product lazily: all registered detectors, or those asked for.

    Parameters
    ----------
    dataset_type : str
    run, collections : str or list of str
        Where to search: a RUN, or any collections; with CALIBRATION collections ``exposure`` is needed.
    exposure : int, optional
        Exposure that the calibration must be valid for.
    detector : int, str or several of them, optional
        Detector ids or names, also as arrays; default all.
    instrument : str, optional
        Needed if the repository has several, and the collections hold datasets of more than one.

    Raises
    ------
    RepoError
        If nothing is there, or a detector has none.
    """
    where = run if run is not None else collections
    if where is None:
        raise RepoError(f"{dataset_type}: specify where to search: run='...' or collections=[...]")
    if exposure is None:
        refs, camera = _first(repo, dataset_type, where, instrument)
        wanted = None if detector is None else opened.instrument(repo, camera).detector_ids(detector)
    else:
        chosen = opened.instrument(repo, instrument)
        wanted = None if detector is None else chosen.detector_ids(detector)
        asked = wanted or list(chosen.detectors)
        refs = _valid(repo, dataset_type, integer(exposure, "exposure"), asked, where, chosen.name)
    lacking = sorted(set(wanted or ()) - set(refs))  # type: ignore[arg-type]
    if not refs or lacking:
        which, known = f" for detectors {lacking}" if lacking else "", finding.holders(repo, dataset_type)
        raise RepoError(f"no {dataset_type} in {where}{which}; known collections: {known}")
    if None in refs:
        return cubes.open_dataset(refs[None].uri)
    ordered = [refs[d] for d in (wanted or sorted(refs))]  # type: ignore[arg-type]
    product = cubes.open_products([(ref.uri, int(ref.detector)) for ref in ordered])  # type: ignore[arg-type]
    return product.assign_attrs(dataset_type=dataset_type)


def _valid(
    repo: Opened, dataset_type: str, exposure: int, detectors: list[int], search: Names, instrument: str
) -> dict[int | None, CalibRef]:
    """Calibration of each detector that has one valid for the exposure."""
    found = calibs.find_calibs(repo, dataset_type, exposure, detectors, search, instrument=instrument, required=False)
    return {detector: ref for (_, detector), ref in found.items()}


def _first(
    repo: Opened, dataset_type: str, search: Names, instrument: str | None
) -> tuple[dict[int | None, CalibRef], str | None]:
    """First dataset of each detector in search order, and the camera of them all."""
    at = list(opened.dataset_type(repo, dataset_type).dimensions.required).index("instrument")
    first = finding.first_by_key(repo, dataset_type, search)
    name = None if instrument is None else opened.instrument(repo, instrument).name
    chosen = {key: c for key, c in first.items() if name in (None, key[at])}
    cameras = sorted({str(key[at]) for key in chosen})
    if len(cameras) > 1:
        raise RepoError(
            f"{dataset_type} in {search}: of {', '.join(cameras)}; say which with --instrument (instrument=...)"
        )
    refs = finding.calib_refs(repo, dataset_type, chosen.values()).values()
    return {ref.detector: ref for ref in refs}, next(iter(cameras), name)


def stats(
    repo: Opened, dataset_type: str = "verifyBias", runs: Names = "*", *, instrument: str | None = None, **labels: Any
) -> xr.Dataset:
    """Open statistics of any number of runs and nights as one lazy Dataset.

    Parameters
    ----------
    dataset_type : str
        For example ``"verifyBias"``.
    runs : str or list of str
        Names of RUN or CHAINED collections, with ``*`` and ``?``; default: all there are.
    instrument : str, optional
        Needed if the repository has several.
    labels : optional
        Values of coordinates to keep, ``vendor="ITL"``, ``day_obs=slice(20260801, 20260831)``,
        see `camcal_dask.repo.cubes.statistics.choose`.

    Returns
    -------
    Dataset
        Numbers (exposure, detector, amp), verdicts (exposure, test, detector, amp), with the coordinates run,
        day_obs, mjd, physical_filter ..., detector_name, raft, slot, vendor, amp (see
        `camcal_dask.repo.cubes.statistics.open_cubes`).  An exposure that several runs verified is there several
        times.

    Raises
    ------
    RepoError
        If no run has such statistics, or nothing has the labels.
    """
    wanted = [runs] if isinstance(runs, str) else list(runs)
    order = dict.fromkeys(
        c.name for glob in wanted for c in arranging.collections(repo, glob) if c.kind != "CALIBRATION"
    )
    refs = finding.datasets(repo, dataset_type, list(order)) if order else []
    cubes_ = [statistics.open_cube(ref.uri, ref.run) for ref in refs]
    camera = None if instrument is None else opened.instrument(repo, instrument).name
    cubes_ = [cube for cube in cubes_ if camera in (None, cube.attrs.get("instrument"))]
    if not cubes_:
        raise RepoError(f"no {dataset_type} in {', '.join(wanted)}; it is in: {finding.holders(repo, dataset_type)}")
    return statistics.choose(statistics.open_cubes(cubes_), **labels)


def photodiode(
    repo: Opened,
    exposures: Integers,
    method: Method = "trimmed_sum",
    *,
    scale: float | None = None,
    instrument: str | None = None,
) -> xr.DataArray:
    """Photodiode charge of exposures.

    Parameters
    ----------
    exposures : int, or several
        Registered ids, also as arrays.
    method : str
        ``trimmed_sum``, ``direct_sum``, ``charge_sum`` or ``mean`` (`camcal_dask.kernels.light.photodiode.charge`).
    scale : float, optional
        Factor of the current, -1 upstream; default: the sign that makes light positive.
    instrument : str, optional
        Needed if the repository has several.

    Returns
    -------
    xr.DataArray
        ``photo_charge`` (exposure) float64 [C]; NaN where no reading was ingested.
    """
    camera, wanted = opened.instrument(repo, instrument).name, integers(exposures, "exposure")
    times = {r.id: r.exposure_time for r in exposing.exposures_by_id(repo, camera, wanted)} if method == "mean" else {}
    return readings.charges(_readings(repo, camera, wanted), wanted, method, scale=scale, exposure_times=times)


def _readings(repo: Opened, instrument: str, exposures: list[int]) -> dict[int, str]:
    run = schema.photodiode_run(instrument)
    if not exposures or run not in repo.butler.collections.query("*"):
        return {}
    refs = repo.butler.query_datasets(
        readings.DATASET_TYPE, run, where="exposure IN (wanted)", bind={"wanted": sorted(set(exposures))},
        instrument=instrument, explain=False, limit=None,
    )  # fmt: skip
    found = (int(ref.dataId["exposure"]) for ref in refs)
    return {exposure: readings.reading_uri(repo.root, instrument, exposure) for exposure in found}

"""Which calibration is valid for an exposure and detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from camcal_dask.errors import RepoError
from camcal_dask.instruments.arguments import Detectors, Integers, integers
from camcal_dask.repo.butler import exposures as exposing
from camcal_dask.repo.butler import finding, opened
from camcal_dask.repo.butler.arranging import Names
from camcal_dask.repo.butler.lookup import CalibRef, exposure_bounds, exposure_key, time_text
from camcal_dask.repo.butler.opened import Opened


def find_calib(
    repo: Opened,
    dataset_type: str,
    exposure: Integers,
    detector: Detectors,
    collections: Names,
    *,
    instrument: str | None = None,
) -> CalibRef:
    """Calibration valid for one exposure and detector.

    Raises
    ------
    RepoError
        If there is none.
    """
    found = find_calibs(repo, dataset_type, exposure, detector, collections, instrument=instrument)
    if len(found) > 1:
        raise RepoError(f"{dataset_type}: one exposure and detector have a calibration, {len(found)} were named")
    return next(iter(found.values()))


def find_calibs(
    repo: Opened,
    dataset_type: str,
    exposures: Integers,
    detectors: Detectors,
    collections: Names,
    *,
    instrument: str | None = None,
    required: bool = True,
) -> dict[tuple[int, int], CalibRef]:
    """Calibrations valid for many exposures and detectors, in one query.

    Returns
    -------
    dict
        (exposure, detector) to `CalibRef`; without ``required``, what has none is absent.

    Raises
    ------
    RepoError
        If some have none (unless ``required`` is False), or two are valid at once.
    """
    camera = opened.instrument(repo, instrument)
    candidates = finding.candidates_of(repo, dataset_type, collections)
    rows = exposing.exposures_by_id(repo, camera.name, integers(exposures, "exposure"))
    detectors = camera.detector_ids(detectors)
    dimensions = list(opened.dataset_type(repo, dataset_type).dimensions.required)
    found, missing = {}, []
    for row in rows:
        for detector in detectors:
            key = exposure_key(dimensions, row, detector)
            calib = candidates.find(key, *exposure_bounds(row))
            if calib is None:
                missing.append((row.id, detector))
            else:
                found[row.id, detector] = calib
    if missing and required:
        raise RepoError(_missing(dataset_type, collections, missing, rows))
    refs = finding.calib_refs(repo, dataset_type, {c.uuid: c for c in found.values()}.values())
    return {place: refs[calib.uuid] for place, calib in found.items()}


def _missing(dataset_type: str, collections: Names, missing: Sequence[tuple[int, int]], rows: Sequence[Any]) -> str:
    exposure, detector = missing[0]
    when = next(time_text(row.timespan.nsec[0]) for row in rows if row.id == exposure)
    exposures, detectors = sorted({e for e, _ in missing}), sorted({d for _, d in missing})
    more = f" (and for {len(missing) - 1} more of {len(exposures)} exposures, detectors {detectors[:20]})"
    return (
        f"no {dataset_type} in {collections} is valid for exposure {exposure}, detector {detector}, taken {when}"
        f"{more if len(missing) > 1 else ''}; certify one that covers it: butler certify-calibrations REPO RUN "
        f"COLLECTION {dataset_type} --begin-date ... --end-date ..."
    )

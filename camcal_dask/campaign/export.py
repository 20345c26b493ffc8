"""Calibrations of a repository as files of the LSST stack, one per detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from camcal_dask import rooms
from camcal_dask.config import expanded
from camcal_dask.errors import ConfigError, nearest
from camcal_dask.exchange.header import STATE_CARDS
from camcal_dask.instruments.arguments import Detectors
from camcal_dask.instruments.state import common_state
from camcal_dask.repo.cubes import raw as cubes

if TYPE_CHECKING:
    from camcal_dask.repo.butler.repository import Repo

_MJD_ZERO = datetime(1858, 11, 17)


def export(
    repo: Repo,
    dataset_type: str,
    out: str | Path,
    *,
    collections: Sequence[str],
    detectors: Detectors | None = None,
    exposure: int | None = None,
    instrument: str | None = None,
    cards: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a calibration of some detectors as FITS files ``<dataset type>_<instrument>_<detector name>.fits``.

    The camera state of the exposures that it was made from is copied into the headers: ISR compares it.

    Parameters
    ----------
    repo : Repo
    dataset_type : one whose room has a FITS layout to write (`camcal_dask.rooms.layouts`)
    out : folder, made if need be
    collections : to search; with CALIBRATION collections ``exposure`` is needed
    detectors : ids or names; default all there are
    exposure : that the calibration must be valid for
    instrument : needed if the collections hold those of several
    cards : further header cards, which win

    Returns
    -------
    list of Path
        Of the files written.

    Raises
    ------
    ConfigError
        If the type cannot be exported.
    RepoError
        If there is no such calibration.
    """
    write = _writer(dataset_type)
    product = repo.open(
        dataset_type, collections=collections, exposure=exposure, detector=detectors, instrument=instrument
    )
    camera = repo.instrument(product.attrs["instrument"])
    written, folder = [], Path(expanded(out))
    folder.mkdir(parents=True, exist_ok=True)
    for number in product["detector"].values.tolist():
        detector = camera.detectors[number]
        written.append(folder / f"{dataset_type}_{camera.name}_{detector.full_name}.fits")
        given = {**_date(product), **_state(repo, product, number), **(cards or {})}
        write(written[-1], product.sel(detector=[number]), detector, given)
    return written


def _writer(dataset_type: str) -> Callable[..., None]:
    writers = {name: layout.write for name, layout in rooms.layouts().items() if layout.write}
    if dataset_type not in writers:
        raise ConfigError(f"{dataset_type} has no FITS layout here{nearest(dataset_type, writers)}")
    return writers[dataset_type]


def _state(repo: Repo, product: xr.Dataset, detector: int) -> dict[str, Any]:
    """State cards on which the exposures agree, as far as they are still in the repository."""
    headers = cubes.headers(repo.root, product.attrs["instrument"], product.attrs.get("exposures", ()), [detector])
    return common_state(headers, STATE_CARDS, what=f"detector {detector}", strict=False)


def _date(product: xr.Dataset) -> dict[str, str]:
    """CALIBDATE: when the first exposure was taken."""
    if "mjd" not in product.variables or not product["mjd"].notnull().any():
        return {}
    return {"CALIBDATE": (_MJD_ZERO + timedelta(days=float(product["mjd"].min()))).isoformat(timespec="seconds")}

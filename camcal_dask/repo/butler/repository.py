"""A repository, made and opened.

A `Repo` lives on the client only; tasks receive paths and numbers.  It is a table of contents: what it can do stands
in the modules beside this one, as functions of an opened repository (`camcal_dask.repo.butler.opened.Opened`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from types import TracebackType

import yaml
from lsst.daf.butler import Butler
from sqlalchemy.exc import DBAPIError

from camcal_dask.errors import RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler import (
    arranging,
    calibs,
    certifying,
    finding,
    making,
    opened,
    opening,
    registering,
    relative,
    sqlite,
)
from camcal_dask.repo.butler import exposures as exposing
from camcal_dask.repo.butler.connection import registry_url, remedy
from camcal_dask.repo.storage import files, naming, objects

# ---------------------------------------------------------------------------- create and open


def create_repo(root: str, instrument: str = "LSSTCam", registry: str | None = None) -> Repo:
    """Make a repository, or add an instrument to one and bring it up to date; may be repeated.

    Parameters
    ----------
    root : str
        Folder that all workers can see, or ``s3://bucket/path``.
    instrument : str
        Camera to register with all its detectors and filters.
    registry : str, optional
        ``postgresql://user@host/database``; default is SQLite in ``root``.

    Returns
    -------
    Repo
        Opened for writing.

    Raises
    ------
    RepoError
        If the folder holds something else or the registry cannot be used.
    """
    camera = get_instrument(instrument)
    root = naming.check_root(files.absolute(root))
    url = None if registry is None else registry_url(registry)
    _reachable(root)
    making.ensure_made(root, url)
    repo = open_repo(root, writeable=True)
    repo.register_instrument(camera)
    repo.make_relative()
    return repo


def open_repo(root: str, *, writeable: bool = False) -> Repo:
    """Open an existing repository.

    Raises
    ------
    RepoError
        If there is none, or its registry cannot be reached.
    """
    root = files.absolute(root)
    _reachable(root)
    if not Butler.has_repo_config(root):
        raise RepoError(f"{root}: not a repository (no {making.CONFIG}); create one with: camcal create {root}")
    try:
        if making.on_sqlite(root):
            sqlite.check(files.local_path(root))
        with _quietly():
            return Repo(root, Butler.from_config(root, writeable=writeable), writeable)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:  # what the Butler makes of a damaged one
        raise RepoError(
            f"{root}: {making.CONFIG} is damaged ({' '.join(str(error).split())[:200]}); restore a copy, or use "
            "that of a new repository of the same cameras and registry (camcal create)"
        ) from error
    except (DBAPIError, RuntimeError, ImportError, LookupError) as error:
        raise RepoError(f"{root}: registry cannot be opened: {remedy(error)}") from error


def _reachable(root: str) -> None:
    """Tell the Butler's storage layer where an object store is; a wrong key or address ends here, by name."""
    if objects.is_object(root):
        objects.endpoint()
        try:
            objects.exists(root)
        except OSError as error:
            raise RepoError(f"storage cannot be reached: {error}") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Let our errors speak, which name the repository, and not the library's log."""
    logger = logging.getLogger("lsst.daf.butler")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


# ---------------------------------------------------------------------------- the repository


class Repo:
    """A Butler repository with cubes; `create_repo` and `open_repo` make it."""

    def __init__(self, root: str, butler: Butler, writeable: bool) -> None:
        self.root = root
        files.guard(root)
        self.butler = butler
        self.writeable = writeable

    def __repr__(self) -> str:
        return f"Repo({self.root!r}, instruments={list(self.instruments)}, writeable={self.writeable})"

    def __enter__(self) -> Repo:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the registry."""
        self.butler.close()

    @property
    def instruments(self) -> tuple[str, ...]:
        """Names of the registered cameras."""
        return opened.instruments(self)

    instrument = opened.instrument

    # exposures
    exposures = exposing.exposures
    raws = exposing.raws
    exposure_records = exposing.exposure_records
    detectors = exposing.detectors
    photodiode = opening.photodiode

    # products and calibrations
    open = opening.open_dataset
    stats = opening.stats
    datasets = finding.datasets
    dataset_types = finding.dataset_types
    is_calibration = finding.is_calibration
    is_statistics = finding.is_statistics
    types_in = finding.types_in
    runs_in = finding.runs_in
    cameras_of = finding.cameras_of
    stored = finding.stored
    runs_of = finding.runs_of
    certified = finding.certified
    first_of = finding.first_of
    by_id = finding.by_id
    find_calib = calibs.find_calib
    find_calibs = calibs.find_calibs

    # collections
    collections = arranging.collections
    chain = arranging.chain
    check_output = arranging.check_output
    certify = certifying.certify
    certifiable = certifying.certifiable

    # registering
    register_instrument = registering.register_instrument
    register_run = arranging.register_run
    register_dataset_type = registering.register_dataset_type
    register_exposures = registering.register_exposures
    registered_raws = registering.registered_raws
    register_raws = registering.register_raws
    register_product = registering.register_product
    register_all = registering.register_all
    forget_product = registering.forget_product
    make_relative = relative.make_relative

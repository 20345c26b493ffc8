"""What every part of a repository works on: an opened Butler and the folder of the cubes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from lsst.daf.butler import Butler, DatasetType, MissingDatasetTypeError
from lsst.daf.butler.registry import ConflictingDefinitionError
from sqlalchemy.exc import DBAPIError

from camcal_dask.errors import RepoError, nearest
from camcal_dask.instruments import Instrument, get_instrument
from camcal_dask.repo.butler import expression
from camcal_dask.repo.butler.connection import remedy
from camcal_dask.repo.storage import files

T = TypeVar("T")
_ATTEMPTS = 7


class Opened(Protocol):
    """An opened repository; `camcal_dask.repo.butler.repository.Repo` is one."""

    root: str
    butler: Butler
    writeable: bool


def instruments(repo: Opened) -> tuple[str, ...]:
    """Names of the registered cameras."""
    return tuple(sorted(r.name for r in repo.butler.query_dimension_records("instrument", explain=False)))


def instrument(repo: Opened, name: str | None = None, where: str = "") -> Instrument:
    """Return the camera of that name, of ``instrument='...'`` in an expression, or the only one.

    Raises
    ------
    RepoError
        If the repository has several, or not the one named.
    """
    known = instruments(repo)
    name = name or expression.instrument_of(where) or (known[0] if len(known) == 1 else None)
    if name is None:
        raise RepoError(f"{repo.root}: holds {', '.join(known)}; say which with --instrument (instrument=...)")
    if name not in known:
        raise RepoError(f"{repo.root}: has no instrument {name!r}{nearest(name, known)}")
    return get_instrument(name)


def dataset_type(repo: Opened, name: str) -> DatasetType:
    """Definition of a registered dataset type.

    Raises
    ------
    RepoError
        If there is none of that name.
    """
    try:
        return repo.butler.get_dataset_type(name)
    except MissingDatasetTypeError:
        known = [t.name for t in repo.butler.registry.queryDatasetTypes()]
        raise RepoError(f"{repo.root}: no dataset type {name!r}{nearest(name, known)}") from None


def patiently(repo: Opened, action: Callable[[], T], what: str) -> T:
    """Run a write that looks before it acts; when another process was faster, look again."""
    if not repo.writeable:
        raise RepoError(f"{repo.root}: opened for reading; {what} needs open_repo(root, writeable=True)")
    for attempt in range(_ATTEMPTS):
        files.check_there(repo.root)  # SQLite would begin an empty registry there
        try:
            return action()
        except (ConflictingDefinitionError, DBAPIError) as error:
            if attempt == _ATTEMPTS - 1:
                raise RepoError(f"{repo.root}: {what} failed {_ATTEMPTS} times: {remedy(error)}") from error
            time.sleep(random.uniform(0.5, 1.0) * 0.02 * 2**attempt)
            repo.butler.registry.refresh()
    raise AssertionError("unreachable")

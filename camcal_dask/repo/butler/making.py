"""Creation of a repository, which may be killed at any moment and repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lsst.daf.butler import Butler, Config
from sqlalchemy.exc import DBAPIError

from camcal_dask.errors import RepoError
from camcal_dask.repo import schema
from camcal_dask.repo.butler import postgres, sqlite
from camcal_dask.repo.butler.connection import remedy
from camcal_dask.repo.formatter import CubeFormatter
from camcal_dask.repo.storage import files, objects

CONFIG = "butler.yaml"
FAULTS = (DBAPIError, RuntimeError, ImportError)
"""What the Butler and its database raise when a registry cannot be made or reached."""


def registry_of(root: str) -> str | None:
    """Address of the registry of a repository; None if there is no repository."""
    return str(Config(files.join(root, CONFIG))["registry", "db"]) if Butler.has_repo_config(root) else None


def on_sqlite(root: str) -> bool:
    """Whether the registry of a repository is a file in its folder."""
    return not objects.is_object(root) and str(registry_of(root)).startswith("sqlite")


def ensure_made(root: str, url: str | None) -> None:
    """Create a repository unless there is a complete one; ``url`` is that of PostgreSQL, or None.

    Raises
    ------
    RepoError
        If the folder holds something else or the registry cannot be used.
    """
    found = registry_of(root)
    if found is not None and url not in (None, found):
        raise RepoError(f"{root}: is already a repository, with registry {found}, not {url}; choose another folder")
    address = found or url
    if address is not None and not address.startswith("sqlite"):
        with _named(root, "made" if found is None else "opened"), postgres.alone(address) as engine:
            found = registry_of(root)  # another process may have been at work while this one waited
            if found is None or postgres.unfinished(engine):
                _check_unused(root)
                postgres.clear(engine)
                files.remove(files.join(root, CONFIG))
                _make(root, address)
    elif found is None:
        _make(root, None)
    elif on_sqlite(root) and sqlite.unfinished(files.local_path(root)):
        _check_unused(root)
        files.remove(files.join(root, CONFIG))
        sqlite.discard(files.local_path(root))
        _make(root, None)


def _check_unused(root: str) -> None:
    """Refuse to make a new registry where cubes are."""
    if files.names(files.join(root, "cubes")):
        registry = sqlite.NAME if on_sqlite(root) else "the database"
        raise RepoError(f"{root}: has cubes but an empty registry; restore {registry} from a copy")


@contextlib.contextmanager
def _named(root: str, what: str) -> Iterator[None]:
    try:
        yield
    except FAULTS as error:
        raise RepoError(f"{root}: registry cannot be {what}: {remedy(error)}") from error


def _make(root: str, url: str | None) -> None:
    if objects.is_object(root) and url is None:
        raise RepoError(
            f"{root}: SQLite does not work on an object store; give --registry postgresql://user@host/database"
        )
    if any(not _ours(name) for name in files.names(root)):
        raise RepoError(f"{root}: the folder is neither empty nor a repository; choose another one")
    config = Config(
        {
            "storageClasses": {schema.STORAGE_CLASS: {"pytype": "xarray.Dataset"}},
            "datastore": {"formatters": {schema.STORAGE_CLASS: f"{CubeFormatter.__module__}.CubeFormatter"}},
        }
    )
    if url is not None:
        config["registry", "db"] = url
    try:
        with _named(root, "made"):
            if url is None:
                _make_whole(root, config)
            else:
                Butler.makeRepo(root, config=config)
    except FileExistsError:  # another process was a moment earlier
        pass
    except RepoError:
        files.remove(files.join(root, CONFIG))  # without a registry behind it, it would pass for a repository
        raise


def _make_whole(root: str, config: Config) -> None:
    """Make a repository of SQLite so that a kill at any moment leaves none, or one that is whole."""
    folder = files.local_path(root)
    folder.mkdir(parents=True, exist_ok=True)
    with files.staging(files.join(root, CONFIG)) as stage:
        made = stage / "made"  # the name of the scratch folder looks like that of a file, with an extension
        Butler.makeRepo(str(made), config=config)
        sqlite.publish(made, folder)
        (made / CONFIG).replace(folder / CONFIG)  # last: it is what makes a repository of a folder


def _ours(name: str) -> bool:
    """Whether a file in a folder without ``butler.yaml`` is what an interrupted making leaves."""
    return name.startswith((sqlite.NAME, f".{CONFIG}."))

"""Raws that another Butler repository knows: read its registry, take the FITS files by their URIs.

Only dimensions, collections and paths are asked for, so the classes of the LSST stack, which read such a dataset
in its own repository, are not needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from lsst.daf.butler import Butler, MissingCollectionError, MissingDatasetTypeError
from lsst.daf.butler._exceptions import ButlerUserError
from lsst.daf.butler.registry import RegistryError
from lsst.resources import ResourcePath
from sqlalchemy.exc import DBAPIError

from camcal_dask.config import expanded
from camcal_dask.errors import DataError, RepoError
from camcal_dask.repo import schema
from camcal_dask.repo.butler.connection import remedy
from camcal_dask.repo.formatter import ANCHOR


def raws_of(
    root: str, where: str = "", *, instrument: str | None = None, collections: Sequence[str] | None = None
) -> list[str]:
    """Find the raw files of a selection.

    Parameters
    ----------
    root : str
        The other repository: a folder, a URI, or its ``butler.yaml``.
    where : str
        Butler expression, such as ``"exposure.day_obs = 20260812 AND detector IN (0..8)"``.
    instrument : str, optional
        Default of ``instrument`` in ``where``, and of ``collections``.
    collections : sequence of str, optional
        Default: ``{instrument}/raw/all``.

    Returns
    -------
    list of str
        Local paths, or URIs of files that lie elsewhere; sorted by exposure and detector, each once.

    Raises
    ------
    RepoError
        If it cannot be opened, the expression is wrong, nothing matches, or its raws are no FITS files.
    """
    root = expanded(root)
    try:
        with Butler.from_config(root, writeable=False) as butler:
            name = instrument or _only_instrument(butler, root)
            search = list(collections or [schema.raw_run(name)])
            found = butler.query_datasets(
                "raw", search, where=where, instrument=name, find_first=True, explain=False, limit=None
            )
            refs = sorted(found, key=lambda r: (r.dataId["exposure"], r.dataId["detector"]))
            uris = butler.get_many_uris(refs)
            paths = [_path(uris[ref].primaryURI, root) for ref in refs]
    except (MissingCollectionError, MissingDatasetTypeError, ButlerUserError, RegistryError, ValueError) as error:
        raise RepoError(f"{root}: raws where {where!r}: {str(error).strip()}") from error
    except (DBAPIError, OSError, RuntimeError, ImportError) as error:
        raise RepoError(f"{root}: cannot be opened as a Butler repository: {remedy(error)}") from error
    if not paths:
        raise RepoError(f"{root}: no raws in {', '.join(search)} where {where or 'everything'!r}")
    return list(dict.fromkeys(paths))


def fetch(uri: str) -> bytes:
    """Content of a file behind a URI.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    try:
        return bytes(ResourcePath(uri).read())
    except Exception as error:  # noqa: BLE001 -- every storage has its own exceptions
        raise DataError(f"{uri}: cannot be fetched: {error}") from error


def _only_instrument(butler: Butler, root: str) -> str:
    names = sorted(record.name for record in butler.query_dimension_records("instrument", explain=False))
    if len(names) != 1:
        raise RepoError(f"{root}: holds {', '.join(names) or 'no instrument'}; say which with --instrument")
    return str(names[0])


def _path(uri: ResourcePath, root: str) -> str:
    path = str(uri.ospath) if uri.isLocal else str(uri)
    if path.rstrip("/").endswith((".zarr", "zarr.json", ANCHOR)):
        raise RepoError(
            f"{root}: is a repository of camcal_dask, its raws are cubes; use it with -b, or ingest the FITS"
        )
    if uri.fragment:
        raise RepoError(f"{path}: lies inside an archive; unpack it first: butler retrieve-artifacts {root} DIRECTORY")
    return path

"""The address of the registry, and what to do if it does not answer."""

from __future__ import annotations

from urllib.parse import urlsplit

from camcal_dask.errors import RepoError


def registry_url(text: str) -> str:
    """Registry URL as SQLAlchemy needs it; a bare ``postgresql://`` gets the psycopg2 driver.

    Raises
    ------
    RepoError
        If it is not a PostgreSQL URL or holds a password.
    """
    parts = urlsplit(text)
    scheme, _, driver = parts.scheme.partition("+")
    if scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
        raise RepoError(
            f"registry {parts.scheme}://...: expected postgresql://user@host/database, or nothing for SQLite"
        )
    if parts.password is not None:
        raise RepoError(
            f"registry {scheme}://{parts.username}:***@{parts.hostname}: a password in the URL would be written into "
            f"butler.yaml where others can read it; keep it in ~/.lsst/db-auth.yaml (mode 600) or in the file "
            f"PGPASSFILE names"
        )
    # Only the scheme is exchanged: urllib would lose the empty host of a socket address.
    return f"postgresql+{driver or 'psycopg2'}{text[len(parts.scheme) :]}"


def remedy(error: Exception) -> str:
    """First line of an error of the registry, or the remedy if it is known."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "btree_gist" in str(error):
        return 'the database needs an extension; run once: psql -d DATABASE -c "CREATE EXTENSION btree_gist"'
    signs = ("stored configuration for managers", "butler_attributes", "missing from database")
    if any(sign in str(error) for sign in signs):
        return "its making was cut short; repeat camcal create"
    if isinstance(error, ImportError):
        return f"{text}; run: pip install 'camcal_dask[postgres]'"
    return text

"""The registry's tables in PostgreSQL, as a killed ``camcal create`` leaves them: dropped if nothing can be in them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy
from lsst.daf.butler import Butler, Config
from lsst.daf.butler.registry import RegistryConfig

_LOCK = 0x63616D63616C  # "camcal"
_ATTRIBUTES = "butler_attributes"
_LAST = "config:dimensions.json"
"""Attribute that the Butler writes last: without it no registry is whole, and no Butler opens it."""
_BEFORE = ("config:registry.managers.", "version:")
"""Attributes that it writes before."""


@contextlib.contextmanager
def alone(url: str) -> Iterator[sqlalchemy.engine.Engine]:
    """Let one ``camcal create`` at a time work on a database.

    The server takes the lock back when the process that holds it dies, so whoever has it knows that no other one is at
    work, and that what is half-made stays so.  It is a lock of a transaction, which poolers such as pgbouncer let pass.
    """
    address = RegistryConfig(Config({"registry": {"db": url}})).connectionString  # with the password of db-auth.yaml
    engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.pool.NullPool)
    with engine.begin() as holder:
        holder.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        yield engine


def unfinished(engine: sqlalchemy.engine.Engine) -> bool:
    """Whether there is no registry, or one whose making was cut short."""
    with engine.connect() as connection:
        return _ATTRIBUTES not in _tables(connection) or _LAST not in _attributes(connection)


def clear(engine: sqlalchemy.engine.Engine) -> None:
    """Drop the tables of a registry whose making was cut short, all or none; a whole one, or none, stays as it is.

    Raises
    ------
    RuntimeError
        If they are not exactly those that the Butler makes, or something is in one of them.
    """
    with engine.begin() as connection:
        there = _tables(connection)
        if _ATTRIBUTES not in there or _LAST in _attributes(connection):
            return
        quote = connection.dialect.identifier_preparer.quote
        names = ", ".join(map(quote, there))
        connection.execute(sqlalchemy.text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
        content = [name for name in _attributes(connection) if not name.startswith(_BEFORE)]
        content += sorted(set(there) - _tables_of_a_registry())
        for name in (name for name in there if name != _ATTRIBUTES):
            if connection.execute(sqlalchemy.text(f"SELECT EXISTS (SELECT 1 FROM {quote(name)})")).scalar():
                content.append(name)
        if content:
            raise RuntimeError(
                f"the database holds a registry that is incomplete but not empty ({', '.join(content[:3])}); "
                "it is left alone; restore it from a dump, or use another database"
            )
        connection.execute(sqlalchemy.text(f"DROP TABLE {names}"))


def _tables(connection: sqlalchemy.engine.Connection) -> list[str]:
    return sorted(sqlalchemy.inspect(connection).get_table_names())


def _attributes(connection: sqlalchemy.engine.Connection) -> list[str]:
    return list(connection.execute(sqlalchemy.text(f"SELECT name FROM {_ATTRIBUTES}")).scalars())


def _tables_of_a_registry() -> set[str]:
    """Names of the tables that the Butler begins with, from a registry in a scratch file."""
    with tempfile.TemporaryDirectory(prefix="camcal-") as folder:
        Butler.makeRepo(folder)
        (path,) = Path(folder).glob("*.sqlite3")
        engine = sqlalchemy.create_engine(f"sqlite:///{path}", poolclass=sqlalchemy.pool.NullPool)
        with engine.connect() as connection:
            return set(_tables(connection))

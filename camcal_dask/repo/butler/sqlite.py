"""The registry's SQLite file, as killed processes leave it: what is half-written is undone or made again."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from camcal_dask.errors import RepoError

NAME = "gen3.sqlite3"
PATIENCE_S = 60.0
"""Time that another process is given to end a commit."""


def check(root: Path) -> None:
    """Make the registry readable: undo what a process that was killed in mid-commit left half-written.

    SQLite does it when the file is opened for writing.  Who only reads cannot, and would find the registry locked
    for good.

    Raises
    ------
    RepoError
        If the file is missing, or must be mended and may not be written.
    """
    path = root / NAME
    if not path.exists():
        raise RepoError(
            f"{path}: the registry is missing; if the repository was never finished, repeat camcal create {root}, "
            "otherwise restore the file from a copy"
        )
    if not path.with_name(f"{NAME}-journal").exists():
        return
    try:
        with _opened(path, "rw") as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.Error as error:
        raise RepoError(
            f"{path}: a process was killed while writing, and what it left behind cannot be undone from here "
            f"({error}); run "
            f"once, with write access: camcal status {root}"
        ) from None


def unfinished(root: Path) -> bool:
    """Whether the registry of a repository was begun and not finished: no table of it has content."""
    path = root / NAME
    if not path.exists():
        return True
    try:
        with _opened(path, "rw") as database:
            ((n,),) = database.execute("SELECT count(*) FROM butler_attributes").fetchall()
            return bool(n == 0)
    except sqlite3.OperationalError as error:
        return "no such table" in str(error)
    except sqlite3.Error:  # something else than a registry: not ours to remove
        return False


def discard(root: Path) -> None:
    """Remove an unfinished registry."""
    for name in (NAME, f"{NAME}-journal"):
        (root / name).unlink(missing_ok=True)


def publish(made: Path, root: Path) -> None:
    """Give a finished registry its place, unless another process did so a moment earlier."""
    target = root / NAME
    try:
        os.link(made / NAME, target)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not target.exists():
            (made / NAME).rename(target)


@contextlib.contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    address = f"file:{quote(str(path))}?mode={mode}"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=PATIENCE_S)) as database:
        yield database

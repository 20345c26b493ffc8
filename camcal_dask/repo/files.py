"""The few file operations of the repository; everything is addressed by URI strings.

Paths and ``file://`` URIs work today.  An object store needs exactly these functions
(a PUT is atomic there, so staging falls away) and ``cubes._store``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from camcal_dask.errors import RepoError

_SCRATCH = re.compile(r"\..+\.[0-9a-f]{32}")


def local_path(uri: str | os.PathLike[str]) -> Path:
    """Path of a local URI.

    Raises
    ------
    RepoError
        If the URI names another kind of storage.
    """
    text = os.fspath(uri)
    if "://" not in text:
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme != "file":
        raise RepoError(f"{text}: {parts.scheme}:// storage is not supported yet; use a path that all workers can see")
    return Path(unquote(parts.path))


def absolute(uri: str | os.PathLike[str]) -> str:
    """Return the URI in the form that every worker understands: an absolute path."""
    return os.path.abspath(local_path(uri))  # noqa: PTH100 -- resolve() would follow a site's symbolic links


def join(uri: str, *parts: str) -> str:
    """Append path components to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def parent(uri: str) -> str:
    """Return the folder that holds ``uri``."""
    return uri.rstrip("/").rpartition("/")[0]


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    return local_path(uri).exists()


def names(uri: str) -> list[str]:
    """Sorted names inside a folder; empty if it does not exist."""
    try:
        return sorted(os.listdir(local_path(uri)))  # noqa: PTH208 -- names are what we need
    except FileNotFoundError:
        return []


def remove(uri: str) -> None:
    """Remove a file, if it is there."""
    local_path(uri).unlink(missing_ok=True)


def read_json(uri: str) -> dict[str, Any] | None:
    """Read a JSON object; None if there is no such file.

    Raises
    ------
    RepoError
        If the file is not JSON.
    """
    path = local_path(uri)
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RepoError(f"{path}: not a JSON file ({error}); remove it and repeat the step that wrote it") from error
    return value


def write_json(uri: str, value: Mapping[str, Any]) -> None:
    """Write a JSON object so that readers see the old file, the new one, or none: never a part."""
    path = local_path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with staging(uri) as stage:
        text = stage / "value.json"
        text.write_text(json.dumps(value))
        text.replace(path)


@contextlib.contextmanager
def staging(uri: str) -> Iterator[Path]:
    """Private scratch folder on the file system of ``uri`` (its sibling), removed afterwards."""
    target = local_path(uri)
    stage = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    stage.mkdir(parents=True)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def sweep(uri: str, older_than_s: float = 86400.0) -> None:
    """Remove scratch folders that killed processes left beside ``uri``."""
    folder = local_path(uri).parent
    for name in names(str(folder)):
        path = folder / name
        with contextlib.suppress(FileNotFoundError):
            if _SCRATCH.fullmatch(name) and time.time() - path.stat().st_mtime > older_than_s:
                shutil.rmtree(path, ignore_errors=True)


def publish(stage: Path, uri: str, *, overwrite: bool = False) -> bool:
    """Give a finished folder its name; return False if the name is already taken.

    With ``overwrite`` an existing folder is moved away first; only then is there an instant
    without either.
    """
    target = local_path(uri)
    with staging(uri) as trash:
        if overwrite:
            with contextlib.suppress(FileNotFoundError):
                target.rename(trash / "old")
        try:
            stage.rename(target)
        except OSError:  # ENOTEMPTY or EEXIST: someone else was first
            if not target.is_dir():
                raise
            return False
    return True

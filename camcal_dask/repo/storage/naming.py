"""The one rule for names that become folders, collections and URIs.

A RUN collection is a folder below ``cubes`` (`run_folder`), a URI in the registry, and a word on command lines and in
Butler expressions, where commas separate and ``*?[`` match.  So a name consists of characters that mean nothing
anywhere, and no RUN can be, or lie inside, what the repository itself writes into the folder of another one.
"""

from __future__ import annotations

import re
import zlib

from camcal_dask.errors import RepoError
from camcal_dask.repo.storage import files

LONGEST = 64
"""Characters that the Butler takes; its own constant is not imported, as workers import this module."""
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~-]*")
_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = re.compile(
    r"attempts|sign-off|claim-.*|.*\.(zarr|finished|manifest|claims|parts|pairs|ratios|json|jsonl|butler)",
    re.IGNORECASE,
)
"""Files and folders of a RUN that are not collections."""
_FIRST = ("raw", "photodiode")
"""Folders of `cubes` that hold the pixels and readings of exposures."""
_ROOT = re.compile(r"[\x00-\x1f\x7f?#]|%[0-9A-Fa-f]{2}")


def fault(name: str) -> str | None:
    """Say what is wrong with the name of a collection; None if nothing is."""
    if not isinstance(name, str) or not name:
        return "is empty"
    if len(name) > LONGEST:
        return f"has {len(name)} characters, the Butler takes {LONGEST}"
    parts = name.split("/")
    if "" in parts:
        return "has a slash at an end, or two in a row"
    for part in parts:
        if not _WORD.fullmatch(part):
            return (
                f"has the part {part!r}; it must consist of A-Z a-z 0-9 _ . + ~ - and begin with a letter, digit or _"
            )
        if is_ours(part):
            return f"has the part {part!r}, a name that the repository uses itself"
    return f"begins with {parts[0]!r}, where the exposures lie" if parts[0].lower() in _FIRST else None


def is_ours(name: str) -> bool:
    """Whether a file or folder of a RUN is one that the repository makes, so that no collection has this name."""
    return _OURS.fullmatch(name) is not None


def check_collection(name: str) -> str:
    """Return the name of a collection that is to be made or written.

    Raises
    ------
    RepoError
        If it cannot be one, with the reason.
    """
    if reason := fault(name):
        shown = name if len(repr(name)) <= 100 else f"{name[:60]}..."
        raise RepoError(f"collection {shown!r}: the name {reason}; choose another, such as u/me/bias.1")
    return name


def check_dataset_type(name: str) -> str:
    """Return the name of a dataset type.

    Raises
    ------
    RepoError
        If it is no word of letters, digits and ``_``.
    """
    if not isinstance(name, str) or not _TYPE.fullmatch(name):
        raise RepoError(
            f"dataset type {name!r}: a name consists of A-Z a-z 0-9 _ and begins with a letter, such as bias"
        )
    return name


def check_root(root: str) -> str:
    """Return the place of a repository (absolute).

    Raises
    ------
    RepoError
        If the Butler, for which it is a URI, would read it as another place.
    """
    if found := _ROOT.search(root):
        raise RepoError(
            f"repository {root!r}: {found.group()!r} means something else in a URI; choose a folder without it"
        )
    if {".", "..", ""} & set(root.removeprefix("s3://").strip("/").split("/")):
        raise RepoError(f"repository {root!r}: has an empty part or dots; name the folder itself")
    return root


def component(name: str) -> str:
    """Part of a collection's name for a free text, such as a filter: itself, or legal and different for others."""
    if fault(name) is None and "/" not in name:
        return name
    legal = re.sub(r"[^A-Za-z0-9_.+~-]", "-", name).strip(".+~-")
    return f"{legal or 'x'}-{zlib.crc32(name.encode()):08x}"


def run_folder(root: str, run: str, *parts: str) -> str:
    """Folder of a RUN collection in a repository, or what lies in it.

    Raises
    ------
    RepoError
        If the name cannot be that of a RUN: nothing outside of ``cubes`` is ever named.
    """
    return files.join(root, "cubes", check_collection(run), *parts)


def product_uri(root: str, run: str, dataset_type: str) -> str:
    """Product or statistics cube of a type in a RUN."""
    return run_folder(root, run, f"{check_dataset_type(dataset_type)}.zarr")

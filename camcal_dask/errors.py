"""The project's exceptions: every one is a message for the person at the keyboard.

A message names the file, exposure, detector and amp at fault, shows the values and says
what to do next.  The CLI prints a :class:`CamcalError` without a traceback.
"""

from __future__ import annotations

import difflib
import errno
import os
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType


class CamcalError(Exception):
    """An error that the user can understand and correct; base of all others."""


class ConfigError(CamcalError):
    """A pipeline, profile, override or option is not valid."""


class DataError(CamcalError):
    """A raw file or its pixels cannot be used."""


class RepoError(CamcalError):
    """The repository does not hold, or refuses, what was asked."""


class PlanError(CamcalError):
    """A run cannot be carried out as planned (for example: too little memory)."""


class RunError(CamcalError):
    """A run finished with failures."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest valid name, else the list of valid names."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(names)}"


# ---------------------------------------------------------------------------- the errors of others

_REMEDIES: Mapping[int, str] = MappingProxyType(
    {
        errno.EACCES: "give yourself access (chmod, chgrp) or run as its owner",
        errno.EPERM: "give yourself access (chmod, chgrp) or run as its owner",
        errno.ENOSPC: "make room there and repeat the command",
        errno.EDQUOT: "make room within your quota and repeat the command",
        errno.EROFS: "mount it for writing, or choose another place",
        errno.ENOENT: "check the name; is its file system mounted?",
        errno.ENODEV: "mount it and repeat the command",
        errno.ENOTDIR: "a file is where a folder should be; choose another name",
        errno.EISDIR: "a folder is where a file should be; choose another name",
        errno.EEXIST: "choose another name, or remove it first",
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.ELOOP: "its symbolic links go round in a circle; mend them",
        errno.EMFILE: "raise the limit of open files (ulimit -n) or use fewer workers",
        errno.ENOMEM: "use fewer workers (-j) or give them less memory",
    }
)
_PASSING = "the storage or network may recover; repeat the command, which does only what is missing"


def explain(error: BaseException) -> str:
    """Say in one line what happened, where, and what helps, whatever the error is."""
    if isinstance(error, CamcalError):
        return str(error)
    text = " ".join(str(error).split()) or type(error).__name__
    library = type(error).__module__.partition(".")[0]
    if isinstance(error, OSError):
        return _explain_os(error, text)
    if library in {"sqlalchemy", "sqlite3", "psycopg2"}:
        return f"registry: {str(error).strip().splitlines()[0]}; {_remedy_of_database(text)}"
    if library == "lsst":
        return f"butler: {text}"
    if isinstance(error, OverflowError):
        return f"one of the given numbers is too large ({text}); check exposure, day and time"
    if isinstance(error, MemoryError):
        return f"out of memory: {text}; use fewer workers (-j) or smaller blocks"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return (
        f"unexpected {type(error).__name__}{place}: {text}; this is a bug in camcal_dask: please report it with the "
        "traceback that CAMCAL_TRACEBACK=1 shows"
    )


def _explain_os(error: OSError, text: str) -> str:
    if error.errno is None:  # of a library that has no numbers, such as the object storage
        return f"{text}; {_PASSING}"
    what = (error.strerror or os.strerror(error.errno)).lower()
    where = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{f'{where}: ' if where else ''}{what}; {_REMEDIES.get(error.errno, _PASSING)}"


def _remedy_of_database(text: str) -> str:
    remedies = {
        "readonly": "give yourself write access to the repository's folder and gen3.sqlite3",
        "unable to open": "is the repository mounted, and may you read and write its folder?",
        "locked": "another process is writing; repeat the command when it has ended",
        "full": "make room there and repeat the command",
        "disk I/O": "the storage of the repository fails or is full; repeat the command when it is well",
        "malformed": "gen3.sqlite3 is damaged; restore it from a copy",
        "not a database": "gen3.sqlite3 is damaged; restore it from a copy",
    }
    return next((cure for sign, cure in remedies.items() if sign in text), "repeat the command when it answers again")

"""The project's exceptions: every one is a message for the person at the keyboard.

A message names the file, exposure, detector and amp at fault, shows the values and says
what to do next.  The CLI prints a :class:`CamcalError` without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CamcalError(Exception):
    """A fault the user can understand and mend; base of all others."""


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

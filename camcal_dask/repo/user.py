"""Who runs this process."""

from __future__ import annotations

import getpass


def user_name() -> str:
    """Name of the user of this process; ``unknown`` where there is none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no passwd entry
        return "unknown"

"""Whether what is about to be read is a file: a pipe would block, a device would fill the memory."""

from __future__ import annotations

import errno
import os
import stat


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse pipes, sockets and devices; reading itself reports folders and missing files.

    Raises
    ------
    OSError
        If it is one of them, or cannot be looked at.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 -- of what a link points to
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "Is a pipe, socket or device, not a file", os.fspath(path))

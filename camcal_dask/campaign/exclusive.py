"""One client at a time on a run: who is there, whether it still lives, and taking over from the dead.

Two clients would do no harm (shards are written whole and alike by both), only the work twice.  Whether
a client lives is seen on its own host by its process, elsewhere by its progress file growing: no clocks
are compared.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

from camcal_dask.campaign import attempts
from camcal_dask.campaign.tracker import WRITE_S
from camcal_dask.errors import RunError
from camcal_dask.repo import files
from camcal_dask.repo.claims import Claim

PATIENCE_S = 5 * WRITE_S
"""Time that a client on another host is given to show that it lives."""


@contextlib.contextmanager
def alone(attempt: str, product: str) -> Iterator[None]:
    """Hold the claim on a product of a RUN while an attempt goes on.

    Raises
    ------
    RunError
        If another client that lives holds it.
    """
    claim = Claim(files.join(files.parent(attempt), f"claim-{product}"))
    name = attempt.rpartition("/")[2]
    mine = f"{name}:{os.getpid()}:{socket.gethostname()}"
    standing = claim.take(mine)
    if standing != mine:
        other, pid, host = standing.split(":", 2)
        if lives(files.join(files.parent(attempt), other), host, int(pid)):
            raise RunError(
                f"another client works on this run: process {pid} on {host} (attempt {other}); "
                "wait for it (camcal status), or end it and repeat the command"
            )
        claim.seize(mine)
    try:
        yield
    finally:
        claim.release(mine)


def lives(attempt: str, host: str, pid: int) -> bool:
    """Whether the client of an attempt still works."""
    if host == socket.gethostname():
        return pid == os.getpid() or _process(pid)
    before = _beat(attempt)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        time.sleep(WRITE_S / 4)
        if _beat(attempt) != before:
            return True
    return False


def _beat(attempt: str) -> int:
    return int((files.read_json(attempts.progress_uri(attempt)) or {}).get("beat", 0))


def _process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

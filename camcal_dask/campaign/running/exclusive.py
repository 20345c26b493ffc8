"""One client at a time on a run: who it is, whether it is still alive, and taking over from a dead one.

Two clients would do no harm (shards are written whole and alike by both), only the work twice.  Whether
a client lives is seen on its own host by its process (`process`), elsewhere by its progress file growing: no
clocks are compared.  A claim that cannot be read is nobody's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from camcal_dask.campaign.past import attempts
from camcal_dask.campaign.running import process
from camcal_dask.campaign.running.tracker import WRITE_S
from camcal_dask.errors import RunError
from camcal_dask.repo.storage import files
from camcal_dask.repo.storage.claims import Claim

_held: set[str] = set()
"""Claims of the runs that go on in this process."""
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
    uri = files.join(files.parent(attempt), f"claim-{product}")
    claim, me = Claim(uri), process.here()
    mine = f"{attempt.rpartition('/')[2]}:{me.text}"
    standing = claim.take(mine)
    if standing != mine:
        other, _, text = standing.partition(":")
        holder = process.parse(text)
        if holder == me and standing not in _held:
            holder = None  # of a run of this process that ended while the repository was away
        if holder is not None and lives(files.join(files.parent(attempt), other), holder):
            raise RunError(
                f"another client works on this run: {holder} (attempt {other}); wait for it (camcal status), or end it "
                f"and repeat the command; if that is not a camcal process, remove {uri}"
            )
        claim.seize(mine)
    _held.add(mine)
    try:
        yield
    finally:
        _held.discard(mine)
        claim.release(mine)


def lives(attempt: str, client: process.Process) -> bool:
    """Whether the client of an attempt is still working."""
    if (seen := client.lives()) is not None:
        return seen
    before = _beat(attempt)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        time.sleep(WRITE_S / 4)
        if _beat(attempt) != before:
            return True
    return False


def _beat(attempt: str) -> object:
    return (attempts.read_progress(attempt) or {}).get("beat", 0)

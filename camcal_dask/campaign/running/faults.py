"""The kind of a failure: one that may pass, one that stops everything, or one of the data."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterator

PASSING = frozenset(
    {
        errno.EIO, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.ENOLCK,
        errno.ENFILE, errno.EMFILE, errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED,
        errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN,
        errno.ESHUTDOWN, errno.EREMOTEIO,
    }
)  # fmt: skip
"""Errors of storage and network that another try may not meet."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENODEV})
"""Errors that every other quantum would meet as well."""
CLUSTER = frozenset(
    {"KilledWorker", "CommClosedError", "FutureCancelledError", "CancelledError", "NoValidWorkerError", "WorkerLost"}
)
"""Exceptions of dask that say nothing about the quantum."""
_IN_TEXT = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")


def can_pass(error: BaseException) -> bool:
    """Whether another try may succeed: a lost worker, a storage or network hiccup, memory that others used."""
    return any(
        type(e).__name__ in CLUSTER
        or isinstance(e, MemoryError | TimeoutError | ConnectionError)
        or not PASSING.isdisjoint(_codes(e))
        for e in _chain(error)
    )


def storage_full(error: BaseException) -> bool:
    """Whether nothing more can be stored: full, over quota, read-only or gone."""
    return any(not FULL.isdisjoint(_codes(e)) for e in _chain(error))


def reason(error: BaseException) -> str:
    """First line of an error, with its type."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"


def signal_of(interrupt: KeyboardInterrupt) -> signal.Signals:
    """Signal that interrupted: Python's own exception is that of Ctrl-C, others carry their number (`terminable`)."""
    return signal.Signals(interrupt.args[0]) if interrupt.args else signal.SIGINT


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _codes(error: BaseException) -> set[int]:
    """Numbers of the system's errors: of an OSError, or as libraries in other languages print them."""
    codes = {int(a or b) for a, b in _IN_TEXT.findall(str(error))}
    return codes | {error.errno} if isinstance(error, OSError) and error.errno is not None else codes

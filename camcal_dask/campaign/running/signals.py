"""Deferred signals: a cluster that is interrupted while it starts or ends cannot be shut down in order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Held:
    """Holds SIGINT and SIGTERM back from its beginning to its end, except within `let_through`.

    Processes that are started meanwhile never see SIGINT: Ctrl-C reaches all processes of a terminal, and workers are
    ended by their client.  In other threads than the main one, to which no signals come, nothing happens.
    """

    def __init__(self) -> None:
        self.waiting: list[int] = []
        """Numbers of the signals that came."""
        self._before: dict[int, Any] = {}
        self._mask: set[signal.Signals] = set()

    def __enter__(self) -> Held:
        self._hold()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._release()

    @contextlib.contextmanager
    def let_through(self) -> Iterator[None]:
        """Deliver signals in the block, first one that has come already."""
        self._release()
        try:
            yield
        finally:
            self._hold()

    def _hold(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        # The mask is inherited by threads and processes, which handlers are not.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # type: ignore[assignment]
        for number in _NUMBERS:
            if callable(signal.getsignal(number)):  # neither ignored nor left to the system
                self._before[number] = signal.signal(number, self._note)

    def _release(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        # Unblocked first: a signal that was blocked is noted like the others.
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)
        waiting, self.waiting = self.waiting, []
        for number in waiting[:1]:
            before[number](number, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.waiting.append(number)

"""Whether the process of a client is alive; its number alone does not tell, because numbers are reused.

A process is named by host, number and *mark*: boot, namespace of process numbers (of a container) and the moment of
its start.  In the same boot and namespace the mark decides; seen from anywhere else nothing can be said, and the
caller must watch what the client writes.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_DEAD = "ZXx"
"""States of a process that only waits for its parent to notice its end."""


@dataclass(frozen=True)
class Process:
    """A process of some host; ``mark`` is "" where the system does not tell."""

    host: str
    pid: int
    mark: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def text(self) -> str:
        """What `parse` reads."""
        return f"{self.pid}:{self.mark}:{self.host}"

    def lives(self) -> bool | None:
        """Whether it does; None if it cannot be seen from here (other host, boot or container)."""
        mine = here()
        if self.host != mine.host or (self.mark and _where(self.mark) != _where(mine.mark)):
            return None
        return _lives(self.pid, self.mark.rpartition("/")[2])


def parse(text: str) -> Process | None:
    """Read `Process.text`, or ``pid:host`` of earlier versions; None if it is neither."""
    pid, _, rest = text.partition(":")
    mark, colon, host = rest.partition(":")
    if not colon:
        mark, host = "", rest
    return Process(host, int(pid), mark) if pid.isdecimal() and host else None


def here() -> Process:
    """Name the process that asks."""
    stat = _stat(os.getpid())
    mark = "" if stat is None else f"{_boot()}/{_namespace()}/{stat[1]}"
    return Process(socket.gethostname(), os.getpid(), mark)


def _where(mark: str) -> str:
    return mark.rpartition("/")[0]


def _lives(pid: int, start: str) -> bool:
    stat = _stat(pid)
    if stat is not None:
        return stat[0] not in _DEAD and start in ("", stat[1])
    if Path("/proc/self/stat").exists():
        return False
    try:  # not Linux
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _stat(pid: int) -> tuple[str, str] | None:
    """State and start [clock ticks since boot] of a process, fields 3 and 22 of proc(5); None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # a name may hold anything
    except OSError:
        return None
    return fields[0], fields[19]


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id")


def _namespace() -> str:
    try:
        return Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""

"""How a run is shown while it is going on: a live table in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from camcal_dask.cli.common import console
from camcal_dask.repo.cubes import usable

if TYPE_CHECKING:
    from camcal_dask.campaign.running.tracker import Snapshot

LINE_S = 10.0
"""Seconds between two lines of a log."""


@contextmanager
def watching() -> Iterator[Callable[[Snapshot], None]]:
    """Show the snapshots that the yielded function is given."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda snapshot: live.update(picture(snapshot), refresh=True)
    else:
        yield _Lines().show


class _Lines:
    """Plain lines: the first, the last, and one every ten seconds between."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def show(self, snapshot: Snapshot) -> None:
        """Print a line if it is time."""
        if snapshot.state != "running" or time.monotonic() - self._last > LINE_S:
            self._last = time.monotonic()
            console.print(line(snapshot))


def line(s: Snapshot) -> str:
    """One line: counts, rate, time left, workers, memory, dashboard."""
    parts = [
        f"{s.product} {s.state}: {s.done + s.skipped}/{s.total} done" + (f" ({s.skipped} before)" if s.skipped else ""),
        f"{s.running} running" if s.running else "",
        f"{s.failed} failed" if s.failed else "",
        f"{usable.counted(s.n_unusable)} unusable" if s.n_unusable else "",
        f"{s.per_s:.3g}/s" if s.per_s else "",
        f"{duration(s.elapsed_s)} so far" + (f", {duration(s.left_s)} left" if s.left_s else ""),
        f"{s.workers} workers, {s.memory_mib / 1024:.1f} GiB" if s.workers else "",
        s.dashboard if s.state == "running" else "",
    ]
    return " | ".join(part for part in parts if part)


def picture(s: Snapshot) -> Group:
    """The same as a table under a bar, with the latest failures."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("run", f"{s.run} ({s.product})")
    table.add_row("quanta", f"{s.done} done, {s.skipped} skipped, {s.running} running, {s.failed} failed of {s.total}")
    table.add_row("time", f"{duration(s.elapsed_s)} so far, {duration(s.left_s)} left, {s.per_s:.3g} quanta/s")
    table.add_row("workers", f"{s.workers} with {s.threads} threads, {s.memory_mib / 1024:.1f} GiB in use")
    table.add_row("dashboard", s.dashboard or "starting")
    for failure in s.last_failures:
        table.add_row(Text("failed", style="red"), failure)
    return Group(ProgressBar(total=s.total or 1, completed=s.done + s.skipped + s.failed), table)


def duration(seconds: float | None) -> str:
    """``1:02:03``; ``?`` if unknown."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"

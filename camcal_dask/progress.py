"""The progress bar of the command line and of the demo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from camcal_dask.redact import redacted


@contextmanager
def bar(console: Console, label: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar; the yielded function advances it by one and sets its note."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total, note="")

        def advance(note: str = "") -> None:
            progress.update(task, advance=1, note=redacted(note).encode(errors="backslashreplace").decode())

        yield advance

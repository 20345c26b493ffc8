"""What the commands share: the group that prints mistakes as messages, options, progress bars, tables."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from camcal_dask.campaign import faults
from camcal_dask.errors import CamcalError, RepoError

if TYPE_CHECKING:
    from camcal_dask.repo.registry import Repo

console = Console(highlight=False)


class Group(click.Group):
    """Print a user's mistake as one message, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a mistake ends it with exit code 1, a signal with 128 and its number."""
        try:
            with terminable():
                return super().invoke(ctx)
        except CamcalError as error:
            Console(stderr=True, highlight=False).print(f"[red]Error:[/red] {plain(str(error))}", soft_wrap=True)
            sys.exit(1)
        except KeyboardInterrupt as interrupt:
            by = faults.signal_of(interrupt)
            Console(stderr=True, highlight=False).print(f"interrupted by {by.name}")
            sys.exit(128 + by)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM, which batch systems send before they kill, end a command in order, as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def plain(text: str) -> str:
    """Escape rich's markup."""
    return text.replace("[", r"\[")


cluster_options = [
    click.option("-j", "--processes", type=click.IntRange(min=1), help="number of workers"),
    click.option("--cluster", default="local", help="profile name, YAML file or tcp://host:port"),
]


instrument_option = click.option("--instrument", help="camera, if the repository has several")


def check_instrument(repo: Repo, run: str, instrument: str | None) -> None:
    """Refuse a RUN that holds nothing of the camera that was named.

    Raises
    ------
    RepoError
        Naming the cameras that it is of.
    """
    if instrument is None:
        return
    name, cameras = repo.instrument(instrument).name, repo.cameras_of(run)
    if cameras and name not in cameras:
        raise RepoError(f"{run}: is of {', '.join(cameras)}, not of {name}")


def with_options(options: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Decorate a command with several options."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class Duration(click.ParamType):
    """A time as profiles spell it, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read ``10 minutes``, ``2 h``, ``04:00:00`` or a number of seconds."""
        from camcal_dask.campaign.profile import seconds

        try:
            return seconds(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def names(text: str) -> list[str]:
    """Split a comma-separated option."""
    return [name for name in text.split(",") if name]


@contextmanager
def bar(label: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar; the yielded function advances it by one and sets its note."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total, note="")

        def advance(note: str = "") -> None:
            progress.update(task, advance=1, note=note)

        yield advance


def grid(rows: list[tuple[str, str]]) -> Table:
    """Table of names and values, without lines."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(name, plain(value))
    return table

"""What the commands share: a group that prints errors as messages, options, progress bars, tables."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from camcal_dask import progress
from camcal_dask.campaign.running import faults
from camcal_dask.config import expanded
from camcal_dask.errors import RepoError, explain
from camcal_dask.redact import redacted

if TYPE_CHECKING:
    from camcal_dask.repo.butler.repository import Repo


class Plain(Console):
    """Prints text as it is given, unwrapped: names may look like markup (``[b]``, ``:b:``), and lines are searched."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; only tables fit themselves into the width of the terminal."""
        if all(isinstance(one, str | Text) for one in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)


console, errors = Plain(), Plain(stderr=True)
TRACEBACK = "CAMCAL_TRACEBACK"
"""Variable that, set to anything, lets tracebacks through."""


class Group(click.Group):
    """Print what went wrong as one message, without a traceback (unless CAMCAL_TRACEBACK asks for it)."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a mistake ends it with exit code 1, a signal with 128 and its number."""
        try:
            with terminable(), remarks():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own; a reader of ours that went away, as head does
        except KeyboardInterrupt as interrupt:
            by = faults.signal_of(interrupt)
            errors.print(f"interrupted by {by.name}")
            sys.exit(128 + by)
        except Exception as error:
            if os.environ.get(TRACEBACK):
                raise
            errors.print(Text.assemble(("Error: ", "red"), redacted(explain(error))))
            sys.exit(1)


@contextmanager
def remarks() -> Iterator[None]:
    """Print warnings of libraries as remarks of one line, each once."""
    said: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if (text := " ".join(str(message).split())) not in said:
            said.add(text)
            errors.print(f"remark: {text}")

    before, warnings.showwarning = warnings.showwarning, show
    try:
        yield
    finally:
        warnings.showwarning = before


class Interrupted(KeyboardInterrupt):
    """A signal, whose number it carries.

    Python notes a KeyboardInterrupt itself that passes through code made from text (as dataclasses are), and then ends
    as if SIGINT had killed it, whatever was caught and whichever exit code was asked for.
    """


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM, which batch systems send before they kill, end a command in order, as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = {signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as behind a shell's &
        taken[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number, before in taken.items():
            signal.signal(number, before)


class FilePath(click.Path):
    """Path of a file or folder as a person writes it (`expanded`), or a name or URI where these are accepted."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Expand ``~``, then check as click does."""
        return super().convert(expanded(value), param, ctx)


PLACE = FilePath(readable=False)
"""A repository, pipeline or profile, which may be no file; who opens it says what is wrong with it."""

cluster_options = [
    click.option("-j", "--processes", type=click.IntRange(min=1), help="number of workers"),
    click.option("--cluster", type=PLACE, default="local", help="profile name, YAML file or tcp://host:port"),
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
        from camcal_dask.campaign.cluster.profile import seconds

        try:
            return seconds(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def names(text: str) -> list[str]:
    """Split a comma-separated option."""
    return [name for name in text.split(",") if name]


def bar(label: str, total: int) -> AbstractContextManager[Callable[[str], None]]:
    """Show a progress bar; the yielded function advances it by one and sets its note."""
    return progress.bar(console, label, total)


def grid(rows: list[tuple[str, str]]) -> Table:
    """Table of names and values, without lines."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(name, value)
    return table

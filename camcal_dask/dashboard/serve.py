"""The server of the dashboard: one process, one repository opened for reading."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import Server

from camcal_dask.dashboard.app import Page
from camcal_dask.dashboard.source import Source
from camcal_dask.dashboard.state import read
from camcal_dask.errors import ConfigError
from camcal_dask.repo.butler.repository import Repo


def make_server(repo: Repo, port: int = 0, address: str = "127.0.0.1", instrument: str | None = None) -> Server:
    """Make the server of a repository, or of one camera in it, not started yet; port 0 for any free port.

    Raises
    ------
    ConfigError
        If the port is taken.
    RepoError
        If there is nothing to show.
    """
    source = Source(repo, instrument)
    read({}, source)  # says now, not in the browser, that there is nothing to show

    def page(document: Document) -> None:
        context = document.session_context
        request = None if context is None else context.request
        Page(document, source, read({} if request is None else request.arguments, source))

    try:
        port = port or _free_port(address)
        hosts = {host_of(address), "localhost", "127.0.0.1"}  # pages of this server only
        origins = [f"{host}:{port}" for host in sorted(hosts)]
        application = Application(FunctionHandler(page))
        return Server({"/": application}, port=port, address=address, allow_websocket_origin=origins)
    except OSError as error:
        raise ConfigError(f"cannot serve at {address}:{port} ({error}); choose another --port") from None


def host_of(address: str) -> str:
    """Host to type into a browser for a given listening address."""
    if address in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{address}]" if ":" in address else address


def _free_port(address: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def serve(repo: Repo, port: int, address: str, started: Callable[[str], None], instrument: str | None = None) -> None:
    """Serve until interrupted; ``started`` is told the address."""
    logging.getLogger("bokeh").setLevel(logging.ERROR)  # a browser tab that closes is no reason to warn
    server = make_server(repo, port, address, instrument)
    server.start()
    started(f"http://{host_of(address)}:{server.port}/")
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        server.stop()

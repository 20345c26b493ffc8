"""An object store whose connection breaks: nothing that was begun stands in the way of the next try."""

import http.client
import re
import socket
import struct
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
import pytest
import xarray as xr

from camcal_dask.instruments import get_instrument
from camcal_dask.repo.cubes import products, small
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.storage import files, objects
from camcal_dask.repo.storage.claims import Claim


class Breaking(BaseHTTPRequestHandler):
    """Hand a request on to the real server; reset the connection instead of answering when a rule says so."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _handle(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rule = self.server.rule_of(f"{self.command} {self.path}")
        if rule == "before":
            self._reset()
            return
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in {"connection", "content-length"}}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if rule == "after":
            self._reset()
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "transfer-encoding", "content-length", "date", "server"}:
                self.send_header(name, value)
        size = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", size or "0")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle  # noqa: N815

    def _reset(self):
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream):
        super().__init__(("127.0.0.1", 0), Breaking)
        self.upstream, self.rules, self.broken = upstream, [], 0

    def rule_of(self, request):
        for rule in self.rules:
            if rule["left"] and re.search(rule["what"], request):
                rule["left"] -= 1
                self.broken += 1
                return rule["when"]
        return None

    @contextmanager
    def breaking(self, what, when="before", times=10**9):
        self.rules, self.broken = [{"what": what, "when": when, "left": times}], 0
        yield
        self.rules = []

    def handle_error(self, *_):
        pass  # what a reset connection says


@pytest.fixture
def proxy(s3_bucket, s3_server, monkeypatch):
    server = Proxy(urlsplit(s3_server).netloc)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    for name in ("AWS_ENDPOINT_URL", "S3_ENDPOINT_URL"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_address[1]}")
    objects._store.cache_clear()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(objects, "PAUSE_S", 0.001)


def template():
    shape = np.broadcast_to(np.float32(0), (2, 4, 4))
    return xr.Dataset({"image": (("detector", "y", "x"), shape)}, {"detector": [0, 1]})


CREATIONS = {
    "raw": lambda uri: cubes.ensure_raw_cube(uri, get_instrument("TinyCam")),
    "product": lambda uri: products.create_product(uri, template()),
    "dataset": lambda uri: small.write_dataset(uri, xr.Dataset({"a": ("b", [1.0, 2.0])}), overwrite=True),
}


@pytest.mark.parametrize("kind", CREATIONS)
@pytest.mark.parametrize("what", [r"PUT \S*\.zarr/zarr\.json", r"PUT \S*\.zarr/\w+/zarr\.json"])
def test_an_interrupted_creation_is_repeated(proxy, s3_bucket, kind, what):
    uri = f"{s3_bucket}/cubes/{kind}.zarr"
    with proxy.breaking(what), pytest.raises(OSError, match=f"{kind}.zarr"):
        CREATIONS[kind](uri)
    assert proxy.broken
    CREATIONS[kind](uri)
    assert cubes.cube_kind(uri) == kind


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", CREATIONS)
def test_a_reset_is_tried_again_by_whoever_meets_it(proxy, s3_bucket, kind, when):
    uri = f"{s3_bucket}/cubes/{kind}.zarr"
    with proxy.breaking(r"PUT \S*\.zarr/zarr\.json", when, times=2):
        CREATIONS[kind](uri)
    assert proxy.broken == 2
    assert cubes.cube_kind(uri) == kind


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_exclusive_put_that_is_tried_again_is_ours_or_theirs(proxy, s3_bucket, when):
    claim = Claim(f"{s3_bucket}/claim")
    with proxy.breaking("PUT", when, times=1):
        assert claim.take("ours") == "ours"
    assert files.claimed(f"{s3_bucket}/claim") == "ours"
    with proxy.breaking("PUT", when, times=1):
        assert claim.take("theirs") == "ours"


@pytest.mark.parametrize("verb", ["PUT", "GET", "POST", "HEAD"])
def test_every_request_survives_a_reset(proxy, s3_bucket, verb):
    uri = f"{s3_bucket}/folder/value.json"
    files.write_json(uri, {"a": 1})
    with proxy.breaking(verb, "before", times=1):
        files.write_json(uri, {"a": 2})
        assert files.read_json(uri) == {"a": 2}
        assert files.names(f"{s3_bucket}/folder") == ["value.json"]
        assert files.size(uri) > 0
        files.remove(uri)
        assert files.read_json(uri) is None
    assert proxy.broken == 1

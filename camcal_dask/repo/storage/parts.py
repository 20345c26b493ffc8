"""Small Datasets that a run has and its product does not yet: kept beside it until the product is whole.

Workers pack what a quantum returned, so that the client, of which there is one, passes bytes on.  Each file holds some
hundred of them and appears whole, so that a killed client loses only what it had not written.
"""

from __future__ import annotations

import json
import math
import time
import uuid
import zlib
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from camcal_dask.errors import DataError
from camcal_dask.repo.storage import files
from camcal_dask.repo.storage.shards import plain

FLUSH_PARTS = 200
FLUSH_S = 10.0
Key = tuple[str, ...]


class Parts:
    """The parts of one product.

    Parameters
    ----------
    uri : str
        Folder.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._waiting: dict[Key, bytes] = {}
        self._written = time.monotonic()

    def add(self, key: Key, part: bytes) -> None:
        """Keep a packed part; many are written together."""
        self._waiting[key] = part
        if len(self._waiting) >= FLUSH_PARTS or time.monotonic() - self._written > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self._written = time.monotonic()
        if self._waiting:
            files.write_bytes(files.join(self.uri, f"{uuid.uuid4().hex}.parts"), bind(self._waiting))
            self._waiting = {}

    def read(self) -> Iterator[tuple[Key, bytes]]:
        """Parts that were kept, packed; a damaged file is removed, what it held is made again."""
        for name in files.names(self.uri):
            if name.endswith(".parts") and not name.startswith("."):
                uri = files.join(self.uri, name)
                try:
                    parts = list(unbind(files.read_bytes(uri) or b"", uri))
                except DataError:  # not worth more than the time to make them again
                    files.remove(uri)
                    continue
                yield from parts

    def clear(self) -> None:
        """Remove all: the product is whole."""
        self._waiting = {}
        files.remove_folder(self.uri)


def pack(part: xr.Dataset) -> bytes:
    """Write a Dataset in memory (numbers and text, no objects): a line of JSON, then all values."""
    values: list[bytes] = []
    variables: dict[str, Any] = {}
    for name, variable in part.variables.items():
        array = variable.values
        array = array.astype(str) if array.dtype.kind in "OT" else array
        variables[str(name)] = {
            "dims": variable.dims, "attrs": variable.attrs, "coord": name in part.coords,
            "dtype": array.dtype.str, "shape": array.shape,
        }  # fmt: skip
        values.append(array.tobytes())
    header = json.dumps(plain({"attrs": part.attrs, "variables": variables}))
    return b"\n".join([header.encode(), b"".join(values)])


def unpack(packed: bytes) -> xr.Dataset:
    """Read what `pack` wrote."""
    line, values = packed.split(b"\n", 1)
    header, at = json.loads(line), 0
    variables: dict[bool, dict[Hashable, Any]] = {True: {}, False: {}}
    for name, v in header["variables"].items():
        dtype, n = np.dtype(v["dtype"]), math.prod(v["shape"])
        array = np.frombuffer(values, dtype, n, at).reshape(v["shape"]).copy()
        variables[v["coord"]][name] = (v["dims"], array, v["attrs"])
        at += array.nbytes
    return xr.Dataset(variables[False], variables[True], header["attrs"])


def bind(parts: Mapping[Key, bytes]) -> bytes:
    """Write packed parts one behind the other, after a line that says which and how long they are."""
    index = [[key, len(part), zlib.crc32(part)] for key, part in parts.items()]
    return b"".join([files.sealed({"parts": index, files.SEAL: files.BLANK}), b"\n", *parts.values()])


def unbind(content: bytes, what: str) -> Iterator[tuple[Key, bytes]]:
    """Read what `bind` wrote.

    Raises
    ------
    DataError
        Naming ``what``, if it is damaged.
    """
    line, _, parts = content.partition(b"\n")
    try:
        if not files.is_sealed(line):
            raise ValueError("written by an older version, without checksums")
        index = json.loads(line)["parts"]
    except ValueError as error:
        raise DataError(f"{what}: damaged ({error}); remove it and repeat the run") from error
    at = 0
    for key, length, checksum in index:
        part = parts[at : at + length]
        if zlib.crc32(part) != checksum:
            raise DataError(f"{what}: damaged (the part of {' '.join(map(str, key))}); remove it and repeat the run")
        yield tuple(key), part
        at += length

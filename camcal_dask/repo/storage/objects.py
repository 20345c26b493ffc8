"""Objects on S3-compatible storage, as `files` and `shards` need them.

Credentials come from the environment or the standard files of AWS (boto3 finds them), never from a URI; the
endpoint of another service than AWS from ``AWS_ENDPOINT_URL`` or ``S3_ENDPOINT_URL``, whichever is set, for the
Butler too.  A PUT is atomic and a conditional PUT exclusive, so no staging, rename or lock is needed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from zarr.storage import ObjectStore

from camcal_dask.errors import RepoError

if TYPE_CHECKING:
    from obstore.store import S3Store

T = TypeVar("T")
# zarrs reads by itself and says that it opens connections of its own; every read would say so.
warnings.filterwarnings("ignore", message="Successfully reconstructed a store", category=RuntimeWarning)

LAST = "zarr.json"
"""What makes a cube visible: uploaded last."""
TRIES, PAUSE_S = 5, 0.2
"""Of an exclusive PUT or a DELETE, and the first pause [s]; everything else the library tries again by itself."""
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_ENDPOINT_URL")


def is_object(uri: str) -> bool:
    """Whether a URI names an object store."""
    return uri.startswith("s3://")


def normal(uri: str) -> str:
    """Return the URI without a trailing slash.

    Raises
    ------
    RepoError
        If it has no bucket, or holds a user or password.
    """
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        raise RepoError(
            f"s3://***@{parts.netloc.rpartition('@')[2]}{parts.path}: credentials do not belong in a URI; set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use ~/.aws/credentials"
        )
    if not parts.netloc:
        raise RepoError(f"{uri}: expected s3://bucket/path")
    return uri.rstrip("/")


def endpoint() -> str | None:
    """Address of the service from the environment, told to boto3 and the Butler alike; None = AWS."""
    found = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    if found is None:
        return None
    if "@" in found:
        raise RepoError(
            f"{', '.join(_ENDPOINTS)}: an endpoint that contains credentials would be logged; set the "
            f"credentials separately"
        )
    for name in _ENDPOINTS[1:]:
        os.environ.setdefault(name, found)
    return found


@functools.lru_cache(maxsize=64)
def _store(bucket: str, prefix: str, pid: int) -> S3Store:
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store
    except ImportError as error:
        raise RepoError(f"s3://{bucket}: {error}; run: pip install 'camcal_dask[s3]'") from None
    address = endpoint()
    options: dict[str, Any] = {} if address is None else {"endpoint": address}
    return S3Store(
        bucket,
        prefix=prefix or None,
        credential_provider=Boto3CredentialProvider(),
        client_options={"allow_http": bool(address and address.startswith("http://"))},
        **options,
    )


def _place(uri: str) -> tuple[S3Store, str]:
    """Store of a bucket and the key in it; a store belongs to one process."""
    parts = urlsplit(normal(uri))
    return _store(parts.netloc, "", os.getpid()), parts.path.strip("/")


def zarr_store(uri: str, *, read_only: bool) -> ObjectStore[Any]:
    """Store of a zarr group or array."""
    parts = urlsplit(normal(uri))
    return ObjectStore(_store(parts.netloc, parts.path.strip("/"), os.getpid()), read_only=read_only)


@contextlib.contextmanager
def _named(uri: str) -> Iterator[None]:
    """Turn the storage's errors into an OSError that names the object."""
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        raise OSError(f"{uri}: {str(error).splitlines()[0]}") from error


def read(uri: str) -> bytes | None:
    """Content of an object; None if there is none."""
    store, key = _place(uri)
    with _named(uri):
        try:
            return bytes(store.get(key).bytes())
        except FileNotFoundError:
            return None


def write(uri: str, content: bytes | Path, *, new: bool = False) -> bool:
    """Put an object; with ``new`` only if there is none, and return whether it was put."""
    store, key = _place(uri)
    if new:
        return _put_new(uri, content.read_bytes() if isinstance(content, Path) else content)
    with _named(uri):
        store.put(key, content)
    return True


def _put_new(uri: str, content: bytes) -> bool:
    """Put an object unless there is one.

    An answer that was lost says nothing about the object: it may have been put.  So the next try asks whether what
    is there is what was to be put.
    """
    from obstore.exceptions import AlreadyExistsError

    store, key = _place(uri)
    tries = 0

    def put() -> bool:
        nonlocal tries
        tries += 1
        try:
            store.put(key, content, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return tries > 1 and read(uri) == content
        return True

    with _named(uri):
        return _patiently(put)


def _patiently(request: Callable[[], T]) -> T:
    """Ask again when the connection breaks, which the library does not do where a repetition is no repetition to S3."""
    from obstore.exceptions import GenericError

    for attempt in range(TRIES - 1):
        try:
            return request()
        except GenericError:  # of the connection or the server, not a refusal
            time.sleep(PAUSE_S * 2**attempt)
    return request()


def exists(uri: str) -> bool:
    """Whether there is such an object, or one below it."""
    store, key = _place(uri)
    with _named(uri):
        try:
            store.head(key)
        except FileNotFoundError:
            return any(store.list(f"{key}/", chunk_size=1))
    return True


def size(uri: str) -> int:
    """Bytes of an object; -1 if there is none."""
    store, key = _place(uri)
    with _named(uri):
        try:
            return int(store.head(key)["size"])
        except FileNotFoundError:
            return -1


def names(uri: str) -> list[str]:
    """Sorted names directly below a URI."""
    store, key = _place(uri)
    with _named(uri):
        found = store.list_with_delimiter(f"{key}/")
    paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
    return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)


def below(uri: str) -> Iterator[str]:
    """URIs of all objects below a URI, sorted."""
    store, key = _place(uri)
    with _named(uri):
        paths = [entry["path"] for batch in store.list(f"{key}/") for entry in batch]
    yield from (f"s3://{urlsplit(uri).netloc}/{path}" for path in sorted(paths))


def remove(uri: str) -> None:
    """Delete an object, if it is there."""
    store, key = _place(uri)
    with _named(uri), contextlib.suppress(FileNotFoundError):
        _patiently(lambda: store.delete(key))


def remove_tree(uri: str) -> None:
    """Delete everything below a URI, what makes it visible first."""
    store, key = _place(uri)
    remove(f"{uri}/{LAST}")
    with _named(uri):
        for batch in store.list(f"{key}/"):
            paths = [entry["path"] for entry in batch]
            _patiently(functools.partial(store.delete, paths))


def upload(folder: Path, uri: str, *, new: bool) -> bool:
    """Upload a finished folder; with ``new`` only if nothing is visible there, and return whether it was done."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path != folder / LAST]
    for path in paths:
        write(f"{uri}/{path.relative_to(folder).as_posix()}", path)
    return write(f"{uri}/{LAST}", (folder / LAST).read_bytes(), new=new)

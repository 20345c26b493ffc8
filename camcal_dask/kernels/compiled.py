"""How kernels are compiled: one decorator, and a cache of machine code that never makes a kernel fail."""

from __future__ import annotations

import os
import stat
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, overload

import numba
from numba.core.caching import FunctionCache

F = TypeVar("F", bound=Callable[..., Any])
_SETTING = "NUMBA_CACHE_DIR"


class _Cache(FunctionCache):
    """Numba's cache, but with files that cannot be read or written it compiles again instead of failing."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # noqa: BLE001 -- whatever unpickling an empty, cut or foreign file raises
            self._discard()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            self.disable()
            warnings.warn(
                f"compiled kernels are not kept in {self.cache_path} ({error.strerror or error}); set {_SETTING} to a "
                "folder with space that you may write to",
                RuntimeWarning,
                stacklevel=2,
            )

    def _discard(self) -> None:
        """Remove the index and machine code of this kernel; the next process writes them anew."""
        for path in Path(self.cache_path).glob(f"{self._impl.filename_base}.*nb[ic]"):
            try:
                path.unlink()
            except OSError:
                self.disable()


def _probe() -> None:
    """Stand for all kernels when a place for their machine code is sought."""


def _private_folder() -> str | None:
    """Folder below the temporary one that is this user's alone (it is unpickled from), or None."""
    path = Path(tempfile.gettempdir(), f"camcal-kernels-{os.getuid()}")
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        tempfile.TemporaryFile(dir=path).close()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return str(path) if ours else None


def _settle() -> bool:
    """Find a place for machine code; False if there is none.  The processes started from here use the same."""
    try:
        _Cache(_probe)
        return True
    except RuntimeError:  # neither the installation nor the home folder can be written to
        folder = _private_folder()
    place = "not kept: every process compiles them again" if folder is None else f"kept in {folder}"
    warnings.warn(
        f"the installation and the home folder are read-only, so compiled kernels are {place}; set {_SETTING} to a "
        "folder that you may write to",
        RuntimeWarning,
        stacklevel=2,
    )
    if folder is not None:
        os.environ[_SETTING] = numba.config.CACHE_DIR = folder
    return folder is not None


_KEPT = _settle()


@overload
def compiled(function: F) -> F: ...
@overload
def compiled(**options: Any) -> Callable[[F], F]: ...
def compiled(function: F | None = None, **options: Any) -> Any:
    """Compile a kernel at its first call, without the GIL; its machine code is kept for later processes.

    Parameters
    ----------
    function : callable
        Numeric Python that numba compiles.
    **options
        Of ``numba.njit``: ``fastmath``, ``error_model``, ``inline``.

    Notes
    -----
    The machine code lies beside the source, or below ``NUMBA_CACHE_DIR`` if that is set.  Where neither this nor
    the home folder can be written to, it lies in a private temporary folder or is not kept, and one warning says so.
    A file of the cache that is empty, cut or unreadable is removed and the kernel compiled again.
    """

    def make(kernel: F) -> F:
        dispatcher = numba.njit(nogil=True, **options)(kernel)
        if _KEPT:
            dispatcher._cache = _Cache(kernel)  # what njit(cache=True) does, with the cache of this module
        return dispatcher  # type: ignore[no-any-return]

    return make if function is None else make(function)

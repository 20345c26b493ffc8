"""Claims: who may write the pixels of one (exposure, detector), said without locks.

A claim is a symbolic link beside the cube whose target is a text: making it is one atomic, exclusive
operation on every file system that workers share, it needs no second write, and it survives a crash.  It
names the *content* that is being written, so a repeated or concurrent ingest of the same file goes
straight through it, and only other content under the same identity is stopped.
"""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

from camcal_dask.repo import files


class Claim:
    """The claim on one (slot, detector) of a day's raw cube."""

    def __init__(self, cube_uri: str, slot: int, detector: int) -> None:
        folder = cube_uri.removesuffix(".zarr") + ".claims"
        self._path: Path = files.local_path(files.join(folder, f"{slot}-{detector}"))

    def holder(self) -> str | None:
        """Text of the standing claim, None if there is none."""
        try:
            return str(self._path.readlink())
        except FileNotFoundError:
            return None

    def take(self, text: str) -> str:
        """Claim with ``text`` unless a claim stands; return the text that stands now."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with contextlib.suppress(FileExistsError):
                self._path.symlink_to(text)
                return text
            if (standing := self.holder()) is not None:  # None: it was released meanwhile, try again
                return standing

    def seize(self, text: str) -> None:
        """Claim with ``text`` whatever stands."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}")
        scratch.symlink_to(text)
        scratch.replace(self._path)

    def release(self, text: str) -> None:
        """Remove the claim if it still is ``text``."""
        if self.holder() == text:
            self._path.unlink(missing_ok=True)

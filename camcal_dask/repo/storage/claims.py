"""Claims: who may write the pixels of one (exposure, detector), said without locks.

A claim is a short text under a name beside the cube, made by one exclusive operation (`files.claim`).  It names
the *content* that is being written, so a repeated or concurrent ingest of the same file goes straight through it,
and only other content under the same identity is stopped.
"""

from __future__ import annotations

from camcal_dask.repo.storage import files


def raw_claim(cube_uri: str, slot: int, detector: int) -> Claim:
    """Claim on the pixels of one (slot, detector) of a day's raw cube."""
    return Claim(files.join(cube_uri.removesuffix(".zarr") + ".claims", f"{slot}-{detector}"))


class Claim:
    """The claim on what a URI names."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def holder(self) -> str | None:
        """Text of the standing claim, None if there is none."""
        return files.claimed(self._uri)

    def take(self, text: str) -> str:
        """Claim with ``text`` unless a claim stands; return the text that stands now."""
        while not files.claim(self._uri, text):
            if (standing := self.holder()) is not None:  # None: it was released meanwhile, try again
                return standing
        return text

    def seize(self, text: str) -> None:
        """Claim with ``text`` whatever stands."""
        files.seize(self._uri, text)

    def release(self, text: str) -> None:
        """Remove the claim if it still is ``text``."""
        if self.holder() == text:
            files.remove(self._uri)

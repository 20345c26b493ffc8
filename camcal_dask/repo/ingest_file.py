"""One raw file into its cube: what a worker does, safe to kill and to repeat.

For one file the order is

1. claim the (exposure, detector) for this content (`claims`),
2. write the pixels: one shard, renamed into place whole,
3. write the manifest: which content the pixels are,
4. release the claim.

(The client registers the reference later.)  A file whose content the manifest has is skipped after hash and header.
Killed before 3, the manifest does not vouch for the pixels; before 4, the claim makes the manifest doubtful:
either way they are written again.  Two processes with the same file write the same bytes.  Other content
under an identity that is taken is refused unless ``replace``; then too a reader sees the old pixels or the new,
each whole, and while the claim stands no other ingest trusts the old manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from camcal_dask.errors import CamcalError, DataError
from camcal_dask.ingest.fits import Container, RawFile, unpack
from camcal_dask.ingest.header import ExposureRecord
from camcal_dask.instruments import get_instrument
from camcal_dask.repo import cubes
from camcal_dask.repo.claims import Claim

Status = Literal["ingested", "skipped", "replaced", "failed"]


@dataclass(frozen=True)
class FileResult:
    """What became of one file; ``raw_bytes`` counts its pixels as int32, if they were decoded."""

    path: str
    status: Status
    reason: str = ""
    raw_bytes: int = 0
    record: ExposureRecord | None = None
    detector: int = -1
    remarks: tuple[str, ...] = ()


def ingest_file(root: str, instruments: Sequence[str], path: str, replace: bool, call: str) -> FileResult:
    """Bring one file into its cube; what is wrong with it is the result, not an exception.

    Parameters
    ----------
    root : str
        Folder of the repository.
    instruments : Sequence[str]
        Cameras of the repository.
    path : str
        The file.
    replace : bool
        Whether other content may replace what was ingested before this call.
    call : str
        Identifies the call of `ingest`: two files of one call never replace each other.
    """
    try:
        return _ingest_file(root, instruments, path, replace, call)
    except CamcalError as error:
        return FileResult(path, "failed", str(error))
    except OSError as error:
        return FileResult(path, "failed", f"{path}: cannot be written into {root}: {error}")


def _ingest_file(root: str, instruments: Sequence[str], path: str, replace: bool, call: str) -> FileResult:
    container = Container(path)
    record, detector = container.identity.record, container.identity.detector
    if record.instrument not in instruments:
        raise DataError(
            f"{path}: is a file of {record.instrument}, the repository is for {', '.join(instruments)}; "
            f"add the camera with: camcal create {root} --instrument {record.instrument}"
        )
    target = _Target(root, record, detector, path, container.content_hash, replace, call)
    before = target.manifest()
    if before is not None and before["content_hash"] == target.content_hash and target.claim.holder() is None:
        remarks = tuple(before.get("remarks", ()))
        if replace:  # so that no other file of this call takes its place
            cubes.write_raw_manifest(target.uri, target.slot, detector, before | {"call": call})
        return FileResult(path, "skipped", record=record, detector=detector, remarks=remarks)
    target.check(before)
    raw = unpack(container, get_instrument(record.instrument))
    status = target.write(raw)
    return FileResult(path, status, "", raw.amps.nbytes, record, detector, raw.warnings)


@dataclass(frozen=True)
class _Target:
    """The place of one file's pixels, and the rules for writing there."""

    root: str
    record: ExposureRecord
    detector: int
    path: str
    content_hash: str
    replace: bool
    call: str

    @property
    def uri(self) -> str:
        return cubes.raw_cube_uri(self.root, self.record.instrument, self.record.exposure)

    @property
    def slot(self) -> int:
        return cubes.raw_slot(self.record.exposure)

    @property
    def claim(self) -> Claim:
        return Claim(self.uri, self.slot, self.detector)

    @property
    def _ours(self) -> str:
        return f"{self.content_hash} {self.call} {self.path}"

    def manifest(self) -> dict[str, Any] | None:
        return cubes.read_raw_manifest(self.uri, self.slot, self.detector)

    def check(self, manifest: dict[str, Any] | None) -> None:
        """Refuse if other content stands there and may not be replaced."""
        if manifest is not None:
            self._check_other(manifest["content_hash"], manifest["call"], manifest["file"], "was ingested")

    def write(self, raw: RawFile) -> Status:
        """Claim, pixels, manifest, release."""
        cubes.ensure_raw_cube(self.uri, get_instrument(self.record.instrument))
        self._take()
        try:
            before = self.manifest()  # again: what is there now stays there while the claim is ours
            self.check(before)
            cubes.write_raw(self.uri, self.slot, self.detector, raw.amps)
            self._check_claim()
            cubes.write_raw_manifest(self.uri, self.slot, self.detector, self._describe(raw))
        except CamcalError:
            self.claim.release(self._ours)
            raise
        standing = self.claim.holder()
        if standing is not None and self._same(standing):  # also one that an interrupted ingest of this content left
            self.claim.release(standing)
        replaced = before is not None and before["content_hash"] != self.content_hash
        return "replaced" if replaced else "ingested"

    def _take(self) -> None:
        standing = self.claim.take(self._ours)
        if self._same(standing):
            return
        content, call, path = standing.split(" ", 2)
        self._check_other(content, call, path, "is being ingested, or its ingest was interrupted")
        self.claim.seize(self._ours)

    def _same(self, claim: str | None) -> bool:
        return claim is None or claim.split(" ", 1)[0] == self.content_hash

    def _check_claim(self) -> None:
        standing = self.claim.holder()
        if not self._same(standing):
            self._check_other(*str(standing).split(" ", 2), "is being ingested instead (--replace)", allowed=False)

    def _check_other(self, content: str, call: str, path: str, what: str, *, allowed: bool = True) -> None:
        if content == self.content_hash or (allowed and self.replace and call != self.call):
            return
        twice = "; both files are part of this ingest: keep one of them" if call == self.call else ""
        remedy = "" if twice else "; use --replace to put this file in its place"
        raise DataError(
            f"{self.path}: exposure {self.record.exposure}, detector {self.detector} has other content "
            f"(sha256 {self.content_hash[:12]}) than {path} ({content[:12]}), which {what}{twice}{remedy}"
        )

    def _describe(self, raw: RawFile) -> dict[str, Any]:
        return {
            "content_hash": self.content_hash,
            "file": self.path,
            "call": self.call,
            "exposure": self.record.exposure,
            "detector": self.detector,
            "detector_serial": raw.identity.detector_serial,
            "shape": list(raw.amps.shape),
            "remarks": list(raw.warnings),
            "header": raw.header,
        }

"""One raw file into its cube: what a worker does, safe to kill and to repeat.

For one file the order is

1. claim the (exposure, detector) for this content (`claims`),
2. write the pixels: one shard, renamed into place whole,
3. write the manifest: which content the pixels are,
4. release the claim.

(The client registers the reference later.)  A file whose content the manifest has is skipped after hash and header, and
a look at the pixels: damaged or lost ones are written again.
Killed before 3, the manifest does not vouch for the pixels; before 4, the claim makes the manifest doubtful:
either way they are written again.  Two processes with the same file write the same bytes.  Other content
under an identity that is taken is refused unless ``replace``; then too a reader sees the old pixels or the new,
each whole, and while the claim stands no other ingest trusts the old manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from camcal_dask.errors import CamcalError, DataError, RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.raw_fits.fits import Container, RawFile, unpack
from camcal_dask.raw_fits.header import ExposureRecord
from camcal_dask.redact import redacted
from camcal_dask.repo.butler import foreign
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.storage import files
from camcal_dask.repo.storage.claims import Claim, raw_claim
from camcal_dask.repo.storage.shards import has_checksums

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


def ingest_file(
    root: str, instruments: Sequence[str], path: str, replace: bool, call: str, accept_checksum: bool = False
) -> FileResult:
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
    accept_checksum : bool
        Whether pixels that do not match their checksums are taken, with a remark.
    """
    files.guard(root)
    try:
        return _ingest_file(root, instruments, path, replace, call, accept_checksum)
    except CamcalError as error:
        return FileResult(path, "failed", shown(str(error), path))
    except OSError as error:
        return FileResult(path, "failed", f"{shown(path, path)}: cannot be written into {root}: {error}")


def shown(text: str, path: str) -> str:
    """Text for messages and manifests: of an address without its passwords and signatures, of a file as it is."""
    return redacted(text) if "://" in path else text


def _ingest_file(
    root: str, instruments: Sequence[str], path: str, replace: bool, call: str, accept_checksum: bool
) -> FileResult:
    container = Container(path, foreign.fetch(path) if "://" in path else None, accept_checksum=accept_checksum)
    record, detector = container.identity.record, container.identity.detector
    if record.instrument not in instruments:
        raise DataError(
            f"{path}: is a file of {record.instrument}, the repository is for {', '.join(instruments)}; "
            f"add the camera with: camcal create {root} --instrument {record.instrument}"
        )
    assert container.remarks is not None  # an identity that contradicts itself is refused before its place is looked at
    target = _Target(root, record, detector, path, container.content_hash, replace, call)
    before = target.manifest()
    there = before is not None and before["content_hash"] == target.content_hash and target.claim.holder() is None
    if before is not None and there and target.whole() and (not replace or target.keep()):
        remarks = tuple(before.get("remarks", ()))
        return FileResult(path, "skipped", record=record, detector=detector, remarks=remarks)
    target.check(before)
    raw = unpack(container, get_instrument(record.instrument))
    status = target.write(raw)
    return FileResult(path, status, "", raw.amps.nbytes, record, detector, raw.warnings)


class _Holder(NamedTuple):
    """Whose content stands, or is about to stand, in a place: the text of a claim."""

    content_hash: str
    call: str
    path: str

    @classmethod
    def parse(cls, text: str) -> _Holder:
        return cls(*[*text.split(" ", 2), "", ""][:3])  # a claim that is none of ours has no parts

    def __str__(self) -> str:
        return " ".join(self)


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
        return raw_claim(self.uri, self.slot, self.detector)

    @property
    def _ours(self) -> _Holder:
        return _Holder(self.content_hash, self.call, shown(self.path, self.path))

    def manifest(self) -> dict[str, Any] | None:
        """Manifest of what stands; a damaged one stands for content that nobody knows any more."""
        try:
            return cubes.read_raw_manifest(self.uri, self.slot, self.detector)
        except RepoError as error:
            if self.replace:
                return None
            raise DataError(f"{self.path}: it is unknown what it would replace: {error}, or use --replace") from error

    def whole(self) -> bool:
        """Whether the pixels are as they were written; with ``replace``, what has no checksum does not pass for it."""
        if self.replace and not has_checksums(files.join(self.uri, "raw")):
            return False
        return not cubes.raw_damage(self.uri, self.slot, self.detector)

    def check(self, manifest: dict[str, Any] | None) -> None:
        """Refuse if other content stands there and may not be replaced."""
        if manifest is not None:
            holder = _Holder(manifest["content_hash"], manifest["call"], manifest["file"])
            if not self._may_replace(holder):
                raise self._refusal(holder, "was ingested")

    def keep(self) -> bool:
        """Mark what stands as this call's, so that no other file of it takes its place; False if it has changed.

        Done under the claim: unclaimed, the old manifest could be written over that of a file replacing it just now.
        """
        self._take()
        try:
            manifest = self.manifest()
            if manifest is None or manifest["content_hash"] != self.content_hash:
                return False
            cubes.write_raw_manifest(self.uri, self.slot, self.detector, manifest | {"call": self.call})
            return True
        finally:
            self.claim.release(str(self._ours))

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
            self.claim.release(str(self._ours))
            raise
        standing = self._standing()
        if standing is not None and standing.content_hash == self.content_hash:
            self.claim.release(str(standing))  # perhaps one that an interrupted ingest of this content left
        replaced = before is not None and before["content_hash"] != self.content_hash
        return "replaced" if replaced else "ingested"

    def _take(self) -> None:
        holder = _Holder.parse(self.claim.take(str(self._ours)))
        if holder.content_hash != self.content_hash:
            if holder.call and not self._may_replace(holder):
                raise self._refusal(holder, "is being ingested, or its ingest was interrupted")
            self.claim.seize(str(self._ours))

    def _check_claim(self) -> None:
        holder = self._standing()
        if holder is not None and holder.content_hash != self.content_hash:
            raise self._refusal(holder, "took its place in the meantime (--replace)")

    def _standing(self) -> _Holder | None:
        text = self.claim.holder()
        return None if text is None else _Holder.parse(text)

    def _may_replace(self, holder: _Holder) -> bool:
        return holder.content_hash == self.content_hash or (self.replace and holder.call != self.call)

    def _refusal(self, holder: _Holder, what: str) -> DataError:
        remedy = "use --replace to put this file in its place"
        if holder.call == self.call:
            remedy = "both files are part of this ingest, keep one of them"
        return DataError(
            f"{self.path}: exposure {self.record.exposure}, detector {self.detector} has other content (sha256 "
            f"{self.content_hash[:12]}) than {holder.path} ({holder.content_hash[:12]}), which {what}; {remedy}"
        )

    def _describe(self, raw: RawFile) -> dict[str, Any]:
        return {
            "content_hash": self.content_hash,
            "file": shown(self.path, self.path),
            "call": self.call,
            "exposure": self.record.exposure,
            "detector": self.detector,
            "detector_serial": raw.identity.detector_serial,
            "shape": list(raw.amps.shape),
            "remarks": list(raw.warnings),
            "header": raw.header,
        }

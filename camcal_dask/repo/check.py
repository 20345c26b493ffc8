"""``camcal check``: whether everything is there that registry, manifests and markers speak of, as it was written.

Everything is read: pixels with their checksums, JSON documents with their seals.  What is damaged can be mended where
its source is still there: raws from their files, metadata of raw cubes from the camera; of a product, the marker of a
damaged detector is put aside, so that nobody uses it and the same run makes it again.  Pixels that can be read are
never removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from dask.system import CPU_COUNT

from camcal_dask.errors import CamcalError, DataError, RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.repo.cubes import photodiode, products
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.formatter import ANCHOR, beside
from camcal_dask.repo.incoming.ingest import ingest
from camcal_dask.repo.storage import files, naming
from camcal_dask.repo.storage.parts import unbind
from camcal_dask.repo.storage.shards import has_checksums
from camcal_dask.schema import RAW

Kind = Literal["lost", "damaged", "orphaned", "unverified"]
_ASIDE = ".damaged"
_AGAIN = "camcal check --repair puts its marker aside, then repeat the run that made it"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    kind: Kind
    """Orphaned: nothing needs it.  Unverified: written by a version without checksums."""
    uri: str
    reason: str
    remedy: str = ""
    mend: Callable[[], None] | None = None

    @property
    def harmless(self) -> bool:
        """Whether nothing is missing because of it."""
        return self.kind in {"orphaned", "unverified"}

    def text(self) -> str:
        """One line for a person."""
        where = "" if self.reason.startswith(self.uri) else f"{self.uri}: "
        return f"{self.kind}: {where}{self.reason}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Account:
    """What a check found: what was mended, and what is left."""

    left: Sequence[Finding]
    mended: Sequence[Finding] = ()
    raws: int = 0
    products: int = 0
    """Detectors of products, and cubes of statistics."""

    @property
    def whole(self) -> bool:
        """Whether nothing is lost or damaged."""
        return all(finding.harmless for finding in self.left)

    def text(self) -> str:
        """All lines."""
        lines = [f"mended: {finding.text()}" for finding in self.mended]
        lines += [finding.text() for finding in self.left]
        bad = sum(not finding.harmless for finding in self.left)
        verdict = f"{bad} lost or damaged" if bad else "nothing is lost or damaged"
        return "\n".join([*lines, f"{self.raws} raws and {self.products} products: {verdict}"])


def check(repo: Repo, *, repair: bool = False, quick: bool = False, instrument: str | None = None) -> Account:
    """Walk through a repository.

    Parameters
    ----------
    repo : Repo
        Opened for writing if ``repair``.
    repair : bool
        Mend what can be mended, then look again.
    quick : bool
        Look at names, lengths and documents, not at pixels.
    instrument : str, optional
        Look only at what is this camera's; what belongs to none, such as scratch, is looked at in any case.
    """
    cameras = repo.instruments if instrument is None else (repo.instrument(instrument).name,)
    mended: list[Finding] = []
    while True:
        products.forget_opened()
        survey = _Survey(repo, cameras, quick)
        found = list(survey.findings())
        able = [f for f in found if f.mend is not None and f not in mended] if repair else []
        done = [f for f in able if _mended(f)]
        mended += done
        if not done:
            return Account(found, mended, survey.raws, survey.products)


def _mended(finding: Finding) -> bool:
    assert finding.mend is not None
    try:
        finding.mend()
    except (CamcalError, OSError):  # it stays among what is left, with its remedy
        return False
    return True


class _Survey:
    """One walk."""

    def __init__(self, repo: Repo, cameras: Sequence[str], quick: bool) -> None:
        self.repo, self.cameras, self.quick = repo, cameras, quick
        self.root = files.join(repo.root, "cubes")
        self.stored = repo.stored()
        self.owners: dict[str, set[str]] = {}
        """Cameras of RUNs, and of cubes and records without their endings, by their place below `root`."""
        for path, (run, of) in self.stored.items():
            self.owners.setdefault(run, set()).update(of)
            self.owners.setdefault(_stem(path.removeprefix(f"{self.root}/")), set()).update(of)
        self.raws = self.products = 0
        self.bad: set[str] = set()
        """Documents that are damaged."""

    def findings(self) -> Iterator[Finding]:
        paths = list(filter(self._mine, files.walk(self.root)))
        with ThreadPoolExecutor(CPU_COUNT) as pool:
            for finding in filter(None, pool.map(self._document, paths)):
                self.bad.add(finding.uri)
                yield finding
            yield from self._raws(pool, paths)
            yield from self._cubes(pool, paths)
            yield from self._anchors(paths)
        for path, age in files.scratch(self.repo.root):
            old = age > files.SCRATCH_S
            reason = f"scratch of a killed process, {age / 3600:.1f} h old" if old else "scratch, perhaps in use"
            remedy = "" if old else "it is removed when it is a day old"
            yield Finding("orphaned", path, reason, remedy, partial(files.discard_scratch, path) if old else None)

    def _mine(self, path: str) -> bool:
        """Whether a file is not known to be of other cameras than those looked at."""
        parts = path.removeprefix(f"{self.root}/").split("/")
        if parts[0] in (RAW.name, photodiode.DATASET_TYPE) and len(parts) > 2:
            return parts[1] in self.cameras
        for n in range(len(parts), 0, -1):
            place = "/".join(parts[:n])
            if owners := self.owners.get(_stem(place) if naming.is_ours(parts[n - 1]) else place):
                return not owners.isdisjoint(self.cameras)
        return True

    # ------------------------------------------------------------------ documents

    def _document(self, uri: str) -> Finding | None:
        """Read a small file."""
        try:
            if uri.endswith(".json"):
                files.read_json(uri)
            elif uri.endswith(".jsonl"):
                for number, line in enumerate(files.read_lines(uri), 1):
                    if isinstance(line, ValueError):
                        raise DataError(f"line {number}: {line}")
            elif uri.endswith(".parts"):
                for _ in unbind(files.read_bytes(uri) or b"", uri):
                    pass
        except (RepoError, DataError, ValueError, IsADirectoryError) as error:
            remedy, mend = self._remedy(uri)
            return Finding("damaged", uri, str(error).partition("; ")[0], remedy, mend)
        return None

    def _remedy(self, uri: str) -> tuple[str, Callable[[], None] | None]:
        folder, _, name = uri.rpartition("/")
        aside = partial(_put_aside, uri)
        if name == "zarr.json":
            return self._metadata_remedy(folder)
        if folder.endswith(".finished"):
            return _AGAIN, aside
        if ".manifest/" in uri:
            return "ingest its file again with --replace", aside
        if folder.endswith("/sign-off"):
            return "the act that it records must be repeated", aside
        if f"/{photodiode.DATASET_TYPE}/" in uri:
            return "ingest its reading again", aside
        if uri.endswith(".parts"):
            return "what it holds is made again by the run", partial(files.remove, uri)
        return "nothing rests on it", aside

    def _metadata_remedy(self, folder: str) -> tuple[str, Callable[[], None] | None]:
        parts = folder.removeprefix(self.root).strip("/").split("/")
        if parts[0] == "raw":
            day = files.join(self.root, *parts[:3])
            return "camcal check --repair writes it again", partial(cubes.renew_metadata, day, get_instrument(parts[1]))
        return "make the product again into another RUN, or with --clobber", None

    # ------------------------------------------------------------------ raws

    def _raws(self, pool: ThreadPoolExecutor, paths: Sequence[str]) -> Iterator[Finding]:
        there = set(paths)
        for name in self.cameras:
            folder = files.join(self.root, "raw", name)
            mine = [path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")]
            exposures = [row.id for row in self.repo.exposure_records("", {}, name)]
            registered = self.repo.registered_raws(name, exposures)
            self.raws += len(registered)
            for day in sorted({cubes.raw_cube_uri(self.repo.root, name, exposure) for exposure, _ in registered}):
                for path in (files.join(day, *inner, "zarr.json") for inner in ((), ("raw",))):
                    if path not in there:
                        self.bad.add(path)
                        yield Finding("lost", path, "metadata of a cube", *self._remedy(path))
            for findings in pool.map(partial(self._raw, name, there), sorted(registered)):
                yield from findings
            for place, what in _unregistered(mine, registered):
                yield Finding("orphaned", files.join(folder, what), _unknown(place), "ingest its file again")
            for day in sorted({path.split("/")[0] for path in mine if path.split("/")[0].endswith(".zarr")}):
                yield from _without_checksums(files.join(folder, day), ["raw"])

    def _raw(self, instrument: str, there: set[str], raw: tuple[int, int]) -> list[Finding]:
        exposure, detector = raw
        uri, slot = cubes.raw_cube_uri(self.repo.root, instrument, exposure), cubes.raw_slot(exposure)
        if not self.bad.isdisjoint(files.join(uri, *name, "zarr.json") for name in ((), ("raw",))):
            return []  # is said once, of the cube
        found, manifest = [], None
        what, path = f"exposure {exposure}, detector {detector}", cubes.raw_manifest_uri(uri, slot, detector)
        if path not in self.bad and (manifest := files.read_json(path)) is None:
            found.append(Finding("lost", path, f"manifest of {what}", "ingest its file again"))
        shard = cubes.raw_shard_uri(uri, slot, detector)
        source = "" if manifest is None else str(manifest.get("file", ""))
        remedy = f"ingest {source or 'its file'} again"
        mend = partial(_ingest_again, self.repo, source) if source and files.exists(source) else None
        if shard not in there:
            found.append(Finding("lost", shard, f"pixels of {what}", remedy, mend))
        elif not self.quick and (reason := cubes.raw_damage(uri, slot, detector)):
            found.append(Finding("damaged", shard, reason.partition("; ")[0], remedy, mend))
        return found

    # ------------------------------------------------------------------ products and statistics

    def _cubes(self, pool: ThreadPoolExecutor, paths: Sequence[str]) -> Iterator[Finding]:
        known = self._registered()
        raw = files.join(self.root, "raw") + "/"
        there = {folder for folder in map(files.parent, paths) if folder.endswith(".zarr")}
        there = {uri for uri in there if not uri.startswith(raw)}
        for uri, refs in sorted(known.items()):
            if uri not in there and not files.exists(uri):
                yield Finding("lost", uri, f"{refs[0].dataset_type} of {refs[0].run}", "repeat the run that made it")
        for uri in sorted(there):
            if any(path.startswith(f"{uri}/") for path in self.bad):
                continue  # its metadata is damaged, which was said
            try:
                kind = cubes.cube_kind(uri)
            except RepoError as error:
                yield Finding("damaged", uri, str(error), self._metadata_remedy(uri)[0])
                continue
            refs = known.get(uri, [])
            look = self._product if kind == "product" else self._statistics
            yield from look(pool, uri, refs)
            if not refs:
                yield Finding("orphaned", uri, "the registry does not know it", "a run that ended registers it")

    def _registered(self) -> dict[str, list[Any]]:
        """References by cube or record, but for raws."""
        known: dict[str, list[Any]] = {}
        for run in (c.name for c in self.repo.collections(kind="RUN")):
            for kind in self.repo.types_in(run):
                if kind not in {RAW.name, photodiode.DATASET_TYPE}:
                    for ref in filter(lambda ref: self._mine(ref.uri), self.repo.datasets(kind, run)):
                        known.setdefault(ref.uri, []).append(ref)
        return known

    def _statistics(self, pool: ThreadPoolExecutor, uri: str, refs: Sequence[Any]) -> Iterator[Finding]:
        self.products += 1
        mend = partial(_discard, self.repo, uri, refs)
        remedy = "camcal check --repair takes it away, then repeat the run that made it"
        try:
            names = [str(name) for name in cubes.open_dataset(uri).variables]
        except (DataError, RepoError) as error:
            yield Finding("damaged", uri, str(error).partition("; ")[0], remedy, mend)
        else:
            yield from _without_checksums(uri, names)

    def _product(self, pool: ThreadPoolExecutor, uri: str, refs: Sequence[Any]) -> Iterator[Finding]:
        try:
            ids = products.product_detectors(uri)
        except (DataError, RepoError) as error:
            yield Finding("damaged", uri, str(error).partition("; ")[0], self._metadata_remedy(uri)[0])
            return
        written = products.finished(uri)
        self.products += len(written)
        sound = [index for index in written if products.marker_uri(uri, index) not in self.bad]
        for index, reason in zip(sound, pool.map(partial(self._detector, uri), sound), strict=True):
            if reason:
                aside = partial(_put_aside, products.marker_uri(uri, index))
                yield Finding("damaged", uri, f"detector {ids[index]}: {reason}", _AGAIN, aside)
        for ref in refs:
            if ref.detector is not None and ids.index(ref.detector) not in written:
                yield Finding("lost", uri, f"detector {ref.detector}: it has no marker", "repeat the run that made it")
        marker_folder = files.parent(products.marker_uri(uri, 0))
        mine = {f"{index}.json" for index in written}
        for name in files.names(marker_folder):
            if name not in mine and not name.startswith(".") and _ASIDE not in name:
                yield Finding("orphaned", files.join(marker_folder, name), "no marker of a detector")
        yield from _without_checksums(uri, products.variables(uri))

    def _detector(self, uri: str, index: int) -> str:
        reason = products.damage(uri, [index])[index]
        if not reason and not self.quick:
            reason = next(products.read_all(uri, index), "")
        return reason.partition("; ")[0]

    # ------------------------------------------------------------------ anchors

    def _anchors(self, paths: Sequence[str]) -> Iterator[Finding]:
        """Empty files by which the Butler knows cubes and records; one that is lost stops ``butler get``."""
        there = set(paths)
        for path, (run, _) in sorted(self.stored.items()):
            if (
                path.endswith(ANCHOR)
                and path not in there
                and self._mine(path)
                and any(map(files.exists, beside(path)))
            ):
                again = partial(files.write_bytes, path, b"")
                reason = f"anchor of {run}, without which the Butler finds nothing"
                yield Finding("lost", path, reason, "camcal check --repair makes it again", again)
        for path in (path for path in paths if path.endswith(ANCHOR) and path not in self.stored):
            # Beside a cube it may be that of a run which is about to register; then the run needs it.
            used = any(map(files.exists, beside(path)))
            remedy = "a run that ended registers it" if used else "camcal check --repair removes it"
            mend = None if used else partial(files.remove, path)
            yield Finding("orphaned", path, "anchor that the registry does not know", remedy, mend)


def _stem(place: str) -> str:
    """Place of a cube or record without the ending; what else belongs to it has the same and another ending."""
    folder, slash, name = place.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _unregistered(paths: Iterable[str], registered: set[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], str]]:
    """(exposure, detector) and path of manifests and shards, relative to the camera's folder, of unknown raws."""
    for path in paths:
        parts = path.split("/")
        day, _, kind = parts[0].partition(".")
        slot = detector = ""
        if kind == "manifest" and len(parts) == 3:
            slot, detector = parts[1], parts[2].removesuffix(".json")
        elif kind == "zarr" and parts[1:3] == ["raw", "c"] and len(parts) == 8:
            slot, detector = parts[3:5]
        if day.isdigit() and slot.isdigit() and detector.isdigit():
            place = int(day) * cubes.N_SLOTS + int(slot), int(detector)
            if place not in registered:
                yield place, path


def _unknown(place: tuple[int, int]) -> str:
    return f"the registry does not know exposure {place[0]}, detector {place[1]}"


def _without_checksums(uri: str, names: Iterable[str]) -> Iterator[Finding]:
    """Say so of a cube that an older version wrote."""
    try:
        if not all(has_checksums(files.join(uri, name)) for name in names):
            reason = "written by a version without checksums: what changed in it cannot be noticed"
            yield Finding("unverified", uri, reason, "make it again, raws in a new repository, for the certainty")
    except RepoError:
        return  # damaged, which was said


def _put_aside(uri: str) -> None:
    """Give a damaged document, or a folder in its place, a name that nobody reads."""
    files.rename(uri, uri + _ASIDE)


def _ingest_again(repo: Repo, path: str) -> None:
    """Write the pixels of a raw file again.

    Raises
    ------
    DataError
        If it is not possible.
    """
    for reason in ingest(repo, [path]).failed.values():
        raise DataError(reason)


def _discard(repo: Repo, uri: str, refs: Sequence[Any]) -> None:
    """Take statistics away; the run that made them makes them again."""
    for run, dataset_type in {(ref.run, ref.dataset_type) for ref in refs}:
        repo.forget_product(run, dataset_type)
    products.discard(uri)

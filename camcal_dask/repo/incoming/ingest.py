"""Raw files into the raw cubes and the registry, in parallel, without locks, as often as one likes.

Every file is one task on a worker (`ingest_file`), which ends with whole pixels and a manifest that
vouches for them; the client then registers the reference in the Butler, some hundred files at a time.  Killed at
any point, the same command run again ends in the same state: what a worker had finished is skipped by its
content hash, what it had not is done again, and a reference that was not yet registered is registered.
"""

from __future__ import annotations

import dataclasses
import glob
import itertools
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask.system import CPU_COUNT

from camcal_dask.config import expanded
from camcal_dask.errors import DataError, RepoError
from camcal_dask.raw_fits.header import ExposureRecord
from camcal_dask.raw_fits.photodiode import is_reading
from camcal_dask.repo.incoming.ingest_file import FileResult, Status, ingest_file, shown
from camcal_dask.repo.incoming.photodiode import ingest_readings

if TYPE_CHECKING:
    from distributed import Client

    from camcal_dask.repo.butler.repository import Repo

SUFFIXES = (".fits", ".fits.fz", ".fits.gz")
GUIDER = "_guider.fits"
"""Files of guider stamps lie among the raws and are none (reference/raw_format.md 6.18)."""

Progress = Callable[["FileResult"], None]

_BATCH_FILES, _BATCH_SECONDS = 256, 5.0
"""References are registered when so many files are done, or so long after the last time."""
_TASKS_PER_THREAD = 4
_COMPARED = {
    "obs_id": "obs_id",
    "observation_type": "observation_type",
    "physical_filter": "physical_filter",
    "exposure_time": "exposure_time_s",
}
"""Fields of an exposure that decide what its pixels are used for: registry name, name in `ExposureRecord`."""


@dataclass
class IngestSummary:
    """What an ingest did: counts, ``failed`` and ``remarks`` by file, pixels [byte as int32], time [s]."""

    files: int = 0
    ingested: int = 0
    skipped: int = 0
    replaced: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    raw_bytes: int = 0
    seconds: float = 0.0
    readings: Counter[str] = field(default_factory=Counter)
    """Photodiode readings by status."""

    @property
    def mb_per_s(self) -> float:
        """Raw pixels as int32 that were decoded and written [MB/s]."""
        return self.raw_bytes / 1e6 / self.seconds if self.seconds else 0.0

    def add(self, result: FileResult) -> None:
        """Count one file."""
        self.files += 1
        self.raw_bytes += result.raw_bytes
        if result.status == "failed":
            self.failed[result.path] = result.reason
        else:
            setattr(self, result.status, getattr(self, result.status) + 1)
        if result.remarks:
            self.remarks[result.path] = result.remarks

    def add_reading(self, path: str, status: Status, reason: str) -> None:
        """Count one photodiode reading."""
        self.readings[status] += 1
        if reason:
            self.failed[path] = reason

    def add_all(self, results: Iterable[FileResult]) -> None:
        """Count some files."""
        for result in results:
            self.add(result)

    def text(self) -> str:
        """Closing lines for a person: numbers, then every failure and remark by file."""
        lines = [
            f"{self.files} files in {self.seconds:.1f} s: {self.ingested} ingested, {self.skipped} skipped, "
            f"{self.replaced} replaced, {len(self.failed)} failed; "
            f"{self.raw_bytes / 1e6:.0f} MB of raw pixels, {self.mb_per_s:.0f} MB/s"
        ]
        if self.readings:
            counts = ", ".join(f"{n} {status}" for status, n in sorted(self.readings.items()))
            lines.append(f"{self.readings.total()} photodiode readings: {counts}")
        lines += [_line(f"failed: {reason}") for _, reason in sorted(self.failed.items())]
        for path, remarks in sorted(self.remarks.items()):
            lines.append(_line(f"remark: {shown(path, path)}: {'; '.join(remarks)}"))
        return "\n".join(lines)


def _line(text: str) -> str:
    """One line that grep finds, whatever a file name or a library's message holds.

    Line breaks, undecodable bytes, and what would direct the terminal (escapes, marks of right-to-left) are spelled.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def find_files(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Raw files and photodiode readings among files, folders (searched to the bottom) and glob patterns.

    Symbolic links to folders are followed, each folder once; ``~`` is the home directory.

    Returns
    -------
    list of str
        Absolute paths, each once, sorted within a folder or pattern; no guider stamps.  A named
        file is returned whether it exists or not.

    Raises
    ------
    DataError
        Naming every folder and pattern without raw files, or for an empty path.
    """
    found: dict[str, None] = {}
    empty = []
    for given in paths:
        path = os.fspath(given)
        if not path:  # an unset variable of a shell, which would name the current folder
            raise DataError("one of the paths is empty; name files or folders ('.' is the current folder)")
        names = _expand(path)
        if not names and not _is_guider(path):
            empty.append(path)
        found |= dict.fromkeys(names)
    if empty:
        raise DataError(f"{', '.join(empty)}: no raw files there ({', '.join('*' + s for s in SUFFIXES)})")
    return list(found)


def _expand(path: str) -> list[str]:
    if "://" in path:  # of another repository (`camcal_dask.repo.butler.foreign`)
        return [path]
    path = expanded(path)
    if os.path.isdir(path):  # noqa: PTH112 -- False, not an error, where it may not be looked at
        names = list(_walk(path, set()))
    elif glob.has_magic(path) and not os.path.exists(path):  # noqa: PTH110
        names = []
        for name in glob.glob(path, recursive=True):  # noqa: PTH207 -- absolute too
            names += _walk(name, set()) if os.path.isdir(name) else [name] if _is_ours(name) else []  # noqa: PTH112
    else:
        names = [path]
    # Not resolve(): a site's symbolic links are the names people know.
    return [os.path.abspath(n) for n in sorted(names) if not _is_guider(n)]  # noqa: PTH100


def _walk(folder: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Files of ours in a folder and below; ``seen`` (device, inode) ends the circles that links can make.

    A folder that may not be read stands for its files: the ingest then says of it why, as of a file.
    """
    try:
        status = os.stat(folder)  # noqa: PTH116
        if (place := (status.st_dev, status.st_ino)) in seen:
            return
        seen.add(place)
        with os.scandir(folder) as scan:
            # The real name of a folder before those that link to it.
            entries = sorted(scan, key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry.path, seen)
        elif _is_ours(entry.name):
            yield entry.path


def _is_guider(name: str) -> bool:
    return GUIDER in name.lower()


def _is_ours(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) or is_reading(name)


# ---------------------------------------------------------------------------- on the client


def ingest(
    repo: Repo,
    paths: Iterable[str | os.PathLike[str]],
    *,
    client: Client | None = None,
    replace: bool = False,
    accept_checksum: bool = False,
    progress: Progress | None = None,
) -> IngestSummary:
    """Ingest raw files, then photodiode readings; may be repeated, interrupted, and run by several processes at once.

    Parameters
    ----------
    repo : Repo
        Opened for writing.
    paths : iterable of str or PathLike
        Files, folders, glob patterns, that all workers can see.
    client : distributed.Client, optional
        Where the work is done; default: one thread per core in this process.
    replace : bool
        Let other content replace what earlier calls ingested under the same exposure and detector.
    accept_checksum : bool
        Take files that do not match their ``DATASUM``, ``ZDATASUM`` or ``CHECKSUM``, with a remark.
    progress : callable, optional
        Called here with the `FileResult` of every file.

    Returns
    -------
    IngestSummary
        Files that cannot be used are in its ``failed``, by name with the reason; they leave no reference.

    Raises
    ------
    DataError, RepoError
        If there are no files; if the repository was opened for reading.
    """
    begin = time.perf_counter()
    found = find_files(paths)
    if not repo.writeable:
        raise RepoError(f"{repo.root}: opened for reading; ingest needs open_repo(root, writeable=True)")
    summary, call, instruments = IngestSummary(), uuid.uuid4().hex, repo.instruments
    readings = [path for path in found if is_reading(path)]
    tasks = ((repo.root, instruments, p, replace, call, accept_checksum) for p in found if not is_reading(p))
    _ingest_raws(repo, tasks, client, summary, progress)
    for path, (status, reason) in ingest_readings(repo, readings, replace=replace).items():
        summary.add_reading(path, status, reason)
        if progress is not None:
            progress(FileResult(path, status, reason))
    summary.seconds = time.perf_counter() - begin
    return summary


def _ingest_raws(
    repo: Repo, tasks: Iterator[Any], client: Client | None, summary: IngestSummary, progress: Progress | None
) -> None:
    """Work on files, register what is written in batches, and count."""
    registrar = _Registrar(repo)
    with _executor(client) as (executor, threads):
        for answer in _run(executor, tasks, _TASKS_PER_THREAD * threads):
            result = registrar.settle(answer)
            if progress is not None:
                progress(result)
            summary.add_all(registrar.add(result))
        summary.add_all(registrar.flush())


@contextmanager
def _executor(client: Client | None) -> Iterator[tuple[Executor, int]]:
    """Executor on the client's workers, or threads here; with the number of threads that work."""
    if client is not None:
        yield client.get_executor(pure=False), max(1, sum(client.nthreads().values()))
        return
    with ThreadPoolExecutor(CPU_COUNT, thread_name_prefix="ingest") as pool:
        yield pool, CPU_COUNT


def _run(executor: Executor, tasks: Iterable[tuple[Any, ...]], width: int) -> Iterator[FileResult]:
    """Results as they come; at most ``width`` tasks are under way, so that memory does not grow with the files."""
    waiting: dict[Future[FileResult], str] = {}
    queue = iter(tasks)
    try:
        while True:
            for task in itertools.islice(queue, width - len(waiting)):
                waiting[executor.submit(ingest_file, *task)] = task[2]
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                path, error = waiting.pop(future), future.exception()
                reason = f"{path}: {type(error).__name__}: {error}"
                yield FileResult(path, "failed", reason) if error else future.result()
    finally:
        for future in waiting:
            future.cancel()


class _Registrar:
    """Turns finished pixels into references, some hundred at a time."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._pending: list[FileResult] = []
        self._last = time.monotonic()
        self._places: set[tuple[str, int, int]] = set()

    def settle(self, result: FileResult) -> FileResult:
        """Call a file that only repeats another one of this ingest skipped, whichever was first on its worker."""
        if result.record is None:
            return result
        place = result.record.instrument, result.record.exposure, result.detector
        if place in self._places:
            return dataclasses.replace(result, status="skipped")
        self._places.add(place)
        return result

    def add(self, result: FileResult) -> list[FileResult]:
        """Take one file; return those that are done with."""
        if result.record is None:
            return [result]
        self._pending.append(result)
        due = len(self._pending) >= _BATCH_FILES or time.monotonic() - self._last > _BATCH_SECONDS
        return self.flush() if due else []

    def flush(self) -> list[FileResult]:
        """Register everything that waits; return it, failed where the registry refuses."""
        results, self._pending = self._register(self._pending), []
        self._last = time.monotonic()
        return results

    def _register(self, results: list[FileResult]) -> list[FileResult]:
        exposures: dict[tuple[str, int], list[FileResult]] = {}
        for result in results:
            if result.record is not None:
                exposures.setdefault((result.record.instrument, result.record.exposure), []).append(result)
        try:
            return [r for name in {n for n, _ in exposures} for r in self._register_camera(name, results)]
        except RepoError as error:
            if len(exposures) > 1:  # one exposure is refused: the others shall not suffer
                return [r for group in exposures.values() for r in self._register(group)]
            return [dataclasses.replace(r, status="failed", reason=f"{r.path}: {error}", raw_bytes=0) for r in results]

    def _register_camera(self, instrument: str, results: list[FileResult]) -> list[FileResult]:
        mine = [(r, r.record) for r in results if r.record is not None and r.record.instrument == instrument]
        self._repo.register_exposures(record for _, record in mine)
        self._repo.register_raws(instrument, [(record.exposure, r.detector) for r, record in mine])
        rows = self._rows(instrument, {record.exposure for _, record in mine})
        return [
            dataclasses.replace(r, remarks=(*r.remarks, *_differences(record, rows[record.exposure])))
            for r, record in mine
        ]

    def _rows(self, instrument: str, exposures: set[int]) -> dict[int, Any]:
        found = self._repo.butler.query_dimension_records(
            "exposure",
            where="exposure IN (wanted)",
            bind={"wanted": sorted(exposures)},
            instrument=instrument,
            limit=None,
        )
        return {row.id: row for row in found}


def _differences(record: ExposureRecord, row: Any) -> list[str]:
    """Where a file contradicts what the registry has of its exposure: the first file's header (hazard 11)."""
    pairs = [(name, getattr(record, field_name), getattr(row, name)) for name, field_name in _COMPARED.items()]
    return [
        f"{name} is {here!r}, but exposure {record.exposure} is registered with {there!r}, from its first file"
        for name, here, there in pairs
        if here != there
    ]

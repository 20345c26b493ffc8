"""The Butler at the edge: the one module (with `formatter`, `making`, `postgres`) that knows ``lsst.daf.butler``.

A `Repo` lives on the client only; tasks receive paths and numbers.  Registration is the last act of
every write: what the registry does not know does not exist.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import xarray as xr
import yaml
from lsst.daf.butler import (
    Butler,
    DataCoordinate,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    FileDataset,
    MissingDatasetTypeError,
    Timespan,
)
from lsst.daf.butler.registry import ConflictingDefinitionError
from sqlalchemy.exc import DBAPIError

from camcal_dask.errors import ConfigError, RepoError, nearest
from camcal_dask.instruments import Instrument, get_instrument
from camcal_dask.instruments.arguments import Detectors, integer
from camcal_dask.raw_fits.header import ExposureRecord
from camcal_dask.repo import schema
from camcal_dask.repo.butler import expression, making, records, selection, sqlite
from camcal_dask.repo.butler.connection import registry_url, remedy
from camcal_dask.repo.butler.curation import USER_ERRORS, Curation, ranges
from camcal_dask.repo.butler.queries import Names
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.formatter import ANCHOR, CubeFormatter, RecordFormatter, anchor, cube_uri, here
from camcal_dask.repo.storage import files, naming, objects

T = TypeVar("T")
_ATTEMPTS = 7


# ---------------------------------------------------------------------------- create and open


def create_repo(root: str, instrument: str = "LSSTCam", registry: str | None = None) -> Repo:
    """Make a repository, or add an instrument to one and bring it up to date; may be repeated.

    Parameters
    ----------
    root : str
        Folder that all workers can see, or ``s3://bucket/path``.
    instrument : str
        Camera to register with all its detectors and filters.
    registry : str, optional
        ``postgresql://user@host/database``; default is SQLite in ``root``.

    Returns
    -------
    Repo
        Opened for writing.

    Raises
    ------
    RepoError
        If the folder holds something else or the registry cannot be used.
    """
    camera = get_instrument(instrument)
    root = naming.check_root(files.absolute(root))
    url = None if registry is None else registry_url(registry)
    _reachable(root)
    making.ensure_made(root, url)
    repo = open_repo(root, writeable=True)
    repo.register_instrument(camera)
    repo.make_relative()
    return repo


def open_repo(root: str, *, writeable: bool = False) -> Repo:
    """Open an existing repository.

    Raises
    ------
    RepoError
        If there is none, or its registry cannot be reached.
    """
    root = files.absolute(root)
    _reachable(root)
    if not Butler.has_repo_config(root):
        raise RepoError(f"{root}: not a repository (no {making.CONFIG}); make one with: camcal create {root}")
    try:
        if making.on_sqlite(root):
            sqlite.check(files.local_path(root))
        with _quietly():
            return Repo(root, Butler.from_config(root, writeable=writeable), writeable)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:  # what the Butler makes of a damaged one
        raise RepoError(
            f"{root}: {making.CONFIG} is damaged ({' '.join(str(error).split())[:200]}); bring a copy back, or take "
            "that of a new repository of the same cameras and registry (camcal create)"
        ) from error
    except (DBAPIError, RuntimeError, ImportError, LookupError) as error:
        raise RepoError(f"{root}: registry cannot be opened: {remedy(error)}") from error


def _reachable(root: str) -> None:
    """Tell the Butler's storage layer where an object store is; a wrong key or address ends here, by name."""
    if objects.is_object(root):
        objects.endpoint()
        try:
            objects.exists(root)
        except OSError as error:
            raise RepoError(f"storage cannot be reached: {error}") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Let our errors speak, which name the repository, and not the library's log."""
    logger = logging.getLogger("lsst.daf.butler")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


# ---------------------------------------------------------------------------- the repository


class Repo(Curation):
    """A Butler repository with cubes; `create_repo` and `open_repo` make it."""

    def __init__(self, root: str, butler: Butler, writeable: bool) -> None:
        self.root = root
        files.guard(root)
        self.butler = butler
        self.writeable = writeable

    def __repr__(self) -> str:
        return f"Repo({self.root!r}, instruments={list(self.instruments)}, writeable={self.writeable})"

    def __enter__(self) -> Repo:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the registry."""
        self.butler.close()

    @property
    def instruments(self) -> tuple[str, ...]:
        """Names of the registered cameras."""
        return tuple(sorted(r.name for r in self.butler.query_dimension_records("instrument", explain=False)))

    def instrument(self, name: str | None = None, where: str = "") -> Instrument:
        """Return the camera of that name, of ``instrument='...'`` in an expression, or the only one.

        Raises
        ------
        RepoError
            If the repository has several, or not the one named.
        """
        known = self.instruments
        name = name or expression.instrument_of(where) or (known[0] if len(known) == 1 else None)
        if name is None:
            raise RepoError(f"{self.root}: holds {', '.join(known)}; say which with --instrument (instrument=...)")
        if name not in known:
            raise RepoError(f"{self.root}: has no instrument {name!r}{nearest(name, known)}")
        return get_instrument(name)

    # ------------------------------------------------------------------ registering

    def register_instrument(self, instrument: Instrument) -> None:
        """Register a camera, its detectors, filters, dataset types and raw collection; may be repeated."""

        def insert() -> None:
            registry = self.butler.registry
            registry.insertDimensionData("instrument", records.instrument_row(instrument), skip_existing=True)
            registry.insertDimensionData("detector", *records.detector_rows(instrument), skip_existing=True)
            registry.insertDimensionData("physical_filter", *records.filter_rows(instrument), skip_existing=True)
            for spec in schema.dataset_types():
                registry.registerDatasetType(self._dataset_type(spec))
            self.butler.collections.register(schema.raw_run(instrument.name))

        self._patiently(insert, f"registering {instrument.name}")

    def register_run(self, run: str) -> None:
        """Make a RUN collection; may be repeated.

        Raises
        ------
        RepoError
            If the name cannot be one, or is that of a collection of another kind.
        """
        self._check_kind(run, "RUN")
        self._patiently(lambda: self.butler.collections.register(run), f"RUN {run}")

    def register_dataset_type(self, name: str, dimensions: Sequence[str], is_calibration: bool) -> None:
        """Register a type of cube; may be repeated with the same definition.

        Raises
        ------
        RepoError
            If the name is none, or taken by another definition.
        """
        naming.check_dataset_type(name)
        spec = schema.DatasetTypeSpec(name, tuple(dimensions), "", is_calibration)
        self._patiently(
            lambda: self.butler.registry.registerDatasetType(self._dataset_type(spec)), f"dataset type {name}"
        )

    def _dataset_type(self, spec: schema.DatasetTypeSpec) -> DatasetType:
        return DatasetType(
            spec.name,
            spec.dimensions,
            spec.storage_class,
            universe=self.butler.dimensions,
            isCalibration=spec.is_calibration,
        )

    def register_exposures(self, exposures: Iterable[ExposureRecord]) -> None:
        """Insert exposures with their groups, days and filters; what is there already stays as it is.

        Raises
        ------
        RepoError
            If an exposure contradicts the registry (an observation id with another exposure id).
        """
        chosen = records.one_per_exposure(exposures)

        def insert() -> None:
            put = self.butler.registry.insertDimensionData
            with self.butler.transaction():
                for name, group in records.by_instrument(chosen).items():
                    names = {r.physical_filter for r in group}
                    put("physical_filter", *records.filter_rows(get_instrument(name), names), skip_existing=True)
                put("group", *records.group_rows(chosen), skip_existing=True)
                put("day_obs", *records.day_rows(chosen, _span), skip_existing=True)
                put("exposure", *(records.exposure_row(r, _span) for r in chosen), skip_existing=True)

        if chosen:
            self._patiently(insert, f"registering {len(chosen)} exposures from {chosen[0].obs_id} on")

    def registered_raws(self, instrument: str, exposures: Iterable[int]) -> set[tuple[int, int]]:
        """(exposure, detector) of the raws that the registry knows, among these exposures."""
        if not (wanted := sorted({int(e) for e in exposures})):
            return set()
        with self.butler.query() as query:
            query = query.join_dataset_search("raw", schema.raw_run(instrument))
            query = query.where("exposure IN (wanted)", bind={"wanted": wanted}, instrument=instrument)
            return {(int(i["exposure"]), int(i["detector"])) for i in query.data_ids(["exposure", "detector"])}

    def register_raws(self, instrument: str, raws: Iterable[tuple[int, int]]) -> int:
        """Register (exposure, detector) pairs whose pixels are written; return how many were new.

        Dataset ids follow from the data IDs, so that registering twice, or in two processes at
        once, makes one reference.  The exposures must be registered.
        """
        wanted = {(int(exposure), int(detector)) for exposure, detector in raws}
        run = schema.raw_run(instrument)

        def insert() -> int:
            missing = wanted - self.registered_raws(instrument, {exposure for exposure, _ in wanted})
            data_ids: dict[str, list[Mapping[str, Any]]] = {}
            for exposure, detector in sorted(missing):
                uri = cubes.raw_cube_uri(self.root, instrument, exposure)
                data_id = {"instrument": instrument, "exposure": exposure, "detector": detector}
                data_ids.setdefault(uri, []).append(data_id)
            self._ingest("raw", run, data_ids)
            return len(missing)

        return self._patiently(insert, f"registering {len(wanted)} raws of {instrument}")

    def register_product(
        self, run: str, dataset_type: str, uri: str, data_ids: Iterable[Mapping[str, Any]]
    ) -> list[str]:
        """Register what is whole in a cube (or a JSON record), many data IDs on one path; may be repeated.

        Returns
        -------
        list of str
            Dataset UUIDs, in the order of ``data_ids``.

        Raises
        ------
        RepoError
            If a detector of the cube is not finished, or the path or type is unknown.
        """
        return self.register_all(run, dataset_type, {uri: list(data_ids)})

    def register_all(self, run: str, dataset_type: str, places: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
        """Register several cubes or records of one type, as `register_product`; ``places``: path -> data IDs."""
        self._check_kind(run, "RUN")
        wanted = {files.absolute(uri): [dict(d) for d in data_ids] for uri, data_ids in places.items()}
        kind = self._type(dataset_type)
        for uri, ids in wanted.items():
            if uri.endswith(".json") or kind.storageClass_name != schema.RECORD_CLASS:
                cubes.check_whole(uri, [d["detector"] for d in ids if "detector" in d])

        def insert() -> list[str]:
            self.butler.collections.register(run)
            refs = {uri: [self._ref(kind, run, d) for d in ids] for uri, ids in wanted.items()}
            known = {ref.id for ref in self._query_refs(dataset_type, run)}
            missing = {
                uri: [d for d, ref in zip(ids, refs[uri], strict=True) if ref.id not in known]
                for uri, ids in wanted.items()
            }
            self._ingest(dataset_type, run, {uri: ids for uri, ids in missing.items() if ids})
            return [str(ref.id) for group in refs.values() for ref in group]

        return self._patiently(insert, f"registering {dataset_type} in {run}")

    def make_relative(self) -> int:
        """Bring a repository up to date in which absolute paths are stored; return how many datasets it was.

        Ids and certifications stay.  What lies outside, or is not there, is left as it is.
        """
        count = 0
        for run in (c.name for c in self.collections(kind="RUN")):
            for name in self.types_in(run):
                groups: dict[str, list[DatasetRef]] = {}
                refs = self._query_refs(name, run)
                uris = self.butler.get_many_uris(refs)
                for ref in refs:
                    path = uris[ref].primaryURI
                    if str(path).endswith(ANCHOR):
                        continue
                    uri = here(self.root, cube_uri(path), run)
                    if uri.startswith(f"{self.root}/") and files.exists(uri):
                        of_exposures = uri.endswith(".json") and "exposure" in ref.dataId
                        groups.setdefault(files.parent(uri) if of_exposures else uri, []).append(ref)
                if groups:
                    count += self._patiently(partial(self._restore, name, run, groups), f"paths of {name} in {run}")
        return count

    def _restore(self, name: str, run: str, groups: Mapping[str, Sequence[DatasetRef]]) -> int:
        refs = [ref for group in groups.values() for ref in group]
        with self.butler.transaction():
            self.butler.pruneDatasets(refs, disassociate=False, unstore=True, purge=False)
            self._ingest(
                name, run, {uri: [dict(ref.dataId.required) for ref in group] for uri, group in groups.items()}
            )
        return len(refs)

    def forget_product(self, run: str, dataset_type: str) -> int:
        """Take all datasets of a type out of a RUN; the cubes stay.  Return how many there were.

        Raises
        ------
        RepoError
            If one of them is certified (a calibration in use must not vanish or change), or ``run`` is no RUN.
        """
        if self._check_kind(run, "RUN") is None:
            return 0
        refs = self._query_refs(dataset_type, run)
        mine = {str(ref.id) for ref in refs}
        for collection in self.collections(kind="CALIBRATION") if refs else ():
            there = ranges(self._candidates(dataset_type, collection.name))
            if mine & {uuid for uuid, _, _ in there}:
                raise RepoError(
                    f"{dataset_type} of {run} is certified in {collection.name}; it must not be replaced: "
                    "choose another output collection, or decertify it first"
                )
        self._patiently(
            lambda: self.butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True),
            f"forgetting {dataset_type} of {run}",
        )
        return len(refs)

    def _ingest(self, dataset_type: str, run: str, data_ids: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        kind = self._type(dataset_type)
        formatter = RecordFormatter if kind.storageClass_name == schema.RECORD_CLASS else CubeFormatter
        datasets = []
        for uri, ids in data_ids.items():
            if not uri.startswith(f"{self.root}/"):
                raise RepoError(f"{uri}: lies outside of {self.root}, where nothing can be registered")
            if not files.exists(uri):
                raise RepoError(f"{dataset_type} in {run}: write the cube before registering it ({uri} is not there)")
            if not files.exists(place := anchor(uri)):
                files.write_bytes(place, b"")  # it says nothing, so it cannot be damaged
            path = place.removeprefix(f"{self.root}/")
            datasets.append(FileDataset(path=path, refs=[self._ref(kind, run, d) for d in ids], formatter=formatter))
        # None: what lies there is known by its path in the repository.  No size or checksum: cubes go on growing.
        self.butler.ingest(*datasets, transfer=None, record_validation_info=False)

    def _ref(self, kind: DatasetType, run: str, data_id: Mapping[str, Any]) -> DatasetRef:
        coordinate = DataCoordinate.standardize(data_id, dimensions=kind.dimensions)
        return DatasetRef(kind, coordinate, run=run, id_generation_mode=DatasetIdGenEnum.DATAID_TYPE_RUN)

    def _type(self, name: str) -> DatasetType:
        try:
            return self.butler.get_dataset_type(name)
        except MissingDatasetTypeError:
            known = [t.name for t in self.butler.registry.queryDatasetTypes()]
            raise RepoError(f"{self.root}: no dataset type {name!r}{nearest(name, known)}") from None

    def _patiently(self, action: Callable[[], T], what: str) -> T:
        """Run a write that looks before it acts; when another process was faster, look again."""
        if not self.writeable:
            raise RepoError(f"{self.root}: opened for reading; {what} needs open_repo(root, writeable=True)")
        for attempt in range(_ATTEMPTS):
            files.check_there(self.root)  # SQLite would begin an empty registry there
            try:
                return action()
            except (ConflictingDefinitionError, DBAPIError) as error:
                if attempt == _ATTEMPTS - 1:
                    raise RepoError(f"{self.root}: {what} failed {_ATTEMPTS} times: {remedy(error)}") from error
                time.sleep(random.uniform(0.5, 1.0) * 0.02 * 2**attempt)
                self.butler.registry.refresh()
        raise AssertionError("unreachable")

    # ------------------------------------------------------------------ raws

    def raws(
        self,
        where: str = "",
        *,
        instrument: str | None = None,
        detectors: Detectors | None = None,
        collections: Names | None = None,
        bind: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> xr.DataArray:
        """Select raws with a Butler expression; nothing is read.

        Parameters
        ----------
        where : str
            For example ``"exposure.observation_type='bias' AND exposure.day_obs=20260812"``.
        instrument : str, optional
            Needed if the repository has several and ``where`` does not say.
        detectors : int, str or several of them, optional
            Ids or names, also as arrays; default: the science detectors, unless ``where`` speaks of ``detector``.
        collections : str or list of str, optional
            Default: ``{instrument}/raw/all``.
        bind : dict, optional
            Values of identifiers in ``where``.
        limit : int, optional
            Take only so many exposures, the lowest ids.

        Returns
        -------
        xr.DataArray
            ``raw`` (exposure, detector, amp, y, x) int32 [adu], lazy and without dask: select first, then
            ``.chunk(exposure=1, detector=1, amp=-1, y=-1, x=-1)`` for exposures or
            ``.chunk(exposure=-1, detector=1, amp=-1, y=256, x=-1)`` for stacks.  A detector that an
            exposure lacks is FILL.

        Raises
        ------
        RepoError
            If nothing matches (it says which term), or the expression is wrong.
        """
        camera = self.instrument(instrument, where)
        if limit is not None and integer(limit, "limit") < 1:
            raise ConfigError(f"limit: {limit} exposures are none")
        bind = dict(bind or {})
        where = selection.with_detectors(where, camera, detectors, bind)
        search = [schema.raw_run(camera.name)] if collections is None else _as_list(collections)
        self._flatten(search)  # names an unknown collection better than the Butler does
        try:
            pairs, rows = self._query_raws(where, camera, search, bind)
            if not pairs:
                raise RepoError(self._explain(where, camera, search, bind))
        except USER_ERRORS as error:
            raise RepoError(f"raws where {where!r}: {str(error).strip()}") from error
        return selection.raw_array(self.root, camera, [selection.from_record(r) for r in rows][:limit], pairs)

    def _query_raws(
        self, where: str, camera: Instrument, search: Names, bind: dict[str, Any]
    ) -> tuple[set[tuple[int, int]], list[Any]]:
        with self.butler.query() as query:
            found = query.join_dataset_search("raw", search).where(where, bind=bind, instrument=camera.name)
            pairs = {(int(i["exposure"]), int(i["detector"])) for i in found.data_ids(["exposure", "detector"])}
            rows = list(found.dimension_records("exposure")) if pairs else []
        return pairs, sorted(rows, key=lambda row: row.id)

    def _explain(self, where: str, camera: Instrument, search: Names, bind: dict[str, Any]) -> str:
        """Say why nothing matched: which term alone matches nothing, and what there is."""
        with self.butler.query() as query:
            found = query.join_dataset_search("raw", search).where(instrument=camera.name)
            rows = list(found.dimension_records("exposure"))
            if not rows:
                return (
                    f"{self.root}: no raws of {camera.name} in {search}; ingest first: camcal ingest {self.root} PATHS"
                )
            failing = [
                term
                for term in expression.terms(where)
                if not found.where(term, bind=bind).data_ids(["exposure", "detector"]).any()
            ]
        reason = f"{' AND '.join(failing)} finds none" if failing else "each term finds some, but none matches all"
        stock = selection.inventory([selection.from_record(r) for r in rows])
        return f"no raws match {where!r}: {selection.spelled(reason, bind)}. {stock}"

    def _query_refs(self, dataset_type: str, collection: str) -> list[DatasetRef]:
        return list(self.butler.query_datasets(dataset_type, collection, find_first=False, explain=False, limit=None))


# ---------------------------------------------------------------------------- small translations


def _span(begin: int | None, end: int | None) -> Timespan:
    """Timespan of TAI nanoseconds."""
    return Timespan(None, None, _nsec=(begin, end))


def _as_list(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)

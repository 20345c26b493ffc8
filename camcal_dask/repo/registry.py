"""The Butler at the edge: the one module (with `formatter`) that knows ``lsst.daf.butler``.

A `Repo` lives on the client only; tasks receive paths and numbers.  Registration is the last act of
every write: what the registry does not know does not exist.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import numpy as np
import xarray as xr
from astropy.time import Time
from lsst.daf.butler import (
    Butler,
    CollectionType,
    Config,
    DataCoordinate,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    FileDataset,
    MissingCollectionError,
    MissingDatasetTypeError,
    Timespan,
)
from lsst.daf.butler._exceptions import ButlerUserError
from lsst.daf.butler.formatters.json import JsonFormatter
from lsst.daf.butler.registry import ConflictingDefinitionError, RegistryError
from sqlalchemy.exc import DBAPIError

from camcal_dask.errors import RepoError, nearest
from camcal_dask.ingest.header import ExposureRecord
from camcal_dask.instruments import Instrument, get_instrument
from camcal_dask.repo import cubes, expression, files, records, schema, selection
from camcal_dask.repo.formatter import CubeFormatter
from camcal_dask.repo.lookup import CalibRef, Candidate, Candidates, Key

T = TypeVar("T")
Names = str | Sequence[str]
Moment = Any
"""A time in TAI: astropy Time, datetime, ISO text, an observing day YYYYMMDD (12:00 TAI), or None = unbounded."""
ChainMode = Literal["redefine", "extend", "remove", "prepend", "pop"]
_USER_ERRORS = (ButlerUserError, RegistryError, MissingCollectionError, MissingDatasetTypeError)
_ATTEMPTS = 7


@dataclass(frozen=True)
class Collection:
    """A collection: ``kind`` is RUN, TAGGED, CALIBRATION or CHAINED."""

    name: str
    kind: str
    children: tuple[str, ...] = ()


# ---------------------------------------------------------------------------- create and open


def create_repo(root: str, instrument: str = "LSSTCam", registry: str | None = None) -> Repo:
    """Make a repository, or add an instrument to one; may be repeated.

    Parameters
    ----------
    root : str
        Folder that all workers can see.
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
    root = files.absolute(root)
    url = None if registry is None else registry_url(registry)
    if not Butler.has_repo_config(root):
        _make(root, url)
    elif url is not None and url != (found := Config(files.join(root, "butler.yaml"))["registry", "db"]):
        raise RepoError(f"{root}: is a repository already, with registry {found}, not {url}; choose another folder")
    repo = open_repo(root, writeable=True)
    repo.register_instrument(camera)
    return repo


def open_repo(root: str, *, writeable: bool = False) -> Repo:
    """Open an existing repository.

    Raises
    ------
    RepoError
        If there is none, or its registry cannot be reached.
    """
    root = files.absolute(root)
    if not Butler.has_repo_config(root):
        raise RepoError(f"{root}: not a repository (no butler.yaml); make one with: camcal create {root}")
    try:
        return Repo(root, Butler.from_config(root, writeable=writeable), writeable)
    except (DBAPIError, RuntimeError, ImportError) as error:
        raise RepoError(f"{root}: registry cannot be opened: {_remedy(error)}") from error


def registry_url(text: str) -> str:
    """Registry URL as SQLAlchemy needs it; a bare ``postgresql://`` gets the psycopg2 driver.

    Raises
    ------
    RepoError
        If it is not a PostgreSQL URL or holds a password.
    """
    parts = urlsplit(text)
    scheme, _, driver = parts.scheme.partition("+")
    if scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
        raise RepoError(
            f"registry {parts.scheme}://...: expected postgresql://user@host/database, or nothing for SQLite"
        )
    if parts.password is not None:
        raise RepoError(
            f"registry {scheme}://{parts.username}:***@{parts.hostname}: a password in the URL would be written into "
            f"butler.yaml for all to read; keep it in ~/.lsst/db-auth.yaml (mode 600) or in the file PGPASSFILE names"
        )
    return parts._replace(scheme=f"postgresql+{driver or 'psycopg2'}").geturl()


def _make(root: str, url: str | None) -> None:
    if files.names(root):
        raise RepoError(f"{root}: folder is not empty and not a repository; choose another one")
    config = Config(
        {
            "storageClasses": {schema.STORAGE_CLASS: {"pytype": "xarray.Dataset"}},
            "datastore": {"formatters": {schema.STORAGE_CLASS: f"{CubeFormatter.__module__}.CubeFormatter"}},
        }
    )
    if url is not None:
        config["registry", "db"] = url
    try:
        Butler.makeRepo(root, config=config)
    except FileExistsError:  # another process was a moment earlier
        pass
    except (DBAPIError, RuntimeError, ImportError) as error:
        # A butler.yaml without a registry behind it would pass for a repository.
        files.remove(files.join(root, "butler.yaml"))
        raise RepoError(f"{root}: registry cannot be made: {_remedy(error)}") from error


def _remedy(error: Exception) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "btree_gist" in str(error):
        return 'the database needs an extension; run once: psql -d DATABASE -c "CREATE EXTENSION btree_gist"'
    if isinstance(error, ImportError):
        return f"{text}; run: pip install 'camcal_dask[postgres]'"
    return text


# ---------------------------------------------------------------------------- the repository


class Repo:
    """A Butler repository with cubes; `create_repo` and `open_repo` make it."""

    def __init__(self, root: str, butler: Butler, writeable: bool) -> None:
        self.root = root
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
            raise RepoError(f"{self.root}: holds {', '.join(known)}; say which: instrument='{known[0]}'")
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
            for spec in schema.DATASET_TYPES:
                registry.registerDatasetType(self._dataset_type(spec))
            self.butler.collections.register(schema.raw_run(instrument.name))

        self._patiently(insert, f"registering {instrument.name}")

    def register_dataset_type(self, name: str, dimensions: Sequence[str], is_calibration: bool) -> None:
        """Register a type of cube; may be repeated with the same definition.

        Raises
        ------
        RepoError
            If the name is taken by another definition.
        """
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
        wanted = sorted({int(e) for e in exposures})
        if not wanted:
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
        wanted = [dict(data_id) for data_id in data_ids]
        uri = files.absolute(uri)
        _check_whole(uri, [d["detector"] for d in wanted if "detector" in d])
        kind = self._type(dataset_type)

        def insert() -> list[str]:
            self.butler.collections.register(run)
            refs = [self._ref(kind, run, data_id) for data_id in wanted]
            known = {str(ref.id) for ref in self._query_refs(dataset_type, run)}
            missing = [d for d, ref in zip(wanted, refs, strict=True) if str(ref.id) not in known]
            self._ingest(dataset_type, run, {uri: missing} if missing else {})
            return [str(ref.id) for ref in refs]

        return self._patiently(insert, f"registering {dataset_type} in {run}")

    def _ingest(self, dataset_type: str, run: str, data_ids: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        kind = self._type(dataset_type)
        formatter = JsonFormatter if kind.storageClass_name == schema.RECORD_CLASS else CubeFormatter
        datasets = [
            FileDataset(path=uri, refs=[self._ref(kind, run, d) for d in ids], formatter=formatter)
            for uri, ids in data_ids.items()
        ]
        try:
            # No size or checksum: the "file" is a folder that goes on growing.
            self.butler.ingest(*datasets, transfer="direct", record_validation_info=False)
        except FileNotFoundError as error:
            raise RepoError(f"{dataset_type} in {run}: write the cube before registering it ({error})") from error

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
            try:
                return action()
            except (ConflictingDefinitionError, DBAPIError) as error:
                if attempt == _ATTEMPTS - 1:
                    raise RepoError(f"{self.root}: {what} failed {_ATTEMPTS} times: {_remedy(error)}") from error
                time.sleep(random.uniform(0.5, 1.0) * 0.02 * 2**attempt)
                self.butler.registry.refresh()
        raise AssertionError("unreachable")

    # ------------------------------------------------------------------ raws

    def raws(
        self,
        where: str = "",
        *,
        instrument: str | None = None,
        detectors: Iterable[int | str] | None = None,
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
        detectors : iterable of int or str, optional
            Ids or names; default: the science detectors, unless ``where`` speaks of ``detector``.
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
        bind = dict(bind or {})
        where = _with_detectors(where, camera, detectors, bind)
        search = schema.raw_run(camera.name) if collections is None else collections
        try:
            pairs, rows = self._query_raws(where, camera, search, bind)
            if not pairs:
                raise RepoError(self._explain(where, camera, search, bind))
        except _USER_ERRORS as error:
            raise RepoError(f"raws where {where!r}: {str(error).strip()}") from error
        return selection.raw_array(self.root, camera, [_exposure(r) for r in rows][:limit], pairs)

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
        reason = " AND ".join(failing) or "each term matches, but no raw matches all of them"
        return f"no raws match {where!r}: {reason!r} finds none. {selection.inventory([_exposure(r) for r in rows])}"

    # ------------------------------------------------------------------ products and calibrations

    def datasets(self, dataset_type: str, collections: Names) -> list[CalibRef]:
        """Everything of one type in some collections (by detector, then collection)."""
        found = self._candidates(dataset_type, collections)
        chosen = {c.uuid: c for group in found.by_key.values() for c in group}
        refs = self._calib_refs(dataset_type, chosen.values())
        return sorted(refs.values(), key=lambda ref: (-1 if ref.detector is None else ref.detector, ref.run))

    def find_calib(self, dataset_type: str, exposure: int, detector: int, collections: Names) -> CalibRef:
        """Calibration valid for one exposure and detector.

        Raises
        ------
        RepoError
            If there is none.
        """
        return self.find_calibs(dataset_type, [exposure], [detector], collections)[exposure, detector]

    def find_calibs(
        self,
        dataset_type: str,
        exposures: Iterable[int],
        detectors: Iterable[int],
        collections: Names,
        *,
        instrument: str | None = None,
        required: bool = True,
    ) -> dict[tuple[int, int], CalibRef]:
        """Calibrations valid for many exposures and detectors, in one query.

        Returns
        -------
        dict
            (exposure, detector) to `CalibRef`; without ``required``, what has none is absent.

        Raises
        ------
        RepoError
            If some have none (unless ``required`` is False), or two are valid at once.
        """
        camera = self.instrument(instrument)
        candidates = self._candidates(dataset_type, collections)
        rows = self._exposure_rows(camera.name, exposures)
        detectors = list(detectors)
        dimensions = list(self._type(dataset_type).dimensions.required)
        found, missing = {}, []
        for row in rows:
            for detector in detectors:
                key = _key(dimensions, row, detector)
                calib = candidates.find(key, *_bounds(row.timespan, row.obs_id))
                if calib is None:
                    missing.append((row.id, detector))
                else:
                    found[row.id, detector] = calib
        if missing and required:
            raise RepoError(_missing(dataset_type, collections, missing))
        refs = self._calib_refs(dataset_type, {c.uuid: c for c in found.values()}.values())
        return {place: refs[calib.uuid] for place, calib in found.items()}

    def open(
        self,
        dataset_type: str,
        *,
        run: str | None = None,
        collections: Names | None = None,
        exposure: int | None = None,
        detector: int | Sequence[int] | None = None,
    ) -> xr.Dataset:
        """Open a product lazily: all registered detectors, or those asked for.

        Parameters
        ----------
        dataset_type : str
            For example ``"bias"``.
        run, collections : str or list of str
            Where to search: a RUN, or any collections; with CALIBRATION collections ``exposure`` is needed.
        exposure : int, optional
            Exposure that the calibration must be valid for.
        detector : int or list of int, optional
            Detector ids.

        Raises
        ------
        RepoError
            If nothing is there, or a detector has none.
        """
        where = run if run is not None else collections
        if where is None:
            raise RepoError(f"{dataset_type}: say where to search: run='...' or collections=[...]")
        wanted = [detector] if isinstance(detector, int) else detector
        if exposure is None:
            refs = self._first(dataset_type, where)
        else:
            camera = self.instrument()
            found = self.find_calibs(dataset_type, [exposure], wanted or list(camera.detectors), where, required=False)
            refs = {place[1]: ref for place, ref in found.items()}
        lacking = sorted(set(wanted or ()) - set(refs))  # type: ignore[arg-type]
        if not refs or lacking:
            which = f" for detectors {lacking}" if lacking else ""
            raise RepoError(f"no {dataset_type} in {where}{which}; known collections: {self._names(dataset_type)}")
        if None in refs:
            return cubes.open_dataset(refs[None].uri)
        chosen = [refs[d] for d in (wanted or sorted(refs))]  # type: ignore[arg-type]
        return cubes.open_products([(ref.uri, int(ref.detector)) for ref in chosen])  # type: ignore[arg-type]

    def _first(self, dataset_type: str, search: Names) -> dict[int | None, CalibRef]:
        """First of each data ID in search order; a dateless search has no use for CALIBRATION collections."""
        candidates = self._candidates(dataset_type, search)
        if dated := [c.collection for group in candidates.by_key.values() for c in group if c.collection != c.run]:
            raise RepoError(f"{dated[0]}: is a CALIBRATION collection; name the exposure, or read the RUN")
        first: dict[Key, Candidate] = {}
        for collection in candidates.order:
            for (place, key), group in candidates.by_key.items():
                if place == collection:
                    first.setdefault(key, group[0])
        return {ref.detector: ref for ref in self._calib_refs(dataset_type, first.values()).values()}

    def _candidates(self, dataset_type: str, collections: Names) -> Candidates:
        order = self._flatten([collections] if isinstance(collections, str) else list(collections))
        kind = self._type(dataset_type)
        rows = []
        for row in self.butler.registry.queryDatasetAssociations(kind, collections=order, flattenChains=True):
            begin, end = (None, None) if row.timespan is None else _open_bounds(row.timespan)
            key = tuple(row.ref.dataId.required_values)
            rows.append(Candidate(key, row.collection, row.ref.run, str(row.ref.id), begin, end))
        return Candidates.of(dataset_type, order, rows)

    def _calib_refs(self, dataset_type: str, candidates: Iterable[Candidate]) -> dict[str, CalibRef]:
        kind = self._type(dataset_type)
        dimensions = list(kind.dimensions.required)
        chosen = list(candidates)
        refs = [self._ref_of(kind, c, dimensions) for c in chosen]
        uris = self.butler.get_many_uris(refs)
        result = {}
        for candidate, ref in zip(chosen, refs, strict=True):
            primary = uris[ref].primaryURI
            uri = primary.ospath.rstrip("/") if primary.isLocal else str(primary).rstrip("/")
            detector = dict(zip(dimensions, candidate.key, strict=True)).get("detector")
            result[candidate.uuid] = CalibRef(uri, candidate.run, candidate.uuid, detector, dataset_type)  # type: ignore[arg-type]
        return result

    def _ref_of(self, kind: DatasetType, candidate: Candidate, dimensions: list[str]) -> DatasetRef:
        data_id = dict(zip(dimensions, candidate.key, strict=True))
        coordinate = DataCoordinate.standardize(data_id, dimensions=kind.dimensions)
        return DatasetRef(kind, coordinate, run=candidate.run, id=_uuid(candidate.uuid))

    def _exposure_rows(self, instrument: str, exposures: Iterable[int]) -> list[Any]:
        wanted = sorted({int(e) for e in exposures})
        with self.butler.query() as query:
            found = query.where("exposure IN (wanted)", bind={"wanted": wanted}, instrument=instrument)
            rows = list(found.dimension_records("exposure"))
        if lacking := sorted(set(wanted) - {row.id for row in rows}):
            raise RepoError(f"{self.root}: exposure {lacking[0]} of {instrument} is not registered; ingest it first")
        return rows

    def _query_refs(self, dataset_type: str, collection: str) -> list[DatasetRef]:
        return list(self.butler.query_datasets(dataset_type, collection, find_first=False, explain=False, limit=None))

    # ------------------------------------------------------------------ collections

    def collections(self, glob: str = "*", kind: str | None = None) -> list[Collection]:
        """Collections whose name matches, of one kind (RUN, CALIBRATION ...) or all, with children."""
        try:
            found = self.butler.collections.query_info(glob)
        except MissingCollectionError:
            return []
        listed = [Collection(c.name, c.type.name, tuple(c.children)) for c in found]
        return sorted((c for c in listed if kind in (None, c.kind)), key=lambda c: c.name)

    def chain(self, parent: str, children: Names = (), mode: ChainMode = "redefine") -> tuple[str, ...]:
        """Change a CHAINED collection (made if needed) as ``butler collection-chain`` does; return its children.

        Parameters
        ----------
        parent : str
            The chain.
        children : str or list of str
            Collections, highest priority first; nothing for ``pop``, which takes the first child off.
        mode : str
            ``redefine``, ``extend``, ``remove``, ``prepend`` or ``pop``.
        """
        names = [children] if isinstance(children, str) else list(children)
        act = self.butler.collections
        modes = {
            "redefine": act.redefine_chain,
            "extend": act.extend_chain,
            "remove": act.remove_from_chain,
            "prepend": act.prepend_chain,
            "pop": lambda chain, _: act.remove_from_chain(chain, act.get_info(chain).children[:1]),
        }
        if mode not in modes:
            raise RepoError(f"chain {parent}: unknown mode {mode!r}{nearest(mode, modes)}")

        def change() -> tuple[str, ...]:
            if mode in {"redefine", "extend", "prepend"}:
                act.register(parent, type=CollectionType.CHAINED)
            modes[mode](parent, names)
            return tuple(act.get_info(parent).children)

        try:
            return self._patiently(change, f"chain {parent}")
        except _USER_ERRORS as error:
            raise RepoError(f"chain {parent} {mode} {names}: {error}") from error

    def certify(
        self, run: str, dataset_type: str, collection: str, begin: Moment = None, end: Moment = None
    ) -> list[str]:
        """Give the datasets of a RUN a validity range in a CALIBRATION collection (made if needed).

        Repeating an identical certification changes nothing.

        Parameters
        ----------
        run, dataset_type : str
            What to certify.
        collection : str
            Where.
        begin, end : Moment
            Half-open range in TAI; None is unbounded.

        Returns
        -------
        list of str
            UUIDs of the datasets valid in that range.

        Raises
        ------
        RepoError
            If the range is empty, nothing is there, or another certified dataset's range overlaps.
        """
        timespan = Timespan(_moment(begin), _moment(end))
        if timespan.isEmpty():
            raise RepoError(f"certify {dataset_type} of {run}: validity from {begin} to {end} is empty")
        refs = self._run_refs(run, dataset_type)

        def insert() -> list[str]:
            self.butler.collections.register(collection, type=CollectionType.CALIBRATION)
            done = self._certified(dataset_type, collection)
            fresh = [r for r in refs if (str(r.id), *_open_bounds(timespan)) not in done]
            if clash := _overlap(fresh, timespan, self._candidates(dataset_type, collection), collection):
                raise RepoError(clash)
            self.butler.registry.certify(collection, fresh, timespan)
            return [str(r.id) for r in refs]

        return self._patiently(insert, f"certifying {dataset_type} of {run} in {collection}")

    def _run_refs(self, run: str, dataset_type: str) -> list[DatasetRef]:
        self._type(dataset_type)
        try:
            refs = self._query_refs(dataset_type, run)
        except _USER_ERRORS as error:
            raise RepoError(f"{dataset_type} of {run}: {error}") from error
        if not refs:
            raise RepoError(f"{run}: holds no {dataset_type}; it is in {self._names(dataset_type)}")
        return refs

    def _certified(self, dataset_type: str, collection: str) -> set[tuple[str, int | None, int | None]]:
        found = self._candidates(dataset_type, collection)
        return {(c.uuid, c.begin, c.end) for group in found.by_key.values() for c in group}

    def _names(self, dataset_type: str) -> str:
        infos = self.butler.collections.query_info("*", summary_datasets=[dataset_type], include_summary=True)
        found = [i.name for i in infos if i.dataset_types and dataset_type in i.dataset_types]
        return ", ".join(sorted(found)) or "no collection"

    def _flatten(self, collections: Sequence[str]) -> list[str]:
        """Search order without chains."""
        order: list[str] = []
        for name in collections:
            try:
                info = self.butler.collections.get_info(name)
            except MissingCollectionError:
                known = [c.name for c in self.collections()]
                raise RepoError(f"{self.root}: no collection {name!r}{nearest(name, known)}") from None
            inner = self._flatten(info.children) if info.type is CollectionType.CHAINED else [name]
            order.extend(n for n in inner if n not in order)
        return order


# ---------------------------------------------------------------------------- small translations


def _uuid(text: str) -> Any:
    from uuid import UUID

    return UUID(text)


def _span(begin: int | None, end: int | None) -> Timespan:
    """Timespan of TAI nanoseconds."""
    return Timespan(None, None, _nsec=(begin, end))


def _open_bounds(span: Timespan) -> tuple[int | None, int | None]:
    """(begin, end) of a timespan [TAI ns]; None where it is unbounded."""
    begin, end = span.nsec
    everything = Timespan(None, None).nsec
    return (None if begin == everything[0] else begin), (None if end == everything[1] else end)


def _bounds(span: Timespan | None, obs_id: str) -> tuple[int, int]:
    if span is None:
        raise RepoError(f"{obs_id}: the header gave no time, so no calibration can be looked up; name a RUN instead")
    begin, end = span.nsec
    return begin, end


def _moment(value: Moment) -> Time | None:
    if value is None:
        return None
    if isinstance(value, int) or (isinstance(value, str) and value.isdigit() and len(value) == 8):
        return Timespan.from_day_obs(int(value), 43200).begin
    try:
        return Time(value, scale="tai") if not isinstance(value, Time) else value.tai
    except ValueError as error:
        raise RepoError(f"time {value!r}: expected 2026-08-12, 2026-08-12T12:00:00 (TAI) or 20260812") from error


def _key(dimensions: Sequence[str], row: Any, detector: int) -> Key:
    """Values of a calibration's dimensions for an exposure and detector."""
    exposure = {"instrument": row.instrument, "exposure": row.id, "detector": detector}
    return tuple(exposure[d] if d in exposure else getattr(row, d) for d in dimensions)


def _exposure(row: Any) -> selection.Exposure:
    begin = None if row.timespan is None else _open_bounds(row.timespan)[0]
    values = {name: getattr(row, name) for name in selection.EXPOSURE_FIELDS}
    return selection.Exposure(id=row.id, mjd=records.mjd(begin), **values)


def _with_detectors(where: str, camera: Instrument, detectors: Iterable[int | str] | None, bind: dict[str, Any]) -> str:
    """Add the detectors to an expression; they are bound, which keeps 189 ids out of messages."""
    if detectors is None and expression.mentions(where, "detector"):
        return where
    chosen = camera.science_detectors if detectors is None else [camera.detector(d).id for d in detectors]
    bind["chosen_detectors"] = sorted(chosen)
    term = "detector IN (chosen_detectors)"
    return f"({where}) AND {term}" if where.strip() else term


def _check_whole(uri: str, detectors: Sequence[int]) -> None:
    if uri.endswith(".json"):
        if not files.exists(uri):
            raise RepoError(f"{uri}: no such file; write it before registering it")
        return
    if cubes.cube_kind(uri) == "product":
        lacking = sorted(set(detectors) - set(cubes.finished_detectors(uri)))
        if lacking:
            raise RepoError(f"{uri}: detectors {lacking} are not completely written; register only finished ones")


def _missing(dataset_type: str, collections: Names, missing: Sequence[tuple[int, int]]) -> str:
    exposures = sorted({e for e, _ in missing})
    detectors = sorted({d for _, d in missing})
    return (
        f"no {dataset_type} is valid for exposure {exposures[0]}, detector {missing[0][1]} in {collections} "
        f"(lacking for {len(exposures)} exposures x detectors {detectors[:20]}); certify one that covers it: "
        f"butler certify-calibrations REPO RUN COLLECTION {dataset_type} --begin-date ... --end-date ..."
    )


def _overlap(refs: Sequence[DatasetRef], timespan: Timespan, certified: Candidates, collection: str) -> str | None:
    """Describe the first dataset whose certified range overlaps, or None."""
    low, high = timespan.nsec
    for ref in refs:
        for there in certified.by_key.get((collection, tuple(ref.dataId.required_values)), ()):
            if there.valid(low, high):
                other = _text(there.begin, there.end)
                return (
                    f"{collection}: {ref.datasetType.name} of {ref.run}, {ref.dataId}, cannot be certified for "
                    f"{_text(*_open_bounds(timespan))}: {there.run} is valid for {other}; choose another range"
                )
    return None


def _text(begin: int | None, end: int | None) -> str:
    times = ["unbounded" if n is None else _iso(n) for n in (begin, end)]
    return f"[{times[0]}, {times[1]})"


def _iso(nsec: int) -> str:
    return str(np.datetime64(nsec, "ns"))[:19] + " TAI"

"""Registration, the last act of every write: what the registry does not know does not exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lsst.daf.butler import DataCoordinate, DatasetIdGenEnum, DatasetRef, DatasetType, FileDataset, Timespan

from camcal_dask.errors import RepoError
from camcal_dask.instruments import Instrument, get_instrument
from camcal_dask.raw_fits.header import ExposureRecord
from camcal_dask.repo import schema
from camcal_dask.repo.butler import arranging, finding, opened, records
from camcal_dask.repo.butler.lookup import ranges
from camcal_dask.repo.butler.opened import Opened
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.formatter import CubeFormatter, RecordFormatter, anchor
from camcal_dask.repo.storage import files, naming


def register_instrument(repo: Opened, instrument: Instrument) -> None:
    """Register a camera, its detectors, filters, dataset types and raw collection; may be repeated."""

    def insert() -> None:
        registry = repo.butler.registry
        registry.insertDimensionData("instrument", records.instrument_row(instrument), skip_existing=True)
        registry.insertDimensionData("detector", *records.detector_rows(instrument), skip_existing=True)
        registry.insertDimensionData("physical_filter", *records.filter_rows(instrument), skip_existing=True)
        for spec in schema.dataset_types():
            registry.registerDatasetType(_dataset_type(repo, spec))
        repo.butler.collections.register(schema.raw_run(instrument.name))

    opened.patiently(repo, insert, f"registering {instrument.name}")


def register_dataset_type(repo: Opened, name: str, dimensions: Sequence[str], is_calibration: bool) -> None:
    """Register a type of cube; may be repeated with the same definition.

    Raises
    ------
    RepoError
        If the name is none, or taken by another definition.
    """
    naming.check_dataset_type(name)
    spec = schema.DatasetTypeSpec(name, tuple(dimensions), "", is_calibration)
    opened.patiently(
        repo, lambda: repo.butler.registry.registerDatasetType(_dataset_type(repo, spec)), f"dataset type {name}"
    )


def _dataset_type(repo: Opened, spec: schema.DatasetTypeSpec) -> DatasetType:
    return DatasetType(
        spec.name,
        spec.dimensions,
        spec.storage_class,
        universe=repo.butler.dimensions,
        isCalibration=spec.is_calibration,
    )


def register_exposures(repo: Opened, exposures: Iterable[ExposureRecord]) -> None:
    """Insert exposures with their groups, days and filters; what is there already stays as it is.

    Raises
    ------
    RepoError
        If an exposure contradicts the registry (an observation id with another exposure id).
    """
    chosen = records.one_per_exposure(exposures)

    def insert() -> None:
        put = repo.butler.registry.insertDimensionData
        with repo.butler.transaction():
            for name, group in records.by_instrument(chosen).items():
                names = {r.physical_filter for r in group}
                put("physical_filter", *records.filter_rows(get_instrument(name), names), skip_existing=True)
            put("group", *records.group_rows(chosen), skip_existing=True)
            put("day_obs", *records.day_rows(chosen, _span), skip_existing=True)
            put("exposure", *(records.exposure_row(r, _span) for r in chosen), skip_existing=True)

    if chosen:
        opened.patiently(repo, insert, f"registering {len(chosen)} exposures from {chosen[0].obs_id} on")


def registered_raws(repo: Opened, instrument: str, exposures: Iterable[int]) -> set[tuple[int, int]]:
    """(exposure, detector) of the raws that the registry knows, among these exposures."""
    if not (wanted := sorted({int(e) for e in exposures})):
        return set()
    with repo.butler.query() as query:
        query = query.join_dataset_search("raw", schema.raw_run(instrument))
        query = query.where("exposure IN (wanted)", bind={"wanted": wanted}, instrument=instrument)
        return {(int(i["exposure"]), int(i["detector"])) for i in query.data_ids(["exposure", "detector"])}


def register_raws(repo: Opened, instrument: str, raws: Iterable[tuple[int, int]]) -> int:
    """Register (exposure, detector) pairs whose pixels are written; return how many were new.

    Dataset ids follow from the data IDs, so that registering twice, or in two processes at
    once, makes one reference.  The exposures must be registered.
    """
    wanted = {(int(exposure), int(detector)) for exposure, detector in raws}
    run = schema.raw_run(instrument)

    def insert() -> int:
        missing = wanted - registered_raws(repo, instrument, {exposure for exposure, _ in wanted})
        data_ids: dict[str, list[Mapping[str, Any]]] = {}
        for exposure, detector in sorted(missing):
            uri = cubes.raw_cube_uri(repo.root, instrument, exposure)
            data_id = {"instrument": instrument, "exposure": exposure, "detector": detector}
            data_ids.setdefault(uri, []).append(data_id)
        ingest(repo, "raw", run, data_ids)
        return len(missing)

    return opened.patiently(repo, insert, f"registering {len(wanted)} raws of {instrument}")


def register_product(
    repo: Opened, run: str, dataset_type: str, uri: str, data_ids: Iterable[Mapping[str, Any]]
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
    return register_all(repo, run, dataset_type, {uri: list(data_ids)})


def register_all(
    repo: Opened, run: str, dataset_type: str, places: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[str]:
    """Register several cubes or records of one type, as `register_product`; ``places``: path -> data IDs."""
    arranging.check_kind(repo, run, "RUN")
    wanted = {files.absolute(uri): [dict(d) for d in data_ids] for uri, data_ids in places.items()}
    kind = opened.dataset_type(repo, dataset_type)
    for uri, ids in wanted.items():
        if uri.endswith(".json") or kind.storageClass_name != schema.RECORD_CLASS:
            cubes.check_whole(uri, [d["detector"] for d in ids if "detector" in d])

    def insert() -> list[str]:
        repo.butler.collections.register(run)
        refs = {uri: [_ref(repo, kind, run, d) for d in ids] for uri, ids in wanted.items()}
        known = {ref.id for ref in finding.references(repo, dataset_type, run)}
        missing = {
            uri: [d for d, ref in zip(ids, refs[uri], strict=True) if ref.id not in known]
            for uri, ids in wanted.items()
        }
        ingest(repo, dataset_type, run, {uri: ids for uri, ids in missing.items() if ids})
        return [str(ref.id) for group in refs.values() for ref in group]

    return opened.patiently(repo, insert, f"registering {dataset_type} in {run}")


def forget_product(repo: Opened, run: str, dataset_type: str) -> int:
    """Take all datasets of a type out of a RUN; the cubes stay.  Return how many there were.

    Raises
    ------
    RepoError
        If one of them is certified (a calibration in use must not vanish or change), or ``run`` is no RUN.
    """
    if arranging.check_kind(repo, run, "RUN") is None:
        return 0
    refs = finding.references(repo, dataset_type, run)
    mine = {str(ref.id) for ref in refs}
    for collection in arranging.collections(repo, kind="CALIBRATION") if refs else ():
        there = ranges(finding.candidates_of(repo, dataset_type, collection.name))
        if mine & {uuid for uuid, _, _ in there}:
            raise RepoError(
                f"{dataset_type} of {run} is certified in {collection.name}; it cannot be replaced: "
                "choose another output collection, or decertify it first"
            )
    opened.patiently(
        repo,
        lambda: repo.butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True),
        f"forgetting {dataset_type} of {run}",
    )
    return len(refs)


def ingest(repo: Opened, dataset_type: str, run: str, data_ids: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Take cubes and records, by path and data IDs, into the datastore by their anchors, which are made if need be."""
    kind = opened.dataset_type(repo, dataset_type)
    formatter = RecordFormatter if kind.storageClass_name == schema.RECORD_CLASS else CubeFormatter
    datasets = []
    for uri, ids in data_ids.items():
        if not uri.startswith(f"{repo.root}/"):
            raise RepoError(f"{uri}: lies outside of {repo.root}, where nothing can be registered")
        if not files.exists(uri):
            raise RepoError(f"{dataset_type} in {run}: write the cube before registering it ({uri} is not there)")
        if not files.exists(place := anchor(uri)):
            files.write_bytes(place, b"")  # it says nothing, so it cannot be damaged
        path = place.removeprefix(f"{repo.root}/")
        datasets.append(FileDataset(path=path, refs=[_ref(repo, kind, run, d) for d in ids], formatter=formatter))
    # None: what lies there is known by its path in the repository.  No size or checksum: cubes go on growing.
    repo.butler.ingest(*datasets, transfer=None, record_validation_info=False)


def _ref(repo: Opened, kind: DatasetType, run: str, data_id: Mapping[str, Any]) -> DatasetRef:
    coordinate = DataCoordinate.standardize(data_id, dimensions=kind.dimensions)
    return DatasetRef(kind, coordinate, run=run, id_generation_mode=DatasetIdGenEnum.DATAID_TYPE_RUN)


def _span(begin: int | None, end: int | None) -> Timespan:
    """Timespan of TAI nanoseconds."""
    return Timespan(None, None, _nsec=(begin, end))

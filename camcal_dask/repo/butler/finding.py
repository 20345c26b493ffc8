"""Datasets: what the registry holds of each type, where, and under which URI."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from lsst.daf.butler import DatasetRef

from camcal_dask.errors import RepoError
from camcal_dask.repo import schema
from camcal_dask.repo.butler import arranging, opened
from camcal_dask.repo.butler.arranging import Names
from camcal_dask.repo.butler.lookup import CalibRef, Candidate, Candidates, Key, open_bounds
from camcal_dask.repo.butler.opened import Opened
from camcal_dask.repo.formatter import cube_uri, here, record_suffix, spelled


def datasets(repo: Opened, dataset_type: str, collections: Names) -> list[CalibRef]:
    """Everything of one type in some collections (by detector, then collection)."""
    found = candidates_of(repo, dataset_type, collections)
    chosen = {c.uuid: c for group in found.by_key.values() for c in group}
    refs = calib_refs(repo, dataset_type, chosen.values())
    return sorted(refs.values(), key=lambda ref: (-1 if ref.detector is None else ref.detector, ref.run))


def dataset_types(repo: Opened, glob: str = "*") -> list[str]:
    """Names of the registered dataset types that match, sorted."""
    return sorted(t.name for t in repo.butler.registry.queryDatasetTypes(glob))


def is_calibration(repo: Opened, dataset_type: str) -> bool:
    """Whether datasets of a type can be certified."""
    return bool(opened.dataset_type(repo, dataset_type).isCalibration())


def is_statistics(repo: Opened, dataset_type: str) -> bool:
    """Whether datasets of a type are numbers of many detectors in one cube: those of verifications."""
    kind = opened.dataset_type(repo, dataset_type)
    return kind.storageClass_name == schema.STORAGE_CLASS and "detector" not in kind.dimensions


def types_in(repo: Opened, collection: str) -> list[str]:
    """Names of the dataset types that a collection holds, sorted.

    Raises
    ------
    RepoError
        If there is no such collection.
    """
    (name, *_) = arranging.flatten(repo, [collection])
    return sorted(repo.butler.collections.get_info(name, include_summary=True).dataset_types or ())


def runs_in(repo: Opened, collection: str) -> list[str]:
    """RUN collections in a CHAINED collection, or of what a CALIBRATION collection has certified."""
    found = []
    for name in arranging.flatten(repo, [collection]):
        info = repo.butler.collections.get_info(name, include_summary=True)
        if info.type.name == "CALIBRATION":
            found += [one.run for kind in info.dataset_types or () for one in certified(repo, kind, name)]
        else:
            found.append(name)
    return list(dict.fromkeys(found))


def cameras_of(repo: Opened, collection: str) -> list[str]:
    """Names of the cameras that a collection holds datasets of, sorted."""
    found = set()
    for name in types_in(repo, collection):
        at = list(opened.dataset_type(repo, name).dimensions.required).index("instrument")
        found |= {str(key[at]) for _, key in candidates_of(repo, name, collection).by_key}
    return sorted(found)


def stored(repo: Opened) -> dict[str, tuple[str, set[str]]]:
    """Files by which the Butler's datastore knows cubes and records, with the RUN and the cameras of each."""
    found: dict[str, tuple[str, set[str]]] = {}
    for run in (c.name for c in arranging.collections(repo, kind="RUN")):
        for name in types_in(repo, run):
            refs = repo.butler.query_datasets(name, run, find_first=False, explain=False, limit=None)
            for ref, uris in repo.butler.get_many_uris(refs).items():
                _, cameras = found.setdefault(spelled(uris.primaryURI), (run, set()))
                cameras.add(str(ref.dataId["instrument"]))
    return found


def runs_of(repo: Opened, uuids: Iterable[str]) -> list[str]:
    """RUN collections of some datasets, sorted; those that are no longer registered are left out."""
    found = (repo.butler.get_dataset(uuid.UUID(name)) for name in set(uuids))
    return sorted({ref.run for ref in found if ref is not None})


def certified(repo: Opened, dataset_type: str, collections: Names) -> list[Candidate]:
    """Datasets of one type with their validity ranges [TAI ns], in the CALIBRATION collections among these."""
    groups = candidates_of(repo, dataset_type, collections).by_key.values()
    return [one for group in groups for one in group if one.collection != one.run]


def first_of(
    repo: Opened, dataset_type: str, collections: Names, *, instrument: str
) -> list[tuple[dict[str, Any], CalibRef]]:
    """First dataset of each data id in search order, for products that are not looked up by exposure.

    Raises
    ------
    RepoError
        If a CALIBRATION collection is searched, which only an exposure can.
    """
    dimensions = list(opened.dataset_type(repo, dataset_type).dimensions.required)
    first = first_by_key(repo, dataset_type, collections)
    refs = calib_refs(repo, dataset_type, first.values())
    found = [(dict(zip(dimensions, key, strict=True)), refs[c.uuid]) for key, c in first.items()]
    return [(data_id, ref) for data_id, ref in found if data_id["instrument"] == instrument]


def first_by_key(repo: Opened, dataset_type: str, search: Names) -> dict[Key, Candidate]:
    """First of each data ID in search order; a dateless search has no use for CALIBRATION collections."""
    candidates = candidates_of(repo, dataset_type, search)
    if dated := [c.collection for group in candidates.by_key.values() for c in group if c.collection != c.run]:
        raise RepoError(f"{dated[0]}: is a CALIBRATION collection; name the exposure, or read the RUN")
    first: dict[Key, Candidate] = {}
    for collection in candidates.order:
        for (place, key), group in candidates.by_key.items():
            if place == collection:
                first.setdefault(key, group[0])
    return first


def by_id(repo: Opened, ids: Iterable[str]) -> dict[str, CalibRef]:
    """Datasets by their ids; those that the registry no longer has are absent."""
    by_type: dict[str, list[Candidate]] = {}
    for text in dict.fromkeys(ids):
        ref = repo.butler.get_dataset(UUID(text))
        if ref is not None:
            candidate = Candidate(tuple(ref.dataId.required_values), ref.run, ref.run, text, None, None, ref)
            by_type.setdefault(ref.datasetType.name, []).append(candidate)
    found: dict[str, CalibRef] = {}
    for dataset_type, candidates in by_type.items():
        found |= calib_refs(repo, dataset_type, candidates)
    return found


def candidates_of(repo: Opened, dataset_type: str, collections: Names) -> Candidates:
    """Everything of one type in some collections, with its validity."""
    order = arranging.flatten(repo, [collections] if isinstance(collections, str) else list(collections))
    kind = opened.dataset_type(repo, dataset_type)
    rows = []
    for row in repo.butler.registry.queryDatasetAssociations(kind, collections=order, flattenChains=True):
        begin, end = (None, None) if row.timespan is None else open_bounds(row.timespan)
        key = tuple(row.ref.dataId.required_values)
        rows.append(Candidate(key, row.collection, row.ref.run, str(row.ref.id), begin, end, row.ref))
    return Candidates.of(dataset_type, order, rows)


def calib_refs(repo: Opened, dataset_type: str, candidates: Iterable[Candidate]) -> dict[str, CalibRef]:
    """What workers need of datasets found, by UUID; the URIs come from one query."""
    kind, chosen = opened.dataset_type(repo, dataset_type), list(candidates)
    dimensions = list(kind.dimensions.required)
    record = kind.storageClass_name == schema.RECORD_CLASS
    uris = repo.butler.get_many_uris([c.ref for c in chosen])
    result = {}
    for candidate in chosen:
        data_id = dict(zip(dimensions, candidate.key, strict=True))
        suffix = record_suffix(data_id) if record else ".zarr"
        uri = here(repo.root, cube_uri(uris[candidate.ref].primaryURI, suffix), candidate.run)
        detector = data_id.get("detector")
        result[candidate.uuid] = CalibRef(uri, candidate.run, candidate.uuid, detector, dataset_type)
    return result


def holders(repo: Opened, dataset_type: str) -> str:
    """Names of the collections that hold datasets of a type, for messages."""
    infos = repo.butler.collections.query_info("*", summary_datasets=[dataset_type], include_summary=True)
    found = [i.name for i in infos if i.dataset_types and dataset_type in i.dataset_types]
    return ", ".join(sorted(found)) or "no collection"


def references(repo: Opened, dataset_type: str, collection: str) -> list[DatasetRef]:
    """Registry's references to all datasets of a type in a collection."""
    return list(repo.butler.query_datasets(dataset_type, collection, find_first=False, explain=False, limit=None))

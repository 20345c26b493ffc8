"""Looking up and opening products and calibrations: the part of `Repo` that only reads."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import xarray as xr

from camcal_dask.errors import RepoError
from camcal_dask.instruments import Instrument
from camcal_dask.instruments.arguments import Detectors, Integers, integer, integers
from camcal_dask.kernels.light.photodiode import Method
from camcal_dask.repo import schema
from camcal_dask.repo.butler.lookup import (
    CalibRef,
    Candidate,
    Candidates,
    Key,
    exposure_bounds,
    exposure_key,
    open_bounds,
    time_text,
)
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.cubes import statistics
from camcal_dask.repo.formatter import cube_uri, here, record_suffix, spelled
from camcal_dask.repo.incoming import photodiode

Names = str | Sequence[str]


class ProductQueries:
    """Queries for products by RUN and for calibrations by exposure; `Repo` inherits them."""

    root: str
    butler: Any

    def instrument(self, name: str | None = None, where: str = "") -> Instrument:
        """Return the camera (`Repo.instrument`)."""
        raise NotImplementedError

    def _type(self, name: str) -> Any:
        raise NotImplementedError

    def _flatten(self, collections: Sequence[str]) -> list[str]:
        raise NotImplementedError

    def collections(self, glob: str = "*", kind: str | None = None) -> list[Any]:
        """Collections whose name matches (`Repo.collections`)."""
        raise NotImplementedError

    def datasets(self, dataset_type: str, collections: Names) -> list[CalibRef]:
        """Everything of one type in some collections (by detector, then collection)."""
        found = self._candidates(dataset_type, collections)
        chosen = {c.uuid: c for group in found.by_key.values() for c in group}
        refs = self._calib_refs(dataset_type, chosen.values())
        return sorted(refs.values(), key=lambda ref: (-1 if ref.detector is None else ref.detector, ref.run))

    def dataset_types(self, glob: str = "*") -> list[str]:
        """Names of the registered dataset types that match, sorted."""
        return sorted(t.name for t in self.butler.registry.queryDatasetTypes(glob))

    def is_calibration(self, dataset_type: str) -> bool:
        """Whether datasets of a type can be certified."""
        return bool(self._type(dataset_type).isCalibration())

    def is_statistics(self, dataset_type: str) -> bool:
        """Whether datasets of a type are numbers of many detectors in one cube: those of verifications."""
        kind = self._type(dataset_type)
        return kind.storageClass_name == schema.STORAGE_CLASS and "detector" not in kind.dimensions

    def types_in(self, collection: str) -> list[str]:
        """Names of the dataset types that a collection holds, sorted.

        Raises
        ------
        RepoError
            If there is no such collection.
        """
        (name, *_) = self._flatten([collection])
        return sorted(self.butler.collections.get_info(name, include_summary=True).dataset_types or ())

    def runs_in(self, collection: str) -> list[str]:
        """RUN collections in a CHAINED collection, or of what a CALIBRATION collection has certified."""
        found = []
        for name in self._flatten([collection]):
            info = self.butler.collections.get_info(name, include_summary=True)
            if info.type.name == "CALIBRATION":
                found += [one.run for kind in info.dataset_types or () for one in self.certified(kind, name)]
            else:
                found.append(name)
        return list(dict.fromkeys(found))

    def cameras_of(self, collection: str) -> list[str]:
        """Names of the cameras that a collection holds datasets of, sorted."""
        found = set()
        for name in self.types_in(collection):
            at = list(self._type(name).dimensions.required).index("instrument")
            found |= {str(key[at]) for _, key in self._candidates(name, collection).by_key}
        return sorted(found)

    def stored(self) -> dict[str, tuple[str, set[str]]]:
        """Files by which the Butler's datastore knows cubes and records, with the RUN and the cameras of each."""
        found: dict[str, tuple[str, set[str]]] = {}
        for run in (c.name for c in self.collections(kind="RUN")):
            for name in self.types_in(run):
                refs = self.butler.query_datasets(name, run, find_first=False, explain=False, limit=None)
                for ref, uris in self.butler.get_many_uris(refs).items():
                    _, cameras = found.setdefault(spelled(uris.primaryURI), (run, set()))
                    cameras.add(str(ref.dataId["instrument"]))
        return found

    def runs_of(self, uuids: Iterable[str]) -> list[str]:
        """RUN collections of some datasets, sorted; those that are no longer registered are left out."""
        found = (self.butler.get_dataset(uuid.UUID(name)) for name in set(uuids))
        return sorted({ref.run for ref in found if ref is not None})

    def certified(self, dataset_type: str, collections: Names) -> list[Candidate]:
        """Datasets of one type with their validity ranges [TAI ns], in the CALIBRATION collections among these."""
        groups = self._candidates(dataset_type, collections).by_key.values()
        return [one for group in groups for one in group if one.collection != one.run]

    def find_calib(
        self,
        dataset_type: str,
        exposure: Integers,
        detector: Detectors,
        collections: Names,
        *,
        instrument: str | None = None,
    ) -> CalibRef:
        """Calibration valid for one exposure and detector.

        Raises
        ------
        RepoError
            If there is none.
        """
        found = self.find_calibs(dataset_type, exposure, detector, collections, instrument=instrument)
        if len(found) > 1:
            raise RepoError(f"{dataset_type}: one exposure and detector have a calibration, {len(found)} were named")
        return next(iter(found.values()))

    def find_calibs(
        self,
        dataset_type: str,
        exposures: Integers,
        detectors: Detectors,
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
        rows = self._exposure_rows(camera.name, integers(exposures, "exposure"))
        detectors = camera.detector_ids(detectors)
        dimensions = list(self._type(dataset_type).dimensions.required)
        found, missing = {}, []
        for row in rows:
            for detector in detectors:
                key = exposure_key(dimensions, row, detector)
                calib = candidates.find(key, *exposure_bounds(row))
                if calib is None:
                    missing.append((row.id, detector))
                else:
                    found[row.id, detector] = calib
        if missing and required:
            raise RepoError(_missing(dataset_type, collections, missing, rows))
        refs = self._calib_refs(dataset_type, {c.uuid: c for c in found.values()}.values())
        return {place: refs[calib.uuid] for place, calib in found.items()}

    def open(
        self,
        dataset_type: str,
        *,
        run: str | None = None,
        collections: Names | None = None,
        exposure: Integers | None = None,
        detector: Detectors | None = None,
        instrument: str | None = None,
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
        detector : int, str or several of them, optional
            Detector ids or names, also as arrays; default all.
        instrument : str, optional
            Needed if the repository has several, and the collections hold datasets of more than one.

        Raises
        ------
        RepoError
            If nothing is there, or a detector has none.
        """
        where = run if run is not None else collections
        if where is None:
            raise RepoError(f"{dataset_type}: say where to search: run='...' or collections=[...]")
        refs: dict[int | None, CalibRef]
        if exposure is None:
            refs, camera = self._first(dataset_type, where, instrument)
            wanted = None if detector is None else self.instrument(camera).detector_ids(detector)
        else:
            chosen_camera = self.instrument(instrument)
            wanted = None if detector is None else chosen_camera.detector_ids(detector)
            one, asked = integer(exposure, "exposure"), wanted or list(chosen_camera.detectors)
            found = self.find_calibs(dataset_type, one, asked, where, instrument=chosen_camera.name, required=False)
            refs = {place[1]: ref for place, ref in found.items()}
        lacking = sorted(set(wanted or ()) - set(refs))  # type: ignore[arg-type]
        if not refs or lacking:
            which = f" for detectors {lacking}" if lacking else ""
            raise RepoError(f"no {dataset_type} in {where}{which}; known collections: {self._names(dataset_type)}")
        if None in refs:
            return cubes.open_dataset(refs[None].uri)
        chosen = [refs[d] for d in (wanted or sorted(refs))]  # type: ignore[arg-type]
        product = cubes.open_products([(ref.uri, int(ref.detector)) for ref in chosen])  # type: ignore[arg-type]
        return product.assign_attrs(dataset_type=dataset_type)

    def stats(
        self, dataset_type: str = "verifyBias", runs: Names = "*", *, instrument: str | None = None, **labels: Any
    ) -> xr.Dataset:
        """Open statistics of any number of runs and nights as one lazy Dataset.

        Parameters
        ----------
        dataset_type : str
            For example ``"verifyBias"``.
        runs : str or list of str
            Names of RUN or CHAINED collections, with ``*`` and ``?``; default: all there are.
        instrument : str, optional
            Needed if the repository has several.
        labels : optional
            Values of coordinates to keep, ``vendor="ITL"``, ``day_obs=slice(20260801, 20260831)``,
            see `camcal_dask.repo.cubes.statistics.choose`.

        Returns
        -------
        Dataset
            Numbers (exposure, detector, amp), verdicts (exposure, test, detector, amp), with the coordinates run,
            day_obs, mjd, physical_filter ..., detector_name, raft, slot, vendor, amp (see
            `camcal_dask.repo.cubes.statistics.open_cubes`).  An exposure that several runs verified is there several
            times.

        Raises
        ------
        RepoError
            If no run has such statistics, or nothing has the labels.
        """
        wanted = [runs] if isinstance(runs, str) else list(runs)
        order = dict.fromkeys(c.name for glob in wanted for c in self.collections(glob) if c.kind != "CALIBRATION")
        refs = self.datasets(dataset_type, list(order)) if order else []
        cubes_ = [statistics.open_cube(ref.uri, ref.run) for ref in refs]
        camera = None if instrument is None else self.instrument(instrument).name
        cubes_ = [cube for cube in cubes_ if camera in (None, cube.attrs.get("instrument"))]
        if not cubes_:
            raise RepoError(f"no {dataset_type} in {', '.join(wanted)}; it is in: {self._names(dataset_type)}")
        return statistics.choose(statistics.open_cubes(cubes_), **labels)

    def _first(
        self, dataset_type: str, search: Names, instrument: str | None
    ) -> tuple[dict[int | None, CalibRef], str | None]:
        """First dataset of each detector in search order, and the camera of them all."""
        at = list(self._type(dataset_type).dimensions.required).index("instrument")
        first = self._first_by_key(dataset_type, search)
        name = None if instrument is None else self.instrument(instrument).name
        chosen = {key: c for key, c in first.items() if name in (None, key[at])}
        cameras = sorted({str(key[at]) for key in chosen})
        if len(cameras) > 1:
            raise RepoError(
                f"{dataset_type} in {search}: of {', '.join(cameras)}; say which with --instrument (instrument=...)"
            )
        refs = self._calib_refs(dataset_type, chosen.values()).values()
        return {ref.detector: ref for ref in refs}, next(iter(cameras), name)

    def _first_by_key(self, dataset_type: str, search: Names) -> dict[Key, Candidate]:
        """First of each data ID in search order; a dateless search has no use for CALIBRATION collections."""
        candidates = self._candidates(dataset_type, search)
        if dated := [c.collection for group in candidates.by_key.values() for c in group if c.collection != c.run]:
            raise RepoError(f"{dated[0]}: is a CALIBRATION collection; name the exposure, or read the RUN")
        first: dict[Key, Candidate] = {}
        for collection in candidates.order:
            for (place, key), group in candidates.by_key.items():
                if place == collection:
                    first.setdefault(key, group[0])
        return first

    def first_of(
        self, dataset_type: str, collections: Names, *, instrument: str
    ) -> list[tuple[dict[str, Any], CalibRef]]:
        """First dataset of each data id in search order, for products that are not looked up by exposure.

        Raises
        ------
        RepoError
            If a CALIBRATION collection is searched, which only an exposure can.
        """
        dimensions = list(self._type(dataset_type).dimensions.required)
        first = self._first_by_key(dataset_type, collections)
        refs = self._calib_refs(dataset_type, first.values())
        found = [(dict(zip(dimensions, key, strict=True)), refs[c.uuid]) for key, c in first.items()]
        return [(data_id, ref) for data_id, ref in found if data_id["instrument"] == instrument]

    def by_id(self, ids: Iterable[str]) -> dict[str, CalibRef]:
        """Datasets by their ids; those that the registry no longer has are absent."""
        by_type: dict[str, list[Candidate]] = {}
        for text in dict.fromkeys(ids):
            ref = self.butler.get_dataset(UUID(text))
            if ref is not None:
                candidate = Candidate(tuple(ref.dataId.required_values), ref.run, ref.run, text, None, None, ref)
                by_type.setdefault(ref.datasetType.name, []).append(candidate)
        found: dict[str, CalibRef] = {}
        for dataset_type, candidates in by_type.items():
            found |= self._calib_refs(dataset_type, candidates)
        return found

    def detectors(self, where: str, instrument: str) -> set[int]:
        """Ids of the detectors that an expression without exposures selects.

        Raises
        ------
        RepoError
            If the expression is wrong.
        """
        try:
            with self.butler.query() as query:
                return {int(i["detector"]) for i in query.where(where, instrument=instrument).data_ids(["detector"])}
        except ValueError as error:
            raise RepoError(f"detectors where {where!r}: {str(error).strip()}") from error

    def exposure_records(self, where: str, bind: Mapping[str, Any], instrument: str) -> list[Any]:
        """Records of the registered exposures that satisfy an expression."""
        with self.butler.query() as query:
            found = query.where(where, bind=dict(bind), instrument=instrument)
            return list(found.dimension_records("exposure"))

    def photodiode(
        self,
        exposures: Integers,
        method: Method = "trimmed_sum",
        *,
        scale: float | None = None,
        instrument: str | None = None,
    ) -> xr.DataArray:
        """Photodiode charge of exposures.

        Parameters
        ----------
        exposures : int, or several
            Registered ids, also as arrays.
        method : str
            ``trimmed_sum``, ``direct_sum``, ``charge_sum`` or ``mean`` (`camcal_dask.kernels.light.photodiode.charge`).
        scale : float, optional
            Factor of the current, -1 upstream; default: the sign that makes light positive.
        instrument : str, optional
            Needed if the repository has several.

        Returns
        -------
        xr.DataArray
            ``photo_charge`` (exposure) float64 [C]; NaN where no reading was ingested.
        """
        camera, wanted = self.instrument(instrument).name, integers(exposures, "exposure")
        times = {r.id: r.exposure_time for r in self._exposure_rows(camera, wanted)} if method == "mean" else {}
        return photodiode.charges(self._readings(camera, wanted), wanted, method, scale=scale, exposure_times=times)

    def _readings(self, instrument: str, exposures: list[int]) -> dict[int, str]:
        run = schema.photodiode_run(instrument)
        if not exposures or run not in self.butler.collections.query("*"):
            return {}
        refs = self.butler.query_datasets(
            photodiode.DATASET_TYPE, run, where="exposure IN (wanted)", bind={"wanted": sorted(set(exposures))},
            instrument=instrument, explain=False, limit=None,
        )  # fmt: skip
        found = (int(ref.dataId["exposure"]) for ref in refs)
        return {exposure: photodiode.reading_uri(self.root, instrument, exposure) for exposure in found}

    def _candidates(self, dataset_type: str, collections: Names) -> Candidates:
        order = self._flatten([collections] if isinstance(collections, str) else list(collections))
        kind = self._type(dataset_type)
        rows = []
        for row in self.butler.registry.queryDatasetAssociations(kind, collections=order, flattenChains=True):
            begin, end = (None, None) if row.timespan is None else open_bounds(row.timespan)
            key = tuple(row.ref.dataId.required_values)
            rows.append(Candidate(key, row.collection, row.ref.run, str(row.ref.id), begin, end, row.ref))
        return Candidates.of(dataset_type, order, rows)

    def _calib_refs(self, dataset_type: str, candidates: Iterable[Candidate]) -> dict[str, CalibRef]:
        kind, chosen = self._type(dataset_type), list(candidates)
        dimensions = list(kind.dimensions.required)
        record = kind.storageClass_name == schema.RECORD_CLASS
        uris = self.butler.get_many_uris([c.ref for c in chosen])
        result = {}
        for candidate in chosen:
            data_id = dict(zip(dimensions, candidate.key, strict=True))
            suffix = record_suffix(data_id) if record else ".zarr"
            uri = here(self.root, cube_uri(uris[candidate.ref].primaryURI, suffix), candidate.run)
            detector = data_id.get("detector")
            result[candidate.uuid] = CalibRef(uri, candidate.run, candidate.uuid, detector, dataset_type)
        return result

    def _exposure_rows(self, instrument: str, exposures: Iterable[int]) -> list[Any]:
        wanted = sorted({int(e) for e in exposures})
        rows = self.exposure_records("exposure IN (wanted)", {"wanted": wanted}, instrument)
        if lacking := sorted(set(wanted) - {row.id for row in rows}):
            raise RepoError(f"{self.root}: exposure {lacking[0]} of {instrument} is not registered; ingest it first")
        return rows

    def _names(self, dataset_type: str) -> str:
        infos = self.butler.collections.query_info("*", summary_datasets=[dataset_type], include_summary=True)
        found = [i.name for i in infos if i.dataset_types and dataset_type in i.dataset_types]
        return ", ".join(sorted(found)) or "no collection"


def _missing(dataset_type: str, collections: Names, missing: Sequence[tuple[int, int]], rows: Sequence[Any]) -> str:
    exposure, detector = missing[0]
    when = next(time_text(row.timespan.nsec[0]) for row in rows if row.id == exposure)
    exposures, detectors = sorted({e for e, _ in missing}), sorted({d for _, d in missing})
    more = f" (and for {len(missing) - 1} more of {len(exposures)} exposures, detectors {detectors[:20]})"
    return (
        f"no {dataset_type} in {collections} is valid for exposure {exposure}, detector {detector}, taken {when}"
        f"{more if len(missing) > 1 else ''}; certify one that covers it: butler certify-calibrations REPO RUN "
        f"COLLECTION {dataset_type} --begin-date ... --end-date ..."
    )

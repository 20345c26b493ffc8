"""Looking up and opening products and calibrations: the part of `Repo` that only reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import xarray as xr

from camcal_dask.errors import RepoError
from camcal_dask.instruments import Instrument
from camcal_dask.repo import cubes
from camcal_dask.repo.lookup import (
    CalibRef,
    Candidate,
    Candidates,
    Key,
    exposure_bounds,
    exposure_key,
    open_bounds,
    time_text,
)

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

    def datasets(self, dataset_type: str, collections: Names) -> list[CalibRef]:
        """Everything of one type in some collections (by detector, then collection)."""
        found = self._candidates(dataset_type, collections)
        chosen = {c.uuid: c for group in found.by_key.values() for c in group}
        refs = self._calib_refs(dataset_type, chosen.values())
        return sorted(refs.values(), key=lambda ref: (-1 if ref.detector is None else ref.detector, ref.run))

    def find_calib(
        self, dataset_type: str, exposure: int, detector: int, collections: Names, *, instrument: str | None = None
    ) -> CalibRef:
        """Calibration valid for one exposure and detector.

        Raises
        ------
        RepoError
            If there is none.
        """
        found = self.find_calibs(dataset_type, [exposure], [detector], collections, instrument=instrument)
        return found[exposure, detector]

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
        exposure: int | None = None,
        detector: int | Sequence[int] | None = None,
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
        detector : int or list of int, optional
            Detector ids.
        instrument : str, optional
            Of the exposure; needed if the repository has several.

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
            asked = wanted or list(self.instrument(instrument).detectors)
            found = self.find_calibs(dataset_type, [exposure], asked, where, instrument=instrument, required=False)
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
        first = self._first_by_key(dataset_type, search)
        return {ref.detector: ref for ref in self._calib_refs(dataset_type, first.values()).values()}

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
        dimensions = list(self._type(dataset_type).dimensions.required)
        chosen = list(candidates)
        uris = self.butler.get_many_uris([c.ref for c in chosen])
        result = {}
        for candidate in chosen:
            primary = uris[candidate.ref].primaryURI
            uri = primary.ospath.rstrip("/") if primary.isLocal else str(primary).rstrip("/")
            detector = dict(zip(dimensions, candidate.key, strict=True)).get("detector")
            result[candidate.uuid] = CalibRef(uri, candidate.run, candidate.uuid, detector, dataset_type)
        return result

    def _exposure_rows(self, instrument: str, exposures: Iterable[int]) -> list[Any]:
        wanted = sorted({int(e) for e in exposures})
        with self.butler.query() as query:
            found = query.where("exposure IN (wanted)", bind={"wanted": wanted}, instrument=instrument)
            rows = list(found.dimension_records("exposure"))
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

"""How ``Butler.get`` opens a cube: many datasets on one path, chosen by data ID, lazily."""

# It stands outside of `repo.butler`, where all other code that imports the Butler is: the names
# ``camcal_dask.repo.formatter.CubeFormatter`` and ``RecordFormatter`` are written into every repository that exists.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr
from lsst.daf.butler import FormatterV2
from lsst.resources import ResourcePath

from camcal_dask.errors import RepoError
from camcal_dask.instruments import get_instrument
from camcal_dask.repo.butler import selection
from camcal_dask.repo.cubes import raw as cubes
from camcal_dask.repo.storage import files, objects
from camcal_dask.schema import RAW

ANCHOR = ".butler"
"""Ending of the empty file by which the Butler's datastore knows a cube or record beside it.

Its path is stored relative to the repository, so a copy reads itself.  What the datastore stores so, it also
deletes with the last of its datasets (``butler remove-runs``): this file, never pixels.
"""


def anchor(uri: str) -> str:
    """Path of the anchor of a cube (``.zarr``), of a record (``.json``) or of a folder of records."""
    return uri.removesuffix(".zarr").removesuffix(".json") + ANCHOR


def spelled(path: ResourcePath) -> str:
    """URI, as `files` spells it, of what the datastore knows."""
    return str(path.ospath) if path.isLocal else str(path)


def beside(path: str) -> tuple[str, ...]:
    """Places of which an anchor may be the anchor: a cube, a record, a folder of records."""
    stem = path.removesuffix(ANCHOR)
    return stem + ".zarr", stem + ".json", stem


def cube_uri(path: ResourcePath, suffix: str = ".zarr") -> str:
    """URI of the cube (or of the record, ``suffix=".json"``) behind the path that the datastore knows."""
    if (text := spelled(path)).endswith(ANCHOR):
        return text.removesuffix(ANCHOR) + suffix
    return text.removesuffix(f"/{objects.LAST}").rstrip("/")  # of a repository made before there were anchors


def record_suffix(data_id: Mapping[str, Any]) -> str:
    """Ending of a JSON record; those of exposures lie together in a folder."""
    return f"/{data_id['exposure']}.json" if "exposure" in data_id else ".json"


def here(root: str, uri: str, run: str) -> str:
    """URI of a product in a repository that was moved or copied after its absolute path had been stored."""
    if not uri.startswith(f"{root}/"):
        for folder in (f"/cubes/{run}/", "/cubes/raw/"):
            before, found, rest = uri.rpartition(folder)
            if found and before and files.exists(moved := f"{root}{folder}{rest}"):
                return moved
    return uri


class RecordFormatter(FormatterV2):
    """Reader of JSON records: that of a run, or of the exposure in the data ID."""

    default_extension = ".json"
    unsupported_parameters = None
    can_read_from_uri = True

    def read_from_uri(self, uri: ResourcePath, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the record.

        Returns
        -------
        dict
            Its content.
        """
        path = cube_uri(self.file_descriptor.location.uri, record_suffix(self.data_id.mapping))
        if (record := files.read_json(path)) is None:
            raise RepoError(f"{path}: the record is registered, but its file is missing; repeat the step that wrote it")
        return record


class CubeFormatter(FormatterV2):
    """Reader of raw, product and statistics cubes; they are written by tasks, not through the Butler."""

    default_extension = ".zarr"
    unsupported_parameters = None
    can_read_from_uri = True

    def read_from_uri(self, uri: ResourcePath, component: str | None = None, expected_size: int = -1) -> Any:
        """Open the part of the cube that belongs to the data ID.

        Returns
        -------
        xarray.Dataset
            ``raw`` (amp, y, x) of one exposure and detector; the variables of a product (amp, y, x ...)
            of one detector; or a whole statistics cube.
        """
        # Not ``uri``: of an object store the Butler may pass a local copy of the one file it knows.
        path = cube_uri(self.file_descriptor.location.uri)
        kind = cubes.cube_kind(path)
        if kind == "raw":
            return self._raw(path)
        if kind == "product":
            if "detector" not in self.data_id:
                return cubes.open_product(path)
            return self._detector(cubes.open_product(path, [int(self.data_id["detector"])]), path)
        return cubes.open_dataset(path)

    def _detector(self, dataset: xr.Dataset, path: str) -> xr.Dataset:
        detector = self.data_id["detector"]
        ids = dataset["detector"].values.tolist()
        if detector not in ids:
            raise RepoError(f"{path}: registered for detector {detector}, but holds {ids}; run the pipeline again")
        return dataset.isel(detector=ids.index(detector))

    def _raw(self, path: str) -> xr.Dataset:
        camera = get_instrument(str(self.data_id["instrument"]))
        exposure, detector = int(self.data_id["exposure"]), int(self.data_id["detector"])
        array = cubes.RawCubeArray([path], [cubes.raw_slot(exposure)], [detector], camera.raw_shape[1:])
        variable = cubes.lazy_variable(RAW.dims, array, {"units": "adu"})
        coords = {"exposure": [exposure], **selection.detector_coords(camera, [detector])}
        dataset = xr.Dataset({"raw": variable}, coords=coords, attrs={"instrument": camera.name})
        return dataset.isel(exposure=0, detector=0)

"""Import of calibrations from files of the LSST stack: tables that the ISR applies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask import rooms
from camcal_dask.config import expanded
from camcal_dask.errors import ConfigError
from camcal_dask.exchange.tables import Calibration, read_table
from camcal_dask.instruments.geometry import Instrument
from camcal_dask.repo.cubes import products
from camcal_dask.repo.cubes.layout import template
from camcal_dask.repo.storage import files, naming

if TYPE_CHECKING:
    from camcal_dask.repo.butler.repository import Repo


def import_tables(
    repo: Repo, paths: Sequence[str | Path], run: str, *, instrument: str | None = None
) -> tuple[str, list[str]]:
    """Read files, one per detector, and register them as one product in a RUN; may be repeated.

    Parameters
    ----------
    repo : Repo
        Opened for writing.
    paths : sequence of path
        Of one kind that a room can read (`camcal_dask.rooms.layouts`).
    run : str
        RUN collection to make.
    instrument : str, optional
        Needed if the repository has several.

    Returns
    -------
    str, list of str
        Dataset type, and names of the detectors imported.

    Raises
    ------
    DataError
        If a file cannot be read; nothing is written then.
    ConfigError
        If files are of several kinds or units, or two are of one detector.
    RepoError
        If the RUN holds the product of other detectors or of another layout already.
    """
    camera = repo.instrument(instrument)
    repo.check_output(run)
    read: dict[int, tuple[str, Calibration]] = {}
    for path in map(expanded, paths):
        one = read_table(path, camera)
        if one.detector.id in read:
            raise ConfigError(f"{path} and {read[one.detector.id][0]} are both of {one.detector.full_name}")
        read[one.detector.id] = (path, one)
    found = [one for _, one in read.values()]
    (dataset_type,) = _one({one.dataset_type for one in found}, "of one kind")
    (units,) = _one({one.units for one in found}, "in one unit")
    uri = naming.product_uri(repo.root, run, dataset_type)
    layout = _layout(dataset_type, camera, found, units)
    products.create_product(uri, layout)
    for number, (path, one) in sorted(read.items()):
        arrays = {name: _fitted(values, layout[name]) for name, values in one.arrays.items()}
        products.write_product(uri, list(camera.detectors).index(number), arrays, {"file": files.absolute(path)})
    repo.register_product(run, dataset_type, uri, [{"instrument": camera.name, "detector": n} for n in sorted(read)])
    return dataset_type, [camera.detectors[number].full_name for number in sorted(read)]


def _one(values: set[str], what: str) -> set[str]:
    if len(values) != 1:
        raise ConfigError(f"files {what} go into one RUN; these are {' and '.join(sorted(values)) or 'none'}")
    return values


def _fitted(values: NDArray[Any], place: xr.DataArray) -> NDArray[Any]:
    """Array of a detector padded to the product's shape: with NaN, 0 or False."""
    shape = place.shape[1:]
    filling = np.nan if place.dtype.kind == "f" else 0
    out = np.full(shape, filling, place.dtype)
    out[tuple(slice(0, n) for n in values.shape)] = values
    return out


def _layout(dataset_type: str, camera: Instrument, read: Sequence[Calibration], units: str) -> xr.Dataset:
    """Layout of the product: dims that only its files know are as long as the longest."""
    sizes: dict[str, int] = {}
    product = rooms.product(dataset_type)
    for name, variable in product.variables.items():
        for axis, dim in enumerate(variable.dims[1:]):
            if dim != "amp" and dim not in product.labels:
                sizes[dim] = max(one.arrays[name].shape[axis] for one in read)
    shared = xr.Dataset(coords={dim: range(n) for dim, n in sizes.items()})
    return template(dataset_type, camera, {"units": units, "exposures": []}, shared)

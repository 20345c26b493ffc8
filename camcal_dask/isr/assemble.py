"""CCD images in detector coordinates, and mosaics of the focal plane, lazily, from corrected or combined amps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from camcal_dask.errors import PlanError
from camcal_dask.instruments import Detector, get_instrument
from camcal_dask.instruments.focal_plane import assemble as assemble_ccd
from camcal_dask.instruments.focal_plane import ccd_to_focal_plane, transform
from camcal_dask.isr.blocks import Corrected
from camcal_dask.isr.corrected import CorrectedExposures, as_dataset
from camcal_dask.isr.graph import objects, unwrap
from camcal_dask.kernels.pixels.masks import NO_DATA, bits

AMPS = ("amp", "y", "x")
CCD = ("y_ccd", "x_ccd")
FOCAL_PLANE = ("y_focal", "x_focal")
UNFIT = ("BAD", "SAT", "NO_DATA", "UNMASKEDNAN")
"""Planes whose pixels do not enter a bin of a mosaic."""


def assemble(amps: CorrectedExposures | xr.Dataset) -> xr.Dataset:
    """Assemble the amps of every detector.

    Parameters
    ----------
    amps : CorrectedExposures or Dataset
        From ``isr``, or of a product: variables (.., detector, amp, y, x), trimmed, readout coordinates;
        ``attrs["instrument"]``.  What is lazy stays lazy: one task per block and variable.

    Returns
    -------
    Dataset
        Those variables as (.., detector, y_ccd, x_ccd) in detector coordinates, [0, 0] lower left.  CCDs smaller than
        the camera's largest are padded at high y and x with NaN, masks with NO_DATA, as are amps that are not there.

    Raises
    ------
    PlanError
        If no variable has amps of pixels, or the instrument is not known.
    """
    amps = as_dataset(amps)
    camera = _camera(amps)
    size = max(d.height_pix for d in camera.detectors.values()), max(d.width_pix for d in camera.detectors.values())
    ids = tuple(amps["detector"].values.tolist())
    found = {}
    for name, variable in amps.data_vars.items():
        if variable.dims[-3:] != AMPS:
            continue
        whole = variable.variable.transpose(..., "detector", *AMPS)
        ccds = _assembled(whole, camera.name, ids, size, _positions(amps, camera))
        found[str(name)] = xr.Variable((*whole.dims[:-3], *CCD), ccds, variable.attrs)
    if not found:
        raise PlanError(f"assemble: no variable with dims (.., {', '.join(AMPS)}) among {list(amps.data_vars)}")
    coords = {k: c for k, c in amps.coords.items() if not set(AMPS) & set(c.dims)}
    return xr.Dataset(found, coords, amps.attrs)


def mosaic(amps: CorrectedExposures | xr.Dataset, *, binning: int = 32, reject: Sequence[str] = UNFIT) -> xr.DataArray:
    """Image of the focal plane in bins of pixels, lazily.

    Every detector is read, assembled and binned by itself in one or two tasks; only bins are brought together.
    In memory there are one detector per worker and the mosaic (LSSTCam in bins of 32: 16 MB).

    Parameters
    ----------
    amps : CorrectedExposures or Dataset
        As for `assemble`, with ``image`` and ``mask``.
    binning : width of a bin [pixel]
    reject : mask planes whose pixels do not enter

    Returns
    -------
    DataArray float32 (.., y_focal, x_focal)
        Mean of the good pixels of each bin, NaN where there is none; coordinates in mm in the focal plane.
        A detector is shifted by at most half a bin to the common grid.

    Raises
    ------
    PlanError
        If ``amps`` has not got what it takes.
    """
    labels = amps.labels if isinstance(amps, CorrectedExposures) else amps
    camera = _camera(labels)
    detectors = [camera.detectors[d] for d in labels["detector"].values.tolist()]
    step = binning * detectors[0].pixel_size_mm
    (x0, x1), (y0, y1) = _extent(detectors)
    shape = int(np.ceil((y1 - y0) / step)) + 1, int(np.ceil((x1 - x0) / step)) + 1
    tiles = _tiles(amps, binning, bits(reject))
    index = "ed"[2 - tiles.ndim :]
    focal = da.blockwise(
        _place, f"{index[:-1]}YX", tiles, index, name=f"mosaic-{tokenize(tiles.name, binning)}",
        new_axes={"Y": shape[0], "X": shape[1]}, dtype=np.float32, meta=np.empty((0,) * (tiles.ndim + 1), np.float32),
        instrument=camera.name, detectors=tuple(d.id for d in detectors), corner=(x0, y0), step=step, shape=shape,
        n_lead=tiles.ndim - 1,
    )  # fmt: skip
    described = amps.described("image") if isinstance(amps, CorrectedExposures) else amps["image"].attrs
    lead = ("exposure",)[: tiles.ndim - 1]
    coords = {k: c for k, c in labels.coords.items() if set(c.dims) <= set(lead)}
    for name, start, n in zip(FOCAL_PLANE, (y0, x0), shape, strict=True):
        coords[name] = xr.Variable(name, start + step * np.arange(n), {"units": "mm"})
    return xr.DataArray(focal, coords, (*lead, *FOCAL_PLANE), "image", {**described, "binning": binning})


def bin_image(image: NDArray[np.float32], mask: NDArray[np.int32], binning: int, reject: int) -> NDArray[np.float32]:
    """Mean of the good pixels of squares of ``binning`` pixels, (ceil(y / b), ceil(x / b)) float32; NaN without any."""
    height, width = (-(-n // binning) for n in image.shape)
    good = np.zeros((height * binning, width * binning), bool)
    values = np.zeros(good.shape, np.float32)
    inside = np.s_[: image.shape[0], : image.shape[1]]
    good[inside] = np.isfinite(image) & ((mask & reject) == 0)
    np.copyto(values[inside], image, where=good[inside])
    squares = (height, binning, width, binning)
    count = good.reshape(squares).sum(axis=(1, 3))
    total = values.reshape(squares).sum(axis=(1, 3), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(count > 0, total / count, np.nan), np.float32)


def _camera(amps: xr.Dataset) -> Any:
    if "instrument" not in amps.attrs or "detector" not in amps.coords:
        raise PlanError("assemble: the Dataset has no attribute 'instrument' or no coordinate 'detector'")
    return get_instrument(amps.attrs["instrument"])


def _positions(amps: xr.Dataset, camera: Any) -> tuple[int, ...] | None:
    """Positions of the amps among those of the camera, None if all are there."""
    names = amps["amp"].values.tolist() if "amp" in amps.coords else list(camera.amp_names)
    return None if names == list(camera.amp_names) else tuple(camera.amp_names.index(name) for name in names)


def _assembled(
    whole: xr.Variable, instrument: str, ids: tuple[int, ...], size: tuple[int, int], positions: tuple[int, ...] | None
) -> Any:
    options: dict[str, Any] = {"instrument": instrument, "size": size, "positions": positions}
    if whole.chunks is None:
        return _assemble_block(whole.to_numpy(), ids=ids, **options)
    blocks = whole.chunk({"detector": 1, **dict.fromkeys(AMPS, -1)}).data
    out = "edYX"[4 - (blocks.ndim - 1) :]
    numbers = da.from_array(np.array(ids), chunks=1)
    return da.blockwise(
        _assemble_lists,
        out,
        blocks,
        f"{out[:-2]}ayx",
        numbers,
        "d",
        new_axes={"Y": size[0], "X": size[1]},
        dtype=blocks.dtype,
        meta=np.empty((0,) * len(out), blocks.dtype),
        align_arrays=False,
        **options,
    )


def _assemble_lists(block: Any, ids: Any, **options: Any) -> NDArray[Any]:
    return _assemble_block(unwrap(block), ids=tuple(ids.tolist()), **options)


def _assemble_block(
    amps: NDArray[Any],
    *,
    instrument: str,
    ids: tuple[int, ...],
    size: tuple[int, int],
    positions: tuple[int, ...] | None,
) -> NDArray[Any]:
    """Assemble (.., detector, amp, y, x) to (.., detector, y_ccd, x_ccd)."""
    camera = get_instrument(instrument)
    fill = _fill(amps)
    out = np.full((*amps.shape[:-3], *size), fill, amps.dtype)
    for index in np.ndindex(amps.shape[:-3]):
        detector = camera.detectors[ids[index[-1]]]
        whole = _all_amps(amps[index], positions, len(camera.amp_names))
        out[index][: detector.height_pix, : detector.width_pix] = assemble_ccd(whole, detector)
    return out


def _fill(values: NDArray[Any]) -> Any:
    """Value of pixels that are not there."""
    return np.nan if np.issubdtype(values.dtype, np.floating) else NO_DATA


def _all_amps(values: NDArray[Any], positions: tuple[int, ...] | None, n_amp: int) -> NDArray[Any]:
    """Amps (amp, y, x) of a detector, filled up where they are not there."""
    if positions is None:
        return values
    out = np.full((n_amp, *values.shape[1:]), _fill(values), values.dtype)
    out[list(positions)] = values
    return out


def _extent(detectors: Sequence[Detector]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Range of pixel centres in the focal plane, ((x0, x1), (y0, y1)) [mm]."""
    corners = []
    for d in detectors:
        right, top = d.width_pix - 1, d.height_pix - 1
        corners.append(np.array(transform(ccd_to_focal_plane(d), [0, right, 0, right], [0, 0, top, top])))
    x, y = np.concatenate(corners, axis=1)
    return (float(x.min()), float(x.max())), (float(y.min()), float(y.max()))


def _tiles(amps: CorrectedExposures | xr.Dataset, binning: int, reject: int) -> da.Array:
    """Binned CCDs, one object per block at (exposure, detector) or (detector,)."""
    if isinstance(amps, CorrectedExposures):
        ids, arrays, positions = amps.labels, [amps.by_exposure()], amps.amps
        lead: tuple[Any, ...] = ("exposure", "detector")
    else:
        lead = amps["image"].dims[:-3]
        if lead not in (("detector",), ("exposure", "detector")):
            raise PlanError(f"mosaic: image has dims {amps['image'].dims}, expected ([exposure,] detector, amp, y, x)")
        chunks = {**dict.fromkeys(lead, 1), **dict.fromkeys(AMPS, -1)}
        arrays = [amps[name].variable.chunk(chunks).data for name in ("image", "mask")]
        ids, positions = amps, _positions(amps, get_instrument(amps.attrs["instrument"]))
    index = "ed"[2 - len(lead) :]
    settings = {"instrument": amps.attrs["instrument"], "binning": binning, "reject": reject, "positions": positions}
    return objects(
        _tile,
        index,
        da.from_array(np.array(ids["detector"].values), chunks=1),
        "d",
        *(part for array in arrays for part in (array, f"{index}ayx")),
        name=f"tile-{tokenize([a.name for a in arrays], settings)}",
        **settings,
    )


def _tile(
    ids: Any, *blocks: Any, instrument: str, binning: int, reject: int, positions: tuple[int, ...] | None
) -> NDArray[np.float32]:
    found = [unwrap(block) for block in blocks]
    camera = get_instrument(instrument)
    if isinstance(found[0], Corrected):  # it has all amps
        found = [plane[0, 0] for plane in (found[0].image, found[0].mask)]
        if positions is not None:
            found = [plane[list(positions)] for plane in found]
    image, mask = (_all_amps(p.reshape(p.shape[-3:]), positions, len(camera.amp_names)) for p in found)
    detector = camera.detectors[int(ids[0])]
    return bin_image(assemble_ccd(image, detector), assemble_ccd(mask, detector), binning, reject)


def _place(  # noqa: PLR0913
    tiles: Any,
    *,
    instrument: str,
    detectors: tuple[int, ...],
    corner: tuple[float, float],
    step: float,
    shape: tuple[int, int],
    n_lead: int,
) -> NDArray[np.float32]:
    """Put the binned CCDs of one exposure on the common grid."""
    camera = get_instrument(instrument)
    focal = np.full(shape, np.nan, np.float32)
    for number, tile in zip(detectors, tiles, strict=True):
        detector = camera.detectors[number]
        affine, size = ccd_to_focal_plane(detector), step / detector.pixel_size_mm
        turn = np.rint(affine[:, :2] / detector.pixel_size_mm).astype(int)
        start = transform(affine, (size - 1) / 2, (size - 1) / 2)  # middle of the first bin
        first = [int(np.rint((float(s) - c) / step)) for s, c in zip(start, corner, strict=True)]
        j, i = np.indices(tile.shape)
        column, row = (first[k] + turn[k, 0] * i + turn[k, 1] * j for k in (0, 1))
        seen = np.isfinite(tile) & (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        focal[row[seen], column[seen]] = tile[seen]
    return focal.reshape((1,) * n_lead + shape)

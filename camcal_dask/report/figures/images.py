"""Binned images of detectors and mosaics of the focal plane, from products and from residual maps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask import rooms
from camcal_dask.instruments import Detector, Instrument
from camcal_dask.instruments.focal_plane import assemble
from camcal_dask.isr.assemble import UNFIT, bin_image
from camcal_dask.kernels.pixels.masks import bits
from camcal_dask.report.content.layout import Layout

Image = NDArray[np.float32]
DETECTOR_PIXELS = 512
"""A detector's picture is at most about so wide."""
MOSAIC_PIXELS = 1600
"""A mosaic is at most about so wide."""


def product_images(product: xr.Dataset, instrument: Instrument) -> dict[int, Image]:
    """Every detector of a product, assembled and binned, by id; empty if the product has no pixels.

    The mean of the good pixels of each bin, or of flags the share of flagged pixels [%].  Detectors are read once, two
    or more at a time.
    """
    name = pixel_name(product)
    if not name:
        return {}
    ids = [int(d) for d in product["detector"].values]
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        images = pool.map(
            lambda i: _binned(product.isel(detector=i), name, instrument.detectors[ids[i]]), range(len(ids))
        )
        return dict(zip(ids, images, strict=True))


def assembled(one: xr.Dataset, detector: Detector) -> tuple[Image, str]:
    """One detector of a product at full size: good pixels, NaN elsewhere, and the unit; flags as % bad (0 or 100)."""
    image, mask = ccd(one, pixel_name(one), detector)
    if mask is not None:
        image = np.where(mask & bits(UNFIT), np.float32(np.nan), image)
    return image, pixel_unit(one)


def pixel_name(product: xr.Dataset) -> str:
    """Variable with the pixels, as the room of the dataset type says, or one that any has; empty if there is none."""
    known = rooms.products()
    kind = product.attrs.get("dataset_type")
    names = [known[kind].pixels] if kind in known else ["image", *(p.pixels for p in known.values())]
    return next((n for n in names if n in product and {"y", "x"} <= set(product[n].dims)), "")


def pixel_unit(product: xr.Dataset) -> str:
    """Unit of what a picture shows; empty if there are no pixels."""
    name = pixel_name(product)
    if not name:
        return ""
    return "% bad pixels" if _is_flags(product[name]) else str(product[name].attrs.get("units", ""))


def _is_flags(pixels: xr.DataArray) -> bool:
    return pixels.dtype.kind == "u"


def ccd(one: xr.Dataset, name: str, detector: Detector) -> tuple[Image, NDArray[np.int32] | None]:
    """Image and, if there is one, mask of one detector, assembled; of a raw, with all overscans, each amp in its cell.

    Parameters
    ----------
    one : Dataset
        ``name`` and perhaps ``mask`` (amp, y, x).
    """
    if not name:
        return np.empty((0, 0), np.float32), None
    amps = one[name].transpose("amp", "y", "x").values
    if name == "image" and amps.dtype.kind == "i":
        return cells(amps, detector), None
    pixels = assemble(amps, detector)
    if _is_flags(one[name]):
        return np.float32(100) * (pixels != 0), None
    return pixels, assemble(one["mask"].transpose("amp", "y", "x").values, detector) if "mask" in one else None


def _binned(one: xr.Dataset, name: str, detector: Detector) -> Image:
    side = max(1, detector.width_pix // DETECTOR_PIXELS)
    image, mask = ccd(one, name, detector)
    return bin_image(image, np.zeros(image.shape, np.int32) if mask is None else mask, side, bits(UNFIT))


def cells(amps: NDArray[Any], detector: Detector) -> Image:
    """Put amps of any equal size together as they lie in the CCD.

    Parameters
    ----------
    amps : (amp, y, x), readout orientation: binned amps, or raw ones with their overscans
    """
    height, width = amps.shape[1:]
    columns, rows = (max(getattr(amp, axis) for amp in detector.amps) + 1 for axis in ("ix", "iy"))
    whole = np.full((rows * height, columns * width), np.nan, np.float32)
    for amp in detector.amps:
        part = amps[amp.index, :: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
        whole[amp.iy * height : (amp.iy + 1) * height, amp.ix * width : (amp.ix + 1) * width] = part
    return whole


def residual_images(binned: xr.DataArray, instrument: Instrument) -> dict[int, Image]:
    """Every detector of one exposure's (or an average's) residual map (detector, amp, y_bin, x_bin), by id."""
    ids = [int(d) for d in binned["detector"].values]
    values = binned.transpose("detector", "amp", "y_bin", "x_bin").values
    return {d: cells(values[i], instrument.detectors[d]) for i, d in enumerate(ids)}


def mosaic(images: Mapping[int, Image], detectors: Sequence[Detector], layout: Layout) -> Image:
    """Put pictures of detectors at their places in the focal plane; NaN between them.

    Parameters
    ----------
    images : by detector id, of any size
    detectors : in the order of ``layout``
    """
    boxes = layout.detectors
    corner = boxes[:, :2].min(axis=0)
    extent = (boxes[:, :2] + boxes[:, 2:]).max(axis=0) - corner
    finest = min(box[2] / images[d.id].shape[1] for box, d in zip(boxes, detectors, strict=True) if d.id in images)
    step = max(finest, extent.max() / MOSAIC_PIXELS)
    focal = np.full((int(np.ceil(extent[1] / step)), int(np.ceil(extent[0] / step))), np.nan, np.float32)
    for box, detector in zip(boxes, detectors, strict=True):
        if detector.id not in images:
            continue
        tile = np.rot90(images[detector.id], -round(detector.yaw_deg / 90))
        (x0, y0), (x1, y1) = (np.rint((edge - corner) / step).astype(int) for edge in (box[:2], box[:2] + box[2:]))
        target = focal[y0:y1, x0:x1]
        target[...] = _resized(tile, target.shape[0], target.shape[1])
    return focal


def _resized(tile: Image, height: int, width: int) -> Image:
    """Nearest pixels, or means of whole blocks where the picture is at least twice as fine."""
    fine = max(1, tile.shape[0] // max(height, 1))
    if fine > 1:
        tile = bin_image(np.ascontiguousarray(tile), np.zeros(tile.shape, np.int32), fine, 0)
    rows = ((np.arange(height) + 0.5) / height * tile.shape[0]).astype(int)
    columns = ((np.arange(width) + 0.5) / width * tile.shape[1]).astype(int)
    return np.asarray(tile[rows[:, None], columns])

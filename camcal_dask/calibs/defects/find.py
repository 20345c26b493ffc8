"""Defects of one detector from its combined bias, dark and flats (reference/construction.md 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask.calibs.defects.config import DefectConfig
from camcal_dask.calibs.defects.product import DEFECT_KINDS
from camcal_dask.errors import DataError
from camcal_dask.instruments.focal_plane import amp_boxes, assemble, ccd_to_focal_plane, split
from camcal_dask.instruments.geometry import Detector
from camcal_dask.kernels.pixels.defects import DEFECT_BITS, Detection, edge_frame, measure_defects, merge_defects
from camcal_dask.kernels.pixels.masks import NO_DATA
from camcal_dask.kernels.pixels.regions import boxes_to_mask, mask_to_boxes

Box = tuple[int, int, int, int]


class FoundDefects(NamedTuple):
    """Variables of `camcal_dask.calibs.defects.product.DEFECTS`, the box table and where the pixels come from.

    ``boxes`` (n, 4) int32 are x0, y0, width, height in the assembled CCD; ``n_source`` and ``n_alone`` count the
    pixels that each source has, and that it alone has.
    """

    arrays: dict[str, NDArray[Any]]
    boxes: NDArray[np.int32]
    n_source: dict[str, int]
    n_alone: dict[str, int]


def find_defects(
    images: Mapping[str, xr.Dataset],
    detector: Detector,
    shape: tuple[int, int, int],
    config: DefectConfig,
    manual: Sequence[Box] = (),
) -> FoundDefects:
    """Search the combined images of a detector.

    Parameters
    ----------
    images : mapping
        ``"bias"``, ``"dark"``, ``"flat <filter>"`` -> combined image of this detector: ``image``, ``mask``
        (amp, y, x) and ``attrs["units"]``.
    detector : Detector
    shape : (amp, y, x) of the product
    config : DefectConfig
    manual : boxes x0, y0, width, height in the assembled CCD

    Raises
    ------
    DataError
        If there is no image.
    """
    if not images:
        raise DataError(f"detector {detector.name}: no combined image to search for defects")
    found = {name: search_image(name, product, detector, config) for name, product in images.items()}
    size = (detector.height_pix, detector.width_pix)
    merged = merge_defects(
        {name: detection.bits for name, detection in found.items()},
        edges=edge_frame(size, config.edge_rows, config.edge_columns) if config.edges else None,
        manual=boxes_to_mask(np.array(manual), size) if manual and config.manual else None,
    )
    bits = split(merged.bits, detector, shape)
    per_reason = [(bits & np.uint8(1 << bit) > 0).sum(axis=(1, 2)) for bit in DEFECT_BITS.values()]
    arrays = {"defects": bits, "n_pixels": np.stack(per_reason, axis=1).astype(np.int32)}
    arrays |= _counters(found, shape[0])
    return FoundDefects(arrays, mask_to_boxes(merged.bits > 0), merged.n_pixels, merged.n_alone)


def dead_amps(found: FoundDefects, detector: Detector) -> dict[str, str]:
    """Amps of which no pixel is left, and why."""
    reasons = {}
    for amp in detector.amps:
        kinds = [k for k, dead in zip(DEFECT_KINDS, found.arrays["dead"][amp.index], strict=True) if dead]
        box = found.arrays["defects"][amp.index, : amp.data.height, : amp.data.width]
        if box.all():
            reasons[amp.name] = f"dead in the {', '.join(kinds)}" if kinds else "all of its pixels are defects"
    return reasons


def search_image(name: str, product: xr.Dataset, detector: Detector, config: DefectConfig) -> Detection:
    """Search one combined image; ``name`` begins with its kind."""
    kind = name.split(" ")[0]
    mask = np.asarray(product["mask"].values)
    arguments: dict[str, Any] = {"no_data": assemble(mask & NO_DATA != 0, detector)}
    pixels = np.asarray(product["image"].values)
    image, boxes = assemble(pixels, detector), amp_boxes(detector)
    if kind == "bias":
        if product.attrs["units"] == "electron":  # the threshold is in adu
            image = assemble(_in_adu(pixels, detector), detector)
        return measure_defects(image, boxes, config.bias.search("bias"), config.bias.columns.rules(), **arguments)
    if kind == "dark":
        in_adu = product.attrs["units"].startswith("adu")
        gains = np.array([amp.gain if in_adu else 1.0 for amp in detector.amps])
        settings = config.dark
        return measure_defects(
            image, boxes, settings.search("dark"), settings.columns.rules(), gains=gains, **arguments
        )
    gradient, flatness = (
        config.flat.gradient(ccd_to_focal_plane(detector)),
        config.flat.flatness(detector.physical_type),
    )
    return measure_defects(
        image, boxes, config.flat.search("flat"), config.flat.columns.rules(), gradient=gradient, flatness=flatness,
        **arguments,
    )  # fmt: skip


def _in_adu(pixels: NDArray[np.float32], detector: Detector) -> NDArray[np.float32]:
    """Amps (amp, y, x) in electron divided by the gains of the camera model."""
    gains = np.ones((len(pixels), 1, 1), np.float32)
    gains[: len(detector.amps), 0, 0] = [amp.gain for amp in detector.amps]
    return pixels / gains


def _counters(found: Mapping[str, Detection], n_amp: int) -> dict[str, NDArray[Any]]:
    """(amp, kind); of several flats the largest count."""
    out: dict[str, NDArray[Any]] = {
        name: np.zeros((n_amp, len(DEFECT_KINDS)), np.int32) for name in ("n_hot", "n_cold", "n_columns")
    }
    out["dead"] = np.zeros((n_amp, len(DEFECT_KINDS)), np.int8)
    for name, detection in found.items():
        k, n = DEFECT_KINDS.index(name.split(" ")[0]), len(detection.n_hot)
        for counter, values in out.items():
            values[:n, k] = np.maximum(values[:n, k], getattr(detection, counter))
    return out

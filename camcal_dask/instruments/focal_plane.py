"""Pixels, amps and CCDs in the focal plane (reference/raw_format.md 2.5, 3.3; reference/construction.md 3.3).

Three frames: *readout* pixels (x, y) of one trimmed amp, as cubes hold them; *CCD* pixels of the
assembled, trimmed detector; and the focal plane [mm], x along the serial direction of the unrotated
CCDs.  Pixel coordinates are zero-based, whole numbers are pixel centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from camcal_dask.errors import DataError
from camcal_dask.instruments.geometry import Amp, Box, Detector
from camcal_dask.kernels.arrays import FloatArray
from camcal_dask.kernels.pixels.masks import NO_DATA, PARTLY_VIGNETTED, VIGNETTED

VIGNETTE_RADIUS_MM = 350.0
"""No light beyond (RFC-1120)."""
PARTIAL_VIGNETTE_RADIUS_MM = 317.0
"""Light is lost beyond (RFC-1125)."""
POLYGON_VERTICES = 100
"""The full vignette is this polygon inscribed in its circle: 349.83 mm at the middle of an edge."""


def ccd_to_focal_plane(detector: Detector) -> FloatArray:
    """Return the affine transform of CCD pixels: (2, 3) float64, mm = a[:, 0] x + a[:, 1] y + a[:, 2].

    F = P + R(yaw) 0.010 mm (p - r), with position P and reference pixel r of the tables.
    """
    cos, sin = _turn(detector.yaw_deg)
    linear = detector.pixel_size_mm * np.array([[cos, -sin], [sin, cos]])
    position = np.array([detector.fp_x_mm, detector.fp_y_mm])
    reference = np.array([detector.refpos_x_pix, detector.refpos_y_pix])
    return np.column_stack([linear, position - linear @ reference])


def readout_to_ccd(amp: Amp) -> FloatArray:
    """Return the affine transform of readout pixels of the trimmed amp to CCD pixels, (2, 3) float64."""
    width, height = amp.data.width, amp.data.height
    x_scale, y_scale = (-1.0 if amp.flip_x else 1.0), (-1.0 if amp.flip_y else 1.0)
    x_start = amp.ix * width + (width - 1 if amp.flip_x else 0)
    y_start = amp.iy * height + (height - 1 if amp.flip_y else 0)
    return np.array([[x_scale, 0.0, x_start], [0.0, y_scale, y_start]])


def readout_to_focal_plane(detector: Detector, amp: Amp) -> FloatArray:
    """Return the affine transform of readout pixels of the trimmed amp to mm, (2, 3) float64."""
    outer, inner = ccd_to_focal_plane(detector), readout_to_ccd(amp)
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def transform(affine: FloatArray, x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Apply an affine transform (2, 3) to coordinates that broadcast; returns both new coordinates."""
    px, py = np.asarray(x, np.float64), np.asarray(y, np.float64)
    (a, b, c), (d, e, f) = affine
    return a * px + b * py + c, d * px + e * py + f


def invert(affine: FloatArray) -> FloatArray:
    """Return the inverse of an affine transform (2, 3)."""
    linear = np.linalg.inv(affine[:, :2])
    return np.column_stack([linear, -linear @ affine[:, 2]])


def amp_box(amp: Amp) -> Box:
    """Return the box of the trimmed amp in the assembled CCD."""
    width, height = amp.data.width, amp.data.height
    return Box(amp.ix * width, amp.iy * height, width, height)


def amp_boxes(detector: Detector) -> NDArray[np.int32]:
    """Return the boxes of all amps in the assembled CCD, (n_amp, 4) int32 of x0, y0, width, height, in HDU order."""
    boxes = [amp_box(amp) for amp in detector.amps]
    return np.array([(b.x0, b.y0, b.width, b.height) for b in boxes], np.int32)


def amp_layout(amps: Sequence[Amp], n_amp: int) -> NDArray[np.int64]:
    """``height, width, ix, iy, flip_x, flip_y`` of each of ``n_amp`` amps, (n_amp, 6); zeros where there is none."""
    rows = [[a.data.height, a.data.width, a.ix, a.iy, a.flip_x, a.flip_y] for a in amps]
    return np.array(rows + [[0] * 6] * (n_amp - len(rows)), np.int64)


def assemble(amps: NDArray[Any], detector: Detector) -> NDArray[Any]:
    """Assemble trimmed amps in readout orientation.

    Parameters
    ----------
    amps : (n_amp, y, x), any type, amps in HDU order, padding at high y and x ignored

    Returns
    -------
    (height_pix, width_pix) of the same type

    Raises
    ------
    DataError
        If the array is smaller than the detector's amps.
    """
    ccd = np.empty((detector.height_pix, detector.width_pix), amps.dtype)
    for image, amp in zip(_checked(amps, detector), detector.amps, strict=False):
        box = amp_box(amp)
        ccd[box.y, box.x] = _flipped(image[: box.height, : box.width], amp)
    return ccd


def split(ccd: NDArray[Any], detector: Detector, shape: tuple[int, int, int], fill: Any = 0) -> NDArray[Any]:
    """Cut an assembled CCD into amps in readout orientation; the inverse of :func:`assemble`.

    Parameters
    ----------
    ccd : (height_pix, width_pix), any type
    shape : (n_amp, y, x) of the result
    fill : value of the padding

    Raises
    ------
    DataError
        If the image is not of the detector's size, or the amps do not fit into ``shape``.
    """
    if ccd.shape != (detector.height_pix, detector.width_pix):
        expected = (detector.height_pix, detector.width_pix)
        raise DataError(f"detector {detector.name}: an image of {ccd.shape} pixels (y, x), expected {expected}")
    amps = _checked(np.full(shape, fill, ccd.dtype), detector)
    for image, amp in zip(amps, detector.amps, strict=False):
        box = amp_box(amp)
        image[: box.height, : box.width] = _flipped(ccd[box.y, box.x], amp)
    return amps


def outside_circle(
    affine: FloatArray, shape: tuple[int, int], radius_mm: float, *, vertices: int | None = None
) -> NDArray[np.bool_]:
    """Return which pixel centres lie outside a circle, or a polygon inscribed in it, about the optical axis.

    Parameters
    ----------
    affine : (2, 3) pixels to mm; both axes have the same scale and are perpendicular
    shape : (height, width) [pixel]
    radius_mm : radius of the circle
    vertices : number of corners of the regular polygon, the first on the x axis; None = the circle

    Returns
    -------
    (height, width) bool
    """
    height, width = shape
    corners = np.hypot(*transform(affine, [0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1]))
    # The circle is convex: an amp with its corners inside is inside.  Saves nearly all of the work.
    inner = radius_mm * (np.cos(np.pi / vertices) if vertices else 1.0)
    if corners.max() <= inner:
        return np.zeros(shape, np.bool_)
    # Pixels are squares, turned or not: distances are taken in pixels from the optical axis, where x and y separate.
    (axis_x,), (axis_y,) = transform(invert(affine), [0.0], [0.0])
    scale = np.sqrt(abs(np.linalg.det(affine[:, :2])))
    square = (np.arange(width) - axis_x) ** 2 + (np.arange(height)[:, None] - axis_y) ** 2
    outside = np.asarray(square > (radius_mm / scale) ** 2)
    if vertices is None:
        return outside
    row, column = np.nonzero((square > (inner / scale) ** 2) & ~outside)
    x, y = transform(affine, column, row)
    half = np.pi / vertices
    angle = np.mod(np.arctan2(y, x), 2 * half) - half
    outside[row, column] = np.hypot(x, y) * np.cos(angle) > inner
    return outside


def vignette_planes(
    detector: Detector,
    shape: tuple[int, int, int],
    *,
    radius_mm: float = VIGNETTE_RADIUS_MM,
    partial_radius_mm: float = PARTIAL_VIGNETTE_RADIUS_MM,
    vertices: int | None = POLYGON_VERTICES,
) -> NDArray[np.int32]:
    """Return the vignette planes of a detector in readout orientation.

    Parameters
    ----------
    shape : (n_amp, y, x) of a product; padding and absent amps get no plane here
    radius_mm, vertices
        NO_DATA and VIGNETTED outside this polygon (or circle, ``vertices=None``).
    partial_radius_mm : PARTLY_VIGNETTED outside this circle

    Returns
    -------
    (n_amp, y, x) int32
    """
    planes = _checked(np.zeros(shape, np.int32), detector)
    for plane, amp in zip(planes, detector.amps, strict=False):
        affine, size = readout_to_focal_plane(detector, amp), (amp.data.height, amp.data.width)
        area = plane[: size[0], : size[1]]
        area[outside_circle(affine, size, partial_radius_mm)] |= PARTLY_VIGNETTED
        area[outside_circle(affine, size, radius_mm, vertices=vertices)] |= NO_DATA | VIGNETTED
    return planes


def _turn(yaw_deg: float) -> tuple[float, float]:
    """Cosine and sine, exact for quarter turns."""
    exact: Sequence[tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
    quarters = yaw_deg / 90.0
    if quarters == round(quarters):
        return exact[round(quarters) % 4]
    angle = np.deg2rad(yaw_deg)
    return float(np.cos(angle)), float(np.sin(angle))


def _flipped(image: NDArray[Any], amp: Amp) -> NDArray[Any]:
    return image[:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]


def _checked(amps: NDArray[Any], detector: Detector) -> NDArray[Any]:
    n = len(detector.amps)
    height, width = max(a.data.height for a in detector.amps), max(a.data.width for a in detector.amps)
    if amps.ndim != 3 or amps.shape[0] < n or amps.shape[1] < height or amps.shape[2] < width:
        raise DataError(
            f"detector {detector.name}: an array of shape {amps.shape} (amp, y, x) "
            f"does not hold its {n} amps of {height} x {width} pixels (y, x)"
        )
    return amps

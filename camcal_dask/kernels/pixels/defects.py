"""Defects: pixels that are bad according to a combined bias, dark or flat (reference/construction.md 5).

Images are assembled, trimmed CCDs (y, x); amps are given by their boxes in them.  Every finding is a bit
of a uint8 plane, so that a defect keeps the reason why it is one.  Where upstream is mistaken or silent:

- the kind of image is an argument, not a header card [Q9]; all filters' flats may be merged [Q6];
- saturated columns work if a SAT plane is given [Q7];
- pixels without data count neither in the statistics nor as defects;
- an amp without any finite pixel, or without response to light, is a defect as a whole.  (Upstream flags only
  an amp whose scatter is zero, and half of the pixels of an amp with a negative flat.)
- vampire pixels are found relative to the mean of their amp: a bootstrap flat in adu has steps of gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from camcal_dask.errors import DataError
from camcal_dask.kernels.arrays import BoolArray, ByteArray, FloatArray, Int32Array, IntArray, Pixels
from camcal_dask.kernels.statistics.moments import clip_statistics
from camcal_dask.kernels.statistics.radial import remove_radial

DEFECT_BITS = MappingProxyType({"BIAS": 0, "DARK": 1, "FLAT": 2, "COLUMN": 3, "EDGE": 4, "MANUAL": 5, "VAMPIRE": 6})
"""Reason -> bit of the defect planes; store it beside them."""
BIAS, DARK, FLAT, COLUMN, EDGE, MANUAL, VAMPIRE = (1 << bit for bit in range(7))

Kind = Literal["bias", "dark", "flat"]
Bits = ByteArray
Counts = IntArray
Boxes = Int32Array

_KIND_BITS: Mapping[str, int] = {"bias": BIAS, "dark": DARK, "flat": FLAT}


class Search(NamedTuple):
    """Thresholds of one kind of image.

    ``threshold`` with the method VALUE is: bias, adu above the mean of the amp; dark, electron/s above it; flat,
    fraction of it at or below which a pixel is cold (bright flat pixels are not searched).  With STDEV, pixels
    beyond ``n_sigma_hot`` or below ``n_sigma_cold`` clipped standard deviations are found: hot ones in darks, both
    in flats, none in a bias.  The border [pixel] of each amp is not searched and not in the statistics.
    """

    kind: Kind
    method: Literal["VALUE", "STDEV"]
    threshold: float
    n_sigma_hot: float = 4.8
    n_sigma_cold: float = -5.0
    border_rows: int = 0
    border_columns: int = 0


class Gradient(NamedTuple):
    """Removal of the radial illumination before a flat is searched (`kernels.statistics.radial.remove_radial`).

    ``affine`` (2, 3): CCD pixels to mm from the optical axis.
    """

    affine: FloatArray
    bin_size: int = 8
    border: int = 20
    n_nodes: int = 4


class Columns(NamedTuple):
    """Column rules; a count below 1 switches a rule off.

    Attributes
    ----------
    blinking_count, blinking_gap
        A column of the *detector* with at least so many bad pixels is filled between neighbouring bad ones less
        than ``blinking_gap`` rows apart, across the middle of the CCD too.
    fill_count
        A column of an *amp* with at least so many bad pixels is bad as a whole.
    saturated_dilation, saturated_count
        Saturated pixels are bad with so many neighbours on each side in their row; a column of an amp with at
        least ``saturated_count`` of them is bad as a whole.
    """

    blinking_count: int = 50
    blinking_gap: int = 30
    fill_count: int = 1000
    saturated_dilation: int = 0
    saturated_count: int = -1


class Flatness(NamedTuple):
    """What else is looked for in flats.

    Attributes
    ----------
    dead_amp_fraction
        An amp with a mean at or below this fraction of the median amp is bad as a whole.
    midline_rows, midline_option
        So many rows of each amp next to the middle of the CCD (E2V: 1) are never, or always, defects of the flat.
    vampire_threshold, vampire_radius
        Pixels at or above the threshold, in units of the mean of their amp, are bad with all within the radius
        [pixel]; inf = not searched.
    """

    dead_amp_fraction: float = 0.1
    midline_rows: int = 0
    midline_option: Literal["NEVERMASK", "MASK"] = "NEVERMASK"
    vampire_threshold: float = np.inf
    vampire_radius: int = 8


class Detection(NamedTuple):
    """Defects of one image.

    Attributes
    ----------
    bits : (y, x) uint8
    n_hot, n_cold : (n_amp,) int64
        Pixels above and below the thresholds, before the column rules.
    n_columns : (n_amp,) int64
        Columns of the amp that were filled as a whole.
    mean, stdev : (n_amp,) float64
        Clipped, of the searched pixels [unit of the image; flats after the removal of the gradient].
    dead : (n_amp,) bool
        Amps that are a defect as a whole; their counts are 0.
    """

    bits: Bits
    n_hot: Counts
    n_cold: Counts
    n_columns: Counts
    mean: FloatArray
    stdev: FloatArray
    dead: BoolArray


class Merged(NamedTuple):
    """Union of the defects of several images; pixels that each one has, and that it alone has."""

    bits: Bits
    n_pixels: dict[str, int]
    n_alone: dict[str, int]


class Recovery(NamedTuple):
    """Found defects against known ones.  NaN fractions where nothing was known, or found."""

    completeness: float
    purity: float
    n_known: int
    n_found: int
    n_both: int


def measure_defects(
    image: Pixels,
    boxes: Boxes,
    search: Search,
    columns: Columns | None,
    *,
    gains: FloatArray | None = None,
    gradient: Gradient | None = None,
    flatness: Flatness | None = None,
    no_data: BoolArray | None = None,
    saturated: BoolArray | None = None,
) -> Detection:
    """Find the defects of one combined image of one detector.

    Parameters
    ----------
    image : (y, x) float32
        Combined bias [adu], dark [adu/s or electron/s], or flat [1].
    boxes : (n_amp, 4) int32
        x0, y0, width, height of the amps in the image.
    search, columns, gradient, flatness
        What is looked for; ``gradient`` and ``flatness`` act on flats only.
    gains : (n_amp,) float64 [electron / unit of the image * s]
        For darks with VALUE: the camera's gains for a dark in adu/s, ones for electron/s.
    no_data : (y, x) bool
        Pixels to leave out (vignetted, padding).
    saturated : (y, x) bool
        Pixels that were saturated in the inputs.

    Raises
    ------
    DataError
        If a box leaves the image, or a dark is searched by VALUE without gains.
    """
    if search.kind != "flat":
        gradient = flatness = None
    found = _search(image, boxes, search, _checked_gains(search, gains, len(boxes)), gradient, flatness, no_data)
    if columns is not None:
        filled, n_columns = fill_columns(found.bits > 0, boxes, columns, saturated)
        found.bits[filled & (found.bits == 0)] = COLUMN
        found.n_columns[:] = np.where(found.dead, 0, n_columns)
    if no_data is not None:
        found.bits[no_data] = 0
    return found


def limits(search: Search, mean: float, stdev: float, gain: float) -> tuple[float, float]:
    """Return the differences from the mean at or above, and at or below, which a pixel is a defect; inf = none."""
    if search.method == "STDEV":
        hot = np.inf if search.kind == "bias" else search.n_sigma_hot * stdev
        return hot, (search.n_sigma_cold * stdev if search.kind == "flat" else -np.inf)
    if search.kind == "flat":
        return np.inf, (search.threshold - 1) * mean
    return (search.threshold if search.kind == "bias" else search.threshold / gain), -np.inf


def fill_columns(
    bad: BoolArray, boxes: Boxes, columns: Columns, saturated: BoolArray | None = None
) -> tuple[BoolArray, Counts]:
    """Apply the column rules, in the order saturated neighbours, blinking columns, bad columns, saturated columns.

    Parameters
    ----------
    bad : (y, x) bool, whole detector
    boxes : (n_amp, 4) int32
    columns : the rules
    saturated : (y, x) bool or None

    Returns
    -------
    (y, x) bool
        The mask with what the rules add.
    (n_amp,) int64
        Columns of each amp that are bad as a whole by the last two rules.
    """
    filled = bad.copy()
    if saturated is not None:
        _dilate_along_rows(filled, saturated, columns.saturated_dilation)
    if columns.blinking_count > 0:
        _fill_blinking(filled, columns.blinking_count, columns.blinking_gap)
    n_columns = np.zeros(len(boxes), np.int64)
    for k, (x0, y0, width, height) in enumerate(boxes.tolist()):
        area = filled[y0 : y0 + height, x0 : x0 + width]
        whole = _columns_with(area, columns.fill_count)
        if saturated is not None:
            whole |= _columns_with(saturated[y0 : y0 + height, x0 : x0 + width], columns.saturated_count)
        area[:, whole] = True
        n_columns[k] = whole.sum()
    return filled, n_columns


def edge_frame(shape: tuple[int, int], rows: int, columns: int) -> BoolArray:
    """Return the outer frame of a detector, (y, x) bool: so many rows at bottom and top, columns at the sides."""
    frame = np.ones(shape, np.bool_)
    frame[rows : max(shape[0] - rows, 0), columns : max(shape[1] - columns, 0)] = False
    return frame


def grow(mask: BoolArray, radius: int) -> BoolArray:
    """Return the mask grown isotropically: all pixels within ``radius`` of one of its pixels."""
    grown = mask.copy()
    rows, cols = np.nonzero(mask)
    for dy in range(-radius, radius + 1):
        reach = int(np.sqrt(radius * radius - dy * dy))
        y = rows + dy
        inside = (y >= 0) & (y < mask.shape[0])
        for dx in range(-reach, reach + 1):
            x = cols + dx
            keep = inside & (x >= 0) & (x < mask.shape[1])
            grown[y[keep], x[keep]] = True
    return grown


def merge_defects(
    images: Mapping[str, Bits], *, edges: BoolArray | None = None, manual: BoolArray | None = None
) -> Merged:
    """Return the union of the defects of several images, the frame and the manual list.

    Parameters
    ----------
    images : name ("bias", "dark", "flat r_57", ...) -> (y, x) uint8
        All the filters' flats that are given count [Q6].
    edges, manual : (y, x) bool or None
    """
    planes = dict(images)
    if edges is not None:
        planes["edge"] = edges.astype(np.uint8) * np.uint8(EDGE)
    if manual is not None:
        planes["manual"] = manual.astype(np.uint8) * np.uint8(MANUAL)
    if not planes:
        raise DataError("defects: nothing to merge; give at least one image, the edges or a manual list")
    bits = np.zeros(next(iter(planes.values())).shape, np.uint8)
    count = np.zeros(bits.shape, np.uint8)
    for plane in planes.values():
        bits |= plane
        count += plane > 0
    n_pixels = {name: int(np.count_nonzero(plane)) for name, plane in planes.items()}
    n_alone = {name: int(np.count_nonzero((plane > 0) & (count == 1))) for name, plane in planes.items()}
    return Merged(bits, n_pixels, n_alone)


def compare_defects(found: BoolArray, known: BoolArray, ignore: BoolArray | None = None) -> Recovery:
    """Return completeness and purity of found defects against known ones, outside ``ignore``; all (y, x) bool."""
    if ignore is not None:
        found, known = found & ~ignore, known & ~ignore
    both, n_known, n_found = (int(np.count_nonzero(m)) for m in (found & known, known, found))
    nan = float("nan")
    return Recovery(both / n_known if n_known else nan, both / n_found if n_found else nan, n_known, n_found, both)


def _checked_gains(search: Search, gains: FloatArray | None, n_amp: int) -> FloatArray:
    if gains is None:
        if search.kind == "dark" and search.method == "VALUE":
            raise DataError("defects: a dark needs gains: the camera's for a dark in adu/s, ones for electron/s")
        return np.ones(n_amp)
    if len(gains) != n_amp:
        raise DataError(f"defects: {len(gains)} gains for {n_amp} amps")
    return gains


def _search(
    image: Pixels,
    boxes: Boxes,
    search: Search,
    gains: FloatArray,
    gradient: Gradient | None,
    flatness: Flatness | None,
    no_data: BoolArray | None,
) -> Detection:
    """Thresholds amp by amp, then vampires and dead amps."""
    out = _nothing_found(image.shape, len(boxes))
    bit = np.uint8(_KIND_BITS[search.kind])
    vampires = np.zeros(image.shape, np.bool_)
    unseen = np.zeros(len(boxes), np.bool_)  # amps without data, which are no defect
    for k, box in enumerate(boxes.tolist()):
        rows, cols = _inner(box, search, image.shape)
        amp = image[rows, cols].copy()
        if no_data is not None:
            amp[no_data[rows, cols]] = np.nan
            unseen[k] = bool(no_data[rows, cols].all())
        if gradient is not None:
            amp = _without_gradient(amp, gradient, rows.start, cols.start)
        levels = clip_statistics(amp)
        out.mean[k], out.stdev[k] = levels.mean, levels.stdev
        if flatness is not None and np.isfinite(flatness.vampire_threshold) and levels.mean > 0:
            vampires[rows, cols] = amp >= flatness.vampire_threshold * levels.mean
        amp -= np.float32(levels.mean)
        if flatness is not None:
            _treat_midline(amp, rows, int(boxes[:, 1].max()), flatness)
        hot, cold = limits(search, levels.mean, levels.stdev, float(gains[k]))
        high, low = amp >= hot, amp <= cold
        out.n_hot[k], out.n_cold[k] = np.count_nonzero(high), np.count_nonzero(low)
        out.bits[rows, cols][high | low] = bit
    if flatness is not None and vampires.any():
        out.bits[grow(vampires, flatness.vampire_radius)] |= np.uint8(VAMPIRE)
    out.dead[:] = _dead(out, flatness) & ~unseen
    out.n_hot[out.dead] = out.n_cold[out.dead] = 0
    for x0, y0, width, height in boxes[out.dead].tolist():
        out.bits[y0 : y0 + height, x0 : x0 + width] |= bit
    return out


def _nothing_found(shape: tuple[int, ...], n: int) -> Detection:
    return Detection(
        bits=np.zeros(shape, np.uint8),
        n_hot=np.zeros(n, np.int64),
        n_cold=np.zeros(n, np.int64),
        n_columns=np.zeros(n, np.int64),
        mean=np.full(n, np.nan),
        stdev=np.full(n, np.nan),
        dead=np.zeros(n, np.bool_),
    )


def _dead(found: Detection, flatness: Flatness | None) -> BoolArray:
    """Amps without a finite pixel, without scatter (filled with a median), or without response to light."""
    dead = ~np.isfinite(found.mean) | (found.stdev == 0)
    if flatness is not None and not dead.all():
        dead |= found.mean <= flatness.dead_amp_fraction * np.median(found.mean[~dead])
    return np.asarray(dead)


def _inner(box: list[int], search: Search, shape: tuple[int, ...]) -> tuple[slice, slice]:
    x0, y0, width, height = box
    if min(x0, y0) < 0 or x0 + width > shape[1] or y0 + height > shape[0]:
        raise DataError(f"defects: amp box {box} (x0, y0, width, height) leaves the image of {shape} pixels (y, x)")
    rows, columns = search.border_rows, search.border_columns
    if 2 * rows >= height or 2 * columns >= width:
        raise DataError(f"defects: a border of {rows} rows, {columns} columns leaves nothing of amp box {box}")
    return slice(y0 + rows, y0 + height - rows), slice(x0 + columns, x0 + width - columns)


def _without_gradient(amp: Pixels, gradient: Gradient, y0: int, x0: int) -> Pixels:
    affine = np.array(gradient.affine, np.float64)
    affine[:, 2] += affine[:, 0] * x0 + affine[:, 1] * y0
    return remove_radial(amp, affine, bin_size=gradient.bin_size, border=gradient.border, n_nodes=gradient.n_nodes)


def _treat_midline(difference: Pixels, rows: slice, middle: int, flatness: Flatness) -> None:
    """Make the rows next to the middle of the CCD harmless or, with MASK, cold; nothing with one row of amps."""
    n = flatness.midline_rows
    if n == 0 or middle == 0:
        return
    value = np.nan if flatness.midline_option == "NEVERMASK" else -np.inf
    difference[max(middle - n - rows.start, 0) : max(middle + n - rows.start, 0)] = value


def _dilate_along_rows(filled: BoolArray, mask: BoolArray, radius: int) -> None:
    for shift in range(-radius, radius + 1):
        target, source = slice(max(shift, 0), None), slice(max(-shift, 0), None)
        stop = mask.shape[1] - abs(shift)
        filled[:, target][:, :stop] |= mask[:, source][:, :stop]


def _fill_blinking(bad: BoolArray, count: int, gap: int) -> None:
    """Fill each detector column with ``count`` bad pixels between bad ones less than ``gap`` rows apart, in place."""
    for x in np.flatnonzero(_columns_with(bad, count)):
        rows = np.flatnonzero(bad[:, x])
        ends = np.flatnonzero(np.diff(rows) >= gap)
        first, last = np.append(0, ends + 1), np.append(ends, len(rows) - 1)
        for begin, end in zip(rows[first], rows[last], strict=True):
            bad[begin : end + 1, x] = True


def _columns_with(mask: BoolArray, count: int) -> BoolArray:
    """Columns with at least ``count`` True; none if ``count`` is below 1."""
    if count < 1:
        return np.zeros(mask.shape[1], np.bool_)
    return np.asarray(np.add.reduce(mask.view(np.uint8), axis=0, dtype=np.int32) >= count)

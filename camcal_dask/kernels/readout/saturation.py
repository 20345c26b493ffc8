"""Shapes that saturation leaves on E2V and ITL sensors (reference/isr.md 2.9).

All act on a trimmed CCD image in detector coordinates: ``image`` (y, x) float32 [electron], ``mask`` (y, x)
int32 (changed in place), C order.  Amps are given as boxes (x0, y0, width, height), (n_amp, 4) int: those
with y0 = 0 are read at the bottom edge (C0x), those that end in the last row at the top edge (C1x).
Footprints are the 8-connected components of SAT, found once by :func:`find_footprints` before any step
adds to the plane.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from camcal_dask.kernels.arrays import FloatArray, IndexArray, Int32Array, IntArray, Mask, Pixels
from camcal_dask.kernels.compiled import compiled
from camcal_dask.kernels.pixels.masks import BAD, ITL_DIP, SAT, SUSPECT
from camcal_dask.kernels.statistics.moments import median

Boxes = IntArray

BLEED_AREA = (10_000, 100_000)
"""Area of a footprint that may be a bleed reaching an edge: at least the first, less than the second [pixel]."""


class Footprints(NamedTuple):
    """Connected components of a mask plane.

    ``runs`` (n_runs, 4) int32: label, y, first x, one past the last x, sorted by y, then x.  The others have one
    entry a label: ``area`` [pixel], ``box`` (n, 4) int32 (x0, y0, width, height), ``x``, ``y`` float64 centroid
    (mean pixel index).  Labels count from 0 in the order of their first run.
    """

    runs: Int32Array
    area: IntArray
    box: Int32Array
    x: FloatArray
    y: FloatArray

    def runs_of(self, label: int) -> Int32Array:
        """Runs of one footprint, (m, 3) int32: y, first x, one past the last x."""
        return self.runs[self.runs[:, 0] == label, 1:]

    def bleeds(self, area: tuple[int, int] = BLEED_AREA) -> IndexArray:
        """Labels with area[0] <= area < area[1]."""
        return np.flatnonzero((self.area >= area[0]) & (self.area < area[1]))


class Core(NamedTuple):
    """Vertical core of a bleed: column ``x`` and ``width`` [pixel]."""

    x: int
    width: int


def find_footprints(mask: Mask, planes: int = SAT) -> Footprints:
    """Return the 8-connected components of the pixels with any bit of ``planes``."""
    runs = _find_runs(mask, np.int32(planes))
    n = _connect(runs)
    return Footprints(runs, *_measure(runs, n))


def mask_e2v_edge_bleed(
    mask: Mask, footprints: Footprints, boxes: Boxes, *, rows: int = 350, both_edges: bool = True
) -> int:
    """Flag SAT on the rows nearest the readout of amps whose bleed reaches it.

    A footprint of bleed size flags, at each edge of the CCD that it touches, the first ``rows`` rows of the whole amp
    in the column of its centroid.  With ``both_edges`` off, as upstream does it: only bottom amps that hold the
    centroid themselves, that is no bleed of the top half and none that crosses the middle from above.

    Returns
    -------
    Number of amps flagged.
    """
    flagged, last = 0, mask.shape[0]
    for label in footprints.bleeds():
        x, y = int(footprints.x[label]), int(footprints.y[label])
        first, end = int(footprints.box[label, 1]), int(footprints.box[label, 1] + footprints.box[label, 3])
        for amp in _amps_of_column(boxes, x):
            x0, y0, width, height = (int(v) for v in boxes[amp])
            depth = min(rows, height)
            if y0 == 0 == first and (both_edges or y < height):
                mask[:depth, x0 : x0 + width] |= SAT
                flagged += 1
            elif y0 > 0 and y0 + height == last == end and both_edges:
                mask[last - depth :, x0 : x0 + width] |= SAT
                flagged += 1
    return flagged


def mask_itl_dip(
    image: Pixels,
    mask: Mask,
    footprints: Footprints,
    *,
    background_fraction: float,
    min_width: int = 15,
    min_height: int = 50,
    max_width: int = 50,
    max_columns: int = 500,
) -> int:
    """Flag SUSPECT and ITL_DIP on the whole columns below and above bright stars where ITL sensors dip.

    For footprints at least ``min_height`` rows high: w = number of columns with more than ``min_height`` saturated
    pixels, at least ``min_width``, cut at ``max_width``; with b the median of the image, the dip matters if
    background_fraction * b * w >= sqrt(b) / 2.  Columns int(x - 0.75 w)..int(x + 0.75 w) of all rows are flagged,
    unless that is more than ``max_columns`` distinct columns in total: then none.

    b is taken from pixels without SAT and BAD (upstream: all pixels).

    Parameters
    ----------
    background_fraction : depth of the dip relative to the sky; 0 switches the step off (reference/isr.md 2.21).

    Returns
    -------
    Number of columns flagged.
    """
    tall = np.flatnonzero(footprints.box[:, 3] >= min_height)
    if background_fraction <= 0 or len(tall) == 0:
        return 0
    background = median(image, mask, SAT | BAD)
    columns = np.zeros(mask.shape[1], bool)
    for label in tall:
        width = int((_column_counts(footprints, label) > min_height).sum())
        if width < min_width:
            continue
        width = min(width, max_width)
        if background_fraction * background * width >= 0.5 * np.sqrt(max(background, 0.0)):
            x = footprints.x[label]
            columns[max(int(x - 0.75 * width), 0) : int(x + 0.75 * width) + 1] = True
    n = int(columns.sum())
    if n > max_columns:
        return 0
    mask[:, columns] |= SUSPECT | ITL_DIP
    return n


def mask_itl_edge_bleed(
    image: Pixels,
    mask: Mask,
    footprints: Footprints,
    boxes: Boxes,
    saturation: float,
    *,
    rows: int = 200,
    excess: float = 5000.0,
    level: float = 0.45,
    decay: float = 0.02,
) -> int:
    """Flag SAT on the flare that a bleed makes where it reaches an edge, at both edges of its column.

    For each core (:func:`bleed_cores`) and each of the amps of its column: if the median of the 50 rows at the readout
    edge, core -+ 5 columns, exceeds the median of *that amp* by ``excess``, the flare starts as wide as the
    widest of the first 100 rows, W0 = number of pixels above ``level * saturation`` within core -+ 250 columns,
    and SAT covers int((W0 exp(-decay y) + W) / 2) columns on each side in row y = 0..rows-1 from the edge.

    (Upstream compares each edge with the background of the amp at the *other* edge.)

    Parameters
    ----------
    boxes : (n_amp, 4) amps.
    saturation : saturation level of the detector, median over good amps [electron].
    excess : [electron]

    Returns
    -------
    Number of edges flagged.
    """
    flagged, medians = 0, {}
    for label in footprints.bleeds():
        for core in bleed_cores(footprints, int(label)):
            for amp in _amps_of_column(boxes, core.x):
                if amp not in medians:
                    x0, y0, width, height = boxes[amp]
                    area = (slice(y0, y0 + height), slice(x0, x0 + width))
                    medians[amp] = median(image[area], mask[area], SAT | BAD)
                up = bool(boxes[amp][1] > 0)
                edge, target = (image[::-1], mask[::-1]) if up else (image, mask)
                near = edge[:50, max(core.x - 5, 0) : core.x + 6]
                if not median(near) > medians[amp] + excess:
                    continue
                wide = edge[:100, max(core.x - 250, 0) : core.x + 251] > level * saturation
                _flag_flare(target[:rows], core, int(wide.sum(axis=1).max()), decay)
                flagged += 1
    return flagged


def bleed_cores(footprints: Footprints, label: int, area: tuple[int, int] = BLEED_AREA) -> list[Core]:
    """Return the one or two bleeding columns of a footprint; more than two cores: none.

    Cores are the footprint's runs in the row of its centroid.  One: column of the centroid, width of the run.
    Two: the footprint is split midway between them and each part, if its own area is that of a bleed, gives the column
    with most pixels, and its widest row, 100 rows at each end ignored if it has more than 200.
    """
    runs = footprints.runs_of(label)
    middle = runs[runs[:, 0] == int(footprints.y[label])]
    if len(middle) == 1:
        return [Core(int(footprints.x[label]), int(middle[0, 2] - middle[0, 1]))]
    if len(middle) != 2:
        return []
    split = int(middle[0, 2] + middle[1, 1]) // 2
    low, high = runs[runs[:, 1] < split].copy(), runs[runs[:, 2] > split].copy()
    low[:, 2], high[:, 1] = np.minimum(low[:, 2], split), np.maximum(high[:, 1], split)
    cores = (_core_of_part(part, area) for part in (low, high))
    return [core for core in cores if core is not None]


def mask_itl_saturation_sag(mask: Mask, footprints: Footprints) -> int:
    """Flag SAT on every whole column of which a bleed saturates more than a fifth of its own height.

    Returns
    -------
    Number of columns flagged.
    """
    columns = np.zeros(mask.shape[1], bool)
    for label in footprints.bleeds():
        x0, _, width, height = (int(v) for v in footprints.box[label])
        columns[x0 : x0 + width] |= _column_counts(footprints, label) > height / 5
    mask[:, columns] |= SAT
    return int(columns.sum())


def widen_saturation_trails(mask: Mask, plane: int = SAT) -> None:
    """Lengthen both ends of each horizontal run of ``plane`` by 0 (n <= 5), 1 (6-7), 3 (8-9) or 4 (n >= 10) pixels."""
    runs = _find_runs(mask, np.int32(plane))
    for _, y, start, stop in runs[runs[:, 3] - runs[:, 2] > 5]:
        n = stop - start
        extra = 1 if n <= 7 else 3 if n <= 9 else 4
        mask[y, max(start - extra, 0) : stop + extra] |= plane


def _amps_of_column(boxes: Boxes, x: int) -> list[int]:
    return [int(k) for k in np.flatnonzero((boxes[:, 0] <= x) & (x < boxes[:, 0] + boxes[:, 2]))]


def _flag_flare(target: Mask, core: Core, width0: int, decay: float) -> None:
    for y in range(len(target)):
        half = int((width0 * np.exp(-decay * y) + core.width) / 2)
        target[y, max(core.x - half, 0) : max(core.x + half, 0)] |= SAT


def _core_of_part(runs: Int32Array, area: tuple[int, int]) -> Core | None:
    lengths = runs[:, 2] - runs[:, 1]
    if not area[0] <= lengths.sum() < area[1]:
        return None
    x0, y0 = int(runs[:, 1].min()), int(runs[:, 0].min())
    counts = _counts(runs, x0, int(runs[:, 2].max()) - x0)
    widths = np.bincount(runs[:, 0] - y0, weights=lengths)
    inner = widths[100:-100] if len(widths) > 200 else widths
    return Core(x0 + int(np.argmax(counts)), int(inner.max()))


def _column_counts(footprints: Footprints, label: int | np.intp) -> IntArray:
    """Pixels of a footprint in each column of its box, (width,) int64."""
    x0, _, width, _ = (int(v) for v in footprints.box[label])
    return _counts(footprints.runs_of(int(label)), x0, width)


def _counts(runs: Int32Array, x0: int, width: int) -> IntArray:
    steps = np.bincount(runs[:, 1] - x0, minlength=width + 1) - np.bincount(runs[:, 2] - x0, minlength=width + 1)
    return np.cumsum(steps)[:width]


@compiled
def _count_runs(mask: Mask, planes: np.int32, counts: Int32Array) -> None:
    """Number of runs that start in each row."""
    for y in range(mask.shape[0]):
        row = mask[y]
        n = np.int32(row[0] & planes != 0)
        for x in range(1, row.size):
            n += np.int32((row[x] & planes != 0) & (row[x - 1] & planes == 0))
        counts[y] = n


@compiled
def _find_runs(mask: Mask, planes: np.int32) -> Int32Array:
    """Horizontal runs of flagged pixels, (n, 4) int32: 0, y, start, stop."""
    counts = np.zeros(mask.shape[0], np.int32)
    _count_runs(mask, planes, counts)
    runs = np.zeros((counts.sum(), 4), np.int32)
    k = 0
    for y in range(mask.shape[0]):
        if counts[y] == 0:
            continue
        row, inside = mask[y], False
        for x in range(row.size):
            flagged = row[x] & planes != 0
            if flagged and not inside:
                runs[k, 1], runs[k, 2], runs[k, 3] = y, x, row.size
            elif inside and not flagged:
                runs[k, 3] = x
                k += 1
            inside = flagged
        if inside:
            k += 1
    return runs


@compiled
def _root(parent: IntArray, k: int) -> int:
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@compiled
def _connect(runs: Int32Array) -> int:
    """Write labels 0..n-1 of the 8-connected components into runs[:, 0]; returns n."""
    n_runs = runs.shape[0]
    parent = np.arange(n_runs)
    above = 0  # first run of an earlier row that may still touch
    for k in range(n_runs):
        y, start, stop = runs[k, 1], runs[k, 2], runs[k, 3]
        while above < k and (runs[above, 1] < y - 1 or (runs[above, 1] == y - 1 and runs[above, 3] < start)):
            above += 1
        j = above
        while j < k and runs[j, 1] == y - 1 and runs[j, 2] <= stop:
            a, b = _root(parent, j), _root(parent, k)
            parent[max(a, b)] = min(a, b)
            j += 1
    n = 0
    for k in range(n_runs):
        root = _root(parent, k)
        if root == k:
            runs[k, 0] = n
            n += 1
        else:
            runs[k, 0] = runs[root, 0]
    return n


@compiled
def _measure(runs: Int32Array, n: int) -> tuple[IntArray, Int32Array, FloatArray, FloatArray]:
    """Area, box (x0, y0, width, height) and centroid x, y of each label."""
    area, box = np.zeros(n, np.int64), np.zeros((n, 4), np.int32)
    sum_x, sum_y = np.zeros(n), np.zeros(n)
    for k in range(runs.shape[0]):
        label, y, start, stop = runs[k, 0], runs[k, 1], runs[k, 2], runs[k, 3]
        if area[label] == 0:
            box[label, 0], box[label, 1] = start, y
        length = np.int64(stop - start)
        area[label] += length
        sum_x[label] += 0.5 * length * (start + stop - 1)
        sum_y[label] += length * y
        right = max(box[label, 0] + box[label, 2], stop)
        box[label, 0] = min(box[label, 0], start)
        box[label, 2] = right - box[label, 0]
        box[label, 3] = y + 1 - box[label, 1]
    for label in range(n):
        sum_x[label] /= area[label]
        sum_y[label] /= area[label]
    return area, box, sum_x, sum_y

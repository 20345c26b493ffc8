"""Raw pixels of one exposure, and the stripes of rows in which they are corrected before the trim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from camcal_dask.errors import DataError
from camcal_dask.instruments.geometry import Box, Detector
from camcal_dask.kernels.arrays import Int32Array, Pixels
from camcal_dask.kernels.pixels.masks import BAD, NO_DATA
from camcal_dask.kernels.readout.overscan import FILL

Region = tuple[int, int, int, int]
"""Rows y0..y1 and columns x0..x1 of a raw amp [pixel]."""

_STRIPE = 64  # rows corrected at a time: 16 amps of them stay in the second-level cache


@dataclass(frozen=True)
class RawRows:
    """Raw pixels of one exposure of one detector: int32 (amp, h, w) [adu] whose corner stands at row y0, column x0."""

    pixels: Int32Array
    y0: int
    x0: int
    exposure: int
    detector: Detector

    def has_pixels(self, amp: int) -> bool:
        """Whether any pixel of the amp was ever written."""
        pixels = self.pixels[amp]
        return bool((pixels[0] != FILL).any() or (pixels != FILL).any())


class Stripe(NamedTuple):
    """Some rows of all amps on their way from the raw to the trimmed image.

    ``pixels`` float32 and ``flags`` int32 (amp, y, x) are raw rows and columns ``region``; ``data`` are the rows and
    columns of them that remain after the trim, ``target`` the place of these in the trimmed image.
    """

    region: Region
    pixels: Pixels
    flags: Int32Array
    data: tuple[slice, slice]
    target: tuple[slice, slice, slice]

    def trim(self, image: Pixels, mask: Int32Array) -> None:
        """Write what remains after the trim (step 15)."""
        image[self.target] = self.pixels[:, :, self.data[1]]
        mask[self.target] = self.flags[:, :, self.data[1]]


def make_stripe(raw: RawRows, region: Region, *, first_column: int | None = None, top: int = 0) -> Stripe:
    """Return an empty stripe of data ``region``.

    Parameters
    ----------
    raw : RawRows
    region : rows and columns of the data
    first_column : column at which the stripe starts, that of the data by default
    top : row of the trimmed image at which it will stand
    """
    y0, y1, x0, x1 = region
    first = x0 if first_column is None else first_column
    shape = len(raw.detector.amps), y1 - y0, x1 - first
    data = slice(0, y1 - y0), slice(x0 - first, x1 - first)
    target = slice(shape[0]), slice(top, top + y1 - y0), slice(x1 - x0)
    return Stripe((y0, y1, first, x1), np.empty(shape, np.float32), np.zeros(shape, np.int32), data, target)


def stripes(raw: RawRows, regions: dict[int, Region], *, prescan: bool) -> Iterator[Stripe]:
    """Cut regions of all amps into stripes; with ``prescan`` they start at column 0."""
    if not regions:
        return
    y0, y1, x0, x1 = common_region(regions, raw.detector)
    for top in range(y0, y1, _STRIPE):
        region = (top, min(top + _STRIPE, y1), x0, x1)
        yield make_stripe(raw, region, first_column=0 if prescan else None, top=top - y0)


def common_region(regions: dict[int, Region], detector: Detector) -> Region:
    """Return the region that all amps of a detector share.

    Raises
    ------
    DataError
        If they differ: steps that couple amps need equal ones.
    """
    found = set(regions.values())
    if len(found) != 1 or len(regions) != len(detector.amps):
        raise DataError(
            f"detector {detector.name}: amps with different data boxes {sorted(found)}; crosstalk, saturation, "
            "linearity and deferred charge need equal ones: switch them off for this detector"
        )
    return found.pop()


def place_amps(detector: Detector, rows: range, image: Pixels, mask: Int32Array) -> dict[int, Region]:
    """Clear the mask, mark what is beyond the pixels of each amp (NaN, NO_DATA), and say which raw pixels are needed.

    Parameters
    ----------
    detector : Detector
    rows : of the trimmed amps
    image, mask : (amp, len(rows), width), written

    Returns
    -------
    Region of each amp that has pixels in these rows, by index.
    """
    mask[...] = 0
    regions = {}
    for a in range(image.shape[0]):
        amp = detector.amps[a] if a < len(detector.amps) else None
        box = Box(0, 0, 0, 0) if amp is None else amp.data
        top = max(min(rows.stop, box.height), rows.start)
        for padding in (np.s_[a, top - rows.start :], np.s_[a, : top - rows.start, box.width :]):
            image[padding], mask[padding] = np.nan, NO_DATA
        if amp is not None and top > rows.start:
            regions[a] = (rows.start + box.y0, top + box.y0, box.x0, box.x0 + box.width)
    return regions


def flag_missing(raw: RawRows, regions: dict[int, Region], mask: Int32Array) -> None:
    """Flag pixels that were never written as NO_DATA and BAD alone, in place."""
    for a, (top, bottom, left, right) in regions.items():
        rows = raw.pixels[a, top - raw.y0 : bottom - raw.y0, left - raw.x0 : right - raw.x0]
        mask[a, : bottom - top, : right - left][rows == FILL] = NO_DATA | BAD

"""What flows between the tasks of a graph: recipes that read and correct pixels, and corrected pixels.

A consumer of many exposures is given a `Part`, which holds no pixels as a rule: it says itself how many exposures are
in memory at a time.  A consumer of single exposures is given a `Corrected`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from camcal_dask.errors import PlanError
from camcal_dask.instruments import Detector, get_instrument
from camcal_dask.isr.calibrations import Flags, Plane, Planes, common_flags
from camcal_dask.isr.overscan import Overscan
from camcal_dask.isr.sequence import Exposure, correct, measure_overscan
from camcal_dask.isr.source import RawSource
from camcal_dask.isr.statistics import STATISTICS
from camcal_dask.isr.variance import add_shared_variance, variance_plane
from camcal_dask.kernels.arrays import Int32Array, Pixels

PIXELS = ("image", "variance", "mask")


class Corrected(NamedTuple):
    """Corrected pixels of one block; arrays (e, d, amp, ...) as the variables of the Dataset, see `corrected.isr`.

    ``noise`` (e, d, amp) is the read-noise term of the variance, from which ``slab`` makes the rest of it; both are
    None if the pixels were given, and ``overscan`` with them.
    """

    image: Pixels
    mask: Int32Array
    noise: Pixels | None = None
    slab: Slab | None = None
    overscan: Overscan | None = None
    given: Pixels | None = None
    """Variance, where it does not follow from the image: interpolated, or given."""
    numbers: Mapping[str, NDArray[Any]] = MappingProxyType({})
    """Variables that were given, (e, d, amp, ...)."""

    @property
    def variance(self) -> Pixels:
        """Variance plane (e, d, amp, y, x)."""
        if self.given is not None:
            return self.given
        if self.slab is None or self.noise is None:
            raise PlanError("the corrected exposures have no variance: select it, too, with image and mask")
        each = [self.slab.variance(i, image[0], self.noise[i, 0]) for i, image in enumerate(self.image)]
        return each[0][None, None] if len(each) == 1 else np.stack(each)[:, None]

    def number(self, name: str) -> NDArray[Any]:
        """Return a variable that is no plane of pixels, (e, d, amp, ...)."""
        if name in self.numbers:
            return self.numbers[name]
        if self.overscan is None:
            raise PlanError(f"the corrected exposures have no variable {name}")
        if name == "serial_overscan":
            return self.overscan.serial
        return np.asarray(self.overscan.statistics[..., list(STATISTICS).index(name)])


class Fetched(NamedTuple):
    """What is known of an exposure besides its pixels.

    ``noise`` (amp,) read-noise term of the variance, None if the variance is given; ``clean`` (amp,) whether all pixels
    that the detector has there are sure to be finite and without mask planes;
    ``of`` holds its numbers, at ``position`` if of several exposures.
    """

    noise: Pixels | None
    clean: NDArray[np.bool_]
    of: Corrected | Overscan
    position: int = 0

    def number(self, name: str) -> NDArray[Any]:
        """Variable (amp,) of this exposure."""
        if isinstance(self.of, Corrected):
            return np.asarray(self.of.number(name)[self.position, 0])
        return np.asarray(self.of.statistics[:, list(STATISTICS).index(name)])


class Part(Protocol):
    """Some rows of one detector in some exposures, one exposure at a time; arrays (amp, y, x)."""

    @property
    def n(self) -> int:
        """Number of exposures."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(amp, y, x) of one exposure [pixel]."""

    @property
    def first_row(self) -> int:
        """Row of the trimmed amps at which it starts."""

    def fetch(self, index: int, image: Pixels, mask: Int32Array) -> Fetched:
        """Write image and mask of one exposure."""

    def read(self, index: int) -> tuple[Pixels, Int32Array, Fetched]:
        """Image and mask of one exposure, not to be written to; what is in memory is not copied."""

    def variance(self, index: int, image: Pixels, noise: Pixels | None, *, shared: bool = True) -> Pixels:
        """Variance of an exposure that was fetched; ``shared``: with that of bias and dark, common to all exposures."""

    def add_shared_variance(self, variance: Pixels, weights: Sequence[float]) -> None:
        """Add to that of a weighted sum of all exposures what they share, in place."""


@dataclass(frozen=True)
class Slab:
    """Recipe of a `Part`: it reads and corrects what it is asked for.

    ``exposures`` and ``detector`` are positions in ``source``.  ``overscan`` has arrays (e, 1, amp, ...), or is None if
    the rows are whole amps and the vectors are to be measured from the same pixels.  ``planes`` has arrays
    (1, amp, y, x).
    """

    source: RawSource
    exposures: Sequence[int]
    detector: int
    rows: range
    overscan: Overscan | None
    planes: Planes

    @property
    def n(self) -> int:
        """Number of exposures."""
        return len(self.exposures)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(amp, y, x) of one exposure [pixel]."""
        n_amp, _, width = self.source.trimmed
        return n_amp, len(self.rows), width

    @property
    def first_row(self) -> int:
        """Row of the trimmed amps at which it starts."""
        return self.rows.start

    def fetch(self, index: int, image: Pixels, mask: Int32Array) -> Fetched:
        """Read and correct one exposure."""
        spread = np.empty(self.shape, np.float32) if self.source.config.interpolate else None
        noise, overscan, clean = self.correct(index, image, mask, spread)
        return Fetched(noise, clean, overscan)

    def read(self, index: int) -> tuple[Pixels, Int32Array, Fetched]:
        """Read and correct one exposure into new arrays."""
        image, mask = np.empty(self.shape, np.float32), np.empty(self.shape, np.int32)
        return image, mask, self.fetch(index, image, mask)

    def correct(
        self, index: int, image: Pixels, mask: Int32Array, variance: Pixels | None = None
    ) -> tuple[Pixels, Overscan, NDArray[np.bool_]]:
        """Read and correct one exposure (``index`` in the block) into ``image`` and ``mask`` (amp, y, x).

        ``variance`` is written if given, as interpolation needs it.

        Returns
        -------
        noise (amp,) float32, the read-noise term of the variance; the overscan, arrays (amp, ...); and (amp,) bool, see
        `Fetched.clean`.
        """
        source, tables = self.source, self.source.prepared(self.detector)
        if self.overscan is None:
            raw = source.read_all(self.exposures[index], self.detector)
            overscan = measure_overscan(raw, source.config, tables, width=self.shape[2])
        else:
            raw = source.read(self.exposures[index], self.detector, *self._region())
            overscan = Overscan._make(values[index, 0] for values in self.overscan)
        flags = self._flags if self.n > 1 and self.overscan is not None else None
        scale, planes = self.dark_scale(index), self.planes.of_detector()
        exposure = Exposure(raw, self.rows, overscan, planes, scale, source.config, tables, flags)
        noise, clean = correct(exposure, image, mask, variance)
        return noise, overscan, clean

    def corrected(self) -> Corrected:
        """Read and correct all exposures."""
        image = np.empty((self.n, 1, *self.shape), np.float32)
        mask = np.empty(image.shape, np.int32)
        variance = np.empty(image.shape, np.float32) if self.source.config.interpolate else None
        results = [
            self.correct(i, image[i, 0], mask[i, 0], None if variance is None else variance[i, 0])
            for i in range(self.n)
        ]
        noise = np.stack([noise for noise, _, _ in results])[:, None]
        vectors = zip(*(overscan for _, overscan, _ in results), strict=True)
        overscan = Overscan._make(np.stack(values)[:, None] for values in vectors)
        return Corrected(image, mask, noise, self, overscan, variance)

    @cached_property
    def _flags(self) -> Flags:
        """What the calibrations add to the mask of each of several exposures."""
        config = self.source.config
        return common_flags(self.shape, self.planes.of_detector(), self._detector, self.rows.start, config)

    def variance(self, index: int, image: Pixels, noise: Pixels | None, *, shared: bool = True) -> Pixels:
        """Variance (amp, y, x) of an exposure, given what `correct` made of it."""
        assert noise is not None
        bias, dark, flat, _ = self.planes.of_detector()
        return variance_plane(
            image,
            noise,
            bias if shared else None,
            (dark, self.dark_scale(index)) if shared and dark is not None else None,
            None if flat is None else (flat, self.source.config.flat_scale),
        )

    def add_shared_variance(self, variance: Pixels, weights: Sequence[float]) -> None:
        """Add that of the bias and dark."""
        scales = [self.dark_scale(i) for i in range(self.n)]
        add_shared_variance(variance, self.planes.of_detector(), weights, scales, self.source.config.flat_scale)

    def dark_scale(self, index: int) -> float:
        """Factor of the dark, 0 without one."""
        return self.source.dark_scales[self.exposures[index]] if self.source.dark_scales else 0.0

    def cut(self, rows: slice) -> Slab:
        """Return the recipe of fewer rows, for variances alone."""
        bias, dark, flat = (p if p is None else Plane._make(v[:, :, rows] for v in p) for p in self.planes[:3])
        return dataclasses.replace(self, rows=self.rows[rows], planes=Planes(bias, dark, flat))

    def _region(self) -> tuple[slice, slice]:
        """Raw rows and columns that hold the pixels of the slab (data starts at raw row 0)."""
        boxes = [a.data for a in self._detector.amps]
        top = max(min(self.rows.stop, max(b.height for b in boxes)), self.rows.start)
        left = 0 if self.source.config.deferred_charge else min(b.x0 for b in boxes)
        return slice(self.rows.start, top), slice(left, max(b.x0 + b.width for b in boxes))

    @property
    def _detector(self) -> Detector:
        return get_instrument(self.source.instrument).detectors[self.source.detectors[self.detector]]


@dataclass(frozen=True)
class Held:
    """`Part` of exposures that are in memory: one `Corrected` each, of whole amps, of which it gives ``rows``."""

    exposures: Sequence[Corrected]
    rows: slice

    @property
    def n(self) -> int:
        """Number of exposures."""
        return len(self.exposures)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(amp, y, x) of one exposure [pixel]."""
        n_amp, _, width = self.exposures[0].image.shape[2:]
        return n_amp, self.rows.stop - self.rows.start, width

    @property
    def first_row(self) -> int:
        """Row of the trimmed amps at which it starts."""
        return int(self.rows.start)

    def fetch(self, index: int, image: Pixels, mask: Int32Array) -> Fetched:
        """Copy one exposure."""
        block = self.exposures[index]
        image[...], mask[...] = block.image[0, 0][:, self.rows], block.mask[0, 0][:, self.rows]
        return self._fetched(block)

    def read(self, index: int) -> tuple[Pixels, Int32Array, Fetched]:
        """Views of one exposure, or copies where compiled kernels could not read them."""
        block = self.exposures[index]
        image, mask = (np.require(p[0, 0][:, self.rows], None, ["C", "W"]) for p in (block.image, block.mask))
        return image, mask, self._fetched(block)

    def _fetched(self, block: Corrected) -> Fetched:
        noise = None if block.given is not None or block.noise is None else block.noise[0, 0]
        return Fetched(noise, np.zeros(self.shape[0], bool), block)

    def variance(self, index: int, image: Pixels, noise: Pixels | None, *, shared: bool = True) -> Pixels:
        """Variance as it was given, or from the image."""
        block = self.exposures[index]
        if block.given is not None or block.slab is None:
            return np.asarray(block.variance[0, 0][:, self.rows])
        return block.slab.cut(self.rows).variance(0, image, noise, shared=shared)

    def add_shared_variance(self, variance: Pixels, weights: Sequence[float]) -> None:
        """Add that of the bias and dark, if it is known what was subtracted and no variance was given."""
        slabs = [block.slab for block in self.exposures if block.slab is not None and block.given is None]
        if len(slabs) == len(self.exposures):
            first = slabs[0].cut(self.rows)
            scales = [slab.dark_scale(0) for slab in slabs]
            planes, config = first.planes.of_detector(), first.source.config
            add_shared_variance(variance, planes, weights, scales, config.flat_scale)


class Given(NamedTuple):
    """A variable that takes the place of the ISR's: ``values`` (e, d, amp, ...) of the amps at ``amps`` (None: all)."""

    values: NDArray[Any]
    amps: tuple[int, ...] | None

    @property
    def place(self) -> Any:
        """Index of these amps."""
        return slice(None) if self.amps is None else list(self.amps)


@dataclass(frozen=True)
class Replaced:
    """`Part` with planes of its own: ``planes`` has some of ``image``, ``variance``, ``mask``."""

    part: Part
    planes: Mapping[str, Given]
    numbers: Mapping[str, NDArray[Any]]

    @property
    def n(self) -> int:
        """Number of exposures."""
        return self.part.n

    @property
    def shape(self) -> tuple[int, int, int]:
        """(amp, y, x) of one exposure [pixel]."""
        return self.part.shape

    @property
    def first_row(self) -> int:
        """Row of the trimmed amps at which it starts."""
        return self.part.first_row

    def fetch(self, index: int, image: Pixels, mask: Int32Array) -> Fetched:
        """Fetch one exposure and put the planes in their place."""
        found = self.part.fetch(index, image, mask)
        for name, plane in (("image", image), ("mask", mask)):
            if name in self.planes:
                plane[self.planes[name].place] = self.planes[name].values[index, 0]
        return self._with_numbers(found, index)

    def read(self, index: int) -> tuple[Pixels, Int32Array, Fetched]:
        """Read one exposure; with planes of its own, copies."""
        image, mask, found = self.part.read(index)
        image, mask = (_placed(p, self.planes.get(name), index) for name, p in (("image", image), ("mask", mask)))
        return image, mask, self._with_numbers(found, index)

    def _with_numbers(self, found: Fetched, index: int) -> Fetched:
        numbers = {name: values[index : index + 1] for name, values in self.numbers.items()}
        of = found.of if isinstance(found.of, Corrected) else _alone(found.of)
        of = of._replace(numbers={**of.numbers, **numbers})
        clean = found.clean if not self.planes else np.zeros(len(found.clean), bool)
        return Fetched(found.noise, clean, of)

    def variance(self, index: int, image: Pixels, noise: Pixels | None, *, shared: bool = True) -> Pixels:
        """Variance of the exposure as it was before its image was replaced, or the one given."""
        if "image" in self.planes:
            image = np.empty(self.shape, np.float32)
            self.part.fetch(index, image, np.empty(self.shape, np.int32))
        found = self.part.variance(index, image, noise, shared=shared)
        return _placed(found, self.planes.get("variance"), index)

    def add_shared_variance(self, variance: Pixels, weights: Sequence[float]) -> None:
        """Add it where the variance is that of the ISR."""
        given = self.planes.get("variance")
        kept = None if given is None else variance[given.place].copy()
        self.part.add_shared_variance(variance, weights)
        if given is not None:
            variance[given.place] = kept


def replaced(block: Corrected, planes: Mapping[str, Given], numbers: Mapping[str, NDArray[Any]]) -> Corrected:
    """Put planes and numbers in the place of those of a block of one exposure."""
    variance = block.variance if {"image", "variance"} & set(planes) else block.given
    if variance is not None:
        variance = _placed(variance[0, 0], planes.get("variance"), 0)[None, None]
    image, mask = (
        _placed(plane[0, 0], planes.get(name), 0)[None, None]
        for name, plane in zip(("image", "mask"), block[:2], strict=True)
    )
    numbers = {**block.numbers, **numbers}
    return block._replace(image=image, mask=mask, given=variance, numbers=numbers)


def _placed(plane: NDArray[Any], given: Given | None, index: int) -> NDArray[Any]:
    if given is None:
        return plane
    out = plane.copy()
    out[given.place] = given.values[index, 0]
    return out


def _alone(overscan: Overscan) -> Corrected:
    """Return the numbers of one exposure without its pixels."""
    none = np.zeros((1, 1, 0, 0, 0), np.float32)
    return Corrected(none, none.astype(np.int32), overscan=Overscan._make(v[None, None] for v in overscan))

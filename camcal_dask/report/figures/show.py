"""Pictures of pixels: raw, corrected or combined, of an amp, a detector, a raft or the focal plane.

    picture(open_pixels(repo, "bias", ["u/me/bias.1"]), "R22_S11", amp="C10").figure()

Everything is drawn as it lies in the detector or the focal plane, y up, and read lazily, a detector at a time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from camcal_dask.campaign.planning.pipelines import camera_of
from camcal_dask.campaign.planning.recipe import Recipe, load_recipe
from camcal_dask.campaign.planning.request import make_plan
from camcal_dask.campaign.running.job import open_calibs
from camcal_dask.errors import ConfigError, RepoError, nearest
from camcal_dask.exchange.image import write_image
from camcal_dask.instruments import Detector, get_instrument
from camcal_dask.instruments.arguments import Detectors, integer
from camcal_dask.isr.assemble import bin_image
from camcal_dask.isr.corrected import isr
from camcal_dask.kernels.pixels.masks import MASK_PLANES, bits
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.report.content.layout import make_layout
from camcal_dask.report.figures.images import Image, ccd, mosaic, pixel_name, pixel_unit
from camcal_dask.report.figures.png import grey, write_png, zscale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MASKED = ("BAD", "SAT", "CR", "SUSPECT", "NO_DATA")
"""Planes drawn over an image unless others are named."""
_COLOURS = ((230, 60, 50), (60, 140, 230), (240, 180, 40), (150, 90, 200), (90, 110, 90), (30, 170, 130))
_KINDS = ("raw", "corrected")


@dataclass(frozen=True)
class Picture:
    """An image ready to be drawn.

    Attributes
    ----------
    image : (y, x) float32, y up; NaN = nothing there
    mask : (y, x) int32 canonical planes, or None
    title, unit : for people
    binning : pixels a bin has on each side
    """

    image: Image
    mask: NDArray[np.int32] | None
    title: str
    unit: str
    binning: int = 1

    def figure(self, *, planes: Sequence[str] = MASKED, limits: tuple[float, float] | None = None) -> Figure:
        """Return a matplotlib figure with the mask planes over it; limits default to zscale."""
        from matplotlib.figure import Figure

        low, high = limits or zscale(self.image)
        height, width = self.image.shape
        figure = Figure(figsize=(8, min(14.0, max(3.0, 8 * height / width))), layout="constrained")
        axes = figure.add_subplot()
        box = (-0.5, width * self.binning - 0.5, -0.5, height * self.binning - 0.5)
        drawn = axes.imshow(self.image, cmap="gray", vmin=low, vmax=high, origin="lower", extent=box, aspect="equal")
        for (name, where), colour in zip(self._overlays(planes), _COLOURS * len(planes), strict=False):
            shade = np.zeros((*where.shape, 4), np.float32)
            shade[where] = (*(np.array(colour) / 255), 0.55)
            axes.imshow(shade, origin="lower", extent=box, aspect="equal")
            axes.plot([], [], "s", color=np.array(colour) / 255, label=name)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper right", fontsize=8)
        figure.colorbar(drawn, ax=axes, label=self.unit)
        axes.set(title=self.title, xlabel="x [pixel]", ylabel="y [pixel]")
        return figure

    def _overlays(self, planes: Sequence[str]) -> list[tuple[str, NDArray[np.bool_]]]:
        """Planes that have pixels, with these."""
        for name in planes:
            if name not in MASK_PLANES:
                raise ConfigError(f"no mask plane {name!r}{nearest(name, MASK_PLANES)}")
        if self.mask is None:
            return []
        each = ((name, (self.mask & bits([name])) != 0) for name in planes)
        return [(name, where) for name, where in each if where.any()]

    def write(self, path: Path, *, planes: Sequence[str] = MASKED, limits: tuple[float, float] | None = None) -> None:
        """Write a PNG (a pixel an image pixel, mask planes in colour) or FITS file, by the name's ending.

        Raises
        ------
        ConfigError
            For another ending or an unknown plane.
        """
        overlays = self._overlays(planes)
        if path.suffix == ".png":
            levels = grey(self.image, limits or zscale(self.image))
            coloured = np.repeat(levels[..., None], 3, axis=-1)
            for (_, where), colour in zip(overlays, _COLOURS * len(planes), strict=False):
                coloured[where] = (0.45 * coloured[where] + 0.55 * np.array(colour)).astype(np.uint8)
            write_png(path, coloured if overlays else levels)
        elif path.suffix in (".fits", ".fit"):
            cards = {"BUNIT": self.unit, "OBJECT": self.title[:68], "BINNING": self.binning}
            write_image(path, self.image, self.mask, cards)
        else:
            raise ConfigError(f"{path}: pictures are written as .png or .fits; choose one of these endings")


def open_pixels(
    repo: Repo,
    what: str,
    collections: Sequence[str] = (),
    *,
    exposure: int | None = None,
    pipeline: str | None = None,
    detectors: Detectors | None = None,
    instrument: str | None = None,
) -> xr.Dataset:
    """Open pixels lazily.

    Parameters
    ----------
    repo : Repo
    what : str
        ``raw``; ``corrected``, a raw after the ISR; or a dataset type, such as ``bias``.
    collections : sequence of str
        Where to search; default for raws: all of the instrument.
    exposure : int, optional
        Of a raw or corrected image; for a calibration, the exposure it must be valid for.
    pipeline : str, optional
        Whose ISR and calibrations correct the raw; default: overscan subtraction only.
    detectors : int, str or several of them, optional
        Ids or names; default all.
    instrument : str, optional
        Needed if the repository has several.

    Raises
    ------
    ConfigError, RepoError : if it is not there, or not said which exposure
    """
    if what not in _KINDS:
        if not collections:
            raise ConfigError(f"{what}: say where it is: -i COLLECTION")
        return repo.open(
            what, collections=list(collections), exposure=exposure, detector=detectors, instrument=instrument
        )
    if exposure is None:
        raise ConfigError(f"{what}: say which exposure")
    where = f"exposure = {integer(exposure, 'exposure')}"
    if what == "corrected" and pipeline is not None:
        recipe = load_recipe(pipeline, instrument=camera_of(repo, instrument))
        camera = repo.instrument(instrument or recipe.instrument)
        ids = None if detectors is None else camera.detector_ids(detectors)
        return _corrected(repo, recipe, collections, where, ids)
    raw = repo.raws(where, instrument=instrument, collections=list(collections) or None, detectors=detectors)
    if what == "raw":
        return raw.isel(exposure=0).to_dataset(name="image").assign_attrs(instrument=raw.attrs["instrument"])
    return isr(raw).dataset().isel(exposure=0)


def _corrected(
    repo: Repo, recipe: Recipe, collections: Sequence[str], where: str, detectors: Sequence[int] | None
) -> xr.Dataset:
    if detectors is not None:
        where += f" AND detector IN ({', '.join(map(str, detectors))})"
    plan = make_plan(repo, recipe, inputs=list(collections), output="show", where=where)
    parts = [
        isr(plan.pixels.sel(detector=[d]), open_calibs(plan, d), plan.recipe.isr).dataset()[["image", "mask"]]
        for d in plan.detectors
    ]
    return xr.concat(parts, "detector", combine_attrs="override").isel(exposure=0)


def picture(
    pixels: xr.Dataset, place: int | str = "", *, amp: str | None = None, binning: int | None = None, title: str = ""
) -> Picture:
    """Make a picture of an amp, a detector, a raft or the focal plane.

    Parameters
    ----------
    pixels : Dataset
        From `open_pixels`, or any product with pixels (detector, amp, y, x), perhaps with ``mask``.
    place : int or str
        A detector (id or name), a raft (``R22``), or ``""`` for all.
    amp : str, optional
        Of a detector.
    binning : int, optional
        Pixels a bin has on each side; default 1, or for several detectors what a screen can show.
    title : str
        Put before the place.

    Raises
    ------
    ConfigError, RepoError
        If there is no such place, or no pixels.
    """
    camera = get_instrument(pixels.attrs["instrument"])
    name = pixel_name(pixels)
    if not name:
        raise RepoError(f"no pixels among {', '.join(map(str, pixels.data_vars))}")
    rafts = {d.raft for d in camera.detectors.values()}
    held = [camera.detectors[int(d)] for d in pixels["detector"].values]
    unit = pixel_unit(pixels)
    if str(place) not in rafts | {""}:
        detector = camera.detector(place)
        if detector not in held:
            raise RepoError(f"detector {detector.name} is not among these pixels")
        return _of_detector(pixels.sel(detector=detector.id), detector, amp, binning or 1, (title, unit))
    chosen = [d for d in held if str(place) in ("", d.raft)]
    if not chosen or amp is not None:
        problem = "an amp needs a detector" if amp is not None else f"no detector of {place} is among these pixels"
        raise RepoError(f"{title or name}: {problem}")
    step = binning or _step(chosen)
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        images = pool.map(lambda d: _binned(*ccd(pixels.sel(detector=d.id), name, d), step)[0], chosen)
        tiles: Mapping[int, Image] = dict(zip((d.id for d in chosen), images, strict=True))
    whole = mosaic(tiles, chosen, make_layout(chosen))
    return Picture(whole, None, f"{title} {place or 'focal plane'}".strip(), unit, step)


def _step(detectors: Sequence[Detector]) -> int:
    """Bin side with which a square mosaic of detectors is about 1500 pixels wide."""
    return max(1, int(max(d.width_pix for d in detectors) * len(detectors) ** 0.5 / 1500))


def _of_detector(one: xr.Dataset, detector: Detector, amp: str | None, binning: int, words: tuple[str, str]) -> Picture:
    name = pixel_name(one)
    label = " ".join(part for part in (words[0], detector.full_name, amp or "") if part)
    image, mask = ccd(one, name, detector)
    if amp is not None:
        box = _amp_box(image.shape, detector, amp)
        image, mask = image[box], None if mask is None else mask[box]
    return Picture(*_binned(image, mask, binning), label, words[1], binning)


def _amp_box(shape: tuple[int, ...], detector: Detector, name: str) -> tuple[slice, slice]:
    """Rows and columns of an amp in its CCD; raw CCDs have overscans, so that cells, not trimmed boxes, count."""
    found = next((a for a in detector.amps if a.name == name), None)
    if found is None:
        raise ConfigError(
            f"detector {detector.name} has no amp {name!r}{nearest(name, [a.name for a in detector.amps])}"
        )
    columns, rows = (max(getattr(a, axis) for a in detector.amps) + 1 for axis in ("ix", "iy"))
    height, width = shape[0] // rows, shape[1] // columns
    return slice(found.iy * height, (found.iy + 1) * height), slice(found.ix * width, (found.ix + 1) * width)


def _binned(
    image: NDArray[Any], mask: NDArray[np.int32] | None, binning: int
) -> tuple[Image, NDArray[np.int32] | None]:
    """Mean of the finite pixels of each bin, and the OR of its planes."""
    if binning == 1:
        return np.asarray(image, np.float32), mask
    small = bin_image(np.asarray(image, np.float32), np.zeros(image.shape, np.int32), binning, 0)
    if mask is None:
        return small, None
    height, width = (-(-n // binning) * binning for n in mask.shape)
    padded = np.zeros((height, width), np.int32)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    squares = padded.reshape(height // binning, binning, width // binning, binning)
    return small, np.bitwise_or.reduce(np.bitwise_or.reduce(squares, axis=3), axis=1)

"""Cosmic rays in the exposures of a stack (reference/construction.md 2): found exposure by exposure, then masked.

Only the positions of the hit pixels travel.  What is hit again and again at the same place is a hot
pixel, which must stay in the dark; upstream has the defects masked before and finds none.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from pydantic import Field

from camcal_dask.config import Config
from camcal_dask.instruments.focal_plane import amp_layout, assemble, split
from camcal_dask.instruments.geometry import Detector, get_instrument
from camcal_dask.isr.blocks import Corrected
from camcal_dask.isr.corrected import CorrectedExposures, as_corrected
from camcal_dask.isr.graph import PIXEL_INDEX, objects, regions, unwrap
from camcal_dask.kernels.pixels.cosmic_rays import find_cosmic_rays
from camcal_dask.kernels.pixels.defects import grow
from camcal_dask.kernels.pixels.masks import BAD, NO_DATA, SAT
from camcal_dask.kernels.statistics.moments import median

Hits = NDArray[np.int64]
"""Flat indices into (amp, y, x) of the trimmed detector, ascending."""


class CosmicRayConfig(Config):
    """Search for cosmic rays; the first six as in `kernels.pixels.cosmic_rays`, in the unit of the image."""

    min_sigma: float = Field(6.0, gt=0)
    min_sum: float = Field(150.0, ge=0)
    cond3_factor: float = 2.0
    cond3_factor2: float = 0.35
    growth_passes: int = Field(6, ge=0)
    max_fraction: float = Field(0.0625, gt=0)
    """An amp with a larger fraction of hit pixels is left out of this exposure."""
    grow_pixel: int = Field(2, ge=0)
    """Radius by which tracks are grown."""
    persistent_fraction: float = Field(0.3, gt=0)
    """Pixels found in at least this fraction of the exposures, and in ``persistent_exposures``, are hot, not hit."""
    persistent_exposures: int = Field(3, ge=1)
    """Least number of exposures of that; all of them, if they are fewer."""


def find_hits(exposures: CorrectedExposures | xr.Dataset, config: CosmicRayConfig | None = None) -> da.Array:
    """Search all exposures of every detector, lazily.

    Parameters
    ----------
    exposures : CorrectedExposures
        From ``isr``, or a Dataset of them; all amps are searched, whichever are selected.

    Returns
    -------
    dask array
        Standing at (exposure, detector); one block per detector, a list of `Hits`, one per exposure.
    """
    corrected, config = as_corrected(exposures), config or CosmicRayConfig()
    blocks = corrected.by_exposure()
    detectors = tuple(corrected.labels["detector"].values.tolist())
    token = tokenize(blocks.name, config.model_dump_json())
    one = objects(
        _search, "ed", blocks, PIXEL_INDEX, regions((1,) * len(detectors)), "d", name=f"hits-{token}",
        config=config, detectors=detectors, instrument=corrected.attrs["instrument"],
    )  # fmt: skip
    new = {"f": corrected.sizes["exposure"]}
    return objects(_transient, "fd", one, "ed", name=f"rays-{token}", new_axes=new, config=config)


def search_detector(block: Corrected, detector: Detector, config: CosmicRayConfig) -> Hits:
    """Return the pixels of one exposure that cosmic rays hit, tracks grown across the borders of amps."""
    image, mask = block.image[0, 0], block.mask[0, 0]
    layout = amp_layout(detector.amps, len(image))
    level = np.array([median(i, m, BAD | SAT | NO_DATA) for i, m in zip(image, mask, strict=True)])
    settings = config.model_dump(exclude={"grow_pixel", "persistent_fraction", "persistent_exposures"})
    found = find_cosmic_rays(image, np.ascontiguousarray(block.variance[0, 0]), mask, level, layout, **settings)
    hit = np.zeros(image.shape, np.bool_)
    hit.reshape(-1)[found.pixel] = True
    hit = split(grow(assemble(hit, detector), config.grow_pixel), detector, image.shape)
    hit[found.overflow] = True
    return np.flatnonzero(hit)


def transient(hits: list[Hits], config: CosmicRayConfig) -> list[Hits]:
    """Return the hits without the pixels that are found in too many of the exposures."""
    pixel, count = np.unique(np.concatenate(hits), return_counts=True)
    lasting = pixel[count >= max(min(config.persistent_exposures, len(hits)), config.persistent_fraction * len(hits))]
    return [np.setdiff1d(h, lasting, assume_unique=True) for h in hits]


def _search(
    block: Any, region: tuple[slice], *, config: CosmicRayConfig, detectors: tuple[int, ...], instrument: str
) -> Hits:
    detector = get_instrument(instrument).detectors[detectors[region[0].start]]
    return search_detector(unwrap(block), detector, config)


def _transient(hits: list[Hits], *, config: CosmicRayConfig) -> list[Hits]:
    return transient(hits, config)

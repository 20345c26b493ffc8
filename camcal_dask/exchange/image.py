"""A picture as a FITS file: image, and mask with its planes in the header as the LSST stack writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from camcal_dask.kernels.pixels.masks import MASK_PLANES


def write_image(
    path: Path,
    image: NDArray[np.float32],
    mask: NDArray[np.int32] | None = None,
    cards: Mapping[str, Any] | None = None,
) -> None:
    """Write a picture; an existing file is replaced.

    Parameters
    ----------
    path : Path
    image : (y, x) float32, the first row is the lowest
    mask : (y, x) int32, optional
        Canonical planes; becomes the extension MASK with the cards ``MP_<plane>``.
    cards : mapping, optional
        Of the header of the image.
    """
    header = fits.Header()
    for name, value in (cards or {}).items():
        header[name] = value
    hdus: list[Any] = [fits.PrimaryHDU(np.asarray(image, np.float32), header)]
    if mask is not None:
        planes = fits.Header()
        for name, bit in MASK_PLANES.items():
            planes[f"HIERARCH MP_{name}"] = bit
        hdus.append(fits.ImageHDU(np.asarray(mask, np.int32), planes, name="MASK"))
    fits.HDUList(hdus).writeto(path, overwrite=True)

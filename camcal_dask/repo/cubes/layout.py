"""Layout of product cubes, from what their rooms declare (`camcal_dask.schema.Product`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from camcal_dask import rooms
from camcal_dask.instruments.geometry import Instrument
from camcal_dask.schema import DETECTOR_DIMS


def template(
    name: str, instrument: Instrument, attrs: Mapping[str, Any] | None = None, shared: xr.Dataset | None = None
) -> xr.Dataset:
    """Layout of a product for all detectors of a camera, for ``create_product``; the arrays take no memory.

    Parameters
    ----------
    name : str
        Dataset type.
    instrument : Instrument
        The camera.
    attrs : mapping, optional
        Of the product.
    shared : Dataset, optional
        Variables without detectors that the product holds beside its own, and the sizes of dims that only it knows.

    Raises
    ------
    ConfigError
        If no room makes or describes the product.
    """
    product = rooms.product(name)
    pixels = (len(instrument.detectors), len(instrument.amp_names), *instrument.trimmed_shape)
    sizes = dict(zip(DETECTOR_DIMS, pixels, strict=True))
    sizes |= {dim: len(values) for dim, values in product.labels.items()}
    sizes |= {} if shared is None else {str(k): n for k, n in shared.sizes.items()}
    variables = {
        key: (
            v.dims,
            np.broadcast_to(np.dtype(v.dtype).type(0), [sizes[d] for d in v.dims]),
            v.attrs(product.unit),
        )
        for key, v in product.variables.items()
    }
    times = {"exposure_time_s": product.exposure_time_s, "dark_time_s": product.dark_time_s}
    labels = {dim: list(values) for dim, values in product.labels.items()}
    layout = xr.Dataset(
        variables,
        {"detector": list(instrument.detectors), "amp": list(instrument.amp_names), **labels},
        {"instrument": instrument.name, "units": product.unit, "description": product.doc, **times, **(attrs or {})},
    )
    return layout if shared is None else layout.assign(shared.variables).set_coords(list(shared.coords))

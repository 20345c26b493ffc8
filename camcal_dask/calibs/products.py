"""Every calibration product the package makes: names, units, variables (reference/construction.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from camcal_dask.calibs.linearizer.product import LINEARIZER
from camcal_dask.calibs.ptc.product import PTC
from camcal_dask.calibs.tables import BFK, CROSSTALK, CTI, ELECTRO_BF, GAIN_CORRECTION
from camcal_dask.calibs.variable import Variable
from camcal_dask.errors import ConfigError, nearest
from camcal_dask.instruments.geometry import Instrument
from camcal_dask.kernels.pixels.defects import DEFECT_BITS
from camcal_dask.kernels.pixels.masks import MASK_PLANES

PIXELS = ("detector", "amp", "y", "x")
LEVELS = (0, 5, 16, 50, 84, 95, 100)
"""Percentiles kept of every amp of a combined image."""


@dataclass(frozen=True)
class Product:
    """One dataset type: unit of its image and its variables; exposure and dark time [s] of the result."""

    dataset_type: str
    units: str
    doc: str
    variables: Mapping[str, Variable]
    exposure_time_s: float = 0.0
    dark_time_s: float = 0.0
    dimensions: tuple[str, ...] = ("instrument", "detector")
    """Of the Butler data id."""


COMBINED: Mapping[str, Variable] = MappingProxyType(
    {
        "image": Variable(PIXELS, "f4", "image", "combined image; NaN where an amp is smaller than the cube"),
        "variance": Variable(PIXELS, "f4", "image^2", "variance of the combined image"),
        "mask": Variable(PIXELS, "i4", "1", "BAD: no usable input; NO_DATA: the amp has no such pixel"),
        "distribution": Variable(("detector", "amp", "level"), "f8", "image", "percentiles of the amp"),
        "n_bad": Variable(("detector", "amp"), "i4", "pixel", "pixels flagged BAD"),
        "halves": Variable(
            ("detector", "amp", "of_halves"), "f8", "image", "mean of even minus mean of odd inputs; NaN: not compared"
        ),
        "n_input": Variable(("detector", "amp"), "i4", "exposure", "exposures with a usable pixel in the amp"),
    }
)
"""Variables of every product of the combine engine."""

OF_HALVES = ("mean", "noise", "expected", "n")
"""What is kept of the comparison of the halves: `camcal_dask.kernels.statistics.moments.compare_amp`."""
DEFECT_KINDS = ("bias", "dark", "flat")
"""Images that are searched for defects; all filters' flats count as one kind."""
DEFECTS: Mapping[str, Variable] = MappingProxyType(
    {
        "defects": Variable(PIXELS, "u1", "1", "why a pixel is a defect; 0 = it is none"),
        "n_pixels": Variable(("detector", "amp", "reason"), "i4", "pixel", "pixels that have the reason"),
        "n_hot": Variable(("detector", "amp", "kind"), "i4", "pixel", "above the threshold, before the column rules"),
        "n_cold": Variable(("detector", "amp", "kind"), "i4", "pixel", "below the threshold, before the column rules"),
        "n_columns": Variable(("detector", "amp", "kind"), "i4", "column", "columns that are bad as a whole"),
        "dead": Variable(("detector", "amp", "kind"), "i1", "1", "the amp is a defect as a whole"),
    }
)
"""Variables of the defects; the boxes of each detector are in its record (`camcal_dask.calibs.defects.find`)."""
_BY_FILTER = ("instrument", "detector", "physical_filter")
_SECOND: dict[str, Any] = {"exposure_time_s": 1.0, "dark_time_s": 1.0}

PRODUCTS: Mapping[str, Product] = MappingProxyType(
    {
        "biasBootstrap": Product("biasBootstrap", "adu", "combined bias before any other calibration", COMBINED),
        "bias": Product("bias", "electron", "combined bias", COMBINED),
        "darkBootstrap": Product(
            "darkBootstrap", "adu/s", "combined dark before any other calibration but the bias", COMBINED, **_SECOND
        ),
        "dark": Product("dark", "electron/s", "combined dark", COMBINED, **_SECOND),
        "flatBootstrap": Product(
            "flatBootstrap", "1", "combined flat in adu, mean of the focal plane 1", COMBINED, dimensions=_BY_FILTER
        ),
        "flat": Product("flat", "1", "combined flat, mean of the focal plane 1", COMBINED, dimensions=_BY_FILTER),
        "defects": Product("defects", "1", "bad pixels", DEFECTS),
        "linearizerPtc": Product("linearizerPtc", "adu", "photon transfer curves before linearity", PTC),
        "linearizer": Product("linearizer", "adu", "linearity of the amps", LINEARIZER),
        "crosstalk": Product("crosstalk", "electron", "crosstalk between the amps", CROSSTALK),
        "cti": Product("cti", "electron", "serial deferred charge", CTI),
        "bfk": Product("bfk", "electron", "brighter-fatter kernels", BFK),
        "electroBfDistortionMatrix": Product(
            "electroBfDistortionMatrix", "electron", "shifts of pixel boundaries by charge", ELECTRO_BF
        ),
        "gain_correction": Product("gain_correction", "1", "adjustments of the gains", GAIN_CORRECTION),
        "ptc": Product("ptc", "adu", "photon transfer curves: gains, read noise, area coefficients", PTC),
    }
)


def get_product(name: str) -> Product:
    """Return a product by dataset type.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in PRODUCTS:
        raise ConfigError(f"unknown product {name!r}{nearest(name, PRODUCTS)}")
    return PRODUCTS[name]


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
    """
    product = get_product(name)
    sizes = dict(
        zip(PIXELS, (len(instrument.detectors), len(instrument.amp_names), *instrument.trimmed_shape), strict=True)
    )
    labels: dict[str, list[Any]] = {"level": list(LEVELS), "of_halves": list(OF_HALVES)}
    labels |= {"reason": list(DEFECT_BITS), "kind": list(DEFECT_KINDS)}
    labels = {k: v for k, v in labels.items() if any(k in variable.dims for variable in product.variables.values())}
    sizes |= {name: len(values) for name, values in labels.items()}
    sizes |= {} if shared is None else {str(k): n for k, n in shared.sizes.items()}
    variables = {
        key: (
            v.dims,
            np.broadcast_to(np.dtype(v.dtype).type(0), [sizes[d] for d in v.dims]),
            describe(v, product.units),
        )
        for key, v in product.variables.items()
    }
    times = {"exposure_time_s": product.exposure_time_s, "dark_time_s": product.dark_time_s}
    layout = xr.Dataset(
        variables,
        {"detector": list(instrument.detectors), "amp": list(instrument.amp_names), **labels},
        {"instrument": instrument.name, "units": product.units, "description": product.doc, **times, **(attrs or {})},
    )
    return layout if shared is None else layout.assign(shared.variables).set_coords(list(shared.coords))


def describe(variable: Variable, units: str) -> dict[str, Any]:
    """Attributes of a variable of a product whose image is in ``units``."""
    attrs: dict[str, Any] = {"units": variable.units.replace("image", units), "long_name": variable.doc}
    if variable.dtype == "i4" and variable.dims == PIXELS:
        attrs |= {"flag_masks": [1 << bit for bit in MASK_PLANES.values()], "flag_meanings": " ".join(MASK_PLANES)}
    if variable.dtype == "u1":
        attrs |= {"flag_masks": [1 << bit for bit in DEFECT_BITS.values()], "flag_meanings": " ".join(DEFECT_BITS)}
    return attrs

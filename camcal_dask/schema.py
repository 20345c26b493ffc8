"""How every array is described, once: variables of raws, products, statistics and references, and dataset types.

A room declares its products with these (`camcal_dask.rooms`); Butler dataset types, layouts of cubes, tables of the
documentation and validation come from the declarations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from camcal_dask.errors import DataError

if TYPE_CHECKING:
    import xarray as xr

EXPOSURE_DIMS = ("exposure", "detector", "amp", "y", "x")
"""Dims of raw and corrected pixels."""
DETECTOR_DIMS = EXPOSURE_DIMS[1:]
"""Dims of the pixels of a product."""
AMP_DIMS = ("detector", "amp")
"""Dims of the numbers of a product."""
STATISTIC_DIMS = ("exposure", *AMP_DIMS)
"""Dims of the numbers of exposures."""
OF_DETECTOR = ("instrument", "detector")
"""Butler dimensions of a calibration."""
OF_FILTER = (*OF_DETECTOR, "physical_filter")
"""Butler dimensions of a calibration that every filter has its own of."""
OF_INSTRUMENT = ("instrument",)
"""Butler dimensions of statistics and records."""


@dataclass(frozen=True)
class Variable:
    """One array.

    Attributes
    ----------
    name, dims, dtype : as the array has them; a dtype of "U" is text of any length.
    unit : ``image`` stands for the unit of the product's or exposure's image, ``image^2`` for its square; labels and
        masks have none.
    doc : what it is, in a line.
    nan : what NaN means, or 0 where there is no NaN; empty: there is none.
    flags : names of the bits of an integer, lowest first, by bit number.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    unit: str
    doc: str
    nan: str = ""
    flags: Mapping[str, int] = field(default_factory=dict)

    def with_dims(self, dims: Sequence[str]) -> Variable:
        """Return the same with other dims."""
        return replace(self, dims=tuple(dims))

    def attrs(self, unit: str) -> dict[str, Any]:
        """Attributes of the array where the image is in ``unit``: ``units``, ``long_name``, CF flags."""
        found: dict[str, Any] = {"units": self.unit.replace("image", unit)} if self.unit else {}
        found["long_name"] = self.doc
        if self.flags:
            found |= {"flag_masks": [1 << bit for bit in self.flags.values()], "flag_meanings": " ".join(self.flags)}
        return found


Variables = Mapping[str, Variable]
_ACCEPTED = {"f": "fiu", "i": "iu", "u": "iu", "b": "b", "U": "UOT"}
"""Kinds of dtypes that an array of a declared kind may have: whole numbers are numbers."""


def variables(*described: Variable) -> Variables:
    """Variables by name.

    Raises
    ------
    ValueError
        If two have one name.
    """
    found = {v.name: v for v in described}
    if len(found) < len(described):
        raise ValueError(f"two variables of one name among {', '.join(v.name for v in described)}")
    return MappingProxyType(found)


def union(*tables: Variables) -> Variables:
    """Variables of all tables, in order; of two with one name the later."""
    return MappingProxyType({name: v for table in tables for name, v in table.items()})


def number_variables(dims: Sequence[str], described: Mapping[str, tuple[str, str]]) -> Variables:
    """Numbers of one shape, float64 with NaN where unknown, from their names, units and meanings."""
    return variables(*(Variable(n, tuple(dims), "f8", unit, doc, "unknown") for n, (unit, doc) in described.items()))


def described(arrays: Mapping[Any, xr.DataArray], declared: Variables, unit: str) -> dict[str, xr.DataArray]:
    """Give arrays the attributes of their declarations; the unit of the image is ``unit``."""
    return {name: array.assign_attrs(declared[name].attrs(unit)) for name, array in arrays.items()}


def check(dataset: xr.Dataset, wanted: Iterable[Variable], where: str) -> None:
    """Refuse a Dataset without these variables, or with other dims (in any order) or kinds of numbers.

    Parameters
    ----------
    dataset : Dataset
        Lazy or in memory; values are not looked at.
    wanted : iterable of Variable
        Its other variables do not matter.
    where : str
        Who asks, for the error.

    Raises
    ------
    DataError
        All faults at once, each with what was found and what was expected.
    """
    faults = []
    for v in wanted:
        if v.name not in dataset:
            there = ", ".join(map(str, dataset.data_vars)) or "nothing"
            faults.append(f"{v.name} is missing, expected ({', '.join(v.dims)}) {v.dtype}; there is {there}")
            continue
        array, kind = dataset[v.name], v.dtype.lstrip("<>=|")[0].replace("?", "b")
        if set(array.dims) != set(v.dims):
            faults.append(f"{v.name} has dims ({', '.join(map(str, array.dims))}), expected ({', '.join(v.dims)})")
        if array.dtype.kind not in _ACCEPTED[kind]:
            faults.append(f"{v.name} is {array.dtype}, expected {v.dtype}")
    if faults:
        raise DataError(f"{where}: " + "; ".join(faults))


@dataclass(frozen=True)
class Product:
    """One dataset type.

    Attributes
    ----------
    name : Butler dataset type.
    unit : of its image, or of the signal that its numbers belong to.
    doc : what it is, in a line.
    variables : its arrays.
    dimensions : of the Butler data id.
    labels : values of the dims that have some, such as ``{"level": (0, 50, 100)}``.
    pixels : name of the variable that a picture shows; empty: it has no pixels.
    exposure_time_s, dark_time_s : of a combined image [s].
    is_calibration : whether it can be certified; statistics of a verification cannot.
    shared : what all its detectors share, such as the exposures of pairs.
    """

    name: str
    unit: str
    doc: str
    variables: Variables = field(default_factory=dict)
    dimensions: tuple[str, ...] = OF_DETECTOR
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    pixels: str = ""
    exposure_time_s: float = 0.0
    dark_time_s: float = 0.0
    is_calibration: bool = True
    shared: Variables = field(default_factory=dict)


def statistics_product(name: str, doc: str, variables: Variables | None = None) -> Product:
    """Product of a verification: one table of all detectors, in the unit of what was verified."""
    return Product(name, "image", doc, variables or {}, dimensions=OF_INSTRUMENT, is_calibration=False)


RAW = Variable("raw", EXPOSURE_DIMS, "i4", "adu", "pixels as read out", nan="the fill value: never written")
RAW_COORDS = (
    Variable("exposure", ("exposure",), "i8", "", "Butler exposure id"),
    Variable("day_obs", ("exposure",), "i8", "", "observing day YYYYMMDD"),
    Variable("seq_num", ("exposure",), "i8", "", "sequence number in the day"),
    Variable("seq_start", ("exposure",), "i8", "", "sequence number of the first exposure of its set"),
    Variable("exposure_time", ("exposure",), "f8", "s", "requested exposure time", nan="unknown"),
    Variable("dark_time", ("exposure",), "f8", "s", "time from clear to readout", nan="unknown"),
    Variable("physical_filter", ("exposure",), "U", "", "filter in the beam"),
    Variable("observation_type", ("exposure",), "U", "", "bias, dark, flat, science ..."),
    Variable("observation_reason", ("exposure",), "U", "", "why it was taken"),
    Variable("mjd", ("exposure",), "f8", "d", "TAI MJD of the begin", nan="unknown"),
    Variable("detector", ("detector",), "i8", "", "Butler detector id"),
    Variable("detector_name", ("detector",), "U", "", "raft_slot"),
    Variable("raft", ("detector",), "U", "", "raft"),
    Variable("slot", ("detector",), "U", "", "place in the raft"),
    Variable("vendor", ("detector",), "U", "", "E2V or ITL"),
    Variable("amp", ("amp",), "U", "", "amplifier, in HDU order"),
)
"""Coordinates of ``Repo.raws``."""

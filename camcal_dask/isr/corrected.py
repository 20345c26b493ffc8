"""Corrected exposures as an object: selected by label, asked for blocks by consumers, a labelled Dataset for people.

    corrected = isr(repo.raws("..."), {"bias": bias}, IsrConfig(bias=True))
    corrected.sel(detector=[94], amp=["C10", "C11"]).dataset()["image"].mean(("y", "x")).compute()
    combine(corrected)

Nothing is read before something is computed.  A consumer says itself what blocks it wants, so that each of them reads
and corrects in the tasks that reduce.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, NamedTuple, ParamSpec

import dask
import dask.array as da
import numpy as np
import xarray as xr

from camcal_dask.errors import ConfigError, PlanError
from camcal_dask.instruments import get_instrument
from camcal_dask.isr import graph, held
from camcal_dask.isr.blocks import PIXELS, Corrected
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.graph import Correction, Declared
from camcal_dask.isr.overscan import Overscan
from camcal_dask.isr.source import RawSource, check_names, check_raw, dark_scales, select_planes
from camcal_dask.isr.statistics import CORRECTED
from camcal_dask.isr.tables import select_tables
from camcal_dask.schema import EXPOSURE_DIMS, STATISTIC_DIMS

SLAB_ROWS = 256
"""Default slab height: the rows of an inner chunk of the raw cube, so that no chunk is decoded twice [pixel]."""
P = ParamSpec("P")


class Assigned(NamedTuple):
    """A variable given by the user; ``amps`` are the positions of its amps, None if it has all."""

    variable: xr.Variable
    amps: tuple[int, ...] | None

    def of_all(self, n_amp: int) -> xr.Variable:
        """Return it for all amps, NaN where it was not given."""
        if self.amps is None or "amp" not in self.variable.dims:
            return self.variable
        positions = np.full(n_amp, -1)
        positions[list(self.amps)] = np.arange(len(self.amps))
        taken = self.variable.isel(amp=positions.clip(0))
        known = xr.Variable("amp", positions >= 0)
        found: xr.Variable = taken.where(known).transpose(*self.variable.dims)
        return found


@dataclass(frozen=True, eq=False, repr=False)
class CorrectedExposures:
    """Exposures after the instrument signature removal, not computed yet; from `isr` or `as_corrected`.

    Attributes
    ----------
    config : IsrConfig or None
        How they were corrected; None if the pixels were given.
    amps : tuple of int or None
        Positions of the amps selected.  The amps of a detector are corrected, combined and measured together; what was
        made of them is cut to those selected, so that a number does not depend on the selection.
    """

    config: IsrConfig | None
    all_labels: xr.Dataset
    origin: Correction | da.Array
    declared: Mapping[str, Declared]
    assigned: Mapping[str, Assigned]
    amps: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        sizes = ", ".join(f"{dim}: {n}" for dim, n in self.sizes.items())
        made = "lazy" if isinstance(self.origin, Correction) else "persisted"
        return f"<CorrectedExposures of {self.attrs['instrument']} [{self.attrs['units']}] ({sizes}), {made}>"

    @property
    def labels(self) -> xr.Dataset:
        """Coordinates and attributes of the exposures, detectors and amps: a Dataset without variables."""
        return self.all_labels if self.amps is None else self.all_labels.isel(amp=list(self.amps))

    @property
    def coords(self) -> Any:
        """Coordinates."""
        return self.labels.coords

    @property
    def attrs(self) -> dict[str, Any]:
        """``instrument``, ``units`` (adu or electron) and others."""
        return self.all_labels.attrs

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every dimension of the pixels."""
        height, width = self.amp_shape
        return {dim: self.labels.sizes[dim] for dim in STATISTIC_DIMS} | {"y": height, "x": width}

    @property
    def amp_shape(self) -> tuple[int, int]:
        """(y, x) of a trimmed amp, padding included [pixel]."""
        if isinstance(self.origin, Correction):
            return self.origin.source.trimmed[1:]
        height, width = self.origin.shape[3:]
        return height, width

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the variables (exposure, detector, amp)."""
        names = [name for name, variable in self.declared.items() if variable.dims == STATISTIC_DIMS]
        names += [name for name, (variable, _) in self.assigned.items() if variable.dims == STATISTIC_DIMS]
        return tuple(dict.fromkeys(names))

    def __contains__(self, name: str) -> bool:
        return name in self.declared or name in self.assigned

    def described(self, name: str) -> dict[str, Any]:
        """Attributes of a variable."""
        found = self.assigned[name].variable.attrs if name in self.assigned else self.declared[name].attrs
        return dict(found)

    def sel(self, **labels: Any) -> CorrectedExposures:
        """Select by label: ``exposure``, ``detector``, ``amp``; a single one keeps its dimension, of length 1."""
        return self._select(labels, lambda index, dim, value: index.sel({dim: value}))

    def isel(self, **positions: Any) -> CorrectedExposures:
        """Select by position; as `sel`."""
        return self._select(positions, lambda index, dim, value: index.isel({dim: value}))

    def _select(self, wanted: Mapping[str, Any], choose: Callable[..., xr.DataArray]) -> CorrectedExposures:
        at = {dim: list(range(n)) for dim, n in self.sizes.items() if dim in STATISTIC_DIMS}
        for dim, value in wanted.items():
            if dim not in STATISTIC_DIMS:
                raise PlanError(f"corrected exposures have no {dim!r} to select by: take {', '.join(STATISTIC_DIMS)}")
            index = xr.DataArray(np.arange(len(at[dim])), {dim: self.labels[dim].values}, (dim,))
            at[dim] = np.atleast_1d(choose(index, dim, value).values).tolist()
            if not at[dim]:
                raise PlanError(f"corrected exposures: no {dim} was selected")
        exposures, detectors, amps = (at[dim] for dim in STATISTIC_DIMS)
        chosen = {"exposure": exposures, "detector": detectors}
        variables = {
            name: Assigned(variable.isel({d: i for d, i in chosen.items() if d in variable.dims}), positions)
            for name, (variable, positions) in self.assigned.items()
        }
        if isinstance(self.origin, Correction):
            origin: Any = self.origin.select(exposures, detectors)
        else:
            origin = self.origin.blocks[exposures].blocks[:, detectors]
        if "amp" in wanted:
            amps = amps if self.amps is None else [self.amps[i] for i in amps]
        return dataclasses.replace(
            self,
            all_labels=self.all_labels.isel(chosen),
            origin=origin,
            assigned=variables,
            amps=tuple(amps) if "amp" in wanted else self.amps,
        )

    def of_all_amps(self) -> CorrectedExposures:
        """Return them with all amps."""
        return dataclasses.replace(self, amps=None)

    def cut(self, result: xr.Dataset) -> xr.Dataset:
        """Cut what was made of all amps to those selected."""
        if self.amps is None:
            return result
        return result.isel({dim: list(self.amps) for dim in ("amp", "amp_b") if dim in result.dims})

    def assign(self, **variables: Any) -> CorrectedExposures:
        """Replace or add variables: a DataArray, ``(dims, values)``, or a function of the `dataset`.

        A plane (``image``, ``variance``, ``mask``) takes the place of the ISR's for all consumers.  The variance stays
        what it was when the image is replaced.
        """
        found = dict(self.assigned)
        for name, given in variables.items():
            value = given(self.dataset()) if callable(given) else given
            found[name] = Assigned(self._checked(name, value), self.amps)
        return dataclasses.replace(self, assigned=found)

    def _checked(self, name: str, value: Any) -> xr.Variable:
        """Return a variable to be assigned if it fits, with the dims in order."""
        labels = self.labels
        if isinstance(value, xr.DataArray):
            for dim in set(value.dims) & set(STATISTIC_DIMS) & set(value.coords):
                if not np.array_equal(value[dim].values, labels[dim].values):
                    raise PlanError(f"assign: {name} has other labels of {dim} than the corrected exposures")
        variable = value.variable if isinstance(value, xr.DataArray) else xr.as_variable(value)
        wrong = {dim: n for dim, n in variable.sizes.items() if n != self.sizes.get(str(dim), n)}
        if wrong or (name in PIXELS and set(variable.dims) != set(EXPOSURE_DIMS)):
            raise PlanError(f"assign: {name} has {dict(variable.sizes)}, the corrected exposures {self.sizes}")
        if name in PIXELS:
            dtype = np.int32 if name == "mask" else np.float32
            variable = variable if variable.dtype == dtype else variable.astype(dtype)
        first = [dim for dim in EXPOSURE_DIMS if dim in variable.dims]
        return variable.transpose(*first, ...)

    def assign_coords(self, **coords: Any) -> CorrectedExposures:
        """Add or replace coordinates."""
        labels = self.labels.assign_coords(coords)
        if self.amps is not None:
            labels = labels.reindex(amp=self.all_labels["amp"])
        return dataclasses.replace(self, all_labels=labels)

    def assign_attrs(self, **attrs: Any) -> CorrectedExposures:
        """Add or replace attributes."""
        return dataclasses.replace(self, all_labels=self.all_labels.assign_attrs(attrs))

    def persist(self, **options: Any) -> CorrectedExposures:
        """Correct all exposures now, or in the background, and keep image and mask in memory, as dask's ``persist``.

        Consumers read no pixel again, and give the same as they do without.
        """
        blocks = self.origin.exposures() if isinstance(self.origin, Correction) else self.origin
        kept, *arrays = dask.persist(blocks, *(a.variable for a in self.assigned.values()), **options)
        names = zip(self.assigned.items(), arrays, strict=True)
        assigned = {name: Assigned(array, given.amps) for (name, given), array in names}
        return dataclasses.replace(self, origin=kept, assigned=assigned)

    def by_exposure(self) -> da.Array:
        """One `blocks.Corrected` an exposure and detector, of all amps; stands at `EXPOSURE_DIMS`."""
        blocks = self.origin.exposures() if isinstance(self.origin, Correction) else self.origin
        return held.replace_in_exposures(blocks, self._planes(), self._given_numbers())

    def by_slab(self, rows: int = SLAB_ROWS) -> da.Array:
        """One `blocks.Part` of all exposures a detector and ``rows`` rows, of all amps; stands at `EXPOSURE_DIMS`.

        Raises
        ------
        ConfigError
            If a step needs whole CCDs and the exposures are not in memory.
        """
        if isinstance(self.origin, Correction):
            if self.origin.source.config.whole_ccd:
                raise ConfigError(
                    "isr: morphology, widen_trails, brighter_fatter, fill_bad_regions, interpolate and amp_offsets "
                    "need whole CCDs, not slabs of rows; switch them off, or persist() the exposures before, if "
                    "all of them fit into memory"
                )
            parts = self.origin.slabs(rows)
        else:
            parts = held.slabs(self.origin, rows)
        return held.replace_in_slabs(parts, self._planes())

    def by_pair(self, pairs: Sequence[tuple[int, int]]) -> da.Array:
        """One `blocks.Part` of two exposures, ids, of whole amps, a pair and detector; stands at (pair, detector)."""
        place = {e: i for i, e in enumerate(self.labels["exposure"].values.tolist())}
        positions = [(place[a], place[b]) for a, b in pairs]
        correction = self.origin if isinstance(self.origin, Correction) else None
        parts = held.pairs(self.origin, positions) if correction is None else correction.pairs(positions)
        return held.replace_in_pairs(parts, self._planes(), self._given_numbers(), positions)

    def _planes(self) -> dict[str, Assigned]:
        return {name: given for name, given in self.assigned.items() if name in PIXELS}

    def _given_numbers(self) -> dict[str, xr.Variable]:
        n_amp = self.all_labels.sizes["amp"]
        return {name: a.of_all(n_amp) for name, a in self.assigned.items() if a.variable.dims[:3] == STATISTIC_DIMS and
                name not in PIXELS}  # fmt: skip

    def dataset(self, *, slab_rows: int | None = None) -> xr.Dataset:
        """Return a labelled Dataset, lazy.

        Parameters
        ----------
        slab_rows : int, optional
            Chunks of all exposures and so many rows, for reductions over exposures; by default, of one exposure each.

        Returns
        -------
        Dataset
            ``image`` float32, ``variance`` float32, ``mask`` int32 (exposure, detector, amp, y, x), trimmed;
            amps smaller than the camera's largest are padded with NaN and flagged NO_DATA.
            ``serial_overscan`` (.., y_raw) [adu] and the numbers of `statistics.STATISTICS`
            (exposure, detector, amp).  ``attrs``: instrument, units (adu or electron).  Or what was assigned.
        """
        blocks = numbers = self.origin
        if isinstance(self.origin, Correction):
            if slab_rows is None:
                blocks = numbers = self.origin.exposures()
            else:
                blocks, numbers = graph.corrected_parts(self._own().by_slab(slab_rows)), self.origin.vectors()
        variables: dict[str, xr.Variable] = {}
        for array, pixels in ((blocks, True), (numbers, False)):
            chosen = {n: v for n, v in self.declared.items() if (n in PIXELS) == pixels and n not in self.assigned}
            sizes = {
                "amp": self.all_labels.sizes["amp"],
                "y_raw": get_instrument(self.attrs["instrument"]).raw_shape[2],
            }
            at = EXPOSURE_DIMS[: array.ndim]  # type: ignore[union-attr]
            variables |= graph.named_variables(array, at, chosen, sizes, _variable, prefix="isr")
        found = self.cut(xr.Dataset(variables, self.all_labels.coords, self.attrs))
        for name, (variable, positions) in self.assigned.items():
            if "amp" in variable.dims and self.amps is not None:
                there = range(self.all_labels.sizes["amp"]) if positions is None else positions
                variable = variable.isel(amp=[there.index(a) for a in self.amps])  # noqa: PLW2901
            found[name] = variable
        order = [n for n in self.declared if n in found]
        found = found[[*order, *(n for n in found.data_vars if n not in order)]]
        if slab_rows is not None and not isinstance(self.origin, Correction):
            found = found.chunk({"exposure": -1, "detector": 1, "y": slab_rows})
        return found

    def _own(self) -> CorrectedExposures:
        return dataclasses.replace(self, assigned={})


def isr(
    raw: xr.DataArray, calibs: Mapping[str, xr.Dataset] | None = None, config: IsrConfig | None = None
) -> CorrectedExposures:
    """Correct raw exposures, lazily; nothing is read here.

    Parameters
    ----------
    raw : DataArray
        int32 (exposure, detector, amp, y, x) [adu], lazy or in memory but not chunked, as from
        ``Repo.raws``; ``attrs["instrument"]`` names the camera, ``exposure`` and ``detector`` are ids.
    calibs : mapping of name to Dataset
        Those that ``config`` asks for; all have the coordinate ``detector``.  ``bias``, ``dark``, ``flat`` and
        ``defects`` are images, described at `source.select_planes`; the others are tables, described in `isr.tables`.
    config : IsrConfig
        Which steps run; defaults of the bootstrap.

    Raises
    ------
    ConfigError
        If a calibration is missing, of another unit, or lacks a detector or variable.
    DataError
        If a dark is to be subtracted from an exposure whose dark time is not known.
    PlanError
        If ``raw`` is not what it should be.

    Notes
    -----
    Results do not depend on blocks or workers in any bit: the dither is keyed by pixel address.
    """
    config, calibs = config or IsrConfig(), calibs or {}
    check_raw(raw)
    check_names(config, raw.attrs["instrument"])
    detectors = tuple(raw["detector"].values.tolist())
    source = RawSource(
        raw.variable,
        tuple(raw["exposure"].values.tolist()),
        detectors,
        raw.attrs["instrument"],
        config,
        select_tables(calibs, detectors, config),
        dark_scales(raw, calibs, config),
    )
    correction = Correction(source, select_planes(raw, calibs, config))
    coords = {k: c for k, c in raw.coords.items() if not {"y", "x"} & set(c.dims)}
    coords.setdefault("amp", xr.DataArray(list(get_instrument(source.instrument).amp_names), dims="amp"))
    attrs = {"instrument": source.instrument, "units": config.units, "isr_config": config.model_dump_json()}
    return CorrectedExposures(
        config, xr.Dataset({}, coords, attrs), correction, graph.declared(CORRECTED, config.units), {}
    )


def as_corrected(exposures: CorrectedExposures | xr.Dataset) -> CorrectedExposures:
    """Take a labelled Dataset of corrected exposures for what it shows; all consumers take Datasets by this way.

    Parameters
    ----------
    exposures : Dataset
        As from `CorrectedExposures.dataset`, in memory or in any chunks, perhaps changed or selected since: ``image``
        and ``mask`` (exposure, detector, amp, y, x), ``variance`` for most consumers, and other variables;
        ``attrs["instrument"]`` and ``attrs["units"]``.

    Notes
    -----
    Whole exposures are in memory.  What all of them share, the variance of the bias and dark that were subtracted, is
    in ``variance`` and no longer known as such: ``combine`` takes it for noise of each.  `CorrectedExposures` know it,
    selected, persisted or assigned to.
    """
    if isinstance(exposures, CorrectedExposures):
        return exposures
    for name in ("instrument", "units"):
        if name not in exposures.attrs:
            raise PlanError(f"the corrected exposures have no attribute {name!r}")
    lacking = {"image", "mask"} - set(exposures.data_vars)
    if lacking:
        raise PlanError(f"the corrected exposures have no variable {', '.join(sorted(lacking))}")
    single = [dim for dim in STATISTIC_DIMS[:2] if dim not in exposures["image"].dims and dim in exposures.coords]
    found = exposures.expand_dims(single) if single else exposures
    if set(found["image"].dims) != set(EXPOSURE_DIMS):
        raise PlanError(
            f"the corrected exposures have an image with dims {found['image'].dims}, expected {EXPOSURE_DIMS}"
        )
    camera = get_instrument(found.attrs["instrument"])
    labels = found.drop_vars(list(found.data_vars) + [k for k, c in found.coords.items() if {"y", "x"} & set(c.dims)])
    amps: tuple[int, ...] | None = None
    if "amp" in labels.coords and labels["amp"].values.tolist() != list(camera.amp_names):
        amps = tuple(camera.amp_names.index(name) for name in labels["amp"].values.tolist())
        labels = labels.reindex(amp=list(camera.amp_names))
    elif "amp" not in labels.coords:
        labels = labels.assign_coords(amp=list(camera.amp_names)[: found.sizes["amp"]])
    planes = {n: found[n].variable.transpose(*EXPOSURE_DIMS) for n in PIXELS if n in found}
    blocks = held.exposures(planes, amps, labels.sizes["amp"])
    declared = {name: Declared(EXPOSURE_DIMS, plane.dtype, plane.attrs) for name, plane in planes.items()}
    given = {
        str(n): Assigned(v.variable.transpose(*(d for d in EXPOSURE_DIMS if d in v.dims), ...), amps)
        for n, v in found.data_vars.items()
        if n not in planes
    }
    return CorrectedExposures(None, labels, blocks, declared, given, amps)


def as_dataset(exposures: CorrectedExposures | xr.Dataset) -> xr.Dataset:
    """Return the labelled Dataset of either."""
    return exposures.dataset() if isinstance(exposures, CorrectedExposures) else exposures


def on_all_amps(
    consumer: Callable[Concatenate[CorrectedExposures, P], xr.Dataset],
) -> Callable[Concatenate[CorrectedExposures | xr.Dataset, P], xr.Dataset]:
    """Give a consumer all amps, of a Dataset by `as_corrected`, and cut its result to those that were selected."""

    @functools.wraps(consumer)
    def consume(corrected: CorrectedExposures | xr.Dataset, /, *args: P.args, **kwargs: P.kwargs) -> xr.Dataset:
        found = as_corrected(corrected)
        return found.cut(consumer(found.of_all_amps(), *args, **kwargs))

    return consume  # type: ignore[return-value]


def _variable(block: Corrected | Overscan, name: str) -> Any:
    if isinstance(block, Overscan):
        block = Corrected(*(np.zeros(0, np.float32), np.zeros(0, np.int32)), overscan=block)
    return getattr(block, name) if name in PIXELS else block.number(name)

"""The instrument signature removal as a lazy xarray Dataset: the dask wiring of `camcal_dask.isr.steps`.

Two kinds of blocks.  ``exposure``: one exposure of one detector, read once.  ``slab``: all exposures
of one detector, some rows of its amps, for stacks; here the overscan vectors are measured first (one
small task an exposure and detector), and the pixels are read a second time, slab by slab.

A task reads its own pixels: what flows between the first tasks is a `Slab`, the recipe of a block,
which holds no pixels.  Whoever consumes it decides how many exposures are in memory at a time.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.layers import ArraySliceDep
from numpy.typing import NDArray

from camcal_dask.errors import ConfigError, DataError, PlanError, nearest
from camcal_dask.instruments import get_instrument
from camcal_dask.isr.calibrations import Flags, Plane, Planes, common_flags
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.memory import reuse_freed_memory
from camcal_dask.isr.overscan import Overscan
from camcal_dask.isr.raw import RawRows
from camcal_dask.isr.sequence import Exposure, correct, measure_overscan
from camcal_dask.isr.statistics import STATISTICS
from camcal_dask.isr.tables import Prepared, Tables, check_detectors, prepare, select_tables
from camcal_dask.isr.variance import add_shared_variance, variance_plane
from camcal_dask.kernels.pixels.masks import MASK_PLANES

DIMS = ("exposure", "detector", "amp", "y", "x")
SLAB_ROWS = 256
"""Default slab height: the rows of an inner chunk of the raw cube, so that no chunk is decoded twice [pixel]."""
_INDEX = "edayx"
_SLAB, _CORRECTED = "isr-slab", "isr-corrected"
_WHOLE = "isr-whole-ccd"  # as _SLAB, but its variance does not follow from the image: for no other consumer


class Corrected(NamedTuple):
    """Corrected pixels of one block; arrays (e, d, amp, ...) as the variables of the Dataset, see `isr`.

    ``noise`` (e, d, amp) is the read-noise term of the variance, from which ``slab`` makes the rest of it.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.int32]
    noise: NDArray[np.float32]
    slab: Slab
    overscan: Overscan
    interpolated: NDArray[np.float32] | None = None
    """Variance, where it does not follow from the image because both were interpolated."""

    @property
    def variance(self) -> NDArray[np.float32]:
        """Variance plane (e, d, amp, y, x)."""
        if self.interpolated is not None:
            return self.interpolated
        each = [self.slab.variance(i, image[0], self.noise[i, 0]) for i, image in enumerate(self.image)]
        return each[0][None, None] if len(each) == 1 else np.stack(each)[:, None]


@dataclass(frozen=True)
class RawSource:
    """Where raw pixels come from: a lazy variable with the dims of `DIMS`, and what its axes stand for."""

    pixels: xr.Variable
    exposures: tuple[int, ...]
    detectors: tuple[int, ...]
    instrument: str
    config: IsrConfig
    tables: Mapping[int, Tables]
    dark_scales: tuple[float, ...]
    """Dark time of each exposure over that of the dark; empty without dark."""

    def prepared(self, detector: int) -> Prepared:
        """Tables of the detector at position ``detector``, as the steps want them."""
        number = self.detectors[detector]
        return prepare(get_instrument(self.instrument).detectors[number], self.tables[number], self.config)

    def read(self, exposure: int, detector: int, rows: slice, columns: slice) -> RawRows:
        """Read rows and columns of all amps, at positions (not ids) ``exposure`` and ``detector``."""
        reuse_freed_memory()
        values = np.ascontiguousarray(self.pixels[exposure, detector, :, rows, columns].to_numpy())
        ids = self.exposures[exposure], get_instrument(self.instrument).detectors[self.detectors[detector]]
        return RawRows(values, rows.start, columns.start, *ids)

    def read_all(self, exposure: int, detector: int) -> RawRows:
        """Read whole amps."""
        height, width = self.pixels.shape[-2:]
        return self.read(exposure, detector, slice(0, height), slice(0, width))

    @property
    def trimmed(self) -> tuple[int, int, int]:
        """(amp, y, x) of the result [pixel]."""
        return (self.pixels.shape[2], *get_instrument(self.instrument).trimmed_shape)


@dataclass(frozen=True)
class Slab:
    """Recipe of one block: some rows of one detector in some exposures.

    ``overscan`` has arrays (e, 1, amp, ...), or is None if the rows are whole amps and the vectors
    are to be measured from the same pixels.  ``planes`` has arrays (1, amp, y, x).
    """

    source: RawSource
    exposures: range
    detector: int
    rows: range
    overscan: Overscan | None
    planes: Planes

    @property
    def shape(self) -> tuple[int, int, int]:
        """(amp, y, x) of one exposure [pixel]."""
        n_amp, _, width = self.source.trimmed
        return n_amp, len(self.rows), width

    def correct(
        self,
        index: int,
        image: NDArray[np.float32],
        mask: NDArray[np.int32],
        variance: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], Overscan, NDArray[np.bool_]]:
        """Read and correct one exposure (``index`` in the block) into ``image`` and ``mask`` (amp, y, x).

        ``variance`` is written if given, as interpolation needs it.

        Returns
        -------
        noise (amp,) float32, the read-noise term of the variance; the overscan, arrays (amp, ...); and (amp,) bool,
        whether all pixels that the detector has there are finite and without mask planes.
        """
        source, tables, flags = self.source, self.source.prepared(self.detector), None
        if self.overscan is None:
            raw = source.read_all(self.exposures[index], self.detector)
            overscan = measure_overscan(raw, source.config, tables, width=self.shape[2])
        else:
            raw = source.read(self.exposures[index], self.detector, *self._region())
            overscan = Overscan._make(values[index, 0] for values in self.overscan)
        if len(self.exposures) > 1:
            flags = self._flags
        exposure = Exposure(
            raw, self.rows, overscan, self._planes, self._dark_scale(index), source.config, tables, flags
        )
        noise, clean = correct(exposure, image, mask, variance)
        return noise, overscan, clean

    @property
    def _planes(self) -> Planes:
        return self.planes.of_detector()

    @cached_property
    def _flags(self) -> Flags:
        """What the calibrations add to the mask of each of several exposures."""
        detector = get_instrument(self.source.instrument).detectors[self._detector_id]
        return common_flags(self.shape, self._planes, detector, self.rows.start, self.source.config)

    def variance(
        self, index: int, image: NDArray[np.float32], noise: NDArray[np.float32], *, shared: bool = True
    ) -> NDArray[np.float32]:
        """Variance (amp, y, x) of an exposure, given what `correct` made of it.

        ``shared``: with that of the bias and dark, which is common to all exposures.
        """
        bias, dark, flat, _ = self._planes
        return variance_plane(
            image,
            noise,
            bias if shared else None,
            (dark, self._dark_scale(index)) if shared and dark is not None else None,
            None if flat is None else (flat, self.source.config.flat_scale),
        )

    def add_shared_variance(self, variance: NDArray[np.float32], weights: Sequence[float]) -> None:
        """Add what all exposures share to the variance of a weighted sum of them; see the function of this name."""
        scales = [self._dark_scale(i) for i in range(len(self.exposures))]
        add_shared_variance(variance, self._planes, weights, scales, self.source.config.flat_scale)

    def _dark_scale(self, index: int) -> float:
        return self.source.dark_scales[self.exposures[index]] if self.source.dark_scales else 0.0

    def _region(self) -> tuple[slice, slice]:
        """Raw rows and columns that hold the pixels of the slab (data starts at raw row 0)."""
        boxes = [a.data for a in get_instrument(self.source.instrument).detectors[self._detector_id].amps]
        top = max(min(self.rows.stop, max(b.height for b in boxes)), self.rows.start)
        left = 0 if self.source.config.deferred_charge else min(b.x0 for b in boxes)
        return slice(self.rows.start, top), slice(left, max(b.x0 + b.width for b in boxes))

    @property
    def _detector_id(self) -> int:
        return self.source.detectors[self.detector]


def isr(
    raw: xr.DataArray,
    calibs: Mapping[str, xr.Dataset] | None = None,
    config: IsrConfig | None = None,
    *,
    block: Literal["exposure", "slab"] = "exposure",
    slab_rows: int | None = None,
) -> xr.Dataset:
    """Correct raw exposures, lazily; nothing is read here.

    Parameters
    ----------
    raw : DataArray
        int32 (exposure, detector, amp, y, x) [adu], lazy or in memory but not chunked, as from
        ``Repo.raws``; ``attrs["instrument"]`` names the camera, ``exposure`` and ``detector`` are ids.
    calibs : mapping of name to Dataset
        Those that ``config`` asks for; all have the coordinate ``detector``.  Images (detector, amp, y, x):

        - ``bias``, ``dark``: image, variance, mask; ``attrs["units"]`` that of the result; the dark also
          ``attrs["dark_time_s"]``.
        - ``flat``: image, variance, mask; ``attrs["units"]`` "1".
        - ``defects``: mask (or defects) int32, any bit is a defect.

        Tables (detector, amp) unless said otherwise:

        - ``ptc``: gain [electron / adu], noise [electron], turnoff [adu]; overscan_median_level,
          overscan_median_sigma [adu].
        - ``gain_correction``: adjustment [1].
        - ``crosstalk``: linear (detector, source, target), optionally quadratic, valid, fit_gain (detector, amp);
          ``attrs["units"]`` adu or electron, of the signal.
        - ``linearizer``: type, coefficients (.., coefficient), optionally table (detector, row, column), input_gain,
          input_turnoff; ``attrs["units"]`` adu or electron.
        - ``cti``: drift_scale, decay_time, global_cti, trap_kind, trap_size, trap_emission_time,
          trap_coefficients (.., coefficient), optionally input_gain; ``attrs["units"]`` electron.
        - ``brighter_fatter``: aN, aS, aE, aW (detector, i, j), or kernel (detector, y, x).
    config : IsrConfig
        Which steps run; defaults of the bootstrap.
    block : "exposure" or "slab"
        Blocks of (1 exposure, 1 detector), or of (all exposures, 1 detector, ``slab_rows`` rows).
    slab_rows : int, optional
        Height of a slab [pixel], 256 by default; `camcal_dask.calibs.combined.combine.slab_rows_for` plans it.

    Returns
    -------
    Dataset
        ``image`` float32, ``variance`` float32, ``mask`` int32 (exposure, detector, amp, y, x), trimmed;
        amps smaller than the camera's largest are padded with NaN and flagged NO_DATA.
        ``serial_overscan`` (.., y_raw) [adu] and the numbers of `STATISTICS`
        (exposure, detector, amp).  ``attrs``: instrument, units (adu or electron).

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
    _check_raw(raw)
    if config.whole_ccd and block != "exposure":
        raise ConfigError(
            "isr: morphology, widen_trails, brighter_fatter, fill_bad_regions, interpolate and amp_offsets need whole "
            "CCDs; use block='exposure', or switch them off"
        )
    _check_names(config, raw.attrs["instrument"])
    detectors = tuple(raw["detector"].values.tolist())
    source = RawSource(
        raw.variable,
        tuple(raw["exposure"].values.tolist()),
        detectors,
        raw.attrs["instrument"],
        config,
        select_tables(calibs, detectors, config),
        _dark_scales(raw, calibs, config),
    )
    token = tokenize(
        _identity(source.pixels),
        source.exposures,
        detectors,
        config.model_dump_json(),
        [(table.values, table.units) for table in source.tables.values()],
        source.dark_scales,
    )
    held = dask.delayed(source, name=f"isr-source-{token}", traverse=False)
    rows = source.trimmed[1] if block == "exposure" else min(slab_rows or SLAB_ROWS, source.trimmed[1])
    chunks = _chunks(source, rows, by_exposure=block == "exposure")
    planes = _plane_blocks(raw, calibs, config, chunks)
    vectors = None if block == "exposure" else _vectors(held, source, token)
    slab = _wire(
        f"{_WHOLE if config.whole_ccd else _SLAB}-{tokenize(token, chunks, [b.name for b in planes])}",
        _open_slab,
        [(held, None), (ArraySliceDep(chunks), _INDEX), (vectors, None if vectors is None else "ed")]
        + [(plane, "dayx") for plane in planes],
    )
    name = slab.name.replace(_WHOLE, _CORRECTED).replace(_SLAB, _CORRECTED)
    corrected = _wire(name, _correct_slab, [(slab, _INDEX)])
    return _dataset(raw, source, corrected, vectors)


def slabs_of(corrected: xr.Dataset, *, whole_ccd: bool = False) -> da.Array | None:
    """Recipes behind a Dataset from `isr`, one `Slab` a block; None if its pixels were touched since, or need a CCD.

    A consumer wired to this array reads, corrects and reduces in one task a block.  With ``whole_ccd``, recipes of
    exposures that need a CCD too: their variance may not follow from the image, so the consumer must not ask for it.
    """
    found = _behind(corrected, _SLAB)
    return _behind(corrected, _WHOLE) if found is None and whole_ccd else found


def blocks_of(corrected: xr.Dataset) -> da.Array | None:
    """Blocks behind a Dataset from `isr`, one `Corrected` a block; None if its pixels were touched since.

    A consumer wired to this array costs one task a block with all variables at hand, where wiring
    it to the separate variables costs one task a variable more.
    """
    return _behind(corrected, _CORRECTED)


def unwrap(block: Any) -> Any:
    """Take a block out of the (nested, one-element) lists in which dask passes axes that are reduced."""
    while isinstance(block, list):
        (block,) = block
    return block


def _behind(corrected: xr.Dataset, prefix: str) -> da.Array | None:
    names = set()
    for variable in ("image", "variance", "mask"):
        array = corrected[variable].data
        if not isinstance(array, da.Array) or not array.name.startswith(f"isr-{variable}-"):
            return None
        names.add(array.name.removeprefix(f"isr-{variable}-"))
    if len(names) > 1:
        return None
    name = f"{prefix}-{names.pop()}"
    return layer_of(array, name, array.chunks) if name in array.dask.layers else None


def layer_of(array: da.Array, name: str, chunks: Any) -> da.Array:
    """Return an earlier layer of an array's graph as an array of objects with these chunks."""
    layers = array.dask
    keep = _ancestors(layers, name)
    graph = HighLevelGraph(
        {k: v for k, v in layers.layers.items() if k in keep},
        {k: v for k, v in layers.dependencies.items() if k in keep},
    )
    return da.Array(graph, name, chunks, meta=np.empty((0,) * len(chunks), object))


def _ancestors(graph: HighLevelGraph, name: str) -> set[str]:
    found, stack = set(), [name]
    while stack:
        layer = stack.pop()
        if layer not in found:
            found.add(layer)
            stack.extend(graph.dependencies[layer])
    return found


def _check_names(config: IsrConfig, instrument: str) -> None:
    """Refuse settings of amps that the camera does not have."""
    camera = get_instrument(instrument)
    if not (config.bad_amps or config.saturation.saturated_adu or config.saturation.suspect_adu):
        return
    amps = {f"{d.full_name}_{amp.name}" for d in camera.detectors.values() for amp in d.amps}
    levels = {*config.saturation.saturated_adu, *config.saturation.suspect_adu} - {"*", *camera.amp_names}
    for option, names in (("bad_amps", set(config.bad_amps)), ("saturation", levels)):
        for name in sorted(names - amps):
            raise ConfigError(f"isr.{option}: {instrument} has no amp {name!r}{nearest(name, amps)}")


def _identity(pixels: xr.Variable) -> Any:
    """What makes raw pixels the same for dask.  dask's own tokens of a lazy variable read all of it."""
    in_memory = isinstance(pixels._data, np.ndarray)  # noqa: SLF001
    return pixels.to_numpy() if in_memory else pickle.dumps(pixels)


def _check_raw(raw: xr.DataArray) -> None:
    if raw.dims != DIMS:
        raise PlanError(f"isr: raw has dims {raw.dims}, expected {DIMS}")
    if raw.chunks is not None:
        raise PlanError("isr: raw is chunked already; pass it as Repo.raws returns it, isr chooses the blocks itself")
    if "instrument" not in raw.attrs:
        raise PlanError("isr: raw has no attribute 'instrument'")
    room = get_instrument(raw.attrs["instrument"]).raw_shape[1:]
    if raw.shape[2:] != room:
        raise PlanError(
            f"isr: raw has amps of (amp, y, x) = {raw.shape[2:]}, {raw.attrs['instrument']} has {room}; "
            "select exposures and detectors only"
        )
    if 0 in raw.shape[:2]:
        raise PlanError(f"isr: nothing selected, raw has {raw.shape[0]} exposures and {raw.shape[1]} detectors")


def _chunks(source: RawSource, rows: int, *, by_exposure: bool) -> tuple[tuple[int, ...], ...]:
    n_exposure, n_detector = len(source.exposures), len(source.detectors)
    n_amp, height, width = source.trimmed
    full, rest = divmod(height, rows)
    slabs = (rows,) * full + ((rest,) if rest else ())
    return (1,) * n_exposure if by_exposure else (n_exposure,), (1,) * n_detector, (n_amp,), slabs, (width,)


def _wire(name: str, function: Callable[..., Any], args: Sequence[tuple[Any, Any]]) -> da.Array:
    """Blockwise layer whose blocks are Python objects standing at (e, d, a, y, x)."""
    return da.blockwise(
        function,
        _INDEX,
        *(part for pair in args for part in pair),
        name=name,
        align_arrays=False,
        dtype=object,
        meta=np.empty((0,) * 5, object),
    )


def _vectors(held: Any, source: RawSource, token: str) -> da.Array:
    """Overscan of all exposures of each detector: blocks `Overscan`, one a detector, standing at (e, d)."""
    n_exposure, n_detector = len(source.exposures), len(source.detectors)
    chunks = (1,) * n_exposure, (1,) * n_detector
    common = {"align_arrays": False, "dtype": object, "meta": np.empty((0, 0), object)}
    one = da.blockwise(_measure, "ed", held, None, ArraySliceDep(chunks), "ed", name=f"isr-overscan-{token}", **common)
    return da.blockwise(_gather, "fd", one, "ed", new_axes={"f": n_exposure}, name=f"isr-vectors-{token}", **common)


def _measure(source: RawSource, region: tuple[slice, slice]) -> Overscan:
    raw = source.read_all(region[0].start, region[1].start)
    tables = source.prepared(region[1].start)
    overscan = measure_overscan(raw, source.config, tables, width=source.trimmed[2])
    return Overscan._make(values[None, None] for values in overscan)


def _gather(exposures: list[Overscan]) -> Overscan:
    return Overscan._make(np.concatenate(values) for values in zip(*exposures, strict=True))


def _open_slab(source: RawSource, region: tuple[slice, ...], vectors: Overscan | None, *arrays: Any) -> Slab:
    e, d, _, y, _ = region
    left, planes = list(arrays), dict[str, Any]()
    for name, variables in _plane_variables(source.config).items():
        taken, left = left[: len(variables)], left[len(variables) :]
        planes[name] = Plane(*taken) if len(taken) > 1 else taken[0]
    return Slab(source, range(e.start, e.stop), d.start, range(y.start, y.stop), vectors, Planes(**planes))


def _correct_slab(slab: Slab) -> Corrected:
    n = len(slab.exposures)
    image, mask = np.empty((n, 1, *slab.shape), np.float32), np.empty((n, 1, *slab.shape), np.int32)
    variance = np.empty(image.shape, np.float32) if slab.source.config.interpolate else None
    results = [slab.correct(i, image[i, 0], mask[i, 0], None if variance is None else variance[i, 0]) for i in range(n)]
    noise = np.stack([noise for noise, _, _ in results])[:, None]
    overscan = _gather([Overscan._make(v[None, None] for v in overscan) for _, overscan, _ in results])
    return Corrected(image, mask, noise, slab, overscan, variance)


def _plane_variables(config: IsrConfig) -> dict[str, tuple[str, ...]]:
    """Variables of the calibrations applied that are images."""
    images = {name: ("image", "variance", "mask") for name in ("bias", "dark", "flat") if getattr(config, name)}
    return images | ({"defects": ("mask",)} if config.defects else {})


def _plane_blocks(
    raw: xr.DataArray, calibs: Mapping[str, xr.Dataset], config: IsrConfig, chunks: tuple[tuple[int, ...], ...]
) -> list[da.Array]:
    """Variables of the image calibrations for the detectors of ``raw``, in matching blocks (d, a, y, x)."""
    found = []
    want = tuple(sum(c) for c in chunks[1:])
    for name, variables in _plane_variables(config).items():
        calibration = _checked_image(name, calibs, config)
        check_detectors(name, calibration, raw["detector"].values.tolist())
        chosen = calibration[list(variables)].sel(detector=raw["detector"].values)
        if chosen[variables[0]].shape != want:
            shape = chosen[variables[0]].shape
            raise ConfigError(f"the {name} has (detector, amp, y, x) = {shape}, expected {want}")
        for variable in variables:
            blocks = chosen[variable].chunk(dict(zip(DIMS[1:], chunks[1:], strict=True))).data
            dtype = np.int32 if variable == "mask" else np.float32
            found.append(blocks if blocks.dtype == dtype else blocks.astype(dtype))
    return found


def _checked_image(name: str, calibs: Mapping[str, xr.Dataset], config: IsrConfig) -> xr.Dataset:
    if name not in calibs:
        raise ConfigError(
            f"isr.{name} is on, but no {name} was given: pass calibs={{{name!r}: ...}} or set isr.{name}=false"
        )
    calibration = calibs[name]
    if name == "defects":
        return calibration.rename(defects="mask") if "mask" not in calibration else calibration
    units = calibration["image"].attrs.get("units", calibration.attrs.get("units"))
    if name == "flat" and units != "1":
        raise ConfigError(f"the flat is in {units}, expected a normalised one in units of 1; rebuild it normalised")
    wanted = f"{config.units}/s" if name == "dark" else config.units
    if name != "flat" and units not in (wanted, config.units):
        raise ConfigError(
            f"the {name} is in {units}, the exposures are corrected to {config.units} (isr.gains={config.gains}); "
            f"use a {name} in {config.units} or isr.gains={'nominal' if units == 'electron' else 'none'}"
        )
    return calibration


def _dark_scales(raw: xr.DataArray, calibs: Mapping[str, xr.Dataset], config: IsrConfig) -> tuple[float, ...]:
    """Dark time of each exposure over that of the dark."""
    if not config.dark:
        return ()
    master = _checked_image("dark", calibs, config).attrs.get("dark_time_s")
    if master is None or not master > 0:
        raise ConfigError(f"the dark has attrs['dark_time_s'] = {master}, expected a time in seconds > 0; rebuild it")
    if "dark_time" not in raw.coords:
        raise PlanError("isr: raw has no coordinate 'dark_time', which isr.dark needs")
    times = dict(zip(raw["exposure"].values.tolist(), raw["dark_time"].values.tolist(), strict=True))
    for exposure, time in times.items():
        if not np.isfinite(time):
            raise DataError(
                f"exposure {exposure}: its dark time is {time} s, so the dark cannot be scaled to it; "
                "leave the exposure out (-d) or set isr.dark=false"
            )
    return tuple(time / float(master) for time in times.values())


def _dataset(raw: xr.DataArray, source: RawSource, corrected: da.Array, vectors: da.Array | None) -> xr.Dataset:
    units = source.config.units
    key = corrected.name.removeprefix(_CORRECTED + "-")
    variables = {}
    for name, dtype, attrs in _pixel_variables(units):
        field = da.blockwise(
            _pixels, _INDEX, corrected, _INDEX, name, None, name=f"isr-{name}-{key}", dtype=dtype, align_arrays=False,
            meta=np.empty((0,) * 5, dtype),
        )  # fmt: skip
        variables[name] = xr.Variable(DIMS, field, attrs)
    variables |= dict(_overscan_variables(source, corrected if vectors is None else vectors, key, units))
    coords = {k: c for k, c in raw.coords.items() if not {"y", "x"} & set(c.dims)}
    attrs = {"instrument": source.instrument, "units": units, "isr_config": source.config.model_dump_json()}
    return xr.Dataset(variables, coords, attrs)


def _pixel_variables(units: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    flags = {"flag_masks": [1 << bit for bit in MASK_PLANES.values()], "flag_meanings": " ".join(MASK_PLANES)}
    yield "image", np.float32, {"units": units, "long_name": "corrected image"}
    yield "variance", np.float32, {"units": f"{units}^2", "long_name": "variance of the image"}
    yield "mask", np.int32, {"long_name": "mask planes", **flags}


def _overscan_variables(source: RawSource, origin: da.Array, key: str, units: str) -> Iterator[tuple[str, xr.Variable]]:
    """``serial_overscan`` and the numbers of `STATISTICS`; ``origin`` has blocks at (e, d) or (e, d, a, y, x)."""
    index = _INDEX[: origin.ndim]
    n_amp, n_row = source.pixels.shape[2:4]

    def cut(name: str, dtype: Any, **axes: int) -> da.Array:
        new = {k: v for k, v in axes.items() if k not in index}
        return da.blockwise(
            _vector, "ed" + "".join(axes), origin, index, name, None, name=f"isr-{name}-{key}", new_axes=new,
            dtype=dtype, meta=np.empty((0,) * (2 + len(axes)), dtype), align_arrays=False,
        )  # fmt: skip

    rows = cut("serial_overscan", np.float32, a=n_amp, r=n_row)
    yield "serial_overscan", xr.Variable((*DIMS[:3], "y_raw"), rows, {"units": "adu", "long_name": "serial overscan"})
    for name, (unit, doc) in STATISTICS.items():
        attrs = {"units": units if unit == "image" else unit, "long_name": doc}
        yield name, xr.Variable(DIMS[:3], cut(name, np.float64, a=n_amp), attrs)


def _pixels(block: Corrected, name: str) -> NDArray[Any]:
    return getattr(block, name)  # type: ignore[no-any-return]


def _vector(block: Any, name: str) -> NDArray[Any]:
    found = unwrap(block)
    overscan = found.overscan if isinstance(found, Corrected) else found
    if name == "serial_overscan":
        return np.asarray(overscan.serial)
    return np.asarray(overscan.statistics[..., list(STATISTICS).index(name)])

"""Geometry of detectors and amps in readout coordinates (reference/raw_format.md 2.3-2.5, 3.1-3.5).

Readout coordinates: pixel [0, 0] is read first, x is the serial and y the parallel
transfer order, as on disk.  Amps are in HDU order: C10..C17, C07..C00.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from camcal_dask.config import Config, expanded, load_config
from camcal_dask.errors import ConfigError, DataError, nearest
from camcal_dask.instruments.arguments import Detectors, elements


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, zero-based: columns x0..x0+width-1, rows y0..y0+height-1."""

    x0: int
    y0: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Box:
        """Read ``"x0:y0:width:height"``."""
        return _parse_box(text)

    @property
    def x(self) -> slice:
        """Columns."""
        return slice(self.x0, self.x0 + self.width)

    @property
    def y(self) -> slice:
        """Rows."""
        return slice(self.y0, self.y0 + self.height)

    def within(self, width: int, height: int) -> bool:
        """Whether an image of ``width`` x ``height`` pixels contains the box."""
        return min(self.x0, self.y0) >= 0 and self.x0 + self.width <= width and self.y0 + self.height <= height


@functools.cache
def _parse_box(text: str) -> Box:
    # 3216 amps share a dozen boxes.
    x0, y0, width, height = (int(part) for part in text.split(":"))
    return Box(x0, y0, width, height)


@dataclass(frozen=True)
class Amp:
    """One amplifier: boxes in readout coordinates, place in the CCD, nominal values.

    ``gain`` [electron/adu], ``read_noise`` [electron] and ``saturation`` [adu] are starting
    values; the photon transfer curve replaces them.  ``ix, iy`` is the amp's cell in the
    assembled CCD; ``flip_x, flip_y`` turn readout into CCD orientation.
    """

    name: str
    index: int
    hdu: int
    extname: str
    ix: int
    iy: int
    flip_x: bool
    flip_y: bool
    readout_corner: str
    gain: float
    read_noise: float
    saturation: float
    linearity_max: float
    raw_width: int
    raw_height: int
    data: Box
    prescan: Box
    serial_overscan: Box
    parallel_overscan: Box

    def fitted(self, width: int, height: int) -> Amp:
        """Return the amp as an image of another size on disk has it (reference/raw_format.md 2.3).

        Data, prescan and the starts of the overscans stay; the serial overscan reaches to the right
        edge and the parallel overscan to the top edge of the image.  ``BIASSEC`` is not trusted.

        Parameters
        ----------
        width, height : int
            Size of the image on disk [pixel].

        Raises
        ------
        DataError
            If the image does not contain the data box and at least one overscan column and row.
        """
        if (width, height) == (self.raw_width, self.raw_height):
            return self
        serial, parallel = self.serial_overscan, self.parallel_overscan
        if not self.data.within(width, height) or width <= serial.x0 or height <= parallel.y0:
            raise DataError(
                f"amp {self.name}: an image of {width} x {height} pixels does not hold the data box {self.data} "
                f"and overscans; the tables expect {self.raw_width} x {self.raw_height}"
            )
        return dataclasses.replace(
            self,
            raw_width=width,
            raw_height=height,
            serial_overscan=dataclasses.replace(serial, width=width - serial.x0),
            parallel_overscan=dataclasses.replace(parallel, height=height - parallel.y0),
        )


@dataclass(frozen=True)
class Detector:
    """One CCD: identity, place in the focal plane [mm], size [pixel] and amps in HDU order."""

    id: int
    full_name: str
    raft: str
    name_in_raft: str
    purpose: str
    vendor: str
    physical_type: str
    serial: str
    raft_serial: str
    fp_x_mm: float
    fp_y_mm: float
    fp_z_mm: float
    yaw_deg: float
    refpos_x_pix: float
    refpos_y_pix: float
    pixel_size_mm: float
    width_pix: int
    height_pix: int
    center_x_mm: float
    center_y_mm: float
    amps: tuple[Amp, ...]

    @property
    def name(self) -> str:
        """``"94 (R22_S11)"``, for messages."""
        return f"{self.id} ({self.full_name})"

    @property
    def last_ix(self) -> int:
        """Largest ``ix`` of its amps: those and the ones of ``ix`` 0 lie at the sides of the CCD."""
        return max(amp.ix for amp in self.amps)


class InstrumentSettings(Config):
    """Contents of ``instrument.yaml``."""

    prefix: str
    """First letters of an observation id (``MC`` for LSSTCam)."""
    policy_name: str
    """Spelling of the camera in curated calibration files."""
    class_name: str
    """Class named in the Butler's instrument record."""
    exposure_max: int
    detector_max: int
    state_keywords: tuple[str, ...]
    """Header cards that must agree between exposures combined (reference/raw_format.md 1.12)."""
    known_bad_amps: dict[str, str] = {}
    """Amps that are shown but not judged (``R42_S21_C07``), and why (reference/verification.md 1.14 and 7.16)."""
    back_biased: bool = False
    """Whether the headers of sensors that are on tell of a back-side bias (``HVBIAS``, ``BSSVBS``)."""


@dataclass(frozen=True, eq=False)
class Instrument:
    """A camera: all detectors by id, filters (physical filter to band), settings.

    ``raw_shape`` is (n_detectors, n_amps, y, x) of a raw cube, ``trimmed_shape`` (y, x) of a
    product amp (the largest data box; smaller ones are padded and flagged NO_DATA).
    A camera from :func:`get_instrument` exists once per process and travels to workers as its name.
    """

    name: str
    settings: InstrumentSettings
    detectors: Mapping[int, Detector]
    filters: Mapping[str, str]

    @functools.cached_property
    def science_detectors(self) -> tuple[int, ...]:
        """Ids of the detectors that calibrations are made for by default."""
        return tuple(d.id for d in self.detectors.values() if d.purpose == "SCIENCE")

    @functools.cached_property
    def amp_names(self) -> tuple[str, ...]:
        """Names of the amps in HDU order."""
        return tuple(amp.name for amp in max(self.detectors.values(), key=lambda d: len(d.amps)).amps)

    @functools.cached_property
    def raw_shape(self) -> tuple[int, int, int, int]:
        """(n_detectors, n_amps, y, x) of a raw cube [pixel]."""
        amps = [amp for d in self.detectors.values() for amp in d.amps]
        height, width = max(a.raw_height for a in amps), max(a.raw_width for a in amps)
        return max(self.detectors) + 1, len(self.amp_names), height, width

    @functools.cached_property
    def trimmed_shape(self) -> tuple[int, int]:
        """(y, x) of one amp of a product cube [pixel]."""
        boxes = [amp.data for d in self.detectors.values() for amp in d.amps]
        return max(b.height for b in boxes), max(b.width for b in boxes)

    @functools.cached_property
    def _by_name(self) -> dict[str, Detector]:
        return {key: d for d in self.detectors.values() for key in (str(d.id), d.full_name)}

    def detector(self, name: int | str) -> Detector:
        """Return a detector by id or full name.

        Raises
        ------
        ConfigError
            If the camera has no such detector.
        """
        (name, *more) = elements(name, "detector")
        found = None if more or isinstance(name, bool) else self._by_name.get(str(name))
        if found is None:
            valid = [d.full_name for d in self.detectors.values()]
            raise ConfigError(f"{self.name} has no detector {name!r}{nearest(str(name), valid)}")
        return found

    def detector_ids(self, detectors: Detectors) -> list[int]:
        """Ids of detectors that are given by id or name, one or several, in their order.

        Raises
        ------
        ConfigError
            If the camera has no such detector, or none is named.
        """
        return [self.detector(one).id for one in elements(detectors, "detector")]

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        if self.name in instrument_names() and get_instrument(self.name) is self:
            return get_instrument, (self.name,)
        return _restore, (self.name, self.settings, dict(self.detectors), dict(self.filters))

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        # The name says it all for a camera of the package; hashing 3216 amps would take longer than a graph.
        function, arguments = self.__reduce__()
        return (function.__name__, *arguments)


def _restore(
    name: str, settings: InstrumentSettings, detectors: dict[int, Detector], filters: dict[str, str]
) -> Instrument:
    return Instrument(name, settings, MappingProxyType(detectors), MappingProxyType(filters))


def folders() -> dict[str, Traversable]:
    """Folders of tables by camera: those of the package, then those in the folders of CAMCAL_INSTRUMENTS."""
    own = [Path(expanded(text)) for text in os.environ.get("CAMCAL_INSTRUMENTS", "").split(os.pathsep) if text]
    found = (p for root in (files("camcal_dask.instruments"), *own) for p in root.iterdir())
    cameras: dict[str, Traversable] = {}
    for folder in found:
        if folder.joinpath("instrument.yaml").is_file():
            cameras.setdefault(folder.name, folder)
    return cameras


def instrument_names() -> tuple[str, ...]:
    """Names of the cameras for which there are tables, in the package or in a folder of ``CAMCAL_INSTRUMENTS``."""
    return tuple(sorted(folders()))


@functools.cache
def get_instrument(name: str) -> Instrument:
    """Load a camera's tables.

    Raises
    ------
    ConfigError
        If there is no camera of that name, or its tables are not consistent.
    """
    known = folders()
    if name not in known:
        raise ConfigError(f"unknown instrument {name!r}{nearest(name, known)}")
    return load_instrument(known[name])


def load_instrument(folder: Traversable) -> Instrument:
    """Load a camera from a folder of tables named after it.

    Raises
    ------
    ConfigError
        Naming every fault of the tables.
    """
    name = folder.name
    settings = load_config(
        InstrumentSettings, yaml.safe_load(folder.joinpath("instrument.yaml").read_text()), f"{name}/instrument.yaml"
    )
    amps: dict[int, list[Amp]] = {}
    for row in read_table(folder, "amps.csv"):
        amps.setdefault(int(row["detector"]), []).append(_amp(row))
    detectors: dict[int, Detector] = {}
    for row in read_table(folder, "detectors.csv"):
        detector = _detector(row, tuple(amps.pop(int(row["detector"]), ())))
        detectors[detector.id] = detector
    filters = {row["physical_filter"]: row["band"] for row in read_table(folder, "filters.csv")}
    instrument = _restore(name, settings, detectors, filters)
    faults = [f"amps.csv: detector {number} is not in detectors.csv" for number in amps] + table_faults(instrument)
    if faults:
        raise ConfigError(f"tables of {name}: " + "; ".join(faults))
    return instrument


def table_faults(instrument: Instrument) -> list[str]:
    """Return the contradictions in the tables of a camera; empty if there are none."""
    names = [d.full_name for d in instrument.detectors.values()]
    faults = [f"detectors.csv: {name} occurs twice" for name in sorted({n for n in names if names.count(n) > 1})]
    faults += [f"filters.csv: {name!r} is longer than 32 characters" for name in instrument.filters if len(name) > 32]
    orders = Counter(tuple(amp.name for amp in d.amps) for d in instrument.detectors.values())
    order = max(orders, key=lambda names: (len(names), orders[names]))
    for detector in instrument.detectors.values():
        if tuple(amp.name for amp in detector.amps) != order[: len(detector.amps)] or not detector.amps:
            faults.append(f"amps.csv: detector {detector.name} does not have the amps {', '.join(order)} in this order")
        faults += [
            f"amps.csv: detector {detector.name}, {fault}" for amp in detector.amps for fault in _amp_faults(amp)
        ]
    return faults


def _amp_faults(amp: Amp) -> list[str]:
    boxes = {
        "raw_data": amp.data,
        "raw_prescan": amp.prescan,
        "raw_serial_overscan": amp.serial_overscan,
        "raw_parallel_overscan": amp.parallel_overscan,
    }
    size = amp.raw_width, amp.raw_height
    faults = [
        f"amp {amp.name}: {key} {box} leaves the image {size}" for key, box in boxes.items() if not box.within(*size)
    ]
    if amp.hdu != amp.index + 1:
        faults.append(f"amp {amp.name}: hdu {amp.hdu} is not index {amp.index} + 1")
    if not (amp.gain > 0.0 and amp.read_noise > 0.0):
        faults.append(f"amp {amp.name}: gain {amp.gain} and read_noise {amp.read_noise} must be positive")
    return faults


def read_table(folder: Traversable, name: str) -> list[dict[str, str]]:
    """Rows of one CSV table of a camera's folder."""
    return list(csv.DictReader(folder.joinpath(name).read_text().splitlines()))


def _amp(row: Mapping[str, str]) -> Amp:
    return Amp(
        name=row["amp"],
        index=int(row["index"]),
        hdu=int(row["hdu"]),
        extname=row["extname"],
        ix=int(row["ix"]),
        iy=int(row["iy"]),
        flip_x=row["flip_x"] == "1",
        flip_y=row["flip_y"] == "1",
        readout_corner=row["readout_corner_assembled"],
        gain=float(row["gain"]),
        read_noise=float(row["read_noise"]),
        saturation=float(row["saturation"]),
        linearity_max=float(row["linearity_max"]),
        raw_width=int(row["raw_width"]),
        raw_height=int(row["raw_height"]),
        data=Box.parse(row["raw_data"]),
        prescan=Box.parse(row["raw_prescan"]),
        serial_overscan=Box.parse(row["raw_serial_overscan"]),
        parallel_overscan=Box.parse(row["raw_parallel_overscan"]),
    )


def _detector(row: Mapping[str, str], amps: tuple[Amp, ...]) -> Detector:
    numbers = ("fp_x_mm", "fp_y_mm", "fp_z_mm", "yaw_deg", "refpos_x_pix", "refpos_y_pix", "pixel_size_mm")
    names = ("full_name", "raft", "name_in_raft", "purpose", "vendor", "physical_type", "serial", "raft_serial")
    return Detector(
        id=int(row["detector"]),
        width_pix=int(row["width_pix"]),
        height_pix=int(row["height_pix"]),
        center_x_mm=float(row["center_x_mm"]),
        center_y_mm=float(row["center_y_mm"]),
        amps=amps,
        **{key: row[key] for key in names},  # type: ignore[arg-type]
        **{key: float(row[key]) for key in numbers},  # type: ignore[arg-type]
    )

"""Geometry of detectors and amps in readout coordinates (reference/raw_format.md sections 2.3-3.5).

Readout coordinates: pixel [0, 0] is read first, x is the serial and y the parallel
transfer order, as on disk.  Amps are in HDU order: C10..C17, C07..C00.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

import yaml

from camcal_dask.config import Config, load_config
from camcal_dask.errors import ConfigError, nearest


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
        return cls(*(int(part) for part in text.split(":")))

    @property
    def x(self) -> slice:
        """Columns."""
        return slice(self.x0, self.x0 + self.width)

    @property
    def y(self) -> slice:
        """Rows."""
        return slice(self.y0, self.y0 + self.height)


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
    """Header cards that must agree between exposures combined (raw_format.md 1.12)."""


@dataclass(frozen=True)
class Instrument:
    """A camera: all detectors by id, filters, settings.

    ``raw_shape`` is (n_detectors, n_amps, y, x) of a raw cube, ``trimmed_shape`` (y, x) of a
    product amp (the largest data box; smaller ones are padded and flagged NO_DATA).
    """

    name: str
    settings: InstrumentSettings
    detectors: Mapping[int, Detector]
    filters: Mapping[str, str]

    @property
    def science_detectors(self) -> tuple[int, ...]:
        """Ids of the detectors that calibrations are made for by default."""
        return tuple(d.id for d in self.detectors.values() if d.purpose == "SCIENCE")

    @property
    def amp_names(self) -> tuple[str, ...]:
        """Names of the amps in HDU order."""
        return tuple(amp.name for amp in self._widest.amps)

    @property
    def raw_shape(self) -> tuple[int, int, int, int]:
        """(n_detectors, n_amps, y, x) of a raw cube [pixel]."""
        amps = [amp for d in self.detectors.values() for amp in d.amps]
        height, width = max(a.raw_height for a in amps), max(a.raw_width for a in amps)
        return max(self.detectors) + 1, len(self._widest.amps), height, width

    @property
    def trimmed_shape(self) -> tuple[int, int]:
        """(y, x) of one amp of a product cube [pixel]."""
        boxes = [amp.data for d in self.detectors.values() for amp in d.amps]
        return max(b.height for b in boxes), max(b.width for b in boxes)

    @property
    def _widest(self) -> Detector:
        return max(self.detectors.values(), key=lambda d: len(d.amps))

    def detector(self, name: int | str) -> Detector:
        """Return a detector by id or full name.

        Raises
        ------
        ConfigError
            If the camera has no such detector.
        """
        for detector in self.detectors.values():
            if name in (detector.id, detector.full_name) or str(name) == str(detector.id):
                return detector
        valid = [d.full_name for d in self.detectors.values()]
        raise ConfigError(f"{self.name} has no detector {name!r}{nearest(str(name), valid)}")


def instrument_names() -> tuple[str, ...]:
    """Names of the cameras that the package has tables for."""
    root = files("camcal_dask.instruments")
    return tuple(sorted(p.name for p in root.iterdir() if p.joinpath("instrument.yaml").is_file()))


@functools.cache
def get_instrument(name: str) -> Instrument:
    """Load a camera's tables.

    Raises
    ------
    ConfigError
        If there is no camera of that name.
    """
    if name not in instrument_names():
        raise ConfigError(f"unknown instrument {name!r}{nearest(name, instrument_names())}")
    folder = files("camcal_dask.instruments").joinpath(name)
    settings = load_config(
        InstrumentSettings, yaml.safe_load(folder.joinpath("instrument.yaml").read_text()), f"{name}/instrument.yaml"
    )
    amps: dict[int, list[Amp]] = {}
    for row in read_table(folder, "amps.csv"):
        amps.setdefault(int(row["detector"]), []).append(_amp(row))
    detectors = {
        d.id: d
        for d in (_detector(row, tuple(amps[int(row["detector"])])) for row in read_table(folder, "detectors.csv"))
    }
    filters = {row["physical_filter"]: row["band"] for row in read_table(folder, "filters.csv")}
    return Instrument(name, settings, MappingProxyType(detectors), MappingProxyType(filters))


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

"""The truth of a simulation, written beside its files and loaded by tests.

``OUT/truth/truth.yaml`` holds camera, configuration, exposures and detectors; one ``detector_NNN.npz`` a detector
its tables, and ``detector_NNN_<image>.npy`` its images, which are read by memory map.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from camcal_dask.config import load_config
from camcal_dask.errors import DataError
from camcal_dask.instruments.geometry import Instrument, get_instrument
from camcal_dask.simulation.config import SimulationConfig
from camcal_dask.simulation.exposures import ExposureSpec
from camcal_dask.simulation.headers import obs_id
from camcal_dask.simulation.photodiode import photodiode_charge, photodiode_name, photodiode_text
from camcal_dask.simulation.sensor import Defects, make_sensor, pattern_image, response_image
from camcal_dask.simulation.write import write_atomically

FORMAT = 1
"""Version of the truth files."""

_SKIP = {"detector", "defects"}


@dataclass(frozen=True)
class DetectorTruth:
    """Truth of one detector.

    ``tables`` has the arrays of :class:`~camcal_dask.simulation.sensor.Sensor` by name (gain, read_noise,
    bias_level, crosstalk ...), ``a_matrix`` among them; ``defects`` the bad pixels; ``pattern`` the (amp, y, x)
    float32 [adu] bias pattern of the trimmed amps; ``response`` the (amp, y, x) response by physical filter.
    """

    tables: dict[str, npt.NDArray[Any]]
    defects: Defects
    pattern: npt.NDArray[np.float32]
    response: dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Truth:
    """Truth of a simulation folder, as :func:`load_truth` returns it."""

    folder: Path
    instrument: Instrument
    config: SimulationConfig
    exposures: tuple[ExposureSpec, ...]
    detectors: tuple[int, ...]

    def detector(self, detector_id: int) -> DetectorTruth:
        """Tables and images of one detector."""
        stem = self.folder / "truth" / f"detector_{detector_id:03d}"
        if not stem.with_suffix(".npz").exists():
            raise DataError(
                f"{self.folder}: no truth for detector {detector_id}; the simulated detectors are "
                f"{list(self.detectors)}"
            )
        with np.load(stem.with_suffix(".npz")) as file:
            tables = dict(file)
        names = [f.name for f in dataclasses.fields(Defects)]
        defects = Defects(**{name: tables.pop(f"defects_{name}") for name in names})
        prefix = f"{stem.name}_response_"
        response = {
            path.stem.removeprefix(prefix): np.load(path, mmap_mode="r") for path in stem.parent.glob(f"{prefix}*.npy")
        }
        pattern = np.load(stem.with_name(f"{stem.name}_pattern.npy"), mmap_mode="r")
        return DetectorTruth(tables, defects, pattern, response)

    def table(self, name: str) -> npt.NDArray[Any]:
        """One table of all detectors, for example ``gain``: (detector, amp)."""
        return np.stack([self.detector(d).tables[name] for d in self.detectors])

    def dark_rate(self, detector_id: int, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Dark current with hot pixels and columns [electron/s], (amp, y, x) as a product; NaN beyond the amps."""
        known, box = self.detector(detector_id).defects, self.instrument.detectors[detector_id].amps[0].data
        rate = np.full(shape, self.config.dark.rate_e_per_s)
        for (a, x), extra in zip(known.columns, known.column_rate, strict=True):
            rate[a, :, x - box.x0] += extra
        for (a, y, x), extra in zip(known.hot, known.hot_rate, strict=True):
            rate[a, y - box.y0, x - box.x0] += extra
        rate[:, box.height :], rate[:, :, box.width :] = np.nan, np.nan
        return rate

    def light_response(self, detector_id: int, physical_filter: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Response to light through a filter, about 1, (amp, y, x) as a product; NaN beyond the amps."""
        known = np.asarray(self.detector(detector_id).response[physical_filter], float)
        missing = [(0, n - have) for n, have in zip(shape, known.shape, strict=True)]
        return np.pad(known, missing, constant_values=np.nan)

    def bad_pixels(
        self, detector_id: int, physical_filter: str, shape: tuple[int, ...], *, hot: float, cold: float
    ) -> npt.NDArray[np.bool_]:
        """Pixels with more dark current than ``hot`` [electron/s] or less response than ``cold``, (amp, y, x)."""
        bad = self.dark_rate(detector_id, shape) > hot
        return bad | (self.light_response(detector_id, physical_filter, shape) < cold)

    def photodiode(self) -> dict[int, float]:
        """True photodiode charge [coulomb] of lit exposures by ``ExposureSpec.key``."""
        return {e.key: photodiode_charge(self.config, e) for e in self.exposures if e.lit}


def load_truth(folder: str | Path) -> Truth:
    """Read the truth of a simulation folder.

    Raises
    ------
    DataError
        If the folder holds no simulation, or one of another format version.
    """
    path = Path(folder) / "truth" / "truth.yaml"
    if not path.exists():
        raise DataError(f"{folder}: no truth/truth.yaml; was it written by `camcal simulate`?")
    content = yaml.safe_load(path.read_text())
    if content["format"] != FORMAT:
        raise DataError(f"{path}: format {content['format']}, this version reads {FORMAT}; simulate again")
    return Truth(
        folder=Path(folder),
        instrument=get_instrument(content["instrument"]),
        config=load_config(SimulationConfig, content["config"], str(path)),
        exposures=tuple(load_config(ExposureSpec, e, str(path)) for e in content["exposures"]),
        detectors=tuple(content["detectors"]),
    )


def write_run_truth(
    out: Path, instrument: str, exposures: Sequence[ExposureSpec], detectors: Sequence[int], config: SimulationConfig
) -> None:
    """Write ``truth.yaml`` and the photodiode files; exposures already in the folder are kept.

    Raises
    ------
    DataError
        If the folder holds another camera or configuration, or another exposure under the same number.
    """
    known: dict[int, ExposureSpec] = {}
    ids = set(detectors)
    if (out / "truth" / "truth.yaml").exists():
        old = load_truth(out)
        if (old.instrument.name, old.config) != (instrument, config):
            raise DataError(f"{out} holds a simulation of another camera or configuration; choose another folder")
        known = {e.key: e for e in old.exposures}
        ids |= set(old.detectors)
    for exposure in exposures:
        if known.setdefault(exposure.key, exposure) != exposure:
            raise DataError(f"{out} holds another exposure {exposure.key}; choose other numbers or another folder")
    content = {
        "format": FORMAT,
        "instrument": instrument,
        "config": config.model_dump(mode="json"),
        "detectors": sorted(ids),
        "exposures": [known[key].model_dump(mode="json") for key in sorted(known)],
    }
    write_atomically(out / "truth" / "truth.yaml", [yaml.safe_dump(content, sort_keys=False).encode()])
    camera = get_instrument(instrument)
    for exposure in exposures:
        if exposure.lit and config.photodiode.enabled:
            folder = out / obs_id(camera, exposure, config)
            write_atomically(folder / photodiode_name(exposure), [photodiode_text(config, exposure).encode()])


def write_detector_truth(
    out: Path, instrument: str, detector_id: int, config: SimulationConfig, filters: Sequence[str]
) -> tuple[Path, int]:
    """Write tables and images of one detector; return the path of the tables and the bytes of all files."""
    sensor = make_sensor(config, instrument, detector_id)
    tables = {f.name: getattr(sensor, f.name) for f in dataclasses.fields(sensor) if f.name not in _SKIP}
    tables |= {f"defects_{f.name}": getattr(sensor.defects, f.name) for f in dataclasses.fields(Defects)}
    buffer = io.BytesIO()
    np.savez(buffer, **tables)
    stem = out / "truth" / f"detector_{detector_id:03d}"
    path = stem.with_suffix(".npz")
    size = write_atomically(path, [buffer.getvalue()])
    size += _write_image(stem.with_name(f"{stem.name}_pattern.npy"), pattern_image(config, instrument, detector_id))
    for name in filters:
        image = response_image(config, instrument, detector_id, name)
        size += _write_image(stem.with_name(f"{stem.name}_response_{name}.npy"), image)
    return path, size


def _write_image(path: Path, image: npt.NDArray[np.float32]) -> int:
    buffer = io.BytesIO()
    np.save(buffer, image)
    return write_atomically(path, [buffer.getvalue()])

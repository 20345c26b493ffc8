"""Simulate a set of exposures into a folder: raw files, photodiode readings, truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from camcal_dask.config import expanded
from camcal_dask.errors import DataError
from camcal_dask.instruments.geometry import get_instrument
from camcal_dask.simulation.config import SimulationConfig
from camcal_dask.simulation.exposures import ExposureSpec
from camcal_dask.simulation.headers import file_name, obs_id, physical_filter
from camcal_dask.simulation.readout import simulate_exposure
from camcal_dask.simulation.sensor import check_faults
from camcal_dask.simulation.truth import write_detector_truth, write_run_truth
from camcal_dask.simulation.write import write_raw_fits

Mapper = Callable[[Callable[[Any], "Written"], Sequence[Any]], Iterable["Written"]]
"""``mapper(function, units) -> results`` in any order; ``map`` itself, or a pool's or client's equivalent."""

Unit = tuple[ExposureSpec | None, int]
"""(exposure, detector id): one raw file.  Exposure None: the truth of the detector."""


@dataclass(frozen=True)
class Written:
    """One file written: where, its bytes, the seconds of simulation and writing."""

    path: str
    n_bytes: int
    seconds: float


@dataclass(frozen=True)
class SimulationSummary:
    """What a call of :func:`simulate` wrote."""

    folder: str
    files: tuple[str, ...]
    n_bytes: int
    seconds: float


def simulate(
    out: str | Path,
    instrument: str,
    exposures: Sequence[ExposureSpec],
    detectors: Sequence[int] | None = None,
    config: SimulationConfig | None = None,
    *,
    mapper: Mapper = map,
    progress: Callable[[Written], None] | None = None,
) -> SimulationSummary:
    """Write raw files of ``exposures`` x ``detectors``, with the truth beside them.

    Parameters
    ----------
    out : str or Path
        Folder; files are ``OUT/<obs_id>/<obs_id>_<raft>_<slot>.fits``, truth is in ``OUT/truth``.  May hold
        exposures of an earlier call with the same camera and configuration.
    instrument : str
        Camera.
    exposures : Sequence[ExposureSpec]
        For example ``bias_set(21, 20260812, contaminated_first=True)``.
    detectors : Sequence[int], optional
        Detector ids; default: all science detectors.
    config : SimulationConfig, optional
        Effects and strengths.
    mapper : Callable
        Runs a picklable function over the units (exposure, detector); results may come in any order.
    progress : Callable, optional
        Called with every :class:`Written`.

    Raises
    ------
    ConfigError
        If a detector, amp or filter does not exist.
    DataError
        If ``out`` holds a simulation of another camera or configuration.
    """
    begin = time.perf_counter()
    config = config or SimulationConfig()
    camera, out = get_instrument(instrument), expanded(out)
    ids = list(dict.fromkeys(camera.detector_ids(camera.science_detectors if detectors is None else detectors)))
    check_faults(config, camera)
    filters = {physical_filter(camera, e) for e in exposures if e.lit}
    _check_unique(exposures)
    write_run_truth(Path(out), instrument, exposures, ids, config)
    units: list[Unit] = [(e, d) for d in ids for e in (None, *exposures)]  # a detector's images stay cached
    work = partial(run_unit, out=str(out), instrument=instrument, config=config, filters=tuple(sorted(filters)))
    written = [r for r in _watch(mapper(work, units), progress) if r.path.endswith(".fits")]
    files, n_bytes = tuple(sorted(r.path for r in written)), sum(r.n_bytes for r in written)
    return SimulationSummary(str(out), files, n_bytes, time.perf_counter() - begin)


def run_unit(unit: Unit, *, out: str, instrument: str, config: SimulationConfig, filters: tuple[str, ...]) -> Written:
    """Simulate and write one raw file, or the truth of one detector."""
    begin = time.perf_counter()
    exposure, detector_id = unit
    if exposure is None:
        path, size = write_detector_truth(Path(out), instrument, detector_id, config, filters)
    else:
        camera = get_instrument(instrument)
        detector = camera.detector(detector_id)
        amps = simulate_exposure(instrument, detector_id, exposure, config)
        folder = Path(out) / obs_id(camera, exposure, config)
        path = folder / file_name(camera, detector, exposure, config)
        size = write_raw_fits(path, amps, camera, detector, exposure, config)
    return Written(str(path), size, time.perf_counter() - begin)


def _watch(results: Iterable[Written], progress: Callable[[Written], None] | None) -> Iterator[Written]:
    for result in results:
        if progress is not None:
            progress(result)
        yield result


def _check_unique(exposures: Sequence[ExposureSpec]) -> None:
    seen: set[int] = set()
    for exposure in exposures:
        if exposure.key in seen:
            raise DataError(
                f"two exposures are day_obs {exposure.day_obs}, seq_num {exposure.seq_num}; "
                "chain the sets with camcal_dask.simulation.schedule to number them"
            )
        seen.add(exposure.key)

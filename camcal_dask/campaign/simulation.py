"""Simulate on a cluster: exposure sets from the command line, work units to a dask client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camcal_dask.config import Settings, settled
from camcal_dask.errors import ConfigError
from camcal_dask.simulation import (
    ExposureSpec,
    SimulationConfig,
    SimulationSummary,
    Written,
    bias_set,
    dark_set,
    flat_set,
    ptc_set,
    schedule,
    simulate,
)

if TYPE_CHECKING:
    from distributed import Client


def exposure_sets(
    *,
    bias: int,
    dark: Sequence[tuple[int, float]],
    flat: Sequence[tuple[int, float] | tuple[int, float, str]],
    ptc: Sequence[float],
    contaminated_first: bool,
    day_obs: int,
    first_seq_num: int,
) -> list[ExposureSpec]:
    """Turn numbers and exposure times [s] of biases, darks, flats and pairs of flats into one sequence of exposures."""
    sets: list[Iterable[ExposureSpec]] = [bias_set(bias, day_obs, contaminated_first=contaminated_first)]
    sets += [dark_set(n, seconds, day_obs) for n, seconds in dark]
    sets += [flat_set(n, s, day_obs, physical_filter=next(iter(of), None)) for n, s, *of in flat]
    sets += [ptc_set(list(ptc), day_obs)] if ptc else []
    return list(schedule(chain.from_iterable(sets), day_obs, first_seq_num))


def exposure_set(text: str) -> Any:
    """Read ``N:SECONDS`` or ``N:SECONDS:FILTER`` as (number, seconds) or (number, seconds, filter).

    Raises
    ------
    ConfigError
        If it is neither.
    """
    count, _, rest = text.partition(":")
    seconds, _, physical_filter = rest.partition(":")
    try:
        return (int(count), float(seconds), *([physical_filter] if physical_filter else []))
    except ValueError:
        raise ConfigError(f"exposure set {text!r}: expected N:SECONDS[:FILTER], such as 20:30") from None


def simulate_on(
    client: Client,
    out: Path,
    instrument: str,
    exposures: Sequence[ExposureSpec],
    detectors: Sequence[int],
    config: Settings[SimulationConfig] = None,
    *,
    progress: Callable[[Written], None] | None = None,
) -> SimulationSummary:
    """Run :func:`camcal_dask.simulation.simulate` on the workers of a client.

    Parameters
    ----------
    config : SimulationConfig, mapping or iterable of str
        Effects and strengths; also ``effect.key=value``, the value read as YAML.
    """

    def mapper(function: Callable[[Any], Written], units: Sequence[Any]) -> Iterator[Written]:
        from distributed import as_completed

        for future in as_completed(client.map(function, units, pure=False)):
            yield future.result()

    ready = settled(SimulationConfig, config, {}, "simulation")
    return simulate(out, instrument, exposures, detectors, ready, mapper=mapper, progress=progress)

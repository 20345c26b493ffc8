"""Simulate on a cluster: exposure sets from the command line, work units to a dask client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camcal_dask.config import apply_override, load_config
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
    dark: Sequence[str],
    flat: Sequence[str],
    ptc: str,
    contaminated_first: bool,
    day_obs: int,
    first_seq_num: int,
) -> list[ExposureSpec]:
    """Turn the options of ``camcal simulate`` into one numbered sequence of exposures.

    Raises
    ------
    ConfigError
        If a set is not of the form ``N:SECONDS`` (flats: ``N:SECONDS[:FILTER]``).
    """
    sets: list[Iterable[ExposureSpec]] = [bias_set(bias, day_obs, contaminated_first=contaminated_first)]
    sets += [dark_set(int(n), float(seconds), day_obs) for n, seconds, _ in map(_parts, dark)]
    sets += [flat_set(int(n), float(s), day_obs, physical_filter=f) for n, s, f in map(_parts, flat)]
    sets += [ptc_set([float(s) for s in ptc.split(",")], day_obs)] if ptc else []
    return list(schedule(chain.from_iterable(sets), day_obs, first_seq_num))


def _parts(text: str) -> tuple[str, str, str | None]:
    count, _, rest = text.partition(":")
    seconds, _, physical_filter = rest.partition(":")
    try:
        int(count), float(seconds)
    except ValueError:
        raise ConfigError(f"exposure set {text!r}: expected N:SECONDS[:FILTER], such as 20:30") from None
    return count, seconds, physical_filter or None


def simulate_on(
    client: Client,
    out: Path,
    instrument: str,
    exposures: Sequence[ExposureSpec],
    detectors: Sequence[int],
    overrides: Iterable[str] = (),
    *,
    progress: Callable[[Written], None] | None = None,
) -> SimulationSummary:
    """Run :func:`camcal_dask.simulation.simulate` on the workers of a client.

    Parameters
    ----------
    overrides : iterable of str
        ``effect.key=value``, the value read as YAML.
    """

    def mapper(function: Callable[[Any], Written], units: Sequence[Any]) -> Iterator[Written]:
        from distributed import as_completed

        for future in as_completed(client.map(function, units, pure=False)):
            yield future.result()

    values: dict[str, Any] = {}
    for override in overrides:
        apply_override(values, override)
    config = load_config(SimulationConfig, values, "simulation")
    return simulate(out, instrument, exposures, detectors, config, mapper=mapper, progress=progress)

"""What a page shows, as a query string: every value is one of a list, or its default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from urllib.parse import urlencode

from camcal_dask.dashboard.source import ALL, Source
from camcal_dask.errors import RepoError

LEVELS = ("focal plane", "raft", "detector", "amp")
COMPARISONS = ("none", "difference", "ratio")
_FIRST = ("failing", "noise", "product.gain", "gain")


@dataclass(frozen=True)
class State:
    """Choices of a page."""

    collection: str = ALL
    run: str = ""
    quantity: str = ""
    filter: str = ALL
    exposure: str = ALL
    compare: str = "none"
    other: str = ""
    detector: str = ""
    """Full name."""
    amp: str = ""
    level: str = "focal plane"

    def query(self) -> str:
        """Query string that leads back here; defaults are left out."""
        return urlencode({k: v for k, v in asdict(self).items() if v != getattr(State, k)})


def read(arguments: Mapping[str, Sequence[bytes]], source: Source) -> State:
    """Make a state of the arguments of a request; what is not in the lists becomes the default.

    Raises
    ------
    RepoError
        If the repository has no run with numbers of amps.
    """
    given = {k: v[0].decode("utf-8", "replace") for k, v in arguments.items() if v and k in State.__dataclass_fields__}
    return settle(State(**given), source)


def settle(state: State, source: Source) -> State:
    """Replace every choice that is not (or no longer) possible by its default.

    Raises
    ------
    RepoError
        If the repository has no run with numbers of amps.
    """
    if not source.runs:
        raise RepoError(f"{source.repo.root}: holds no calibration and no verification yet")
    collection = _one(state.collection, list(source.collections))
    runs = source.collections[collection]
    run = _one(state.run, runs)
    names = source.names(run)
    if not names:
        raise RepoError(f"{run}: has no statistics of amps")
    quantity = _one(state.quantity, names, next((n for n in _FIRST if n in names), names[0]))
    numbers = source.numbers(run, quantity)
    places = {d.full_name: d for d in source.place(run)}
    detector = _one(state.detector, ["", *places])
    amps = [amp.name for amp in places[detector].amps] if detector else []
    amp = _one(state.amp, ["", *amps])
    return replace(
        state,
        collection=collection,
        run=run,
        quantity=quantity,
        filter=_one(state.filter, [ALL, *dict.fromkeys(numbers.filters)]),
        exposure=_one(state.exposure, [ALL, *numbers.exposures]),
        compare=_one(state.compare, COMPARISONS),
        other=_one(state.other, ["", *others(source, runs, run, quantity)]),
        detector=detector,
        amp=amp,
        level=_one(state.level, LEVELS) if detector else LEVELS[0],
    )


def others(source: Source, runs: Sequence[str], run: str, quantity: str) -> list[str]:
    """Runs that a quantity can be compared with."""
    same = [r for r in runs if r != run and source.runs[r] == source.runs[run]]
    return [r for r in same if quantity in source.names(r)]


def _one(value: str, valid: Sequence[str], default: str | None = None) -> str:
    return value if value in valid else (valid[0] if default is None else default)

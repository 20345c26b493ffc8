"""The rooms of calibration types: what each offers, and where they are found.

Everything of a calibration type stands in one room, a module or package with a `CalibrationType` called
``CALIBRATION``.  Rooms of this package are the modules of ``camcal_dask.calibs``; those of others are named by
distributions, as entry points of the group ``camcal_dask.calibrations`` that lead to a `CalibrationType`:

    [project.entry-points."camcal_dask.calibrations"]
    sky = "our_camera.sky:CALIBRATION"

The engine, the repository, verification, reports, exchange and the command line ask this module and never name a type.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from camcal_dask.errors import ConfigError, nearest
from camcal_dask.schema import Product

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray

GROUP = "camcal_dask.calibrations"
"""Entry point group of rooms outside this package."""
ROOMS = "camcal_dask.calibs"
"""Package of the rooms of this one."""
ENGINE = "camcal_dask.campaign.verification"
"""Room of the engine itself: the tasks that verify calibrations of every type."""


class Task(Protocol):
    """How a recipe is planned and carried out; `camcal_dask.campaign.task.Task` is the one that rooms fill in."""

    @property
    def name(self) -> str:
        """The word after ``task:`` in a pipeline."""

    @property
    def recipe(self) -> type[Any]:
        """Settings of the pipeline; what it does not know is refused."""


class Verdict(Protocol):
    """How a calibration is verified; `camcal_dask.verify.verdict.Verdict` is the one that rooms fill in."""

    @property
    def kind(self) -> str:
        """The word after ``kind:`` in the pipeline of a verification."""


@dataclass(frozen=True)
class FitsLayout:
    """How one dataset type stands in files of the LSST stack, one file a detector.

    Attributes
    ----------
    write : ``write(path, product of one detector, detector, cards)``; None: it cannot be exported.
    obstype : OBSTYPE of files that `read` understands; empty: none can be imported.
    read : ``read(tables, cards, amp names) -> unit, arrays without a detector axis``.
    """

    write: Callable[..., None] | None = None
    obstype: str = ""
    read: Callable[..., tuple[str, dict[str, Any]]] | None = None


@dataclass(frozen=True)
class Curve:
    """One series of points (n,) and, where there is one, a line through them; used points are filled."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    used: NDArray[np.bool_]
    line: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Figures:
    """Figures of one dataset type, all of one detector.

    Attributes
    ----------
    needs : variables that the charts read.
    chart : ``chart(one amp of a Dataset of those variables)`` -> its curve, or None without points; it is drawn on the
        page of the detector and in the dashboard.
    words : what the charts show, in a sentence.
    title, axes : of a chart; what x and y are, with units.
    write : ``write(product, detector, folder)`` -> figures for a paper, as files; matplotlib may be imported in it.
    """

    needs: tuple[str, ...] = ()
    chart: Callable[[xr.Dataset], Curve | None] | None = None
    words: str = ""
    title: str = ""
    axes: tuple[str, str] = ("", "")
    write: Callable[[xr.Dataset, int, Path], list[Path]] | None = None


@dataclass(frozen=True)
class CalibrationType:
    """What a room offers; a room that only describes a table offers no task and no verdict.

    Attributes
    ----------
    name : of the room.
    products : dataset types that it makes or describes, those of its verifications too.
    tasks : how they are made.
    verdicts : how they are verified.
    layouts : files of the LSST stack, by dataset type.
    figures : by dataset type.
    chain : pipelines that belong to a chain in which none is named.
    pipelines : folder of pipelines that come with a room from outside, laid out as ``pipelines/`` of this package.
    choosers : ``choose(repo, recipe, raws, inputs)``, by the observation type of the exposures: which of the selected
        exposures are right, with the reasons.
    """

    name: str
    products: tuple[Product, ...] = ()
    tasks: tuple[Task, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    layouts: Mapping[str, FitsLayout] = field(default_factory=dict)
    figures: Mapping[str, Figures] = field(default_factory=dict)
    chain: tuple[str, ...] = ()
    choosers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    pipelines: str = ""


_registered: dict[str, CalibrationType] = {}


def register(room: CalibrationType) -> None:
    """Add a room in this process, such as one of a notebook; workers know only those that are installed.

    Raises
    ------
    ConfigError
        If another room has its name, or makes, or judges, what it does.
    """
    _registered[room.name] = room
    rooms.cache_clear()
    try:
        rooms()
    except ConfigError:
        forget(room.name)
        raise


def forget(name: str) -> None:
    """Take back `register`."""
    _registered.pop(name, None)
    rooms.cache_clear()


@functools.cache
def rooms() -> Mapping[str, CalibrationType]:
    """All rooms by name: those of this package, of other distributions, and registered ones.

    Raises
    ------
    ConfigError
        If two have one name, make one dataset type, or answer to one task or kind; or if one cannot be loaded.
    """
    found: dict[str, CalibrationType] = {}
    for room, source in (*_own(), *_installed(), *((r, "this process") for r in _registered.values())):
        if room.name in found:
            raise ConfigError(f"two rooms are called {room.name!r}, the second one of {source}; rename it")
        found[room.name] = room
    for what in ("dataset type", "task", "kind", "OBSTYPE", "choice of exposures of type"):
        _refuse_twice(found.values(), what)
    return found


def _own() -> Iterator[tuple[CalibrationType, str]]:
    package = importlib.import_module(ROOMS)
    modules = sorted(f"{ROOMS}.{module.name}" for module in pkgutil.iter_modules(package.__path__))
    for name in (*modules, ENGINE):
        yield importlib.import_module(name).CALIBRATION, name


def _installed() -> Iterator[tuple[CalibrationType, str]]:
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        yield _load(point), point.value


def _load(point: EntryPoint) -> CalibrationType:
    try:
        room = point.load()
    except Exception as error:  # whatever code of others does, say whose it is
        raise ConfigError(
            f"the calibration {point.name!r} of {point.value} cannot be loaded ({type(error).__name__}: {error}); "
            "mend or uninstall it"
        ) from error
    if not isinstance(room, CalibrationType):
        raise ConfigError(f"the entry point {point.name!r} leads to {point.value}, which is no CalibrationType")
    return room


def _names(room: CalibrationType, what: str) -> list[str]:
    names: dict[str, list[str]] = {
        "dataset type": [product.name for product in room.products],
        "task": [task.name for task in room.tasks],
        "kind": [verdict.kind for verdict in room.verdicts],
        "OBSTYPE": [layout.obstype for layout in room.layouts.values() if layout.read],
    }
    return names.get(what, list(room.choosers))


def _refuse_twice(found: Any, what: str) -> None:
    owner: dict[str, str] = {}
    for room in found:
        for name in _names(room, what):
            if name in owner:
                raise ConfigError(f"the {what} {name!r} is in two rooms: {owner[name]} and {room.name}")
            owner[name] = room.name


# ---------------------------------------------------------------------------- what the floors ask


def products() -> dict[str, Product]:
    """All products by dataset type."""
    return {product.name: product for room in rooms().values() for product in room.products}


def product(name: str) -> Product:
    """Product of a dataset type.

    Raises
    ------
    ConfigError
        If no room makes or describes it.
    """
    known = products()
    if name not in known:
        raise ConfigError(f"unknown product {name!r}{nearest(name, known)}")
    return known[name]


def tasks() -> dict[str, Any]:
    """Tasks of all rooms by name."""
    return {task.name: task for room in rooms().values() for task in room.tasks}


def verdicts() -> dict[str, Any]:
    """Verdicts of all rooms by kind."""
    return {verdict.kind: verdict for room in rooms().values() for verdict in room.verdicts}


def layouts() -> dict[str, FitsLayout]:
    """Layouts of files by dataset type."""
    return {name: layout for room in rooms().values() for name, layout in room.layouts.items()}


def figures(dataset_type: str) -> Figures | None:
    """Figures of a dataset type; None if it has none."""
    return next((room.figures[dataset_type] for room in rooms().values() if dataset_type in room.figures), None)


def pipelines() -> list[Path]:
    """Folders of the pipelines that rooms from outside bring."""
    return [Path(room.pipelines) for room in rooms().values() if room.pipelines]


def chain() -> Sequence[str]:
    """Pipelines of a chain in which none is named."""
    return [name for room in rooms().values() for name in room.chain]


def chooser(observation_type: str) -> Callable[..., Any] | None:
    """Function that chooses among exposures of one observation type; None: all are right."""
    found = (room.choosers.get(observation_type) for room in rooms().values())
    return next((choose for choose in found if choose is not None), None)

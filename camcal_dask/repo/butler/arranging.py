"""Collections: which there are, how they are chained, and which can be written into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lsst.daf.butler import CollectionType, MissingCollectionError, MissingDatasetTypeError
from lsst.daf.butler._exceptions import ButlerUserError
from lsst.daf.butler.registry import RegistryError

from camcal_dask.errors import RepoError, nearest
from camcal_dask.repo import schema
from camcal_dask.repo.butler import opened
from camcal_dask.repo.butler.opened import Opened
from camcal_dask.repo.storage import naming

Names = str | Sequence[str]
ChainMode = Literal["redefine", "extend", "remove", "prepend", "pop"]
USER_ERRORS = (ButlerUserError, RegistryError, MissingCollectionError, MissingDatasetTypeError, OverflowError)


@dataclass(frozen=True)
class Collection:
    """A collection: ``kind`` is RUN, TAGGED, CALIBRATION or CHAINED."""

    name: str
    kind: str
    children: tuple[str, ...] = ()


def collections(repo: Opened, glob: str = "*", kind: str | None = None) -> list[Collection]:
    """Collections whose name matches, of one kind (RUN, CALIBRATION ...) or all, with children."""
    try:
        found = repo.butler.collections.query_info(glob)
    except MissingCollectionError:
        return []
    listed = [Collection(c.name, c.type.name, tuple(c.children)) for c in found]
    return sorted((c for c in listed if kind in (None, c.kind)), key=lambda c: c.name)


def check_output(repo: Opened, run: str) -> None:
    """Refuse what cannot be a RUN to write products into, before anything is done.

    Raises
    ------
    RepoError
        If the name cannot be one, is that of a collection of another kind, or holds what was ingested.
    """
    check_kind(repo, run, "RUN")
    if run in {place(name) for name in opened.instruments(repo) for place in (schema.raw_run, schema.photodiode_run)}:
        raise RepoError(f"{run}: holds what was ingested; choose another output collection, such as u/me/bias.1")


def check_kind(repo: Opened, name: str, kind: str) -> Collection | None:
    """Return the collection of this name, if it is there; another kind of collection is refused."""
    naming.check_collection(name)
    found = next(iter(collections(repo, name)), None)
    if found is not None and found.kind != kind:
        raise RepoError(f"{name}: is a {found.kind} collection, here a {kind} is needed; choose another name")
    return found


def register_run(repo: Opened, run: str) -> None:
    """Make a RUN collection; may be repeated.

    Raises
    ------
    RepoError
        If the name cannot be one, or is that of a collection of another kind.
    """
    check_kind(repo, run, "RUN")
    opened.patiently(repo, lambda: repo.butler.collections.register(run), f"RUN {run}")


def chain(repo: Opened, parent: str, children: Names = (), mode: ChainMode = "redefine") -> tuple[str, ...]:
    """Change a CHAINED collection (made if needed) as ``butler collection-chain`` does; return its children.

    Parameters
    ----------
    parent : str
        The chain.
    children : str or list of str
        Collections, highest priority first; nothing for ``pop``, which takes the first child off.
    mode : str
        ``redefine``, ``extend``, ``remove``, ``prepend`` or ``pop``.
    """
    names = [children] if isinstance(children, str) else list(children)
    act = repo.butler.collections
    modes = {
        "redefine": act.redefine_chain,
        "extend": act.extend_chain,
        "remove": act.remove_from_chain,
        "prepend": act.prepend_chain,
        "pop": lambda chain, _: act.remove_from_chain(chain, act.get_info(chain).children[:1]),
    }
    if mode not in modes:
        raise RepoError(f"chain {parent}: unknown mode {mode!r}{nearest(mode, modes)}")
    check_kind(repo, parent, "CHAINED")
    grows = mode in {"redefine", "extend", "prepend"}
    if grows and parent in members(repo, names):
        raise RepoError(f"chain {parent}: {', '.join(names)} would contain the chain itself")

    def change() -> tuple[str, ...]:
        if grows:
            act.register(parent, type=CollectionType.CHAINED)
        modes[mode](parent, names)
        return tuple(act.get_info(parent).children)

    try:
        return opened.patiently(repo, change, f"chain {parent}")
    except USER_ERRORS as error:
        raise RepoError(f"chain {parent} {mode} {names}: {error}") from error


def members(repo: Opened, names: Sequence[str]) -> set[str]:
    """Collections, and all that their chains contain, chains too."""
    found = set(names)
    for name in names:
        flatten(repo, [name])  # names one that does not exist
        info = repo.butler.collections.get_info(name)
        found |= members(repo, info.children) if info.type is CollectionType.CHAINED else set()
    return found


def flatten(repo: Opened, names: Sequence[str]) -> list[str]:
    """Search order without chains."""
    order: list[str] = []
    for name in names:
        try:
            info = repo.butler.collections.get_info(name)
        except MissingCollectionError:
            known = [c.name for c in collections(repo)]
            raise RepoError(f"{repo.root}: no collection {name!r}{nearest(name, known)}") from None
        inner = flatten(repo, info.children) if info.type is CollectionType.CHAINED else [name]
        order.extend(n for n in inner if n not in order)
    return order

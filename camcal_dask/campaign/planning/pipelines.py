"""Shipped pipelines: ``pipelines/<name>.yaml`` for all cameras, ``pipelines/<camera>/`` where one differs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from camcal_dask import rooms
from camcal_dask.campaign.planning.shipped import shipped
from camcal_dask.config import expanded
from camcal_dask.errors import ConfigError, RepoError, nearest
from camcal_dask.instruments import instrument_names

if TYPE_CHECKING:  # workers import this, and they have no use for the Butler
    from camcal_dask.repo.butler.repository import Repo


def pipeline_names(instrument: str) -> list[str]:
    """Names of the pipelines that a camera has, sorted."""
    return sorted({path.stem for folder in _folders(instrument) for path in folder.glob("*.yaml")})


def find_pipeline(name: str, instrument: str | None = None) -> tuple[Path, str | None]:
    """Find the file of a pipeline and the camera it is for.

    Parameters
    ----------
    name : str
        Path of a file of your own, or one of the shipped pipelines: ``bias``, or ``LSSTCam/bias`` for that camera
        whatever ``instrument`` is.  ``.yaml`` after it and ``pipelines/`` before it change nothing.
    instrument : str, optional
        Camera, where the name has none.  Its own file is taken if it has one, else that for all cameras.

    Returns
    -------
    tuple of Path and str
        The camera is None if neither the name nor ``instrument`` says which.

    Raises
    ------
    ConfigError
        If there is no such pipeline, naming the nearest.
    """
    own, root = Path(expanded(name)), _root()
    if own.is_file() and not own.resolve().is_relative_to(root):
        return own, instrument
    inside = own.resolve().relative_to(root) if own.is_file() else Path(name.removeprefix("pipelines/"))
    camera, file = str(inside.parent), f"{inside.name.removesuffix('.yaml')}.yaml"
    if camera == ".":
        camera = instrument or ""
    elif camera not in instrument_names():
        raise ConfigError(f"no pipeline {name!r}{nearest(name, _valid(name))}")
    for folder in _folders(camera):
        if (folder / file).is_file():
            return folder / file, camera or None
    raise ConfigError(f"no pipeline {name!r}{nearest(name, _valid(name))}")


def camera_of(repo: Repo, instrument: str | None = None, where: str = "") -> str | None:
    """Name of the camera that a pipeline is for if it does not say.

    Parameters
    ----------
    repo, instrument, where
        The repository; what the user asked for, by name or in the expression that selects exposures.

    Returns
    -------
    str or None
        None if the repository has several cameras and the user did not say which.
    """
    if instrument:
        return instrument
    try:
        return repo.instrument(None, where).name
    except RepoError:
        return None


def _root() -> Path:
    folder = shipped("pipelines", "")
    if folder is None:
        raise ConfigError("the pipelines that come with camcal_dask are missing; install it again")
    return folder.resolve()


def _folders(camera: str) -> tuple[Path, ...]:
    """Where the pipelines of a camera are looked for, in this order: here, then in rooms from outside."""
    roots = (_root(), *rooms.pipelines())
    return tuple(folder for root in roots for folder in ((root / camera, root) if camera else (root,)))


def _valid(name: str) -> list[str]:
    """Names of pipelines, written in the way of a wrong one."""
    names = pipeline_names("")
    if "/" in name.removeprefix("pipelines/"):
        names = [f"{camera}/{one}" for camera in instrument_names() for one in pipeline_names(camera)]
    return [f"{one}.yaml" for one in names] if name.endswith(".yaml") else names

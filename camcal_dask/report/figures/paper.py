"""Figures for papers, as the room of a calibration offers them (`camcal_dask.rooms.Figures`)."""

from __future__ import annotations

from pathlib import Path

from camcal_dask import rooms
from camcal_dask.config import expanded
from camcal_dask.errors import ConfigError, RepoError, nearest
from camcal_dask.instruments.arguments import Detectors
from camcal_dask.repo.butler.repository import Repo
from camcal_dask.report.content.subject import shown_types


def write_figures(
    repo: Repo,
    run: str,
    folder: str | Path,
    dataset_type: str | None = None,
    *,
    detectors: Detectors | None = None,
    instrument: str | None = None,
) -> list[Path]:
    """Write the figures of the calibration in a RUN, a set of files for every detector.

    Parameters
    ----------
    repo : Repo
    run : RUN collection
    folder : made if need be
    dataset_type : if the RUN holds several; default: the first that has figures
    detectors : ids or names; default all there are
    instrument : needed if the RUN holds several

    Raises
    ------
    ConfigError
        If the type has no figures, or matplotlib is not installed.
    RepoError
        If the RUN does not hold the type.
    """
    drawn = {name: f.write for name in rooms.products() if (f := rooms.figures(name)) is not None and f.write}
    held = shown_types(repo, run)
    if dataset_type is not None and dataset_type not in held:
        raise RepoError(f"{run}: holds no {dataset_type!r}{nearest(dataset_type, held)}")
    chosen = dataset_type or next((name for name in held if name in drawn), None)
    if chosen not in drawn:
        what = chosen or " and ".join(held) or "what it holds"
        raise ConfigError(
            f"{run}: {what} has no figures for papers, only {', '.join(drawn)} have; "
            f"see it with camcal report or camcal show"
        )
    product = repo.open(chosen, run=run, detector=detectors, instrument=instrument)
    target = Path(expanded(folder))
    target.mkdir(parents=True, exist_ok=True)
    try:
        return [path for d in product["detector"].values.tolist() for path in drawn[chosen](product, int(d), target)]
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise
        raise ConfigError("figures need matplotlib: pip install 'camcal_dask[plots]'") from None

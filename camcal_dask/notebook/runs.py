"""From files to a repository, and runs of pipelines on a cluster; the command line calls these functions."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camcal_dask.campaign.chain import AT_MOST, Bar, Chain, ChainSettings
from camcal_dask.campaign.cluster.workers import connect, load_profile
from camcal_dask.campaign.planning.pipelines import camera_of
from camcal_dask.campaign.planning.plan import Plan, without_existing
from camcal_dask.campaign.planning.recipe import Recipe, load_recipe
from camcal_dask.campaign.planning.request import TASK_BUDGET_BYTES, make_plan
from camcal_dask.campaign.running.run import Limits, Options, Outcome, Snapshot, execute
from camcal_dask.campaign.simulation import exposure_sets, simulate_on
from camcal_dask.config import Settings, settled
from camcal_dask.errors import ConfigError
from camcal_dask.instruments import get_instrument
from camcal_dask.instruments.arguments import Detectors
from camcal_dask.repo.butler.repository import Repo, open_repo
from camcal_dask.repo.incoming.ingest import IngestSummary, find_files
from camcal_dask.repo.incoming.ingest import ingest as ingest_files
from camcal_dask.simulation import SimulationConfig, SimulationSummary

if TYPE_CHECKING:
    from distributed import Client

_log = logging.getLogger(__name__)

Place = str | PathLike[str]
Overrides = tuple[tuple[str, ...], Mapping[str, Any]]


def simulate(
    folder: Place,
    instrument: str = "LSSTCam",
    config: Settings[SimulationConfig] = None,
    *,
    detectors: Detectors | None = None,
    bias: int = 0,
    dark: Sequence[tuple[int, float]] = (),
    flat: Sequence[tuple[int, float] | tuple[int, float, str]] = (),
    ptc: Sequence[float] = (),
    contaminated_first: bool = True,
    day_obs: int = 20260812,
    first_seq_num: int = 1,
    cluster: str | Client = "local",
    processes: int | None = None,
    bar: Bar | None = None,
    **effects: Any,
) -> SimulationSummary:
    """Write simulated raw FITS files of a night, with the truth beside them.

    Parameters
    ----------
    folder : path
        Where the files go; all workers must see it.
    instrument : str
        Camera.
    config, **effects
        A ready `SimulationConfig`, or its settings as keywords (``crosstalk={"enabled": False}``).
    detectors : int, str or several of them, optional
        Ids or names; default: the science detectors.
    bias : int
        Number of biases.
    dark : sequence of (number, seconds)
    flat : sequence of (number, seconds) or (number, seconds, filter)
    ptc : sequence of float
        Exposure times of pairs of flats [s].
    contaminated_first : bool
        The first bias is the one after idle.
    day_obs, first_seq_num : int
        Night, and number of the first exposure.
    cluster, processes
        See `start_cluster`; or a dask client.
    bar : callable, optional
        Shows the progress.

    Examples
    --------
    >>> made = cd.simulate("other", "TinyCam", detectors=0, bias=2, dark=[(1, 30)], cluster="threads")
    >>> len(made.files)
    3
    """
    camera = get_instrument(instrument)
    chosen = camera.detector_ids(camera.science_detectors if detectors is None else detectors)
    exposures = exposure_sets(
        bias=bias, dark=dark, flat=flat, ptc=ptc, contaminated_first=contaminated_first, day_obs=day_obs,
        first_seq_num=first_seq_num,
    )  # fmt: skip
    if not exposures:
        raise ConfigError("nothing to simulate: ask for biases, darks, flats or a ptc")
    ready = settled(SimulationConfig, config, effects, "simulate")
    with (
        _workers(cluster, processes) as client,
        (bar or _silent)("simulate", len(chosen) * (len(exposures) + 1)) as advance,
    ):
        return simulate_on(
            client, Path(folder), instrument, exposures, chosen, ready, progress=lambda w: advance(Path(w.path).name)
        )


def ingest(
    repo: Repo | Place,
    paths: Place | Iterable[Place],
    *,
    cluster: str | Client | None = None,
    processes: int | None = None,
    replace: bool = False,
    accept_checksum: bool = False,
    bar: Bar | None = None,
) -> IngestSummary:
    """Read raw FITS files into the raw cubes of a repository and register them; may be repeated.

    Parameters
    ----------
    repo : Repo or path
        Opened for writing, or where it is.
    paths : path, or several
        Files, folders, glob patterns.
    cluster, processes
        See `start_cluster`; or a dask client.  Default: the threads of this process.
    replace : bool
        Let other content replace what earlier calls ingested of the same exposure and detector.
    accept_checksum : bool
        Take files that do not match their checksums, with a remark.
    bar : callable, optional
        Shows the progress.

    Examples
    --------
    >>> summary = cd.ingest("REPO", "night")
    >>> len(summary.failed)
    0
    """
    files = find_files([paths] if isinstance(paths, str | PathLike) else paths)
    with (
        _opened(repo, writeable=True) as opened,
        contextlib.nullcontext() if cluster is None else _workers(cluster, processes) as client,
        (bar or _silent)("ingest", len(files)) as advance,
    ):
        return ingest_files(
            opened, files, client=client, replace=replace, accept_checksum=accept_checksum,
            progress=lambda f: advance(Path(f.path).name),
        )  # fmt: skip


def plan(
    repo: Repo | Place,
    pipeline: str | Recipe,
    config: Mapping[str, Any] | Iterable[str] | None = None,
    *,
    output: str,
    inputs: str | Sequence[str] = (),
    where: str = "",
    instrument: str | None = None,
    skip_existing_in: Sequence[str] = (),
    cluster: str | Client = "local",
    processes: int | None = None,
    **settings: Any,
) -> Plan:
    """Find out what a run would do; nothing is written.

    Parameters are those of `run`; what one of the collections ``skip_existing_in`` has is left out.

    Examples
    --------
    >>> cd.plan("REPO", "bias", output="u/me/bias", inputs="TinyCam/raw/all").detectors
    (0,)
    """
    overrides = _overrides(config, settings)
    with _opened(repo, writeable=False) as opened:
        found = make_plan(
            opened,
            _recipe(opened, pipeline, overrides, instrument, where),
            inputs=_names(inputs),
            output=output,
            where=where,
            task_memory_bytes=_task_memory(cluster, processes),
        )
        return without_existing(opened, found, list(skip_existing_in))


def run(
    repo: Repo | Place,
    pipeline: str | Recipe | Plan,
    config: Mapping[str, Any] | Iterable[str] | None = None,
    *,
    output: str = "",
    inputs: str | Sequence[str] = (),
    where: str = "",
    instrument: str | None = None,
    cluster: str | Client = "local",
    processes: int | None = None,
    limits: Limits | None = None,
    watch: Callable[[Snapshot], None] | None = None,
    asked: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Outcome:
    """Run a pipeline; the same call again does only what is missing.

    Parameters
    ----------
    repo : Repo or path
        Opened for writing, or where it is.
    pipeline : str, Recipe or Plan
        Name (``"bias"``, of the repository's camera), YAML file, what `load_recipe` or what `plan` returned.
    config, **settings
        Settings of steps as ``["isr.dither=none"]`` or a mapping, or as keywords: ``isr={"dither": "none"}``.
    output : str
        RUN collection to write.
    inputs : str or sequence of str
        Collections to search for raws and calibrations, in order.
    where : str
        Butler expression that selects exposures and detectors.
    instrument : str, optional
        Camera, if the repository has several.
    cluster, processes
        See `start_cluster`; or a dask client.
    limits : Limits, optional
        When to give up, and whether to make again what is there.
    watch : callable, optional
        Called with the state of the run every two seconds.
    asked : mapping, optional
        What to record as asked for, with a plan.

    Examples
    --------
    >>> outcome = cd.run("REPO", "bias", output="u/me/bias", inputs="TinyCam/raw/all",
    ...                  isr={"dither": "none"}, cluster="threads")
    >>> outcome.complete
    True
    """
    if not isinstance(pipeline, Plan):
        asked = _asked(pipeline, _overrides(config, settings))
        pipeline = plan(
            repo, pipeline, config, output=output, inputs=inputs, where=where, instrument=instrument, cluster=cluster,
            processes=processes, **settings,
        )  # fmt: skip
    elif output or settings or config:
        raise ConfigError("run: a plan has its output and settings already; give them to plan()")
    with _opened(repo, writeable=True) as opened, _workers(cluster, processes) as client:
        name = cluster if isinstance(cluster, str) else "client"
        options = Options(name, limits or Limits(), watch=watch, asked=asked or {})
        return execute(opened, pipeline, client, options=options)


def chain(
    repo: Repo | Place,
    pipelines: str | Sequence[str] = (),
    config: Iterable[str] = (),
    *,
    output: str,
    inputs: str | Sequence[str] = (),
    where: str = "",
    at_most: int = AT_MOST,
    strict: bool = False,
    unverified: Sequence[str] = (),
    instrument: str | None = None,
    cluster: str | Client = "local",
    processes: int | None = None,
    say: Callable[[str], None] = _log.info,
    bar: Bar | None = None,
) -> list[Outcome]:
    """Make several calibrations in the order of their needs, each verified and visible to the next.

    Parameters
    ----------
    repo, inputs, where, instrument, cluster, processes
        As of `run`; default inputs: the raws.
    pipelines : str or sequence of str
        Names or files; default: bootstraps, defects, linearizer, ptc, then bias, dark and flats made with these.
    config : iterable of str
        Settings: ``"flat:select.reason=sflat"``.
    output : str
        What a pipeline makes goes to the RUN ``output/<pipeline>``.
    at_most : int
        Exposures that a calibration is made from.
    strict : bool
        Stop if a verification fails.
    unverified : sequence of str
        Pipelines whose products are not verified.
    say, bar : callable
        Take a line of the account (default: the log), and show the progress.

    Examples
    --------
    >>> outcomes = cd.chain("REPO", "biasBootstrap", output="u/first", cluster="threads")
    >>> [outcome.product for outcome in outcomes]
    ['biasBootstrap', 'verifyBias']
    """
    name, memory = cluster if isinstance(cluster, str) else "client", _task_memory(cluster, processes)
    settings = ChainSettings(
        output, _names(inputs), where, at_most, strict, tuple(unverified), tuple(config), name, memory
    )
    with _opened(repo, writeable=True) as opened, _workers(cluster, processes) as client:
        return Chain(opened, client, settings, say, bar or _silent).run(_names(pipelines), instrument)


def start_cluster(profile: str = "local", processes: int | None = None) -> AbstractContextManager[Client]:
    """Start, or reach, the workers of a profile; a context with their dask client.

    Parameters
    ----------
    profile : str
        Name (``"local"``, ``"threads"`` ...), YAML file, or ``tcp://host:port`` of a scheduler that runs.
    processes : int, optional
        Number of workers.

    Examples
    --------
    >>> with cd.start_cluster("threads", 2) as client:
    ...     client.submit(sum, [1, 2]).result()
    3
    """
    return connect(load_profile(profile, processes))


def _workers(cluster: str | Client, processes: int | None) -> AbstractContextManager[Client]:
    return start_cluster(cluster, processes) if isinstance(cluster, str) else contextlib.nullcontext(cluster)


def _task_memory(cluster: str | Client, processes: int | None) -> int:
    return load_profile(cluster, processes).task_memory_bytes() if isinstance(cluster, str) else TASK_BUDGET_BYTES


@contextlib.contextmanager
def _opened(repo: Repo | Place, *, writeable: bool) -> Iterator[Repo]:
    if isinstance(repo, Repo):
        yield repo
    else:
        with open_repo(fspath(repo), writeable=writeable) as opened:
            yield opened


@contextlib.contextmanager
def _silent(label: str, total: int) -> Iterator[Callable[[str], None]]:
    yield lambda note: None


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _overrides(config: Mapping[str, Any] | Iterable[str] | None, settings: Mapping[str, Any]) -> Overrides:
    """Settings as ``step.key=value``, and as nested values.

    Raises
    ------
    ConfigError
        If they are given both as config and as keywords.
    """
    texts = () if isinstance(config, Mapping) else tuple(config or ())
    values = config if isinstance(config, Mapping) else {}
    if settings and (texts or values):
        raise ConfigError(f"settings are given as config and as keywords ({', '.join(settings)}); use one")
    return texts, settings or values


def _recipe(repo: Repo, pipeline: str | Recipe, overrides: Overrides, instrument: str | None, where: str) -> Recipe:
    """Load a pipeline of the repository's camera, with settings on top."""
    if isinstance(pipeline, Recipe):
        if any(overrides):
            raise ConfigError("a recipe has its settings already; give them to load_recipe")
        recipe = pipeline
    else:
        recipe = load_recipe(pipeline, overrides[0], camera_of(repo, instrument, where), settings=overrides[1])
    if instrument not in (None, recipe.instrument):
        raise ConfigError(f"{pipeline}: is for {recipe.instrument}, not for {instrument}; take the one of {instrument}")
    return recipe


def _asked(pipeline: str | Recipe, overrides: Overrides) -> dict[str, Any]:
    """What was asked for, for the record."""
    texts, values = overrides
    name = pipeline if isinstance(pipeline, str) else pipeline.description
    return {
        "pipeline": name,
        "overrides": [*texts, *(f"{k}={json.dumps(v, default=str)}" for k, v in values.items())],
    }

"""The ``camcal`` command: parse, call one function, print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from camcal_dask.errors import CamcalError

console = Console(highlight=False)


class _Group(click.Group):
    """Print a user's mistake as one message, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CamcalError as error:
            Console(stderr=True, highlight=False).print(f"[red]Error:[/red] {_plain(str(error))}", soft_wrap=True)
            sys.exit(1)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="camcal_dask")
def main() -> None:
    """Build, verify and certify camera calibrations on a dask cluster."""


cluster_options = [
    click.option("-j", "--processes", type=click.IntRange(min=1), help="number of workers"),
    click.option("--cluster", default="local", help="profile name, YAML file or tcp://host:port"),
]


def _with(options: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar; the yielded function advances it by one and sets its note."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total, note="")

        def advance(note: str = "") -> None:
            progress.update(task, advance=1, note=note)

        yield advance


# ---------------------------------------------------------------------------- repository


@main.command()
@click.argument("repo")
@click.option("--instrument", default="LSSTCam", help="camera to register")
@click.option("--registry", help="postgresql://user@host/database (default: SQLite)")
def create(repo: str, instrument: str, registry: str | None) -> None:
    """Make the repository REPO, or add an instrument to it."""
    from camcal_dask.repo.registry import create_repo

    with create_repo(repo, instrument, registry) as made:
        camera = made.instrument(instrument)
        console.print(
            f"{made.root}: {camera.name} with {len(camera.detectors)} detectors "
            f"({len(camera.science_detectors)} science), {len(camera.filters)} filters"
        )


@main.command()
@click.argument("repo")
@click.argument("run")
@click.argument("collection")
@click.argument("dataset_type")
@click.option("--begin-date", help="first moment of validity, ISO TAI or YYYYMMDD (default: unbounded)")
@click.option("--end-date", help="end of validity, not included (default: unbounded)")
def certify(
    repo: str, run: str, collection: str, dataset_type: str, begin_date: str | None, end_date: str | None
) -> None:
    """Certify DATASET_TYPE of RUN into the CALIBRATION COLLECTION; arguments as butler certify-calibrations."""
    from camcal_dask.repo.registry import open_repo

    with open_repo(repo, writeable=True) as opened:
        ids = opened.certify(run, dataset_type, collection, begin_date, end_date)
    console.print(
        f"certified {len(ids)} {dataset_type} of {run} in {collection}, "
        f"valid \\[{begin_date or 'unbounded'}, {end_date or 'unbounded'})"
    )


@main.command()
@click.argument("repo")
@click.argument("dataset_type")
@click.option("--exposure", type=int, required=True)
@click.option("--detector", required=True, help="id or name, such as R22_S11")
@click.option("-i", "--input", "inputs", required=True, help="collections to search, comma-separated")
def which(repo: str, dataset_type: str, exposure: int, detector: str, inputs: str) -> None:
    """Say which DATASET_TYPE is valid for an exposure and detector."""
    from camcal_dask.repo.registry import open_repo

    with open_repo(repo) as opened:
        number = opened.instrument().detector(detector).id
        ref = opened.find_calib(dataset_type, exposure, number, _names(inputs))
    for name, value in (("run", ref.run), ("id", ref.uuid), ("cube", ref.uri)):
        console.print(f"{name:5} {value}", soft_wrap=True)


# ---------------------------------------------------------------------------- raw files


@main.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--instrument", default="LSSTCam")
@click.option("--detectors", help="ids or names, comma-separated (default: all science detectors)")
@click.option("--bias", type=int, default=0, help="number of biases")
@click.option("--dark", multiple=True, metavar="N:SECONDS", help="darks of one exposure time; may be repeated")
@click.option("--flat", multiple=True, metavar="N:SECONDS[:FILTER]", help="equal flats; may be repeated")
@click.option("--ptc", metavar="SECONDS,...", default="", help="two flats of each exposure time")
@click.option("--contaminated-first/--clean-first", default=True, help="is the first bias the one after idle?")
@click.option("--day-obs", type=int, default=20260812)
@click.option("--first-seq-num", type=int, default=1)
@click.option("-c", "--config", "overrides", multiple=True, metavar="EFFECT.KEY=VALUE", help="strength or switch")
@_with(cluster_options)
def simulate(
    out: Path,
    instrument: str,
    detectors: str | None,
    overrides: tuple[str, ...],
    processes: int | None,
    cluster: str,
    **sets: Any,
) -> None:
    """Write simulated raw FITS files, with the truth beside them, into OUT."""
    from camcal_dask.campaign.simulation import exposure_sets, simulate_on
    from camcal_dask.campaign.workers import connect, load_profile
    from camcal_dask.instruments import get_instrument

    camera = get_instrument(instrument)
    chosen = [camera.detector(name).id for name in _names(detectors or "")] or list(camera.science_detectors)
    exposures = exposure_sets(**sets)
    if not exposures:
        raise click.UsageError("nothing to simulate: give --bias, --dark, --flat or --ptc")
    profile = load_profile(cluster, processes)
    with connect(profile) as client, _bar("simulate", len(chosen) * (len(exposures) + 1)) as advance:
        summary = simulate_on(
            client, out, instrument, exposures, chosen, overrides, progress=lambda w: advance(Path(w.path).name)
        )
    console.print(
        f"{len(summary.files)} files, {summary.n_bytes / 1e6:.0f} MB in {summary.folder} ({summary.seconds:.0f} s)"
    )


@main.command()
@click.argument("repo")
@click.argument("paths", nargs=-1, required=True)
@click.option("--replace", is_flag=True, help="overwrite exposures that were ingested with other content")
@_with(cluster_options)
def ingest(repo: str, paths: tuple[str, ...], replace: bool, processes: int | None, cluster: str) -> None:
    """Read raw FITS files (files, folders, globs) into the raw cubes and register them."""
    from camcal_dask.campaign.workers import connect, load_profile
    from camcal_dask.repo.ingest import find_files
    from camcal_dask.repo.ingest import ingest as ingest_files
    from camcal_dask.repo.registry import open_repo

    files = find_files(paths)
    with (
        open_repo(repo, writeable=True) as opened,
        connect(load_profile(cluster, processes)) as client,
        _bar("ingest", len(files)) as advance,
    ):
        summary = ingest_files(
            opened, files, client=client, replace=replace, progress=lambda f: advance(Path(f.path).name)
        )
    console.print(summary.text())
    if summary.failed:
        sys.exit(1)


# ---------------------------------------------------------------------------- runs


@main.command()
@click.option("-b", "--butler-config", "repo", required=True, help="repository")
@click.option("-p", "--pipeline", required=True, help="pipeline file, shipped or your own")
@click.option("-i", "--input", "inputs", default="", help="collections to search, comma-separated, in order")
@click.option("-o", "--output", "--output-run", required=True, help="RUN collection to write")
@click.option("-d", "--data-query", "where", default="", help="Butler expression that selects exposures and detectors")
@click.option("-c", "--config", "overrides", multiple=True, metavar="STEP.KEY=VALUE", help="override a setting")
@_with(cluster_options)
@click.option("--dry-run", is_flag=True, help="print the plan and stop")
@click.option("--strict", is_flag=True, help="exit non-zero if a required test of a verification fails")
@click.option("--register-dataset-types", is_flag=True, hidden=True, help="accepted for users of pipetask; always done")
def run(
    repo: str,
    pipeline: str,
    inputs: str,
    output: str,
    where: str,
    overrides: tuple[str, ...],
    processes: int | None,
    cluster: str,
    dry_run: bool,
    strict: bool,
    register_dataset_types: bool,
) -> None:
    """Run a pipeline; options as in pipetask run.  The same command again does only what is missing."""
    from camcal_dask.campaign.plan import make_plan
    from camcal_dask.campaign.recipe import load_recipe
    from camcal_dask.campaign.run import count_tasks, execute
    from camcal_dask.campaign.workers import connect, load_profile
    from camcal_dask.repo.registry import open_repo

    recipe = load_recipe(pipeline, overrides)
    profile = load_profile(cluster, processes)
    with open_repo(repo, writeable=not dry_run) as opened:
        plan = make_plan(
            opened,
            recipe,
            inputs=_names(inputs),
            output=output,
            where=where,
            task_memory_bytes=profile.task_memory_bytes(),
        )
        console.print(_grid(plan.rows(count_tasks(opened, plan))))
        if dry_run:
            return
        with connect(profile) as client, _bar(recipe.product, len(plan.detectors)) as advance:
            outcome = execute(opened, plan, client, cluster=cluster, progress=lambda q: advance(str(q.detector)))
    console.print(outcome.text(), soft_wrap=True)
    if outcome.failed or (strict and not outcome.passed):
        sys.exit(1)


@main.command()
@click.argument("repo")
@click.option("-p", "--products", required=True, help="calibrations to make, comma-separated, in any order")
@click.option("-o", "--output", "prefix", required=True, help="each product goes to the RUN OUTPUT/<product>")
@click.option("-i", "--input", "inputs", default="", help="collections to search (default: the raws)")
@click.option("-d", "--data-query", "where", default="", help="Butler expression that selects exposures and detectors")
@click.option("--instrument", help="camera, if the repository has several")
@click.option("--at-most", type=click.IntRange(min=2), default=20, help="exposures combined for each product")
@click.option("--strict", is_flag=True, help="stop if a required test of a verification fails")
@_with(cluster_options)
def chain(
    repo: str,
    products: str,
    prefix: str,
    inputs: str,
    where: str,
    instrument: str | None,
    at_most: int,
    strict: bool,
    processes: int | None,
    cluster: str,
) -> None:
    """Make several calibrations in REPO in the order of their needs, each verified and visible to the next."""
    from camcal_dask.campaign.chain import Chain, ChainSettings
    from camcal_dask.campaign.workers import connect, load_profile
    from camcal_dask.repo.registry import open_repo

    profile = load_profile(cluster, processes)
    settings = ChainSettings(
        prefix, tuple(_names(inputs)), where, at_most, strict, cluster, profile.task_memory_bytes()
    )
    with open_repo(repo, writeable=True) as opened, connect(profile) as client:
        steps = Chain(opened, client, settings, lambda line: console.print(_plain(line), soft_wrap=True), _bar)
        steps.run(_names(products), instrument)


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="camcal-demo")
@click.option("--exposures", type=click.IntRange(min=5), default=20, help="good biases, after the contaminated first")
@click.option("--fresh", is_flag=True, help="remove an earlier demo in FOLDER first")
@_with(cluster_options)
def demo(folder: Path, exposures: int, fresh: bool, processes: int | None, cluster: str) -> None:
    """Simulate, ingest, build, verify and certify a bias in FOLDER, and compare it with the truth."""
    from camcal_dask.campaign.workers import load_profile
    from camcal_dask.demo import run_demo

    run_demo(folder, exposures, load_profile(cluster, processes), fresh=fresh, console=console)


def _grid(rows: list[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(name, _plain(value))
    return table

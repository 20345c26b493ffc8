"""Commands that make calibrations: run, chain, demo."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from camcal_dask.cli.common import (
    PLACE,
    Duration,
    FilePath,
    bar,
    cluster_options,
    console,
    grid,
    names,
    with_options,
)
from camcal_dask.cli.live import watching


@click.command()
@click.option("-b", "--butler-config", "repo", type=PLACE, required=True, help="repository")
@click.option("-p", "--pipeline", type=PLACE, required=True, help="name of a pipeline (bias), or a file of your own")
@click.option("-i", "--input", "inputs", default="", help="collections to search, comma-separated, in order")
@click.option("-o", "--output", "--output-run", required=True, help="RUN collection to write")
@click.option("-d", "--data-query", "where", default="", help="Butler expression that selects exposures and detectors")
@click.option("-c", "--config", "overrides", multiple=True, metavar="STEP.KEY=VALUE", help="override a setting")
@with_options(cluster_options)
@click.option("--dry-run", is_flag=True, help="print the plan and stop")
@click.option("--list-quanta", is_flag=True, help="print what each quantum reads and writes")
@click.option(
    "--save-plan", type=FilePath(dir_okay=False), metavar="FILE", help="write the same to FILE.json or FILE.csv"
)
@click.option(
    "--skip-existing-in", metavar="COLLS", default="", help="leave out the detectors that one of these collections has"
)
@click.option("--strict", is_flag=True, help="exit with an error if a required test of a verification fails")
@click.option("--fail-fast", is_flag=True, help="stop at the first quantum that fails")
@click.option("--max-failures", type=click.IntRange(min=0), help="stop when more quanta than this failed")
@click.option(
    "--quantum-timeout", type=Duration(), default="2 h", help="how long to wait for a quantum; 0 for no limit"
)
@click.option("--clobber", "--clobber-outputs", is_flag=True, help="make again what is there, even with other settings")
@click.option("--extend", "--extend-run", is_flag=True, help="add other detectors to what is there")
@click.option("--instrument", help="camera, which the pipeline must be for")
@click.option("--resume", is_flag=True, help="fail unless there is an earlier run to continue")
@click.option("--skip-existing", is_flag=True, hidden=True, help="accepted for users of pipetask; always done")
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
    list_quanta: bool,
    save_plan: str | None,
    skip_existing_in: str,
    strict: bool,
    fail_fast: bool,
    max_failures: int | None,
    quantum_timeout: float,
    clobber: bool,
    extend: bool,
    instrument: str | None,
    resume: bool,
    skip_existing: bool,
    register_dataset_types: bool,
) -> None:
    """Run a pipeline; options as in pipetask run.  The same command again does only what is missing."""
    from camcal_dask.campaign.past.attempts import list_attempts
    from camcal_dask.campaign.planning import dataflow
    from camcal_dask.campaign.running.run import Limits, count_tasks
    from camcal_dask.notebook import plan as make_plan
    from camcal_dask.notebook import run as carry_out
    from camcal_dask.repo.butler.repository import open_repo

    with open_repo(repo, writeable=not dry_run) as opened:
        plan = make_plan(
            opened,
            pipeline,
            overrides,
            output=output,
            inputs=names(inputs),
            where=where,
            instrument=instrument,
            skip_existing_in=names(skip_existing_in),
            cluster=cluster,
            processes=processes,
        )
        console.print(grid(plan.rows(count_tasks(opened, plan))))
        if list_quanta:
            click.echo("\n".join(flow.text() for flow in dataflow.flows(plan)))
        if save_plan:
            dataflow.save(plan, save_plan)
        if not plan.detectors:
            console.print(f"nothing is left to do: every {plan.recipe.product} is there already")
        if dry_run or not plan.detectors:
            return
        if resume:
            list_attempts(opened.root, output)
        limits = Limits(fail_fast, max_failures, clobber, extend, quantum_timeout or None)
        asked = {"pipeline": pipeline, "overrides": list(overrides)}
        with watching() as watch:
            outcome = carry_out(
                opened, plan, cluster=cluster, processes=processes, limits=limits, watch=watch, asked=asked
            )
    console.print(outcome.text())
    if outcome.signal is not None:
        sys.exit(128 + outcome.signal)
    if not outcome.complete or (strict and not outcome.passed):
        sys.exit(1)


@click.command()
@click.argument("repo", type=PLACE)
@click.option("-p", "--products", default="", help="pipelines to run, comma-separated, in any order (default: all)")
@click.option("-o", "--output", "prefix", required=True, help="each product goes to the RUN OUTPUT/<pipeline>")
@click.option("-i", "--input", "inputs", default="", help="collections to search (default: the raws)")
@click.option("-d", "--data-query", "where", default="", help="Butler expression that selects exposures and detectors")
@click.option("-c", "--config", "overrides", multiple=True, metavar="PRODUCT:STEP.KEY=VALUE", help="override a setting")
@click.option("--instrument", help="camera, if the repository has several")
@click.option(
    "--at-most", type=click.IntRange(min=2), default=20, help="number of exposures to combine for each product"
)
@click.option("--strict", is_flag=True, help="stop if a required test of a verification fails")
@click.option("--no-verify", default="", help="products that are not verified, comma-separated")
@with_options(cluster_options)
def chain(
    repo: str,
    products: str,
    prefix: str,
    inputs: str,
    where: str,
    overrides: tuple[str, ...],
    instrument: str | None,
    at_most: int,
    strict: bool,
    no_verify: str,
    processes: int | None,
    cluster: str,
) -> None:
    """Make several calibrations in REPO in the order of their needs, each verified and visible to the next.

    Without -p: bootstraps, defects, linearizer, ptc, then bias, dark and flats with these, and the defects again.
    """
    from camcal_dask.notebook import chain as make_all

    make_all(
        repo,
        names(products),
        overrides,
        output=prefix,
        inputs=names(inputs),
        where=where,
        at_most=at_most,
        strict=strict,
        unverified=names(no_verify),
        instrument=instrument,
        cluster=cluster,
        processes=processes,
        say=console.print,
        bar=bar,
    )


@click.command()
@click.argument("folder", type=FilePath(file_okay=False, path_type=Path), default="camcal-demo")
@click.option(
    "--exposures",
    type=click.IntRange(min=5),
    default=10,
    help="number of good biases, after the contaminated first one",
)
@click.option("--fresh", is_flag=True, help="first remove an earlier demo in FOLDER")
@click.option("--instrument", default="LSSTCam", help="camera; the demo is made for this one")
@with_options(cluster_options)
def demo(folder: Path, exposures: int, fresh: bool, instrument: str, processes: int | None, cluster: str) -> None:
    """Simulate, ingest, build, verify and certify bias, dark, flat and defects in FOLDER; compare with the truth."""
    from camcal_dask.campaign.cluster.workers import load_profile
    from camcal_dask.demo import INSTRUMENT, run_demo
    from camcal_dask.errors import ConfigError

    if instrument != INSTRUMENT:
        raise ConfigError(
            f"the demo is of {INSTRUMENT}, not of {instrument}; raws of another camera: camcal simulate OUT "
            f"--instrument {instrument} ..., then camcal create, ingest and chain"
        )
    run_demo(folder, exposures, load_profile(cluster, processes), fresh=fresh, console=console)

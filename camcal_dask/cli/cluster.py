"""Commands on cluster profiles: cluster list, render, check."""

from __future__ import annotations

import sys

import click
from rich.text import Text

from camcal_dask.cli.common import PLACE, console

_COLOURS = {"ok": "green", "warning": "yellow", "failure": "red"}


@click.group()
def cluster() -> None:
    """Cluster profiles: list them, show what they start, check whether they work."""


@cluster.command("list")
def list_() -> None:
    """List the profiles; your own lie in ~/.config/camcal/cluster or in $CAMCAL_CLUSTER_PATH."""
    from camcal_dask.campaign.cluster.profile import load_profile, profile_names

    for name, path in profile_names().items():  # no table: it would cut the paths
        click.echo(f"{name:14} {load_profile(str(path)).kind:10} {path}")


@cluster.command()
@click.argument("profile", type=PLACE)
def render(profile: str) -> None:
    """Print the job script, manifest or options that PROFILE hands to its system."""
    from camcal_dask.campaign.cluster import backends
    from camcal_dask.campaign.cluster.profile import load_profile

    click.echo(backends.render(load_profile(profile)))


@cluster.command()
@click.argument("profile", type=PLACE)
@click.argument("repo", type=PLACE, required=False)
@click.option("-j", "--processes", type=click.IntRange(min=1), help="number of workers")
@click.option(
    "--instrument", help="camera whose detectors must fit into the workers' memory (default: full-size detectors)"
)
def check(profile: str, repo: str | None, processes: int | None, instrument: str | None) -> None:
    """Start PROFILE, run a small job on every worker, time its access to REPO, and say what would go wrong."""
    from camcal_dask.campaign.cluster import check as checks
    from camcal_dask.campaign.cluster.workers import connect, load_profile
    from camcal_dask.instruments import get_instrument
    from camcal_dask.repo.storage import files

    camera = None if instrument is None else get_instrument(instrument)
    settings = load_profile(profile, processes)
    root = None if repo is None else files.absolute(repo)
    findings = checks.local_findings(settings, root)
    with connect(settings) as client:
        findings += checks.check(client, settings, root, camera)
    for finding in findings:
        level = (f"{finding.level:7}", _COLOURS[finding.level])
        console.print(Text.assemble(level, f" {finding.what}: {finding.text}"))
    if any(finding.level == "failure" for finding in findings):
        sys.exit(1)

"""The ``camcal`` command: parse, call one function, print.  One module per group of commands, in the order of use."""

from __future__ import annotations

import click

from camcal_dask.cli import campaign, cluster, files, report, repository, runs, stats
from camcal_dask.cli.common import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="camcal_dask")
def main() -> None:
    """Build, verify and certify camera calibrations on a dask cluster."""


for command in (
    repository.create,
    files.simulate,
    files.ingest,
    runs.run,
    runs.chain,
    campaign.status,
    campaign.history,
    campaign.logs,
    campaign.rerun,
    report.report,
    report.figures,
    report.show,
    report.dashboard,
    report.approve,
    repository.certify,
    repository.which,
    repository.export,
    repository.check,
    repository.import_,
    stats.stats,
    cluster.cluster,
    runs.demo,
):
    main.add_command(command)

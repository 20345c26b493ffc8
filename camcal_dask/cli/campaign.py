"""Commands on runs: status, history, logs, rerun."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
from rich.table import Table

from camcal_dask.cli.common import (
    PLACE,
    check_instrument,
    cluster_options,
    console,
    grid,
    instrument_option,
    with_options,
)
from camcal_dask.cli.live import duration, line, watching
from camcal_dask.repo.cubes import usable


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("run", required=False)
@click.option("--watch", is_flag=True, help="repeat until the run has ended")
@instrument_option
def status(repo: str, run: str | None, watch: bool, instrument: str | None) -> None:
    """Show how far RUN is (default: all runs of REPO), while it runs and afterwards."""
    from camcal_dask.campaign.past.history import damage, recorded_runs, snapshots
    from camcal_dask.repo.butler.repository import open_repo

    with open_repo(repo) as opened:
        if run:
            check_instrument(opened, run, instrument)
        while True:
            runs = [run] if run else recorded_runs(opened, instrument)
            found = [s for name in runs for s in snapshots(opened.root, name)]
            for snapshot in found:
                console.print(f"{snapshot.run}: {line(snapshot)}")
                for failure in snapshot.last_failures if run else ():
                    console.print(f"  failed: {failure}")
                for amps in snapshot.unusable if run else ():
                    console.print(f"  unusable: {amps}")
            for text in (text for name in runs for text in damage(opened.root, name)):
                console.print(f"remark: {text}; no product rests on it")
            if not found:
                console.print("no run is recorded there")
            if not watch or all(s.state != "running" for s in found):
                return
            time.sleep(2)


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("run")
@click.option("--failed", is_flag=True, help="list all quanta that failed, with their reasons")
@click.option("--quanta", is_flag=True, help="list all quanta with time, memory and worker")
@instrument_option
def history(repo: str, run: str, failed: bool, quanta: bool, instrument: str | None) -> None:
    """Print what RUN did: every attempt with command, settings, inputs, software, host, times and outcomes."""
    from camcal_dask.campaign.past import attempts
    from camcal_dask.campaign.past.history import latest_outcomes, outcomes
    from camcal_dask.repo.butler.repository import open_repo

    with open_repo(repo) as opened:
        root = opened.root
        check_instrument(opened, run, instrument)
    for attempt in attempts.list_attempts(root, run):
        console.rule(attempt.rpartition("/")[2], align="left")
        console.print(grid(_account(attempts.read_record(attempt))))
        for text in attempts.damage(attempt):
            console.print(f"remark: {text}; no product rests on it")
    standing = latest_outcomes(outcomes(root, run)).values()
    chosen = [o for o in standing if quanta or (failed and o.status == "failed")]
    if not chosen:
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("quantum", "status", "seconds", "cpu s", "peak MiB", "tries", "host", "reason"):
        table.add_column(name, no_wrap=name != "reason")
    for o in chosen:
        table.add_row(
            str(o.quantum), o.status, f"{o.seconds:.2f}", f"{o.cpu_s:.2f}", f"{o.peak_mib:.0f}", str(o.tries), o.host,
            o.reason,
        )  # fmt: skip
    console.print(table)


def _account(record: dict[str, Any]) -> list[tuple[str, str]]:
    if not record:
        return [("state", "no record: killed before it wrote one, or the record is damaged")]
    calibs = [f"{name}: {len(ids)} ({next(iter(ids.values()), '')} ...)" for name, ids in record["calibs"].items()]
    exposures, detectors = record["exposures"], record["detectors"]
    rows = [
        ("state", record["state"] + (f": {record['stopped']}" if record["stopped"] else "")),
        ("command", " ".join(record["command"])),
        ("folder", record["folder"]),
        ("pipeline", f"{record['asked'].get('pipeline', '')} {' '.join(record['asked'].get('overrides', ()))}".strip()),
        ("product", f"{record['product']} (provenance {record['provenance_id']})"),
        ("inputs", f"{', '.join(record['inputs'])} where {record['where'] or 'everything'}"),
        ("exposures", f"{len(exposures)}: {', '.join(map(str, exposures[:3]))}{' ...' if len(exposures) > 3 else ''}"),
        ("detectors", f"{len(detectors)}: {', '.join(map(str, detectors[:8]))}{' ...' if len(detectors) > 8 else ''}"),
        *[("choice", text) for text in record.get("choice", ())],
        *[("calibration", text) for text in calibs],
        *[("not applied", f"{name}: the inputs had none") for name in record.get("absent", ())],
        *[("skipped", f"detector {d} is in {other}") for d, other in list(record.get("elsewhere", {}).items())[:10]],
        ("software", ", ".join(f"{name} {number}" for name, number in record["versions"].items())),
        ("host", f"{record['user']} on {record['host']}"),
        ("cluster", f"{record['cluster']}: {record['workers']} workers at {record['scheduler']}"),
        ("time", f"{record['started']} .. {record['ended'] or '?'} ({duration(record['seconds'])})"),
        ("quanta", ", ".join(f"{n} {status}" for status, n in record["counts"].items() if n)),
        ("cost", f"{record['cpu_s']:.0f} CPU s, peak {record['peak_mib']:.0f} MiB a worker"),
    ]
    rows += [("failed", f"{f['quantum']}: {f['reason']}") for f in record["failed"][:10]]
    unusable = {int(d): reasons for d, reasons in record.get("unusable", {}).items()}
    rows += [("unusable", text) for text in usable.told(unusable, 10)]
    return rows


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("run")
@click.option("--detector", help="id or name, such as R22_S11 (default: all)")
@click.option("--failed", is_flag=True, help="only quanta that failed")
@click.option("--grep", "text", default="", help="only lines that contain this")
@instrument_option
def logs(repo: str, run: str, detector: str | None, failed: bool, text: str, instrument: str | None) -> None:
    """Print the log lines and tracebacks of the quanta of RUN, of all attempts."""
    from camcal_dask.campaign.past.history import outcomes, reference_instrument
    from camcal_dask.repo.butler.repository import open_repo

    with open_repo(repo) as opened:
        root = opened.root
        check_instrument(opened, run, instrument)
        number = None if detector is None else opened.instrument(reference_instrument(root, run)).detector(detector).id
    for attempt, o in outcomes(root, run):
        if number not in (None, o.detector) or (failed and o.status != "failed"):
            continue
        head = f"{attempt} {o.quantum}: {o.status} in {o.seconds:.2f} s on {o.host} {o.worker} {o.reason}".rstrip()
        for row in (head, *(f"  {entry}" for entry in (*o.log, *o.trace.splitlines()))):
            if text in row:
                console.print(row)


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("run")
@click.option("-o", "--output", "--output-run", required=True, help="RUN collection to write")
@click.option("--product", help="product, if RUN holds several")
@instrument_option
@with_options(cluster_options)
def rerun(
    repo: str,
    run: str,
    output: str,
    product: str | None,
    instrument: str | None,
    processes: int | None,
    cluster: str,
) -> None:
    """Repeat RUN exactly into another RUN: same settings, exposures, detectors and calibrations."""
    from camcal_dask.campaign.cluster.workers import connect, load_profile
    from camcal_dask.campaign.past.rerun import differences, replan
    from camcal_dask.campaign.running.run import Options, execute
    from camcal_dask.repo.butler.repository import open_repo

    profile = load_profile(cluster, processes)
    with open_repo(repo, writeable=True) as opened:
        check_instrument(opened, run, instrument)
        plan = replan(opened, run, output, product=product, task_memory_bytes=profile.task_memory_bytes())
        for change in differences(opened, run, product):
            console.print(f"warning: other software than then: {change}")
        with connect(profile) as client, watching() as watch:
            options = Options(cluster, watch=watch, asked={"rerun": run})
            outcome = execute(opened, plan, client, options=options)
    console.print(outcome.text())
    sys.exit(128 + outcome.signal if outcome.signal else 0 if outcome.complete else 1)

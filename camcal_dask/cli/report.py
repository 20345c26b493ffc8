"""Commands for people who look at calibrations and answer for them: report, figures, show, dashboard, approve."""

from __future__ import annotations

from pathlib import Path

import click

from camcal_dask.cli.common import PLACE, FilePath, check_instrument, console, instrument_option, names


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("run")
@click.option(
    "-o", "--output", type=FilePath(file_okay=False, path_type=Path), help="folder [default: camcal-report/RUN]"
)
@click.option("--dataset-type", help="product, if RUN holds several")
@instrument_option
def report(repo: str, run: str, output: Path | None, dataset_type: str | None, instrument: str | None) -> None:
    """Write a static HTML report of RUN, a calibration or a verification."""
    from camcal_dask.repo.butler.repository import open_repo
    from camcal_dask.report.pages.build import default_folder, write_report

    with open_repo(repo) as opened:
        check_instrument(opened, run, instrument)
        page = write_report(opened, run, output or default_folder(run), dataset_type, instrument)
    console.print(f"report {page.resolve().as_uri()}")


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("run")
@click.option("-o", "--output", type=FilePath(file_okay=False, path_type=Path), required=True, help="folder")
@click.option("--detector", "detectors", help="ids or names, comma-separated [default: all]")
@click.option("--dataset-type", help="product, if RUN holds several")
@instrument_option
def figures(
    repo: str, run: str, output: Path, detectors: str | None, dataset_type: str | None, instrument: str | None
) -> None:
    """Write the figures of RUN for a paper, PNG files of every detector, such as those of photon transfer curves."""
    from camcal_dask.repo.butler.repository import open_repo
    from camcal_dask.report.figures.paper import write_figures

    with open_repo(repo) as opened:
        check_instrument(opened, run, instrument)
        chosen = names(detectors) if detectors else None
        written = write_figures(opened, run, output, dataset_type, detectors=chosen, instrument=instrument)
    console.print(f"{len(written)} figures in {output}")


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("what")
@click.option("-i", "--input", "inputs", default="", help="collections to search, comma-separated")
@click.option(
    "--exposure", type=int, help="exposure of a raw or corrected image, or for which a calibration must be valid"
)
@click.option("--detector", help="id or name; without this and --raft, the whole focal plane")
@click.option("--raft", help="such as R22")
@click.option("--amp", help="amp of the detector, such as C10")
@click.option(
    "--bin", "binning", type=click.IntRange(min=1), help="pixels per side of a bin [default: 1, or what fits]"
)
@click.option("-p", "--pipeline", type=PLACE, help="pipeline whose ISR corrects the raw (default: overscan only)")
@click.option(
    "--mask", default="BAD,SAT,CR,SUSPECT,NO_DATA", help="mask planes to draw over the image, comma-separated"
)
@click.option("-o", "--output", type=FilePath(dir_okay=False, path_type=Path), required=True, help=".png or .fits")
@instrument_option
def show(
    repo: str,
    what: str,
    inputs: str,
    exposure: int | None,
    detector: str | None,
    raft: str | None,
    amp: str | None,
    binning: int | None,
    pipeline: str | None,
    mask: str,
    output: Path,
    instrument: str | None,
) -> None:
    """Draw a picture of WHAT: raw, corrected (after the ISR), or a dataset type such as bias."""
    from camcal_dask.repo.butler.repository import open_repo
    from camcal_dask.report.figures.show import open_pixels, picture

    with open_repo(repo) as opened:
        pixels = open_pixels(
            opened,
            what,
            names(inputs),
            exposure=exposure,
            pipeline=pipeline,
            detectors=detector,
            instrument=instrument,
        )
        title = " ".join(str(part) for part in (what, exposure) if part is not None)
        made = picture(pixels, detector or raft or "", amp=amp, binning=binning, title=title)
    made.write(output, planes=names(mask))
    size = " x ".join(str(n) for n in made.image.shape[::-1])
    console.print(f"{made.title} [{made.unit}]: {size} pixels in bins of {made.binning}, {output}")


@click.command()
@click.argument("repo", type=PLACE)
@click.option("--port", type=click.IntRange(min=0), default=5006, help="0 for any free port")
@click.option(
    "--address", default="127.0.0.1", help="address to listen on; the default can be reached from this machine only"
)
@instrument_option
def dashboard(repo: str, port: int, address: str, instrument: str | None) -> None:
    """Look at the runs of REPO, of all cameras or of one, in a browser.  Read-only; end it with Ctrl-C."""
    from camcal_dask.errors import ConfigError
    from camcal_dask.repo.butler.repository import open_repo

    try:
        from camcal_dask.dashboard.serve import serve
    except ImportError as error:
        raise ConfigError(f"the dashboard needs bokeh ({error}): pip install 'camcal_dask[dashboard]'") from None
    with open_repo(repo) as opened:
        serve(opened, port, address, lambda url: console.print(f"dashboard {url}"), instrument)


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("run")
@click.option("--by", required=True, help="name of the person who accepts it")
@click.option("--note", default="", help="what was looked at, a ticket, ...")
@click.option(
    "--override", default="", metavar="REASON", help="accept although required tests failed or detectors are unverified"
)
@instrument_option
def approve(repo: str, run: str, by: str, note: str, override: str, instrument: str | None) -> None:
    """Record that a person accepts the calibrations of RUN."""
    from camcal_dask.repo.butler.repository import open_repo
    from camcal_dask.repo.butler.signoff import approve as record

    with open_repo(repo) as opened:
        check_instrument(opened, run, instrument)
        act = record(opened, run, by, note, override=override)
    basis = ", ".join(f"{v['run']} ({'passed' if v['passed'] else 'failed'})" for v in act.verifications)
    console.print(f"{run} approved by {act.by}; rests on {basis or 'no verification'}")

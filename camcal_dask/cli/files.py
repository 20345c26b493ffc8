"""Commands on raw files: simulate, ingest."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from camcal_dask.cli.common import PLACE, FilePath, bar, cluster_options, console, names, with_options


@click.command()
@click.argument("out", type=FilePath(file_okay=False, path_type=Path))
@click.option("--instrument", default="LSSTCam")
@click.option("--detectors", help="ids or names, comma-separated (default: all science detectors)")
@click.option("--bias", type=int, default=0, help="number of biases")
@click.option(
    "--dark", multiple=True, metavar="N:SECONDS", help="number of darks and their exposure time; may be repeated"
)
@click.option(
    "--flat",
    multiple=True,
    metavar="N:SECONDS[:FILTER]",
    help="number of equal flats and their exposure time; may be repeated",
)
@click.option("--ptc", metavar="SECONDS,...", default="", help="two flats of each exposure time")
@click.option("--contaminated-first/--clean-first", default=True, help="whether the first bias is the one after idling")
@click.option("--day-obs", type=int, default=20260812)
@click.option("--first-seq-num", type=int, default=1)
@click.option("-c", "--config", "overrides", multiple=True, metavar="EFFECT.KEY=VALUE", help="strength or switch")
@with_options(cluster_options)
def simulate(
    out: Path,
    instrument: str,
    detectors: str | None,
    bias: int,
    dark: tuple[str, ...],
    flat: tuple[str, ...],
    ptc: str,
    contaminated_first: bool,
    day_obs: int,
    first_seq_num: int,
    overrides: tuple[str, ...],
    processes: int | None,
    cluster: str,
) -> None:
    """Write simulated raw FITS files, with the truth beside them, into OUT."""
    from camcal_dask.campaign.simulation import exposure_set
    from camcal_dask.notebook import simulate as write

    if not (bias or dark or flat or ptc):
        raise click.UsageError("nothing to simulate: give --bias, --dark, --flat or --ptc")
    summary = write(
        out,
        instrument,
        overrides,
        detectors=names(detectors or "") or None,
        bias=bias,
        dark=[exposure_set(text)[:2] for text in dark],
        flat=[exposure_set(text) for text in flat],
        ptc=[float(seconds) for seconds in ptc.split(",")] if ptc else (),
        contaminated_first=contaminated_first,
        day_obs=day_obs,
        first_seq_num=first_seq_num,
        cluster=cluster,
        processes=processes,
        bar=bar,
    )
    console.print(
        f"{len(summary.files)} files, {summary.n_bytes / 1e6:.0f} MB in {summary.folder} ({summary.seconds:.0f} s)"
    )


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("paths", nargs=-1, type=PLACE)
@click.option("--from-butler", "other", type=PLACE, help="another Butler repository whose raws are to be ingested")
@click.option("-d", "--where", default="", help="Butler expression that selects raws of the other repository")
@click.option("-i", "--collections", default="", help="its collections, comma-separated (default: INSTRUMENT/raw/all)")
@click.option("--instrument", help="camera, if the other repository has several")
@click.option("--replace", is_flag=True, help="overwrite exposures that were ingested with other content")
@click.option(
    "--accept-checksum", is_flag=True, help="accept files whose pixels do not match their checksums, with a remark"
)
@with_options(cluster_options)
def ingest(
    repo: str,
    paths: tuple[str, ...],
    other: str | None,
    where: str,
    collections: str,
    instrument: str | None,
    replace: bool,
    accept_checksum: bool,
    processes: int | None,
    cluster: str,
) -> None:
    """Read raw FITS files (files, folders, globs, or those of another Butler) into the raw cubes and register them."""
    from camcal_dask.notebook import ingest as ingest_files
    from camcal_dask.repo.butler.foreign import raws_of

    if bool(paths) == bool(other):
        raise click.UsageError("give PATHS, or --from-butler with another repository")
    if other:
        paths = tuple(raws_of(other, where, instrument=instrument, collections=names(collections)))
    summary = ingest_files(
        repo,
        paths,
        cluster=cluster,
        processes=processes,
        replace=replace,
        accept_checksum=accept_checksum,
        bar=bar,
    )
    console.print(summary.text(), soft_wrap=True)
    if summary.failed:
        sys.exit(1)

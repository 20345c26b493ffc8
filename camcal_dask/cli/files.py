"""Commands on raw files: simulate, ingest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from camcal_dask.cli.common import PLACE, FilePath, bar, cluster_options, console, names, with_options


@click.command()
@click.argument("out", type=FilePath(file_okay=False, path_type=Path))
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
@with_options(cluster_options)
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
    from camcal_dask.campaign.cluster.workers import connect, load_profile
    from camcal_dask.campaign.simulation import exposure_sets, simulate_on
    from camcal_dask.instruments import get_instrument

    camera = get_instrument(instrument)
    chosen = [camera.detector(name).id for name in names(detectors or "")] or list(camera.science_detectors)
    exposures = exposure_sets(**sets)
    if not exposures:
        raise click.UsageError("nothing to simulate: give --bias, --dark, --flat or --ptc")
    profile = load_profile(cluster, processes)
    with connect(profile) as client, bar("simulate", len(chosen) * (len(exposures) + 1)) as advance:
        summary = simulate_on(
            client, out, instrument, exposures, chosen, overrides, progress=lambda w: advance(Path(w.path).name)
        )
    console.print(
        f"{len(summary.files)} files, {summary.n_bytes / 1e6:.0f} MB in {summary.folder} ({summary.seconds:.0f} s)"
    )


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("paths", nargs=-1, type=PLACE)
@click.option("--from-butler", "other", type=PLACE, help="another Butler repository, whose raws are ingested")
@click.option("-d", "--where", default="", help="Butler expression that selects raws of the other repository")
@click.option("-i", "--collections", default="", help="its collections, comma-separated (default: INSTRUMENT/raw/all)")
@click.option("--instrument", help="camera, if the other repository has several")
@click.option("--replace", is_flag=True, help="overwrite exposures that were ingested with other content")
@click.option(
    "--accept-checksum", is_flag=True, help="take files whose pixels do not match their checksums, with a remark"
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
    from camcal_dask.campaign.cluster.workers import connect, load_profile
    from camcal_dask.repo.butler.foreign import raws_of
    from camcal_dask.repo.butler.repository import open_repo
    from camcal_dask.repo.incoming.ingest import find_files
    from camcal_dask.repo.incoming.ingest import ingest as ingest_files

    if bool(paths) == bool(other):
        raise click.UsageError("give PATHS, or --from-butler with another repository")
    if other:
        paths = tuple(raws_of(other, where, instrument=instrument, collections=names(collections)))
    files = find_files(paths)
    with (
        open_repo(repo, writeable=True) as opened,
        connect(load_profile(cluster, processes)) as client,
        bar("ingest", len(files)) as advance,
    ):
        summary = ingest_files(
            opened,
            files,
            client=client,
            replace=replace,
            accept_checksum=accept_checksum,
            progress=lambda f: advance(Path(f.path).name),
        )
    console.print(summary.text(), soft_wrap=True)
    if summary.failed:
        sys.exit(1)

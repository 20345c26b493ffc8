"""Commands on a repository: create, certify, which, export."""

from __future__ import annotations

import sys

import click

from camcal_dask.cli.common import PLACE, FilePath, console, instrument_option, names


@click.command()
@click.argument("repo", type=PLACE)
@click.option("--instrument", default="LSSTCam", help="camera to register")
@click.option("--registry", help="postgresql://user@host/database (default: SQLite)")
def create(repo: str, instrument: str, registry: str | None) -> None:
    """Create the repository REPO, or add an instrument to it."""
    from camcal_dask.repo.butler.repository import create_repo

    with create_repo(repo, instrument, registry) as made:
        camera = made.instrument(instrument)
        console.print(
            f"{made.root}: {camera.name} with {len(camera.detectors)} detectors "
            f"({len(camera.science_detectors)} science), {len(camera.filters)} filters"
        )


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("run")
@click.argument("collection")
@click.argument("dataset_type")
@click.option("--begin-date", help="first moment of validity, ISO TAI or YYYYMMDD (default: unbounded)")
@click.option("--end-date", help="end of validity, not included (default: unbounded)")
@click.option("--by", default="", help="who certifies it, for the record (default: your user name)")
@click.option(
    "--override",
    default="",
    metavar="REASON",
    help="certify although RUN was not approved, or has failed a verification since",
)
@instrument_option
def certify(
    repo: str,
    run: str,
    collection: str,
    dataset_type: str,
    begin_date: str | None,
    end_date: str | None,
    by: str,
    override: str,
    instrument: str | None,
) -> None:
    """Certify DATASET_TYPE of RUN into the CALIBRATION collection COLLECTION, as butler certify-calibrations does.

    RUN must have been approved (camcal approve); of a CHAINED collection of RUNs the first dataset of each data id is
    taken.  Who, when and on which verification it rests is recorded beside the calibration.
    """
    from camcal_dask.repo.butler.repository import open_repo
    from camcal_dask.repo.butler.signoff import certify as certify_approved

    with open_repo(repo, writeable=True) as opened:
        acts = certify_approved(
            opened, run, dataset_type, collection, begin_date, end_date, by=by, override=override, instrument=instrument
        )
    valid = f"valid [{begin_date or 'unbounded'}, {end_date or 'unbounded'})"
    for act in acts:
        basis = ", ".join(f"{v['run']} ({'passed' if v['passed'] else 'failed'})" for v in act.verifications)
        lines = [
            f"certified {len(act.uuids)} {dataset_type} of {act.run} in {collection}, {valid}",
            f"by {act.by}; rests on {basis or 'no verification'}",
            *([f"without approval: {act.override}"] if act.override else []),
        ]
        console.print("\n".join(lines))


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("dataset_type")
@click.option("--exposure", type=int, required=True)
@click.option("--detector", required=True, help="id or name, such as R22_S11")
@click.option("-i", "--input", "inputs", required=True, help="collections to search, comma-separated")
@instrument_option
def which(repo: str, dataset_type: str, exposure: int, detector: str, inputs: str, instrument: str | None) -> None:
    """Say which DATASET_TYPE is valid for an exposure and detector."""
    from camcal_dask.repo.butler.repository import open_repo

    with open_repo(repo) as opened:
        ref = opened.find_calib(dataset_type, exposure, detector, names(inputs), instrument=instrument)
    for name, value in (("run", ref.run), ("id", ref.uuid), ("cube", ref.uri)):
        console.print(f"{name:5} {value}")


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("dataset_type")
@click.argument("out", type=FilePath(file_okay=False))
@click.option("-i", "--input", "inputs", required=True, help="collections to search, comma-separated")
@click.option("--detectors", default="", help="ids or names, comma-separated (default: all)")
@click.option("--exposure", type=int, help="exposure for which it must be valid; needed with CALIBRATION collections")
@click.option("--card", "cards", multiple=True, metavar="KEY=VALUE", help="further header card; may be repeated")
@instrument_option
def export(
    repo: str,
    dataset_type: str,
    out: str,
    inputs: str,
    detectors: str,
    exposure: int | None,
    cards: tuple[str, ...],
    instrument: str | None,
) -> None:
    """Write DATASET_TYPE, such as ptc, into OUT as FITS files that the LSST stack reads."""
    from camcal_dask.campaign.export import export as write_files
    from camcal_dask.repo.butler.repository import open_repo

    given = dict(card.partition("=")[::2] for card in cards)
    with open_repo(repo) as opened:
        written = write_files(
            opened,
            dataset_type,
            out,
            collections=names(inputs),
            detectors=names(detectors) or None,
            exposure=exposure,
            instrument=instrument,
            cards=given,
        )
    console.print(f"{len(written)} files in {out}, {written[0].name} to {written[-1].name}")


@click.command()
@click.argument("repo", type=PLACE)
@click.option("--repair", is_flag=True, help="repair what can be repaired")
@click.option("--quick", is_flag=True, help="do not read the pixels")
@instrument_option
def check(repo: str, repair: bool, quick: bool, instrument: str | None) -> None:
    """Say what is lost, damaged or orphaned in REPO: registry, manifests, shards, markers, anchors, scratch.

    With --instrument only what is of this camera, and what is of none.

    The exit code is 1 if something is lost or damaged.
    """
    from camcal_dask.repo.butler.repository import open_repo
    from camcal_dask.repo.check import check as look

    with open_repo(repo, writeable=repair) as opened:
        account = look(opened, repair=repair, quick=quick, instrument=instrument)
    console.print(account.text(), soft_wrap=True)
    if not account.whole:
        sys.exit(1)


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=FilePath(exists=True, dir_okay=False))
@click.argument("repo", type=PLACE)
@click.option("-o", "--output", "run", required=True, help="RUN collection to make")
@instrument_option
def import_(paths: tuple[str, ...], repo: str, run: str, instrument: str | None) -> None:
    """Read files of the LSST stack, PATHS, one a detector, into a RUN of REPO: tables such as crosstalk.

    Pipelines take them when RUN is in -i.
    """
    from camcal_dask.campaign.importing import import_tables
    from camcal_dask.repo.butler.repository import open_repo

    with open_repo(repo, writeable=True) as opened:
        dataset_type, detectors = import_tables(opened, paths, run, instrument=instrument)
    shown = ", ".join(detectors[:8]) + (" ..." if len(detectors) > 8 else "")
    console.print(f"{dataset_type} of {len(detectors)} detectors in {run}: {shown}")

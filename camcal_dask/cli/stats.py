"""The command that prints statistics: stats."""

from __future__ import annotations

import operator
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from camcal_dask.cli.common import PLACE, FilePath, console, names
from camcal_dask.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

FORMATS = ("table", "csv", "parquet")
ROWS = 40
"""Of a table on the terminal, unless -n says otherwise."""
_CONDITION = re.compile(r"\s*(\w+)\s*(!=|<=|>=|=|<|>)\s*(.+?)\s*")
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@click.command()
@click.argument("repo", type=PLACE)
@click.argument("dataset_type", default="verifyBias")
@click.option("-i", "--input", "runs", default="*", help="RUNs or chains, comma-separated, with * and ?")
@click.option("--instrument", help="camera, if the repository has several")
@click.option("-q", "--quantity", "quantities", default="noise", help="statistics, comma-separated; ? lists them")
@click.option(
    "-w", "--where", "conditions", multiple=True, metavar="NAME=VALUE", help="condition on a coordinate: =, !=, <, >="
)
@click.option(
    "--by", default="detector,amp", help="one row for each: exposure, detector, amp, vendor, day_obs, run ..."
)
@click.option("--how", default="median", type=click.Choice(["median", "mean", "std", "min", "max"]), help="of the rest")
@click.option("--failed", "test", metavar="TEST", help="list the failures of this test instead ('all' for every test)")
@click.option("--sort", metavar="COLUMN", help="largest first; -COLUMN for smallest first")
@click.option("-n", "--rows", type=click.IntRange(min=1), help="number of rows to print")
@click.option("--format", "kind", default="table", type=click.Choice(FORMATS))
@click.option("-o", "--output", type=FilePath(dir_okay=False), help="file to write (needed for parquet)")
def stats(
    repo: str,
    dataset_type: str,
    runs: str,
    instrument: str | None,
    quantities: str,
    conditions: tuple[str, ...],
    by: str,
    how: str,
    test: str | None,
    sort: str | None,
    rows: int | None,
    kind: str,
    output: str | None,
) -> None:
    """Print statistics of DATASET_TYPE over runs and nights.

    \b
    Worst ten amps of a run:    camcal stats REPO -i RUN --sort noise -n 10
    One amp against time:       camcal stats REPO -w detector=94 -w amp=C10 --by exposure
    Read noise by vendor:       camcal stats REPO --by vendor
    Where a test failed:        camcal stats REPO --failed bias.noise
    """  # noqa: D301 (click's mark for lines kept as they are)
    from camcal_dask.repo.butler.repository import open_repo
    from camcal_dask.verify.judging import query

    with open_repo(repo) as opened:
        found = opened.stats(dataset_type, names(runs), instrument=instrument)
    if quantities == "?":
        found_names = {str(n): v.attrs for n, v in found.data_vars.items()}
        for name, attrs in sorted(found_names.items()):
            console.print(f"{name:24} {attrs.get('units', ''):12} {attrs.get('long_name', '')}")
        return
    for condition in conditions:
        found = keep(found, condition)
    if test is not None:
        answer = query.failed(found, None if test == "all" else test)
    else:
        answer = query.table(found, names(quantities), by=names(by), how=how)
    show(ordered(answer, sort, rows), kind, output, rows)


def keep(statistics: xr.Dataset, condition: str) -> xr.Dataset:
    """Keep what meets ``NAME=VALUE[,VALUE...]``, ``!=``, or ``NAME<VALUE`` and the like.

    Raises
    ------
    ConfigError
        If it is no condition, or speaks of a coordinate that is not there.
    """
    import numpy as np

    from camcal_dask.repo.cubes.statistics import choose

    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise ConfigError(f"--where {condition!r}: expected NAME=VALUE, such as vendor=ITL or day_obs>=20260801")
    name, sign, text = match.groups()
    if sign == "=":
        return choose(statistics, **{name: _values(statistics, name, text)})
    if name not in statistics.coords:
        choose(statistics, **{name: text})
    known = statistics[name].values
    wanted = _values(statistics, name, text)
    kept = ~np.isin(known, wanted) if sign == "!=" else _COMPARE[sign](known, wanted[0])
    if not kept.any():
        raise ConfigError(f"--where {condition!r}: nothing is left; {name} ranges from {known.min()} to {known.max()}")
    return statistics.isel({statistics[name].dims[0]: np.flatnonzero(kept)})


def _values(statistics: xr.Dataset, name: str, text: str) -> list[Any]:
    """Values of a condition in the type of the coordinate."""
    import numpy as np

    dtype = statistics[name].dtype if name in statistics.coords else np.dtype("U")
    try:
        return [dtype.type(value) for value in names(text)]
    except ValueError:
        raise ConfigError(f"--where {name}={text}: {name} is a number, such as {statistics[name].values[0]}") from None


def ordered(answer: pd.DataFrame, sort: str | None, rows: int | None) -> pd.DataFrame:
    """Sort and cut."""
    if sort is not None:
        column = sort.removeprefix("-")
        if column not in answer.columns:
            raise ConfigError(f"--sort {column}: there are {', '.join(answer.columns)}")
        answer = answer.sort_values(column, ascending=sort.startswith("-"), kind="stable")
    return answer.head(rows) if rows else answer


def show(answer: pd.DataFrame, kind: str, output: str | None, rows: int | None) -> None:
    """Print or write a table.

    Raises
    ------
    ConfigError
        If Parquet is asked for without a file or without pyarrow.
    """
    if kind == "parquet":
        if output is None:
            raise ConfigError("parquet cannot be printed: name a file, -o stats.parquet")
        try:
            answer.to_parquet(output, index=False)
        except ImportError:
            raise ConfigError("parquet needs pyarrow: pip install 'camcal_dask[parquet]'") from None
    elif kind == "csv":
        answer.to_csv(output or sys.stdout, index=False, float_format="%.8g")
    else:
        text = answer.to_string(index=False, max_rows=rows or ROWS, float_format=lambda x: f"{x:.5g}")
        if output is None:
            click.echo(text)
        else:
            with click.open_file(output, "w") as file:
                file.write(text + "\n")
    if output is not None:
        console.print(f"{len(answer)} rows in {output}")

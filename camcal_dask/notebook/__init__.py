"""The verbs of ``import camcal_dask as cd``: each composes public functions and takes settings as keywords."""

from camcal_dask.notebook.pixels import (
    combine,
    correct,
    describe,
    extract,
    fit_linearizer,
    judge,
    measure,
    save_figures,
    solve_ptc,
)
from camcal_dask.notebook.runs import chain, ingest, plan, run, simulate, start_cluster

__all__ = [
    "chain",
    "combine",
    "correct",
    "describe",
    "extract",
    "fit_linearizer",
    "ingest",
    "judge",
    "measure",
    "plan",
    "run",
    "save_figures",
    "simulate",
    "solve_ptc",
    "start_cluster",
]

"""camcal_dask: combined calibrations of the LSST cameras, built and verified on a dask cluster.

The names below are all that a notebook needs; they are loaded when they are first used.

>>> import camcal_dask as cd
>>> repo = cd.open_repo("REPO")
>>> raw = repo.raws("exposure.observation_type = 'bias' AND detector = 0")
>>> bias = cd.combine(cd.correct(raw))
>>> bias.image.dims
('detector', 'amp', 'y', 'x')
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camcal_dask.calibs.combined.combine import CombineConfig
    from camcal_dask.calibs.linearizer.config import LinearityConfig
    from camcal_dask.calibs.ptc.extract import PtcExtractConfig
    from camcal_dask.calibs.ptc.pairs import pair_exposures
    from camcal_dask.calibs.ptc.solve import PtcSolveConfig
    from camcal_dask.campaign.planning.recipe import load_recipe
    from camcal_dask.campaign.running.run import Limits
    from camcal_dask.errors import CamcalError
    from camcal_dask.instruments import get_instrument
    from camcal_dask.isr.config import IsrConfig
    from camcal_dask.notebook import (
        chain,
        combine,
        correct,
        describe,
        extract,
        fit_linearizer,
        ingest,
        judge,
        measure,
        plan,
        run,
        save_figures,
        simulate,
        solve_ptc,
        start_cluster,
    )
    from camcal_dask.repo.butler.repository import create_repo, open_repo
    from camcal_dask.repo.butler.signoff import approve, certify
    from camcal_dask.report.figures.show import open_pixels, picture
    from camcal_dask.report.pages.build import write_report
    from camcal_dask.simulation import SimulationConfig, load_truth
    from camcal_dask.verify.judging.query import compare, failed, table, worst
    from camcal_dask.verify.measuring.block import MeasureConfig

    __version__: str

__all__ = [
    "CamcalError",
    "CombineConfig",
    "IsrConfig",
    "Limits",
    "LinearityConfig",
    "MeasureConfig",
    "PtcExtractConfig",
    "PtcSolveConfig",
    "SimulationConfig",
    "__version__",
    "approve",
    "certify",
    "chain",
    "combine",
    "compare",
    "correct",
    "create_repo",
    "describe",
    "extract",
    "failed",
    "fit_linearizer",
    "get_instrument",
    "ingest",
    "judge",
    "load_recipe",
    "load_truth",
    "measure",
    "open_pixels",
    "open_repo",
    "pair_exposures",
    "picture",
    "plan",
    "run",
    "save_figures",
    "simulate",
    "solve_ptc",
    "start_cluster",
    "table",
    "worst",
    "write_report",
]

_HOMES = {
    "calibs.combined.combine": ("CombineConfig",),
    "calibs.linearizer.config": ("LinearityConfig",),
    "calibs.ptc.extract": ("PtcExtractConfig",),
    "calibs.ptc.pairs": ("pair_exposures",),
    "calibs.ptc.solve": ("PtcSolveConfig",),
    "campaign.planning.recipe": ("load_recipe",),
    "campaign.running.run": ("Limits",),
    "errors": ("CamcalError",),
    "instruments": ("get_instrument",),
    "isr.config": ("IsrConfig",),
    "repo.butler.repository": ("create_repo", "open_repo"),
    "repo.butler.signoff": ("approve", "certify"),
    "report.figures.show": ("open_pixels", "picture"),
    "report.pages.build": ("write_report",),
    "simulation": ("SimulationConfig", "load_truth"),
    "verify.judging.query": ("compare", "failed", "table", "worst"),
    "verify.measuring.block": ("MeasureConfig",),
}
"""Modules of what is offered as it is; the rest is in `camcal_dask.notebook`."""


def __getattr__(name: str) -> Any:
    """Load a name of the front door when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version(__name__)
    else:
        home = next((module for module, names in _HOMES.items() if name in names), "notebook")
        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names of the front door."""
    return sorted({*globals(), *__all__})

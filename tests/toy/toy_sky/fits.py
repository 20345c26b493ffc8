"""Levels as a table of the LSST stack's form: a row an amp."""

import numpy as np

from camcal_dask.exchange.header import calibration_header
from camcal_dask.exchange.tables import by_amp, write_tables
from toy_sky.levels import PERCENT

COLUMNS = {"level": "LEVEL", "scatter": "SCATTER", "n_pixel": "N_PIXEL", "percentile": "PERCENTILE"}


def write(path, levels, detector, cards):
    """Write one detector."""
    one = levels.sel(detector=detector.id)
    given = {"INSTRUME": levels.attrs["instrument"], "N_PERCENT": len(PERCENT), **cards}
    header = calibration_header("TOY_LEVELS", "Toy", 1.0, "toy_sky.Levels", detector, given)
    names = np.array([amp.name for amp in detector.amps])
    rows = {column: one[name].sel(amp=names).values for name, column in COLUMNS.items()}
    write_tables(path, header, {"AMPLIFIER": names.astype("S"), **rows})


def read(tables, cards, amps):
    """Read one detector."""
    table = tables[0]
    return "electron", {name: by_amp(table, table["AMPLIFIER"], column, amps) for name, column in COLUMNS.items()}

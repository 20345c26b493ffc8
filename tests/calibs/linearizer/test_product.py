"""A linearizer as a product cube: written, read, and applied by the ISR by its type codes."""

import numpy as np
import pytest

from camcal_dask.calibs.linearizer.config import LinearityConfig, PolynomialConfig
from camcal_dask.calibs.linearizer.fit import fit
from camcal_dask.calibs.linearizer.product import LINEARIZER, arrays_of, shared
from camcal_dask.instruments import get_instrument
from camcal_dask.isr.config import IsrConfig
from camcal_dask.isr.tables import prepare, select_tables
from camcal_dask.repo.cubes.layout import template
from camcal_dask.repo.cubes.products import create_product, open_products, write_product
from tests.calibs.linearizer.linearity_tables import Camera, ramp

CAMERA = get_instrument("TinyCam")


@pytest.mark.parametrize("kind", ["DoubleSpline", "LookupTable"])
def test_written_read_and_applied(tmp_path, kind):
    table, ratios = ramp(Camera(), 150, detector=2)
    table = table.assign_coords(amp=list(CAMERA.amp_names))
    table["bad"][0, 4] = True
    config = LinearityConfig(type=kind, polynomial=PolynomialConfig(n_column=1000))
    made = fit(table, config, ratios=ratios)
    uri = f"{tmp_path}/linearizer.zarr"
    create_product(uri, template("linearizer", CAMERA, {"linearity_type": kind}, shared(made)))
    write_product(uri, 2, arrays_of(made, 2), {"problems": made.attrs["problems"]["2"]})
    read = open_products([(uri, 2)])
    assert set(read.data_vars) == set(LINEARIZER)
    for name, values in made.data_vars.items():
        np.testing.assert_array_equal(read[name].transpose(*values.dims), values, err_msg=str(name))
    np.testing.assert_array_equal(read["exposure"], made["exposure"])
    assert read.attrs["units"] == "adu"

    isr = IsrConfig(gains="none", linearity=True)
    tables = select_tables({"linearizer": read}, [2], isr)[2]
    linearity = prepare(CAMERA.detectors[2], tables, isr).linearity
    assert linearity is not None
    kinds = [amp.kind for amp in linearity.amps]
    assert kinds[4] == "nothing"
    assert set(kinds) == {"nothing", "pieces" if kind == "DoubleSpline" else "table"}

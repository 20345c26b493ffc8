"""Is a stored dataset what its room declares?"""

import xarray as xr

from camcal_dask import rooms
from camcal_dask.schema import check


def assert_declared(dataset: xr.Dataset, dataset_type: str) -> None:
    product = rooms.product(dataset_type)
    declared = {**product.shared, **product.variables}
    found = {str(name) for name in dataset.data_vars if not str(name).startswith("aux_")}  # headers that a recipe names
    found |= set(product.shared)
    assert not found - set(declared), f"{dataset_type}: not declared"
    check(dataset, [declared[name] for name in found], dataset_type)

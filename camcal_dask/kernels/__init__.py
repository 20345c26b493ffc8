"""Pure numpy/numba on plain arrays: no xarray, no dask, no I/O."""

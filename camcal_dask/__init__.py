"""camcal_dask: combined calibrations of the LSST cameras, built and verified on a dask cluster."""

from importlib.metadata import version

__version__ = version("camcal_dask")

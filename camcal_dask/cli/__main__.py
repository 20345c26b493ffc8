"""``python -m camcal_dask.cli``."""

from camcal_dask.cli import main

main()

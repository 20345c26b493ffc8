"""Calibrations in the FITS layouts that the LSST stack reads and writes (reference/raw_format.md 5)."""

"""Physically faithful raw FITS out, with the truth beside them."""

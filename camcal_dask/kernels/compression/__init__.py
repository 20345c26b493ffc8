"""RICE compression of FITS tiles."""

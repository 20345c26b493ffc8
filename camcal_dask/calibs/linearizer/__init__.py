"""Linearizers: made from photon transfer curves."""

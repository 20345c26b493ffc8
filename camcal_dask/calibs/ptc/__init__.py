"""Photon transfer curves: pairs of flats measured and fitted."""

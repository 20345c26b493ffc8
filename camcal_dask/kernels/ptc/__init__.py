"""Photon transfer: pairs of flats, covariances, models and fits."""

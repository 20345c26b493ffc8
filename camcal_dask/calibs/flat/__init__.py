"""Flats: exposures of one illumination and filter, each divided by its level, combined."""
